"""What a score sees beside the defects, and what a detector reaches that learns nothing.

All from run records.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from n2n.analysis.beyond import INGREDIENTS
from n2n.analysis.figures import ANOMALOUS, NORMAL, PAPER, name_in_margin, new_figure
from n2n.analysis.selection import (
    category_names,
    means_over_seeds,
    own_records,
    parts_of,
    runs_of,
    runs_of_every_method,
    varied_runs,
)
from n2n.analysis.sensitivity import BASE, run_label, variant_label
from n2n.baselines.settings import METHODS
from n2n.metrics import auroc
from n2n.paper import printed_cells
from n2n.records import Record, find_records
from n2n.settings import BUDGET, PRESETS, Settings, changes, fills, make_settings

MARKS = [  # of the kinds of defects
    ("full", "o", ANOMALOUS), ("full", "s", NORMAL), ("none", "D", NORMAL),
    ("none", "^", ANOMALOUS), ("none", "v", NORMAL), ("none", "P", ANOMALOUS),
]  # fmt: skip
STAND_INS = {  # of `n2n.measurement.trivial_metrics`
    "mean_image": "distance to the mean image",
    "blurred_image": "distance to the blurred image",
    "grey_image": "distance to grey",
}
SINGLE = ", float32"  # of a detector's name, where it was trained in single precision
RUN = ("category", "detector", "score", "epochs")  # of a run at full size; see `_full_size`


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
        detectors = {
            "trained network": content["metrics"],
            "untrained network": content["untrained"],
            # Older records have no grey image
            **{STAND_INS[name]: found for name, found in content["trivial"].items()},
        }
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
    return _by_detector(frame)


def _by_detector(found: pd.DataFrame) -> pd.DataFrame:
    """From rows of detector, column and auroc a row per detector: means, a dash where none is."""
    wide = found.pivot_table(index="detector", columns="column", values="auroc", sort=False)
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
        side = record.content["settings"]["side"]
        rows.append(
            {
                "category": names[record.key.part],
                "thumbnail": f"{side}×{side}",
                "image AUROC": _with_interval(record),
                "with the defects hidden": f"{100 * record.content['hidden_alike']['mean']:.1f}",
                "N2N, printed": printed.get(record.key.part, ""),
            }
        )
    columns = [
        "category", "thumbnail", "image AUROC", "with the defects hidden", "N2N, printed"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def image_mean_table(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of one number of each image.

    See `n2n.baselines.trivial.MeanQuantity`. By the number itself, whole and with what each mask
    covers left out of both images of a pair, and by its distance from the training images'. Below
    50 the bad ones have less of it.
    """
    records = find_records(results)
    names = category_names(records)
    return pd.DataFrame(
        {
            "category": names[record.key.part],
            "mean of": record.content["settings"]["quantity"],
            "more of it": f"{100 * record.content['image_scores']['mean']['auroc']:.1f}",
            "more of it, defects hidden": f"{100 * record.content['hidden_alike']['mean']:.1f}",
            "farther from the training images": _with_interval(record),
        }
        for record in records
        if record.key.method == "image-mean"
    )


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
        masks = record.content["data"]["masks"]
        if None not in masks.values():
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
    rows = []
    for record, run in _full_size(results):
        content, score = record.content, run["score"]
        rows.append(
            run
            | {
                "whole": 100 * content["image_scores"][score]["auroc"],
                "hidden": 100 * content.get("hidden_defects", {}).get(score, math.nan),
                "alike": 100 * content.get("hidden_alike", {}).get(score, math.nan),
            }
        )
    frame = _largest_budget(pd.DataFrame(rows, columns=[*RUN, "whole", "hidden", "alike"]))
    groups = frame[frame["hidden"].notna()].groupby(list(RUN[:3]), sort=False)
    # A mean over other seeds than its neighbour's could not be compared with it.
    means = groups.agg(lambda seeds: seeds.mean(skipna=False))
    return means.assign(seeds=groups.size()).reset_index()


def _full_size(results: Path) -> list[tuple[Record, dict[str, Any]]]:
    """Every run at full size of which one score is the method's own, with its `RUN`."""
    records, single = find_records(results), own_records(results / "float32")
    names, found = category_names([*records, *single]), []
    detectors = [(record, _detector(record.settings)) for record in own_records(results)]
    detectors += [(record, _detector(record.settings) + SINGLE) for record in single]
    for name, runs in runs_of_every_method(records).items():
        detectors += [(run, name) for part in runs.values() for run in part if name != "N2N"]
    full = PRESETS["replication"]
    for record, detector in detectors:
        settings = record.content["settings"]
        score = settings.get("image_score") or METHODS[record.key.method].score
        same = (settings["image_size"], settings.get("width", full.width))
        if settings.get("mean_at_test"):  # a question of its own: `mechanism.at_test_table`
            continue
        if same == (full.image_size, full.width) and score:
            run = (names[record.key.part], detector, score, settings["epochs"])
            found.append((record, dict(zip(RUN, run, strict=True))))
    return found


def position_table(results: Path, base: Settings = PRESETS["replication"]) -> pd.DataFrame:
    """How much of the pixel-level AUROC (percent) one map for all images has.

    Of the runs that hold it and differ from ``base`` in the noise, the learning rate, the budget,
    the loss's constants, the attention modules or how images are normalised alone, means over the
    seeds. *One map for all*: the mean map of held-out normal images; *less that*: the maps after it
    is subtracted; *on test images*: the noise or its mean. See `n2n.measurement.by_position`.
    """
    varied = (
        "noise", "noise_grain", "noise_octaves", "learning_rate", "c1", "c2", "attention",
        "mean_at_test", "standardise", "channels_together", "contrast", *BUDGET,
    )  # fmt: skip
    rows = []
    for category, record in varied_runs(results, base, *varied):
        content, changed = record.content, changes(record.settings, base)
        mean = changed.pop("mean_at_test", False)
        if "by_position" not in content:  # in no older record
            continue
        use = "its mean" if mean else "the noise" if record.settings.noise else ""
        rows.append(
            {
                "category": category,
                "network": run_label(changed, base),
                "on test images": use,
                "seed": record.key.seed,
                "pixels": 100 * record.metric("pixel"),
                "one map for all": 100 * content["by_position"]["alone"],
                "less that": 100 * content["by_position"]["beyond"],
            }
        )
    columns = [
        "category", "network", "on test images", "seed", "pixels", "one map for all", "less that",
    ]  # fmt: skip
    return means_over_seeds(pd.DataFrame(rows, columns=columns))


def _largest_budget(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the runs of a category, a detector and a score those of the most epochs."""
    most = runs.groupby(list(RUN[:3]))["epochs"].transform("max")
    return runs[runs["epochs"] == most].drop(columns="epochs")


def of_each_kind(record: Record, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Image-level AUROC (percent) of each kind of defect against all good images.

    Of each kind: defect, images (how many there are), and a value for each of these columns of
    `Record.scores`.
    """
    scores = record.scores()
    good, rows = scores[scores["anomalous"] == 0], []
    for kind, bad in scores[scores["anomalous"] == 1].groupby("defect"):
        both = pd.concat([good, bad])
        labels = both["anomalous"].to_numpy(dtype=bool)
        found = {name: 100 * auroc(both[name].to_numpy(np.float64), labels) for name in columns}
        rows.append({"defect": str(kind).replace("_", " "), "images": len(bad)} | found)
    return rows


def kinds(results: Path) -> pd.DataFrame:
    """`of_each_kind` for every run at full size, by the method's own score.

    Of parts with several kinds of defects. Columns: category, detector, defect, images, auroc,
    seeds; means over the seeds of the largest budget.
    """
    rows = [
        run | kind | {"auroc": kind["chosen"]}
        for record, run in _full_size(results)
        if len(found := of_each_kind(record, ["chosen"])) > 1
        for kind in found
    ]
    frame = _largest_budget(pd.DataFrame(rows, columns=[*RUN, "defect", "images", "auroc"]))
    groups = frame.groupby(["category", "detector", "defect", "images"], sort=False)["auroc"]
    return groups.agg(auroc="mean", seeds="size").reset_index()


def margins_table(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of our full-size networks with the defects hidden farther.

    In both images of each pair, up to a sixteenth of the side beyond the mask and up to an eighth;
    by every image score, of each record that has both.
    """
    rows: list[dict[str, Any]] = []
    own = PRESETS["replication"].image_score  # leaves the score out of a detector's name
    for record, run in _full_size(results):
        content = record.content
        if record.key.method != "n2n" or "hidden_alike_farther" not in content:
            continue
        settings = record.settings
        if settings.preset != "paper":  # whose name says the score, too
            settings = dataclasses.replace(settings, image_score=own)
        named = {
            "category": run["category"],
            "detector": _detector(settings) + SINGLE * run["detector"].endswith(SINGLE),
            "seed": record.key.seed,
        }
        for score, whole in content["image_scores"].items():
            found = {
                "whole images": whole["auroc"],
                "hidden up to a sixteenth": content["hidden_alike"][score],
                "hidden up to an eighth": content["hidden_alike_farther"][score],
            }
            texts = {
                name: "–" if math.isnan(value) else f"{100 * value:.1f}"
                for name, value in found.items()
            }
            rows.append(named | {"score": score} | texts)
    # A network whose score was taken in two ways has two records, and every score in each
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


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


def slopes_figure(found: pd.DataFrame) -> Figure:
    """AUROC on whole images, and with the same pixels hidden in both images of each pair.

    A panel per category and a line per detector of `hidden_defects` that ranks the whole images at
    all, to at least 65 %. A level line says that the detector does not need the defects.
    """
    found = found[found["whole"].ge(65) & found["alike"].notna()].sort_values("alike")
    categories = sorted(found["category"].unique())
    columns = min(max(len(categories), 1), 2)
    rows = max(math.ceil(len(categories) / columns), 1)
    figure, grid = new_figure(rows, columns, (4.4 * columns, 2.9 * rows), sharey=True)
    for axes, category in itertools.zip_longest(grid.flat, categories):
        if category is None:
            axes.axis("off")
            continue
        part = found[found["category"] == category]
        ours = part["detector"].str.startswith("N2N")
        for row, own in zip(part.itertuples(), ours, strict=True):
            axes.plot(
                (0, 1), (row.whole, row.alike), "o-", color=ANOMALOUS if own else PAPER,
                ms=4, lw=1.6 if own else 1, zorder=3 if own else 2,
            )  # fmt: skip
        axes.axhline(50, color="black", lw=0.8, ls="--")
        axes.set(title=category, xlim=(-0.15, 1.15), ylim=(15, 103))
        axes.set_xticks((0, 1), ("whole images", "defects hidden\nin both"))
        axes.grid(axis="x", visible=False)
        names = part["detector"].str.replace(r" \(.*\)", "", regex=True).tolist()
        colours = [ANOMALOUS if own else PAPER for own in ours]
        name_in_margin(axes, [1.0] * len(part), part["alike"].tolist(), names, colours)
    for axes_row in grid:
        axes_row[0].set_ylabel("AUROC (%)")
    return figure


def hidden_figure(found: pd.DataFrame) -> Figure:
    """For each detector its AUROC on whole images, and with the defects hidden in either way."""
    figure, parts = _detectors_figure(found, "whole")
    for axes, part, at in parts:
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
    if parts:
        handles = parts[0][0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper right", ncols=3)
    return figure


def kinds_figure(found: pd.DataFrame) -> Figure:
    """What `kinds` found: for each detector a mark per kind of defect."""
    figure, parts = _detectors_figure(found, "auroc")
    for axes, part, at in parts:
        kinds_there = part.groupby(["defect", "images"], sort=False).groups
        for (kind, images), (fill, marker, colour) in zip(kinds_there, itertools.cycle(MARKS)):
            chosen = part["defect"] == kind
            axes.plot(
                part["auroc"][chosen], at[chosen], marker, color=colour, fillstyle=fill, ms=6,
                alpha=0.8, label=f"{kind} ({images})",
            )  # fmt: skip
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=8)
    return figure


def _detectors_figure(
    found: pd.DataFrame, best: str
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame, pd.Series]]]:
    """Axes for each category with a row for each detector; and with them its rows, and where.

    From below: the others, then the runs of N2N, each with the largest value of ``best`` on top.
    """
    categories = list(dict.fromkeys(found["category"]))
    names = found.sort_values(best, ascending=False)["detector"]
    detectors = sorted(dict.fromkeys(names), key=lambda name: not name.startswith("N2N"))[::-1]
    size = (9, 1.2 + 0.3 * len(detectors))
    figure, grid = new_figure(1, max(len(categories), 1), size, sharey=True)
    figure.set_layout_engine("constrained", wspace=0.06)
    parts = []
    for axes, category in zip(grid[0], categories, strict=False):
        part = found[found["category"] == category]
        axes.axvline(50, color=PAPER, lw=0.8, ls=":")
        axes.set(xlabel="AUROC, %", xlim=(-5, 105), xticks=(0, 50, 100), title=category)
        axes.set_yticks(range(len(detectors)), detectors)
        parts.append((axes, part, part["detector"].map(detectors.index)))
    return figure, parts


def kinds_table(found: pd.DataFrame) -> pd.DataFrame:
    """What `kinds_figure` draws, as text; the number of images behind each kind."""
    columns = found["category"] + ", " + found["defect"] + " (" + found["images"].astype(str) + ")"
    return _by_detector(found.assign(column=columns))


def _detector(settings: Settings) -> str:
    """A run of our method in words, whatever its budget."""
    changed = changes(settings, PRESETS["replication"])
    kept = {name: value for name, value in changed.items() if name not in BUDGET}
    if not fills(settings, make_settings("replication", **kept)):
        kept = changed  # another schedule, and not only a smaller budget
    names = (name for name, ingredients in INGREDIENTS.items() if ingredients == kept)
    return "N2N, " + (next(names, variant_label(kept)) if kept else "as in the tables")
