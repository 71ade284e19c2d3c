"""What the book's exercises ask for, as tables of the runs that were made for them.

A learner calls the same functions with a results folder of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from n2n.analysis.confounds import of_each_kind
from n2n.analysis.selection import means_over_seeds, varied_runs
from n2n.metrics import NAMES
from n2n.records import Record
from n2n.settings import IMAGE_SCORES, PRESETS, Settings

DEMO = PRESETS["demo"]
SHOWN = {"image": ("auroc", "ap"), "pixel": ("auroc", "ap", "aupro")}  # by `beside_untrained`


def copying(results: Path, base: Settings = DEMO, category: str | None = None) -> pd.DataFrame:
    """The runs that differ from ``base`` in λ alone: loss, detection, and what was copied.

    Columns: category, λ, the lowest validation loss, AUROC of images by the run's score and by the
    maximum, AUROC of pixels (percent), the error of the reconstruction in and beside the defects
    (thousandths of the range from black to white) and the ratio of the two: means over the seeds
    that are named. Of one category, where it is named.
    """
    rows = [
        {
            "category": name,
            "λ": record.settings.noise,
            "seed": record.key.seed,
            "loss": record.table("history.csv")["validation_loss"].min(),
            f"images, {record.settings.image_score}": 100 * record.metric("image"),
            "images, max": 100 * record.content["image_scores"]["max"]["auroc"],
            "pixels": 100 * record.metric("pixel"),
            **_errors(record),
        }
        for name, record in varied_runs(results, base, "noise", category=category)
    ]
    if not rows:
        return pd.DataFrame()
    means = means_over_seeds(pd.DataFrame(rows), digits=None)
    behind = means.columns[means.columns.get_loc("which seeds") + 1 :]
    return means.round(dict.fromkeys(behind, 1) | {"loss": 4})


def by_kind(results: Path, *varied: str, category: str | None = None) -> pd.DataFrame:
    """AUROC of images (percent) for each kind of defect, by each image score.

    Each kind is set against all good images. The runs are those of the preset `demo`, and those
    that differ from it in the settings ``varied`` alone, each a column; means over the seeds.
    """
    rows = [
        {"category": name, "seed": record.key.seed} | _values(record, varied) | kind
        for name, record in varied_runs(results, DEMO, *varied, category=category)
        for kind in of_each_kind(record, IMAGE_SCORES)
    ]
    columns = ["category", *_names(varied), "defect", "images", "seed", *IMAGE_SCORES]
    return means_over_seeds(pd.DataFrame(rows, columns=columns))


def beside_untrained(
    results: Path,
    *varied: str,
    base: Settings = DEMO,
    category: str | None = None,
    level: str = "pixel",
) -> pd.DataFrame:
    """Metrics (percent) of the trained network, the untrained, and of no network.

    Of the pixels, or of images, where ``level`` says so, by the run's image score. The
    runs are those of `by_kind`, with ``base`` in place of the preset; means over the seeds.
    """
    rows = []
    for name, record in varied_runs(results, base, *varied, category=category):
        own = {"category": name, "seed": record.key.seed} | _values(record, varied)
        maps = {
            "trained": record.content["metrics"],
            "untrained": record.content["untrained"],
            "distance to the mean image": record.content["trivial"]["mean_image"],
            "distance to the blurred image": record.content["trivial"]["blurred_image"],
        }
        for which, found in maps.items():
            shown = {NAMES[metric]: 100 * found[level][metric] for metric in SHOWN[level]}
            rows.append(own | {"map": which} | shown)
    metrics = [NAMES[metric] for metric in SHOWN[level]]
    columns = ["category", *_names(varied), "map", "seed", *metrics]
    return means_over_seeds(pd.DataFrame(rows, columns=columns))


def _names(varied: Sequence[str]) -> list[str]:
    return [setting.replace("_", " ") for setting in varied]


def _values(record: Record, varied: Sequence[str]) -> dict[str, Any]:
    values = (getattr(record.settings, setting) for setting in varied)
    return dict(zip(_names(varied), values, strict=True))


def _errors(record: Record) -> dict[str, float]:
    error = record.content["reconstruction"]["absolute"]
    return {
        "in the defects": 1000 * error["defects"],
        "beside them": 1000 * error["beside"],
        "ratio": error["defects"] / error["beside"],
    }
