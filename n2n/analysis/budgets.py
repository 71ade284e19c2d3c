"""What more epochs change: the length of a schedule, and the rule that ends it (Section 4.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from n2n.analysis.selection import means_over_seeds, varied_runs
from n2n.records import Record
from n2n.settings import BUDGET, Settings


def named(settings: Settings) -> str:
    """A budget for a reader: '500 epochs, T_max 100'."""
    name = f"{settings.epochs} epochs"
    return name if settings.t_max == settings.epochs else f"{name}, T_max {settings.t_max}"


def table(results: Path, base: Settings) -> pd.DataFrame:
    """Trainings of several budgets, around ``base``, as text: means over the seeds.

    Of each part and λ those seeds that have the most budgets, of two or more.

    Returns:
        Columns: category, λ, epochs at most, seeds, ended after (epochs); AUROC of the test images
        by the top 1 % and by the mean of the map, of the latter with the defects hidden (where all
        seeds have that), of images with synthetic defects by the top 1 %, and of the test pixels;
        these pixels' average precision, AUPRO, and how often the peak of the map is in the defect;
        all in percent.
    """
    columns = ["category", "λ", "epochs, at most", "seed"]
    rows = [
        {
            "category": category,
            "λ": f"{record.settings.noise:g}",
            "epochs, at most": named(record.settings).replace(" epochs", ""),
            "seed": record.key.seed,
            **_measured(record),
        }
        for category, record in varied_runs(results, base, "noise", *sorted(BUDGET))
    ]
    runs = pd.DataFrame(rows, columns=None if rows else columns)
    of_seed = runs.groupby(["category", "λ", "seed"])["seed"].transform("size")
    most = of_seed.groupby([runs["category"], runs["λ"]]).transform("max")
    means = means_over_seeds(runs[of_seed.eq(most) & most.gt(1)], digits=None)
    for name in means.columns[len(columns) :]:
        digits = {"ended after": 0, "average precision": 2}.get(name, 1)
        means[name] = [f"{mean:.{digits}f}" if mean == mean else "–" for mean in means[name]]
    return means.rename(columns={"which seeds": "seeds"})


def _measured(record: Record) -> dict[str, float]:
    content = record.content
    scores = content["image_scores"]
    return {
        "ended after": content["training"]["epochs"],
        "images, top 1 %": 100 * scores["top1%"]["auroc"],
        "by the mean": 100 * scores["mean"]["auroc"],
        "defects hidden": 100 * content.get("hidden_alike", {}).get("mean", np.nan),
        "synthetic": 100 * content["development"]["all"]["image_top1%"],
        "pixels": 100 * record.metric("pixel"),
        "average precision": 100 * record.metric("pixel", "ap"),
        "AUPRO": 100 * record.metric("pixel", "aupro"),
        "peak in the defect": 100 * content["peak_in_defect"]["maps"],
    }
