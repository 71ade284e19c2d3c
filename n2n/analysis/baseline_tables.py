"""The methods that the paper compares with: our reruns beside its tables, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from n2n.analysis.selection import category_names, matching_records, runs_of_every_method
from n2n.analysis.tables import mean_auroc, mean_interval, verdict
from n2n.baselines.settings import METHODS, brought, family, row_label
from n2n.paper import label, printed_cells
from n2n.records import Record, RunKey, find_records
from n2n.settings import IMAGE_SCORES, PRESETS


def baselines_beside_paper(table: int, results: Path) -> pd.DataFrame:
    """Our reruns of the methods that a table compares with, and what they cost, as text.

    A rerun with another backbone than the method's own paper is another method: it stands beside
    the printed value and gets no verdict; neither does a map that the method's paper does not
    describe. 'Bring' names what a rerun of the printed method needs beside the images. Methods that
    were not run on a category of which there are runs say so.
    """
    cells = printed_cells(table)
    cells = cells[cells["category"] != "average"]
    methods = {method.label: method for method in METHODS.values()}
    at_hand: set[tuple[str, str]] = set()
    runs: dict[tuple[str, str, str], dict[str, list[Record]]] = {}  # by the row's name
    for record in find_records(results):
        key = record.key
        at_hand.add(key.part)
        if key.method in METHODS:
            name = (key.dataset, key.category, METHODS[key.method].label)
            runs.setdefault(name, {}).setdefault(_label(record), []).append(record)
    columns = [
        "category", "method", "paper", "ours", "difference", "verdict", "95 % interval", "seeds",
        "fit, s", "per image, s", "peak, MiB", "bring",
    ]  # fmt: skip
    rows = []
    for cell in cells.itertuples():
        if (cell.dataset, cell.category) not in at_hand or cell.column not in methods:
            continue
        reported = methods[str(cell.column)].paper_backbone
        row = dict.fromkeys(columns, "") | {
            "category": label(str(cell.category)),
            "method": cell.column,
            "paper": cell.printed,
            "verdict": "not run",
            "bring": brought(reported) or "",
        }
        variants = runs.get((cell.dataset, cell.category, cell.column), {})
        rows += [
            row | {"method": name} | _row(cell, found) for name, found in variants.items()
        ] or [row]
    return pd.DataFrame(rows, columns=columns)


def _label(record: Record, budget: bool = True) -> str:
    return row_label(record.baseline, record.precision, budget)


def _row(cell: Any, records: list[Record]) -> dict[str, Any]:
    """One printed cell of a baseline beside one row's runs of it, a run per seed."""
    settings = records[0].baseline
    method = METHODS[settings.method]
    values = [100 * record.metric(cell.level) for record in records]
    low, high = mean_interval(records, cell.level)
    ours = float(np.mean(values))
    if method.by == "gan" and cell.level == "pixel":
        judged = {"verdict": "map of ours", "bring": ""}  # their papers describe none
    elif settings.backbone != method.paper_backbone:
        other = "other textures" if settings.method == "draem" else "another backbone"
        judged = {"verdict": other}
    else:
        short = settings.epochs < method.epochs
        found = (
            verdict(cell.value, ours, low, high, short) if settings.standard else "other settings"
        )
        judged = {"verdict": found, "bring": ""}

    def mean(part: str, name: str) -> float:
        return float(np.mean([record.content[part][name] for record in records]))

    return {
        "ours": f"{ours:.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""),
        "difference": f"{ours - cell.value:+.2f}",
        "95 % interval": f"{low:.2f} to {high:.2f}",
        **judged,
        "seeds": len(records),
        "fit, s": f"{mean('training', 'seconds'):.0f}",
        "per image, s": f"{mean('inference', 'seconds_per_image'):.2f}",
        "peak, MiB": _peak(records),
    }


def _peak(records: Iterable[Record]) -> str:
    """The largest peak of memory; older records hold that of their process, a bound.

    What another run has trained says nothing of its training and is left out.
    """
    trained = [record for record in records if not record.content["training"].get("by")]
    origins = [record.content["provenance"] for record in trained]
    if not origins:
        return ""
    own = all(origin.get("peak_memory_of") == "this run" for origin in origins)
    bound = "" if own else "≤ "
    return f"{bound}{max(origin['peak_memory_mib'] for origin in origins):.0f}"


def by_every_score(results: Path) -> pd.DataFrame:
    """Every detector's image-level AUROC (percent) by each image score of its maps, as text.

    A row for each one of `n2n.analysis.selection.runs_of_every_method` but the numbers of an image,
    and a column for each part: by the maximum / the mean / the top 1 %, means over the seeds.
    """
    records = find_records(results)
    names, rows = category_names(records), []
    for method, parts in runs_of_every_method(records).items():
        row = {"method": method}
        for part, found in parts.items():
            if found[0].key.method != "image-mean":  # of which more is not worse
                aurocs = (mean_auroc(found, score) for score in IMAGE_SCORES)
                row[names[part]] = " / ".join(f"{value:.1f}" for value in aurocs)
        rows.append(row)
    return pd.DataFrame([row for row in rows if len(row) > 1]).fillna("")


def costs(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) and seconds of training of each method in each category.

    Of our method the presets `replication` and `improved`, at the largest budget that was run; of
    the others what has their own settings, whatever its budget; mean over the seeds, whose number
    is in 'seeds'; 'per_image' is the seconds of detection, NaN in older records of ours, and 'peak'
    the memory in MiB, as text. 'detector' is the method without its budget, 'family' one of
    `n2n.baselines.settings.FAMILIES`.
    """
    records = find_records(results)
    shown: dict[RunKey, tuple[str, str, str]] = {
        record.key: (_label(record), _label(record, budget=False), family(record.baseline))
        for record in records
        if record.key.method in METHODS and record.baseline.standard
    }
    names = category_names(records)
    for dataset, category in names:
        for preset, name in (("replication", "N2N"), ("improved", "N2N, improved")):
            for record in matching_records(records, dataset, category, "Ours", preset):
                run, whole = record.content["settings"]["epochs"], PRESETS[preset].epochs
                part = f" ({run} of {whole} epochs)" if run < whole else ""
                shown[record.key] = (name + part, name, "N2N")
    rows = [
        {
            "category": names[record.key.part],
            "method": shown[record.key][0],
            "detector": shown[record.key][1],
            "family": shown[record.key][2],
            "auroc": 100 * record.metric("image"),
            "seconds": max(record.content["training"]["seconds"], 0.1),  # as fine as records are
            "per_image": record.content.get("inference", {}).get("seconds_per_image", np.nan),
            "record": record,
        }
        for record in records
        if record.key in shown
    ]
    by = ["category", "method", "detector", "family"]
    frame = pd.DataFrame(rows, columns=[*by, "auroc", "seconds", "per_image", "record"])
    means = frame.groupby(by, sort=False).agg(
        auroc=("auroc", "mean"), seconds=("seconds", "mean"), seeds=("auroc", "size"),
        per_image=("per_image", "mean"), peak=("record", _peak),
    )  # fmt: skip
    return means.reset_index()
