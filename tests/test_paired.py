"""Differences over the same test images, against a plain bootstrap and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from n2n.analysis import paired, tables
from n2n.baselines.settings import make_baseline_settings
from n2n.errors import N2NError
from n2n.records import find_records, read_record
from n2n.settings import make_settings
from tests.records import write

LABELS = np.repeat([0, 1], [12, 18])


def scored(folder: Path, values: np.ndarray, names: str = "image") -> Path:
    frame = pd.DataFrame({"image": [f"{names}{n:02d}" for n in range(len(LABELS))]})
    columns = dict.fromkeys(("max", "mean", "top1%", "own"), values)
    frame.assign(anomalous=LABELS, **columns).to_csv(folder / "scores.csv", index=False)
    return folder


def drawn(seed: int, shift: float) -> np.ndarray:
    """Scores with ties, of which the bad ones are larger by ``shift`` on average."""
    return (np.random.default_rng(seed).normal(LABELS * shift) * 4).round() / 4


def test_the_difference_and_its_interval(tmp_path: Path) -> None:
    kinds = {0.0: [drawn(0, 1.0), drawn(1, 1.2)], 0.3: [drawn(2, 0.3), drawn(3, 0.6)]}
    runs = {
        noise: [
            read_record(
                scored(write(tmp_path, make_settings("replication", noise=noise), seed=n), v)
            )
            for n, v in enumerate(values)
        ]
        for noise, values in kinds.items()
    }
    value, low, high = paired.difference(runs[0.0], runs[0.3])

    def gap(chosen: np.ndarray) -> float:
        one, other = (
            np.mean([roc_auc_score(LABELS[chosen], v[chosen]) for v in values])
            for values in kinds.values()
        )
        return 100 * float(one - other)

    assert value == pytest.approx(gap(np.arange(len(LABELS))), abs=1e-9)
    draw = np.random.default_rng(7)
    good, bad = np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)
    gaps = [
        gap(np.append(draw.choice(good, len(good)), draw.choice(bad, len(bad))))
        for _ in range(1500)
    ]
    assert (low, high) == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=2.5)
    assert paired.difference(runs[0.0], runs[0.0]) == (0, 0, 0)


def test_other_images_are_refused(tmp_path: Path) -> None:
    folders = [write(tmp_path, make_settings("replication"), seed=seed) for seed in (0, 1)]
    runs = [
        read_record(scored(folder, drawn(0, 1.0), names))
        for folder, names in zip(folders, ("a", "b"), strict=True)
    ]
    with pytest.raises(N2NError, match="scores of other images"):
        paired.difference(runs, runs)
    with pytest.raises(N2NError, match="scores of other images"):
        paired.difference(runs[:1], runs[1:])


def test_tables_of_differences(tmp_path: Path) -> None:
    for noise, values in ((0.3, LABELS), (0.0, -LABELS), (0.2, LABELS)):
        scored(write(tmp_path, make_settings("replication", noise=noise)), values.astype(float))
    scored(write(tmp_path, make_baseline_settings("padim")), 0 * LABELS.astype(float))
    table = paired.of_cells(tables.compare(4, tmp_path), "lambda=0.3")
    assert table.to_numpy().tolist() == [
        ["Metal Plate", "λ = 0", *3 * ["-100.0 (-100.0 to -100.0)"]],
        ["Metal Plate", "λ = 0.2", *3 * ["+0.0 (+0.0 to +0.0)"]],
    ]
    (row,) = paired.of_methods(find_records(tmp_path)).to_dict("records")
    assert row == {"method": "PaDiM (EfficientNet-Lite0)", "Metal Plate": "+50.0 (+50.0 to +50.0)"}
    assert paired.of_methods([]).empty


def test_images_of_one_kind_have_no_difference(tmp_path: Path) -> None:
    for settings in (make_settings("replication"), make_baseline_settings("padim")):
        folder = scored(write(tmp_path, settings), LABELS.astype(float))
        table = pd.read_csv(folder / "scores.csv")
        table[table["anomalous"] == 0].to_csv(folder / "scores.csv", index=False)
    (row,) = paired.of_methods(find_records(tmp_path)).to_dict("records")
    assert row == {"method": "PaDiM (EfficientNet-Lite0)", "Metal Plate": ""}
