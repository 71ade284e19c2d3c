"""The metrics that the paper does not report: average precision, F1-max and AUPRO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from n2n.analysis.selection import category_names, runs_of_every_method
from n2n.analysis.tables import measured_cells
from n2n.metrics import NAMES
from n2n.paper import label
from n2n.records import Record, find_records


def every_metric(cells: pd.DataFrame) -> pd.DataFrame:
    """The runs behind a table's cells of our method, by every metric in percent, as text.

    Below the runs of a category stands what learns nothing: for images a guess (all called
    anomalous), the untrained network, and the distance to the mean of the training images, which
    is measured as the anomaly map is.

    Args:
        cells: of `n2n.analysis.tables.compare`.

    Returns:
        Columns: category, level, map, and the metrics (`n2n.metrics.NAMES`); means over the seeds
        ± their standard deviation.
    """
    own, rows = measured_cells(cells), []
    for (category, level), group in own.groupby(["category", "level"], sort=False):
        named = {"category": label(str(category)), "level": level}
        every = list(group["runs"])
        for column, records in zip(group["column"], every, strict=True):
            name = "N2N" if column == "Ours" else label(column)
            metrics = [record.content["metrics"][level] for record in records]
            rows.append(named | {"map": name} | _means(metrics))
        if level == "image":
            rows.append(named | {"map": "a guess"} | _means([_guess(every[0][0])]))
        contents = [record.content for record in every[0]]
        nothing = {
            "untrained": [c["untrained"] for c in contents],
            "mean image": [c["trivial"]["mean_image"] for c in contents],
        }
        for name, found in nothing.items():
            rows.append(named | {"map": name} | _means([one[level] for one in found]))
    columns = ["category", "level", "map", *NAMES.values()]
    table = pd.DataFrame(rows, columns=columns)
    if table["level"].nunique() == 1:
        table = table.drop(columns="level")
    return table if table["AUPRO"].any() else table.drop(columns="AUPRO")


def _guess(record: Record) -> dict[str, float]:
    """What chance reaches: the share of anomalous images decides."""
    data = record.content["data"]
    share = data["test_anomalous"] / (data["test_anomalous"] + data["test_good"])
    return {"auroc": 0.5, "ap": share, "f1max": 2 * share / (1 + share)}


def _means(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    texts = dict.fromkeys(NAMES.values(), "")
    for name, title in NAMES.items():
        if name in found[0]:
            values = [100 * one[name] for one in found]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            if np.isnan(values).any():  # a category without masks
                continue
            texts[title] = f"{np.mean(values):.1f}" + (f" ± {spread:.1f}" if spread >= 0.05 else "")
    return texts


def localisation(results: Path) -> pd.DataFrame:
    """Pixel-level AUROC, average precision and AUPRO of every method, percent, mean of the seeds.

    The rows of `n2n.analysis.selection.runs_of_every_method` that have maps; three columns per
    category.
    """
    records = find_records(results)
    names = category_names(records)
    rows = []
    for method, parts in runs_of_every_method(records).items():
        row = {"method": method}
        for part, runs in parts.items():
            found = [run.content["metrics"]["pixel"] for run in runs]
            if any("aupro" not in one or one["aupro"] != one["aupro"] for one in found):
                continue
            for metric, title in (("auroc", "AUROC"), ("ap", "AP"), ("aupro", "AUPRO")):
                value = np.mean([100 * one[metric] for one in found])
                row[f"{names[part]}, {title}"] = f"{value:.1f}"
        if len(row) > 1:
            rows.append(row)
    return pd.DataFrame(rows).fillna("")
