"""What the threshold of `n2n detect` finds, and what one set by other good images would.

The threshold is the largest score of the held-out normal training images, so AUROC, which needs
none, does not tell it. All from run records.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd

from n2n.analysis.selection import matching_records
from n2n.analysis.tables import compare_all, own_measurements
from n2n.metrics import TAILS
from n2n.paper import label
from n2n.records import Record, find_records


def called_anomalous(record: Record) -> tuple[int, int]:
    """How many bad and how many good test images `n2n detect` would call anomalous."""
    scores = record.scores()
    above = scores["chosen"].gt(record.content["threshold"]["image"])
    bad = scores["anomalous"].eq(1)
    return int((above & bad).sum()), int((above & ~bad).sum())


def found_at(results: Path, dataset: str) -> pd.DataFrame:
    """How many test images of a data set `n2n detect` would call anomalous, by the tables' runs.

    A row per category and preset, seed by seed.
    """
    records, rows = find_records(results), []
    parts = dict.fromkeys(r.key.category for r in records if r.key.dataset == dataset)
    for category, preset in itertools.product(parts, ("replication", "improved")):
        found = matching_records(records, dataset, category, "Ours", preset)
        if not found:
            continue
        called = [called_anomalous(record) for record in found]
        data = found[0].content["data"]
        rows.append(
            {
                "category": label(category),
                "preset": preset,
                "epochs": ", ".join(str(r.content["training"]["epochs"]) for r in found),
                "image AUROC, %": ", ".join(f"{100 * r.metric('image'):.0f}" for r in found),
                "defective images found": _listed(
                    [bad for bad, _ in called], data["test_anomalous"]
                ),
                "good images flagged": _listed([good for _, good in called], data["test_good"]),
            }
        )
    return pd.DataFrame(rows)


def beside_other_images(results: Path) -> pd.DataFrame:
    """What each of our networks finds at its threshold, and what other good images would give.

    Beside it stands what as many good *test* images in place of the held-out ones would give: the
    median over all choices of them, the range of the middle 95 %, and how many of all good test
    images the median threshold flags. Those are test images, so this is a diagnosis and no
    performance.
    """
    rows = []
    for cell in own_measurements(compare_all(results)).itertuples():
        if cell.level != "image" or cell.short:
            continue
        called = [called_anomalous(run) for run in cell.runs]
        found, flagged = (", ".join(map(str, counts)) for counts in zip(*called, strict=True))
        other = [by_other_images(run) for run in cell.runs]
        data = cell.runs[0].content["data"]
        rows.append(
            {
                "category": label(str(cell.category)),
                "network": label(str(cell.column)),
                "seeds": ", ".join(str(run.key.seed) for run in cell.runs),
                "bad images found": f"{found} of {data['test_anomalous']}",
                "good ones flagged": f"{flagged} of {data['test_good']}",
                "found, by other good images": "; ".join(
                    f"{middle} ({low} to {high})" for (low, _), (middle, _), (high, _) in other
                ),
                "flagged then": ", ".join(str(median[1]) for _, median, _ in other),
            }
        )
    return pd.DataFrame(rows)


def by_other_images(record: Record) -> list[tuple[int, int]]:
    """What a threshold by good *test* images finds and flags: 2.5 %, median, 97.5 % of all choices.

    It is the largest score of as many of them as were held out, or of all where there are fewer.
    Of N good images the i-th smallest is the largest of n in C(i - 1, n - 1) of C(N, n) choices.

    Returns:
        Bad images above it, and good ones.
    """
    held_out = round(record.content["data"]["train"] * record.settings.validation_fraction)
    scores = record.scores()
    bad = scores["anomalous"].eq(1)
    good = np.sort(scores["chosen"][~bad])[::-1]  # so that what is found rises
    size, count = len(good), min(held_out, len(good))
    whole = math.comb(size, count)
    share = np.cumsum([math.comb(size - 1 - i, count - 1) / whole for i in range(size)])
    limits = good[np.searchsorted(share, (TAILS[0], 0.5, TAILS[1]))]
    return [
        (int((scores["chosen"][bad] > limit).sum()), int((good > limit).sum())) for limit in limits
    ]


def _listed(counts: list[int], whole: int) -> str:
    return f"{', '.join(map(str, counts))} of {whole}"
