"""Differences between networks that saw the same test images, with the chance of these images.

Where two networks err on the same images, their difference is surer than their two intervals say.
The other chance, that of the trainings, is `n2n.analysis.effects`'. All from the image scores that
records keep; pixels would need the maps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from n2n.analysis.selection import category_names, runs_of_every_method
from n2n.analysis.tables import measured_cells
from n2n.errors import N2NError
from n2n.metrics import TAILS
from n2n.paper import label
from n2n.records import Record
from n2n.settings import IMAGE_SCORES

REPEATS = 2000


def difference(
    one: list[Record], other: list[Record], score: str = "chosen"
) -> tuple[float, float, float]:
    """The mean image-level AUROC of some runs less that of others, in points, and its interval.

    The 95 % percentile interval over test images drawn with replacement, the normal and the
    anomalous apart, and the same for all runs (Efron and Tibshirani, *An Introduction to the
    Bootstrap*, section 8.3).

    Args:
        one: runs of one kind, for example one per seed.
        other: runs of another kind on the same images.
        score: a column of `Record.scores`; 'chosen' is each run's own.

    Returns:
        The difference and the ends of its interval; NaN where all test images are of one kind.

    Raises:
        N2NError: where a file of scores is damaged, or they are of different images.
    """
    ours, theirs = _wins(one, score), _wins(other, score)
    if not (ours.index.equals(theirs.index) and ours.columns.equals(theirs.columns)):
        raise _other_images(other[0])
    wins = ours.to_numpy() - theirs.to_numpy()
    if not wins.size:
        return np.nan, np.nan, np.nan
    draw = np.random.default_rng(0)
    bad, good = (draw.integers(size, size=(REPEATS, size)) for size in wins.shape)
    drawn = [wins[np.ix_(b, g)].mean() for b, g in zip(bad, good, strict=True)]
    low, high = np.quantile(drawn, TAILS)
    return 100 * float(wins.mean()), 100 * float(low), 100 * float(high)


def _wins(runs: list[Record], score: str) -> pd.DataFrame:
    """How often each bad image (row) outscores each good one (column), ties half, over the runs."""
    found: list[pd.DataFrame] = []
    for run in runs:
        scores = run.scores().set_index("image").sort_index()
        bad = scores["anomalous"].eq(1)
        above = scores.loc[bad, score].to_numpy()[:, None]
        below = scores.loc[~bad, score].to_numpy()
        wins = (above > below) + 0.5 * (above == below)
        found.append(pd.DataFrame(wins, scores.index[bad], scores.index[~bad]))
        if not all(found[-1].axes[k].equals(found[0].axes[k]) for k in (0, 1)):
            raise _other_images(run)
    return sum(found[1:], found[0]) / len(found)


def _other_images(run: Record) -> N2NError:
    return N2NError(f"{run.folder} has scores of other images than the runs beside it.")


def of_cells(cells: pd.DataFrame, base: str) -> pd.DataFrame:
    """Each column of our method in Table 4 or 5 less the column ``base``, by each image score.

    Args:
        cells: of `n2n.analysis.tables.compare`.
        base: the column that all others are compared with.
    """
    own = measured_cells(cells[cells["level"].eq("image")])
    rows = []
    for category, group in own.groupby("category", sort=False):
        runs = dict(zip(group["column"], group["runs"], strict=True))
        rows += [
            {"category": label(str(category)), "": label(str(column))}
            | {score: _text(*difference(found, runs[base], score)) for score in IMAGE_SCORES}
            for column, found in runs.items()
            if column != base and base in runs
        ]
    return pd.DataFrame(rows)


def of_methods(records: list[Record]) -> pd.DataFrame:
    """N2N's image-level AUROC less every other method's, in points, each by its own score."""
    runs, names = runs_of_every_method(records), category_names(records)
    ours = runs.pop("N2N", {})
    rows = []
    for method, parts in runs.items():
        row = {
            names[part]: _text(*difference(ours[part], parts[part]))
            for part in parts
            if part in ours
        }
        rows.append({"method": method} | row)
    return pd.DataFrame(rows).fillna("")


def _text(value: float, low: float, high: float) -> str:
    return "" if np.isnan(value) else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
