"""What more epochs change: the length of a schedule, and the rule that ends it (Section 4.2).

All from run records; the small study is that of `n2n.analysis.sensitivity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from n2n.analysis.selection import means_over_seeds, own_records, varied_runs
from n2n.analysis.sensitivity import BASE
from n2n.records import Part, Record
from n2n.settings import BUDGET, PRESETS, Settings, changes

BUDGETS = (25, 100, 500)  # epochs at most; of `longer_training`
VARIED = ("epochs", "t_max")


def named(settings: Settings) -> str:
    """A budget for a reader: '500 epochs, T_max 100'."""
    name = f"{settings.epochs} epochs"
    return name if settings.t_max == settings.epochs else f"{name}, T_max {settings.t_max}"


def small_table(results: Path) -> pd.DataFrame:
    """The budgets of the small study, a row per part and budget: means over the seeds.

    Of the parts that were run with several. Columns: category, epochs at most, which seeds, ended
    after (epochs), AUROC of the test images by the top 1 % and by the mean of the map, of the
    latter with the defects hidden where all seeds have that, of the test pixels, these pixels'
    average precision, and AUROC of images with synthetic defects by the top 1 %; in percent.
    """
    rows = []
    for category, record in varied_runs(results, BASE, *VARIED):
        content = record.content
        scores = content["image_scores"]
        rows.append(
            {
                "category": category,
                "epochs, at most": named(record.settings).replace(" epochs", ""),
                "seed": record.key.seed,
                "ended after": content["training"]["epochs"],
                "images, top 1 %": 100 * scores["top1%"]["auroc"],
                "by the mean": 100 * scores["mean"]["auroc"],
                "defects hidden": 100 * content.get("hidden_alike", {}).get("mean", np.nan),
                "pixels": 100 * record.metric("pixel"),
                "average precision": 100 * record.metric("pixel", "ap"),
                "synthetic": 100 * content["development"]["all"]["image_top1%"],
            }
        )
    columns = [
        "category", "epochs, at most", "seed", "ended after", "images, top 1 %", "by the mean",
        "defects hidden", "pixels", "average precision", "synthetic",
    ]  # fmt: skip
    found = means_over_seeds(pd.DataFrame(rows, columns=columns), digits=None)
    found = found[found["category"].duplicated(keep=False)].reset_index(drop=True)
    found["ended after"] = found["ended after"].map("{:.0f}".format)
    return found.round(dict.fromkeys(columns[4:], 1) | {"average precision": 2})


def longer_training(results: Path, part: Part) -> pd.DataFrame:
    """What more epochs change at full size, a column for each lambda, as text.

    Of the seeds that were run with two of `BUDGETS` or more the one with the most; percent, and the
    ratio of the error in the defects to that beside them.
    """
    runs: dict[float, dict[int, dict[int, Record]]] = {}  # by lambda, then seed, then budget
    for record in own_records(results):
        settings = record.settings
        changed = changes(settings, PRESETS["replication"]).keys()
        if record.key.part == part and changed <= {"noise", *BUDGET} and settings.epochs in BUDGETS:
            of_noise = runs.setdefault(settings.noise, {})
            of_noise.setdefault(record.key.seed, {})[settings.epochs] = record
    table: dict[str, dict[str, str]] = {}
    for noise, of_noise in sorted(runs.items()):
        of_seed = max(of_noise.values(), key=len)
        if len(of_seed) > 1:
            budgets = sorted(of_seed)
            values = [_localisation(of_seed[epochs]) for epochs in budgets]
            table[f"λ = {noise:g}; {_arrows(budgets)}"] = {
                name: _arrows(f"{value[name]:.1f}" for value in values) for name in values[0]
            }
    frame = pd.DataFrame(table)
    frame.index.name = "epochs"
    return frame.reset_index()


def _arrows(values: Iterable[object]) -> str:
    return " → ".join(map(str, values))


def _localisation(record: Record) -> dict[str, float]:
    error = record.content["reconstruction"]["absolute"]
    return {
        "images, top 1 %": 100 * record.content["image_scores"]["top1%"]["auroc"],
        "peak in the defect": 100 * record.content["peak_in_defect"]["maps"],
        "pixels, average precision": 100 * record.metric("pixel", "ap"),
        "pixels, AUROC": 100 * record.metric("pixel"),
        "AUPRO": 100 * record.metric("pixel", "aupro"),
        "error in the defects : beside them": error["defects"] / error["beside"],
    }
