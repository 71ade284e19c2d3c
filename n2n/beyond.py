"""The preset `improved` beside `replication` and the paper: what a better image score adds.

Both presets train the same network, so that a run of one gives a run of the other without training
(`n2n.experiment`); only the image scores differ, and the pixels' AUROC is the same.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from n2n.paper import PAPER_LABELS, printed_cells
from n2n.records import Record, find_records
from n2n.settings import make_settings, variant
from n2n.tables import matching_records


def beside_paper(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of both presets for each category where both were run."""
    records = find_records(results)
    printed = printed_cells()
    printed = printed[printed["column"].eq("Ours") & printed["table"].isin([1, 3])]
    rows = []
    for cell in printed.itertuples():
        pair = _pair(records, str(cell.dataset), str(cell.category))
        for ours, better in pair:
            low, high = better.interval("image")
            rows.append(
                {
                    "category": PAPER_LABELS.get(str(cell.category), str(cell.category)),
                    "seed": better.key.seed,
                    "epochs": better.content["training"]["epochs"],
                    "paper": cell.printed,
                    "replication": f"{100 * ours.metric('image'):.2f}",
                    "improved": f"{100 * better.metric('image'):.2f}",
                    "95 % interval": f"{100 * low:.2f} to {100 * high:.2f}",
                }
            )
    columns = ["category", "seed", "epochs", "paper", "replication", "improved", "95 % interval"]
    return pd.DataFrame(rows, columns=columns)


def ingredients(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) with and without calibration, by image score.

    On the synthetic defects, by which the preset was chosen, and on the test images.
    """
    records = find_records(results)
    rows = []
    for dataset, category in dict.fromkeys((r.key.dataset, r.key.category) for r in records):
        for pair in _pair(records, dataset, category):
            for record, calibrated in zip(pair, ("no", "yes"), strict=True):
                development = record.content.get("development")
                for score, values in record.content["image_scores"].items():
                    rows.append(
                        {
                            "calibrated": calibrated,
                            "image score": score,
                            "category": category.replace("_", " "),
                            "synthetic": 100 * development["all"][f"image_{score}"]
                            if development
                            else float("nan"),
                            "test": 100 * values["auroc"],
                        }
                    )
    columns = ["calibrated", "image score", "category", "synthetic", "test"]
    frame = pd.DataFrame(rows, columns=columns)
    wide = frame.pivot_table(
        index=["calibrated", "image score"], columns="category", values=["synthetic", "test"],
        sort=False,
    )  # fmt: skip
    wide.columns = pd.Index([f"{category}, {where}" for where, category in wide.columns])
    return wide[sorted(wide.columns)].round(1).reset_index()


def peaks(results: Path) -> pd.DataFrame:
    """In how many anomalous test images the largest value lies in the defect, in percent."""
    records = find_records(results)
    rows = [
        {
            "category": category.replace("_", " "),
            "seed": record.key.seed,
            "epochs": record.content["training"]["epochs"],
            "the map as printed": f"{100 * record.content['peak_in_defect']['maps']:.0f} %",
            "calibrated": f"{100 * record.content['peak_in_defect']['scored']:.0f} %",
        }
        for dataset, category in dict.fromkeys((r.key.dataset, r.key.category) for r in records)
        for record in matching_records(records, dataset, category, "Ours", "improved")
        if "peak_in_defect" in record.content
    ]
    return pd.DataFrame(
        rows, columns=["category", "seed", "epochs", "the map as printed", "calibrated"]
    )


def _pair(records: list[Record], dataset: str, category: str) -> list[tuple[Record, Record]]:
    """Runs of `replication` and `improved` with the same seed and budget."""
    found = []
    for better in matching_records(records, dataset, category, "Ours", "improved"):
        settings = better.content["settings"]
        wanted = make_settings("replication", epochs=settings["epochs"], t_max=settings["t_max"])
        key = dataclasses.replace(better.key, variant=variant(wanted))
        found += [(ours, better) for ours in records if ours.key == key]
    return found
