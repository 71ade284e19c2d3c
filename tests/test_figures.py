"""Figures that are drawn from no record."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import precision_recall_curve

from n2n.analysis import figures, panels
from n2n.demo_data import DEFECTS


def test_the_worked_example_is_that_of_scikit_learn() -> None:
    row, roc, precision = figures.worked_example().axes
    assert (roc.get_title(), precision.get_title()) == ("AUROC 72 %", "average precision 76 %")
    good, bad = (line.get_xdata().tolist() for line in row.get_lines())
    labels = [0] * len(good) + [1] * len(bad)
    right, recall, _ = precision_recall_curve(labels, good + bad)
    drawn = precision.get_lines()[0].get_xydata()
    assert np.allclose(drawn[::-1], np.column_stack([recall, right])[:-1])


def test_every_drawn_part_is_shown_with_each_of_its_defects() -> None:
    names = [axes.get_title() for axes in panels.drawn_parts(side=48).axes]
    kinds = [kind.replace("_", " ") for part in DEFECTS.values() for kind in ("good", *part)]
    assert names == kinds
