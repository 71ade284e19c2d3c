"""The preset `improved` beside `replication` and the paper, and what else was tried for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from n2n.analysis.selection import category_names, matching_records, of_the_same_seeds, runs_of
from n2n.analysis.sensitivity import SQUARED
from n2n.analysis.tables import mean_interval
from n2n.paper import label, printed_cells
from n2n.records import Record, find_records
from n2n.settings import PRESETS, make_settings

# With four times the steps for the same work; neither is in `improved`.
OTHER_TRAINING = SQUARED | {"batch_size": 1}
_CALIBRATED = {"calibration": PRESETS["improved"].calibration}
INGREDIENTS: dict[str, dict[str, Any]] = {
    "replication": {},
    "improved: the score calibrated": _CALIBRATED,
    "calibrated, four noise draws": _CALIBRATED | {"noise_draws": 4},
    "squared constants": SQUARED,
    "squared constants, batch 1": OTHER_TRAINING,
    "squared constants, batch 1, calibrated": OTHER_TRAINING | _CALIBRATED,
    "coarse noise": {"noise_grain": 8},
}
NORMALISED: dict[str, dict[str, Any]] = {  # what an image is brought to before the noise
    "[−1, 1], as in the tables": {},
    "more contrast": {"contrast": 1.6},
    "standardised, channels together": {"standardise": True, "channels_together": True},
    "standardised, each channel": {"standardise": True},
    "the latter, squared constants": {"standardise": True} | SQUARED,
}


def _synthetic(record: Record) -> float:
    score = f"image_{record.settings.image_score}"
    return float(record.content["development"]["all"][score])


MEASURED: dict[str, Callable[[Record], float]] = {
    "images, synthetic": _synthetic,
    "images, test": lambda record: record.metric("image"),
    "by the mean": lambda record: float(record.content["image_scores"]["mean"]["auroc"]),
    "pixels, test": lambda record: record.metric("pixel"),
    "pixels, average precision": lambda record: record.metric("pixel", "ap"),
    "peak in the defect": lambda record: float(record.content["peak_in_defect"]["scored"]),
}


def beside_paper(results: Path) -> pd.DataFrame:
    """AUROC (percent) of both presets for each printed cell whose category was run with both.

    Means over the seeds that both have; the interval is that of `improved`, as in the tables.
    """
    records = find_records(results)
    printed = printed_cells()
    rows = []
    for cell in printed[printed["column"].eq("Ours")].itertuples():
        ours, better = (
            matching_records(records, str(cell.dataset), str(cell.category), "Ours", preset)
            for preset in ("replication", "improved")
        )
        ours, better = of_the_same_seeds([ours, better])
        if not ours or not better:
            continue
        level = str(cell.level)
        low, high = mean_interval(better, level)
        rows.append(
            {
                "category": label(str(cell.category)),
                "level": level,
                "paper": cell.printed,
                "replication": _mean([record.metric(level) for record in ours]),
                "improved": _mean([record.metric(level) for record in better]),
                "95 % interval": f"{low:.2f} to {high:.2f}",
                "seeds": len(better),
                "epochs": ", ".join(map(str, dict.fromkeys([_epochs(ours), _epochs(better)]))),
            }
        )
    return pd.DataFrame(rows)


def ingredients(results: Path, variants: dict[str, dict[str, Any]] = INGREDIENTS) -> pd.DataFrame:
    """What was tried in each category, at full size; percent.

    *Synthetic* is the image-level AUROC on the synthetic defects, by which `improved` was
    chosen; *by the mean* that of the test images by the mean of the map; *peak in the defect* is
    the share of anomalous test images whose largest value lies in the mask, on the map that the
    image score is taken from. Means over the seeds; in brackets what changes against `replication`
    where the seeds that both have are compared. No category where `replication` stands alone.

    Args:
        results: folder of the records.
        variants: by a name for the reader what departs from `replication`; the first is itself.
    """
    records, rows = find_records(results), []
    tried = {n: make_settings("replication", **c) for n, c in variants.items()}
    for (dataset, category), named in category_names(records).items():
        base = runs_of(records, dataset, category, PRESETS["replication"])
        runs = {n: runs_of(records, dataset, category, of) for n, of in tried.items()}
        if not any(found for name, found in runs.items() if variants[name]):
            continue  # nothing to compare
        for name, found in runs.items():
            if not found:
                continue
            pairs = of_the_same_seeds([found, base if variants[name] else []])
            values = {title: _change(found, pairs, of) for title, of in MEASURED.items()}
            rows.append(
                {"category": named, "run": name, **values}
                | {"seeds × epochs": f"{len(found)} × {_epochs(found)}"}
            )
    return pd.DataFrame(rows)


def _change(found: list[Record], pairs: list[list[Record]], of: Callable[[Record], float]) -> str:
    """The mean over runs, and in brackets the mean change between two paired lists of them."""
    text = _mean([of(record) for record in found])
    changes = [  # without a base nothing is paired
        100 * (of(one) - of(other)) for one, other in zip(*pairs, strict=False)
    ]
    return text + (f" ({np.mean(changes):+.1f})" if changes else "")


def _mean(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f}"


def _epochs(records: list[Record]) -> int:
    return int(records[0].content["settings"]["epochs"])
