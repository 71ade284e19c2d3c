"""What the book's exercises ask for, as tables of the runs that were made for them.

A learner calls the same functions with a results folder of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from n2n.metrics import auroc
from n2n.records import Record
from n2n.selection import category_names, own_records
from n2n.settings import IMAGE_SCORES, PRESETS, Settings, changes

DEMO = PRESETS["demo"]


def copying(results: Path, base: Settings = DEMO) -> pd.DataFrame:
    """The runs that differ from ``base`` in λ alone: loss, detection, and what was copied.

    Columns: category, λ, the lowest validation loss, AUROC of images by the run's score and by the
    maximum, AUROC of pixels (percent), the error of the reconstruction in and beside the defects
    (thousandths of the range from black to white), and the ratio of the two; means over the seeds.
    """
    rows = [
        {
            "category": name,
            "λ": record.settings.noise,
            "loss": record.table("history.csv")["validation_loss"].min(),
            f"images, {record.settings.image_score}": 100 * record.metric("image"),
            "images, max": 100 * record.content["image_scores"]["max"]["auroc"],
            "pixels": 100 * record.metric("pixel"),
            **_errors(record),
        }
        for name, record in _varied(results, base, {"noise"})
    ]
    if not rows:
        return pd.DataFrame()
    means = pd.DataFrame(rows).groupby(["category", "λ"], sort=False).mean().reset_index()
    ratio = means["in the defects"] / means["beside them"]
    return means.round({"loss": 4}).round(1).assign(ratio=ratio.round(1))


def by_kind(results: Path, varied: str = "image_size", base: Settings = DEMO) -> pd.DataFrame:
    """AUROC of images (percent) for each kind of defect, by each image score.

    Each kind is set against all good images. The runs are those that differ from ``base`` in the
    setting ``varied`` alone; its value has a column where it is not the same for all.
    """
    rows: list[dict[str, Any]] = []
    setting = varied.replace("_", " ")
    for name, record in _varied(results, base, {varied}):
        scores = record.scores()
        good = scores[scores["anomalous"] == 0]
        own = {"category": name, setting: getattr(record.settings, varied)}
        for kind, bad in scores[scores["anomalous"] == 1].groupby("defect"):
            both = pd.concat([good, bad])
            labels = both["anomalous"].to_numpy(dtype=bool)
            found = {s: 100 * auroc(both[s].to_numpy(np.float64), labels) for s in IMAGE_SCORES}
            rows.append(own | {"defect": kind, "images": len(bad)} | found)
    table = pd.DataFrame(rows).round(1)
    alike = rows and table[setting].nunique() == 1
    return table.drop(columns=setting) if alike else table


def beside_untrained(results: Path, base: Settings = DEMO) -> pd.DataFrame:
    """Pixel-level metrics (percent) of the trained network, the untrained, and the mean image."""
    rows = []
    for name, record in _varied(results, base, set()):
        maps = {
            "trained": record.content["metrics"],
            "untrained": record.content["untrained"],
            "distance to the mean image": record.content["trivial"]["mean_image"],
        }
        for which, found in maps.items():
            pixel = found["pixel"]
            rows.append(
                {
                    "category": name,
                    "map": which,
                    "AUROC": 100 * pixel["auroc"],
                    "average precision": 100 * pixel["ap"],
                    "AUPRO": 100 * pixel["aupro"],
                }
            )
    return pd.DataFrame(rows).round(1)


def _varied(results: Path, base: Settings, varied: set[str]) -> list[tuple[str, Record]]:
    """The runs that differ from ``base`` in these settings alone, by them, with a reader's name."""
    records = own_records(results)
    names = category_names(records)
    found = [r for r in records if changes(r.settings, base).keys() <= varied]
    found.sort(key=lambda r: (r.key.part, *(getattr(r.settings, name) for name in varied)))
    return [(names[record.key.part], record) for record in found]


def _errors(record: Record) -> dict[str, float]:
    error = record.content["reconstruction"]["absolute"]
    return {
        "in the defects": 1000 * error["defects"],
        "beside them": 1000 * error["beside"],
    }
