"""What more epochs change: the length of a schedule, and the rule that ends it (Section 4.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from n2n.analysis.selection import means_over_seeds, varied_runs
from n2n.records import Part, Record
from n2n.settings import BUDGET, Settings


def named(settings: Settings) -> str:
    """A budget for a reader: '500 epochs, T_max 100'."""
    name = f"{settings.epochs} epochs"
    return name if settings.t_max == settings.epochs else f"{name}, T_max {settings.t_max}"


def table(results: Path, base: Settings, part: Part) -> pd.DataFrame:
    """Trainings of several budgets, around ``base``, as text: a column each, means over the seeds.

    At each λ of those seeds that have the most budgets, of two or more.

    Returns:
        Rows: λ, seeds, epochs after which they ended; AUROC of the test images by the top 1 % and
        by the mean of the map, of the latter with the defects hidden (where all seeds have that),
        of images with synthetic defects by the top 1 %, and of the test pixels; these pixels'
        average precision, AUPRO, and how often the peak of the map is in the defect; all in
        percent.
    """
    rows = [
        {
            "epochs, at most": named(record.settings).replace(" epochs", ""),
            "λ": f"{record.settings.noise:g}",
            "seed": record.key.seed,
            **_measured(record),
        }
        for _, record in varied_runs(results, base, "noise", *sorted(BUDGET))
        if record.key.part == part
    ]
    runs = pd.DataFrame(rows, columns=None if rows else ["λ", "seed"])
    of_seed = runs.groupby(["λ", "seed"])["seed"].transform("size")
    most = of_seed.groupby(runs["λ"]).transform("max")
    compared = runs[of_seed.eq(most) & most.gt(1)]
    if compared.empty:
        return pd.DataFrame()
    means = means_over_seeds(compared, digits=None)
    for name in means.columns[3:]:
        digits = {"ended after": 0, "pixels, average precision": 2}.get(name, 1)
        means[name] = [f"{mean:.{digits}f}" if mean == mean else "–" for mean in means[name]]
    named_rows = means.rename(columns={"which seeds": "seeds"}).set_index("epochs, at most").T
    return named_rows.rename_axis(index="epochs, at most", columns=None).reset_index()


def _measured(record: Record) -> dict[str, float]:
    content = record.content
    scores = content["image_scores"]
    return {
        "ended after": content["training"]["epochs"],
        "images, by the top 1 %": 100 * scores["top1%"]["auroc"],
        "images, by the mean": 100 * scores["mean"]["auroc"],
        "the same, defects hidden": 100 * content.get("hidden_alike", {}).get("mean", np.nan),
        "images, synthetic defects": 100 * content["development"]["all"]["image_top1%"],
        "pixels, AUROC": 100 * record.metric("pixel"),
        "pixels, average precision": 100 * record.metric("pixel", "ap"),
        "AUPRO": 100 * record.metric("pixel", "aupro"),
        "peak in the defect": 100 * content["peak_in_defect"]["maps"],
    }
