"""What a score sees beside the defects, and what a detector reaches that learns nothing.

All from run records.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from n2n.baseline_settings import METHODS
from n2n.beyond import INGREDIENTS
from n2n.figures import ANOMALOUS, NORMAL, PAPER
from n2n.paper import printed_cells
from n2n.records import Record, find_records
from n2n.selection import (
    category_names,
    own_records,
    parts_of,
    runs_of,
    runs_of_every_method,
)
from n2n.sensitivity import BASE, variant_label
from n2n.settings import BUDGET, PRESETS, Settings, changes, fills, make_settings


def trivial_table(results: Path, full_size: bool = False) -> pd.DataFrame:
    """Detectors that learn nothing beside the trained network, AUROC in percent.

    Of the small study's base, or of the tables' preset at the largest budget that was run.
    """
    records = own_records(results)
    if full_size:
        parts = parts_of(records)
        runs = [run for part in parts for run in runs_of(records, *part, PRESETS["replication"])]
    else:
        runs = [r for r in records if not changes(r.settings, BASE)]
    names, rows = category_names(records), []
    for record in runs:
        content = record.content
        if "trivial" not in content:  # not in the oldest records
            continue
        detectors = {
            "trained network": content["metrics"],
            "untrained network": content["untrained"],
            "distance to the mean image": content["trivial"]["mean_image"],
            "distance to the blurred image": content["trivial"]["blurred_image"],
        }
        if grey := content["trivial"].get("grey_image"):  # not in older records
            detectors["distance to grey"] = grey
        for name, found in detectors.items():
            for level in ("image", "pixel"):
                rows.append(
                    {
                        "detector": name,
                        "column": f"{names[record.key.part]}, {level}",
                        "auroc": 100 * found[level]["auroc"],
                    }
                )
    frame = pd.DataFrame(rows, columns=["detector", "column", "auroc"])
    wide = frame.pivot_table(index="detector", columns="column", values="auroc", sort=False)
    wide.columns.name = None
    return wide.round(1).astype(object).where(wide.notna(), "–").reset_index()


def thumbnail_table(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of the nearest thumbnail, beside the printed one of N2N."""
    cells = printed_cells()
    cells = cells[cells["column"].eq("Ours") & cells["level"].eq("image")]
    printed = {(c.dataset, c.category): c.printed for c in cells.itertuples()}
    records, rows = find_records(results), []
    names = category_names(records)
    for record in records:
        if record.key.method != "thumbnail":
            continue
        side, hidden = record.content["settings"]["side"], record.content.get("hidden_alike", {})
        rows.append(
            {
                "category": names[record.key.part],
                "thumbnail": f"{side}×{side}",
                "image AUROC": _with_interval(record),
                "with the defects hidden": f"{100 * hidden.get('mean', math.nan):.1f}",
                "N2N, printed": printed.get(record.key.part, ""),
            }
        )
    columns = [
        "category", "thumbnail", "image AUROC", "with the defects hidden", "N2N, printed"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def image_mean_table(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of one number of each image; see `n2n.trivial.MeanQuantity`.

    By the number itself, whole and with what each mask covers left out of both images of a pair,
    and by its distance from the training images'. Below 50 the bad ones have less of it.
    """
    records = find_records(results)
    names = category_names(records)
    rows = [
        {
            "category": names[record.key.part],
            "mean of": record.content["settings"]["quantity"],
            "more of it": f"{100 * record.content['image_scores']['mean']['auroc']:.1f}",
            "more of it, defects hidden": f"{100 * record.content['hidden_alike']['mean']:.1f}",
            "farther from the training images": _with_interval(record),
        }
        for record in records
        if record.key.method == "image-mean"
    ]
    columns = [
        "category", "mean of", "more of it", "more of it, defects hidden",
        "farther from the training images",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _with_interval(record: Record) -> str:
    low, high = record.interval("image")
    return f"{100 * record.metric('image'):.1f} ({100 * low:.0f} to {100 * high:.0f})"


def masks_table(results: Path) -> pd.DataFrame:
    """How large the masks are, in percent: of the image, and of all defective pixels.

    From the records of the thumbnails, which are made first; see `n2n.measurement.about_data`.
    """
    records, rows = find_records(results), {}
    names = category_names(records)
    for record in records:
        if record.key.method != "thumbnail":
            continue
        masks = record.content["data"].get("masks")
        if masks is not None and None not in masks.values():
            rows[names[record.key.part]] = {
                "median defect, of the image": f"{100 * masks['median']:.2f}",
                "grown by a sixteenth": f"{100 * masks['grown_median']:.1f}",
                "the largest fifth, of all defective pixels": f"{100 * masks['largest_fifth']:.0f}",
            }
    return pd.DataFrame([{"category": name} | row for name, row in rows.items()])


def hidden_defects(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of full-size runs, as it is and with the defects hidden.

    Columns: category, detector, score, whole, hidden, alike, seeds; means over those seeds of the
    largest budget whose records say what remains (the older ones do not), so that 'whole' may be
    another mean than that of the tables. The score is the run's own rule, of a baseline what comes
    nearest to it. See `n2n.measurement.hidden_defects` and `n2n.measurement.hidden_alike`, which
    is NaN where one of these seeds lacks it.
    """
    records = find_records(results)
    names, rows = category_names(records), []
    detectors = [(record, _detector(record.settings)) for record in own_records(results)]
    for name, runs in runs_of_every_method(records).items():
        detectors += [(run, name) for found in runs.values() for run in found if name != "N2N"]
    for record, detector in detectors:
        content, settings = record.content, record.content["settings"]
        score = settings.get("image_score") or METHODS[record.key.method].score
        if settings["image_size"] != PRESETS["replication"].image_size or not score:
            continue
        rows.append(
            {
                "category": names[record.key.part],
                "detector": detector,
                "score": score,
                "epochs": settings.get("epochs", 0),
                "whole": 100 * content["image_scores"][score]["auroc"],
                "hidden": 100 * content.get("hidden_defects", {}).get(score, math.nan),
                "alike": 100 * content.get("hidden_alike", {}).get(score, math.nan),
            }
        )
    by = ["category", "detector", "score"]
    frame = pd.DataFrame(rows, columns=[*by, "epochs", "whole", "hidden", "alike"])
    largest = frame["epochs"] == frame.groupby(by)["epochs"].transform("max")
    asked = frame[largest & frame["hidden"].notna()].drop(columns="epochs")
    groups = asked.groupby(by, sort=False)
    # A mean over other seeds than its neighbour's could not be compared with it.
    means = groups.agg(lambda seeds: seeds.mean(skipna=False))
    return means.assign(seeds=groups.size()).reset_index()


def hidden_table(found: pd.DataFrame) -> pd.DataFrame:
    """What `hidden_figure` draws, as text."""
    ordered = found.sort_values(["category", "whole"], ascending=[True, False])
    columns = {
        "whole": "whole images", "hidden": "hidden in the bad image", "alike": "hidden in both"
    }  # fmt: skip
    texts = {
        title: ordered[name].map(lambda value: "" if math.isnan(value) else f"{value:.1f}")
        for name, title in columns.items()
    }
    return ordered[["category", "detector", "score"]].assign(**texts, seeds=ordered["seeds"])


def hidden_figure(found: pd.DataFrame) -> Figure:
    """For each detector its AUROC on whole images, and with the defects hidden in either way."""
    categories = list(dict.fromkeys(found["category"]))
    names = found.sort_values("whole", ascending=False)["detector"]
    # From below: the others, then the runs of N2N, each with the best on top
    detectors = sorted(dict.fromkeys(names), key=lambda name: not name.startswith("N2N"))[::-1]
    figure, grid = plt.subplots(
        1, max(len(categories), 1), figsize=(9, 1.2 + 0.3 * len(detectors)), sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, category in zip(grid[0], categories, strict=False):
        part = found[found["category"] == category]
        at = [detectors.index(name) for name in part["detector"]]
        axes.hlines(at, part["hidden"], part["whole"], color=PAPER, lw=1)
        axes.plot(part["whole"], at, "o", color=ANOMALOUS, label="whole images")
        axes.plot(
            part["hidden"],
            at,
            "o",
            color=ANOMALOUS,
            mfc="white",
            label="defects hidden in the bad image",
        )
        axes.plot(
            part["alike"], at, "D", color=NORMAL, ms=5, label="hidden in both images of a pair"
        )
        axes.axvline(50, color=PAPER, lw=0.8, ls=":")
        axes.set(xlabel="AUROC, %", xlim=(-3, 103), title=category)
        axes.set_yticks(range(len(detectors)), detectors)
    if categories:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    plt.close(figure)
    return figure


def _detector(settings: Settings) -> str:
    """A run of our method in words, whatever its budget."""
    changed = changes(settings, PRESETS["replication"])
    kept = {name: value for name, value in changed.items() if name not in BUDGET}
    if not fills(settings, make_settings("replication", **kept)):
        kept = changed  # another schedule, and not only a smaller budget
    names = (name for name, ingredients in INGREDIENTS.items() if ingredients == kept)
    return "N2N, " + (next(names, variant_label(kept)) if kept else "as in the tables")
