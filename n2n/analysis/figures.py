"""The figures of the notebooks, drawn from run records.

They are closed, so that a notebook shows them as the value of a cell and not a second time.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from n2n.baselines.settings import FAMILIES
from n2n.files import write_whole
from n2n.metrics import image_metrics, roc_curve
from n2n.paper import label
from n2n.records import Record

NORMAL, ANOMALOUS, PAPER, OURS = "#0072b2", "#d55e00", "#777777", "#009e73"  # Okabe and Ito
VERDICT_COLOURS = {
    "reproduced": OURS, "not reproduced": ANOMALOUS, "inconclusive": NORMAL, "under-trained": PAPER
}  # fmt: skip


def style() -> None:
    """One look for all figures: sharp on a dense screen, readable on a phone."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 110, "savefig.dpi": 160, "figure.autolayout": False})


def new_figure(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, (rows, columns); see `plt.subplots`.

    It is closed, so that a notebook shows it as the cell's value and not a second time.
    """
    figure, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained", **options
    )
    plt.close(figure)
    return figure, grid


def write(drawn: dict[str, Figure], out: Path) -> list[Path]:
    """Write each figure under its name as SVG; returns the files."""
    for name, figure in drawn.items():
        write_whole(out / f"{name}.svg", functools.partial(figure.savefig, format="svg"))
    return [out / f"{name}.svg" for name in drawn]


def loss_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Training and validation loss of each epoch, with the learning rate beside them."""
    figure, ((left, right),) = new_figure(1, 2, (9, 3))
    left.plot(history["epoch"], history["train_loss"], color=NORMAL, label="training")
    left.plot(history["epoch"], history["validation_loss"], color=ANOMALOUS, label="validation")
    left.axvline(best_epoch, color=PAPER, linestyle=":", label=f"kept: epoch {best_epoch}")
    left.set(xlabel="epoch", ylabel="loss, Eq. (9)", yscale="log", title="Loss")
    left.legend()
    right.plot(history["epoch"], history["learning_rate"], color=PAPER)
    right.set(xlabel="epoch", ylabel="learning rate", title="Learning rate")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def score_histogram(scores: pd.DataFrame, column: str, threshold: float | None = None) -> Figure:
    """Image scores of normal and anomalous test images; one mark per image below."""
    figure, ((axes,),) = new_figure(1, 1, (7, 3.2))
    kind = np.where(scores["anomalous"] == 1, "anomalous", "normal")
    palette = {"normal": NORMAL, "anomalous": ANOMALOUS}
    sns.histplot(
        x=scores[column], hue=kind, hue_order=palette, palette=palette, bins=30, ax=axes, alpha=0.5
    )
    sns.rugplot(x=scores[column], hue=kind, palette=palette, height=0.04, ax=axes, legend=False)
    of = "the method's own" if column == "own" else f"{column} of the anomaly map"
    axes.set(xlabel=f"image score ({of})", title="Image scores")
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axes.set_title("Image scores; dashed: largest score of held-out normal training images")
    return figure


def roc_curves(scores: pd.DataFrame, column: str, pixel_roc: pd.DataFrame, title: str) -> Figure:
    """ROC curves of the images and of the pixels."""
    figure, ((axes,),) = new_figure(1, 1, (4.2, 4))
    fpr, tpr = roc_curve(scores[column].to_numpy(), scores["anomalous"].to_numpy(dtype=bool))
    axes.plot(fpr, tpr, color=ANOMALOUS, label="images")
    axes.plot(pixel_roc["fpr"], pixel_roc["tpr"], color=NORMAL, label="pixels")
    axes.plot([0, 1], [0, 1], color=PAPER, linestyle=":", linewidth=1)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title=title, aspect="equal")
    axes.legend(loc="lower right")
    return figure


def worked_example() -> Figure:
    """Six scores, the ROC curve and precision over recall; the example of the page on metrics."""
    good, bad = (0.2, 0.3, 0.5), (0.3, 0.4, 0.6)
    scores, labels = np.array([*good, *bad]), np.repeat([False, True], (len(good), len(bad)))
    figure, ((row, roc, precision),) = new_figure(1, 3, (10, 3.1), width_ratios=(1.3, 1, 1))
    row.plot(good, np.zeros(len(good)), "o", color=NORMAL, ms=10)
    row.plot(bad, np.ones(len(bad)), "o", color=ANOMALOUS, ms=10)
    row.set_yticks((0, 1), ("good", "bad"))
    row.set(xlabel="image score", xlim=(0.1, 0.7), ylim=(-0.7, 1.7), title="six images")
    found = image_metrics(scores, labels)
    roc.plot(*roc_curve(scores, labels), color=ANOMALOUS)
    roc.fill_between(*roc_curve(scores, labels), color=ANOMALOUS, alpha=0.15)
    roc.plot([0, 1], [0, 1], color=PAPER, linestyle=":", linewidth=1)
    roc.set(xlabel="false-positive rate", ylabel="true-positive rate")
    roc.set_title(f"AUROC {100 * found['auroc']:.0f} %")
    flagged = [scores >= threshold for threshold in np.unique(scores)[::-1]]
    recall = [0.0] + [float(labels[above].sum() / labels.sum()) for above in flagged]
    right = [float(labels[above].mean()) for above in flagged]
    precision.plot(recall[1:], right, "o", color=NORMAL)
    precision.stairs(right, recall, fill=True, color=NORMAL, alpha=0.15)
    precision.set(xlabel="recall", ylabel="precision", xlim=(0, 1.05), ylim=(0, 1.05))
    precision.set_title(f"average precision {100 * found['ap']:.0f} %")
    return figure


def paper_against_ours(cells: pd.DataFrame, title: str) -> Figure:
    """Each measured cell: the printed value, ours seed by seed, and the untrained network's.

    A panel for each level and each category that was run with several networks, these side by side;
    categories with one network share a panel. Ours is coloured by its verdict, pale its interval.

    Args:
        cells: rows of `n2n.analysis.tables.compare`; those that were not run are left out.
        title: of the figure.
    """
    shown = cells[cells["ours"].notna() & (cells["category"] != "average")]
    if shown.empty:
        return nothing()
    networks = shown.groupby("category")["column"].nunique()
    several = shown["category"].map(networks).gt(1)
    shown = shown.assign(
        panel=shown["category"].map(label).where(several, ""),
        tick=shown["column"].map(label).where(several, shown["category"].map(label)),
    )
    panels, levels = sorted(shown["panel"].unique(), reverse=True), list(shown["level"].unique())
    ticks = [shown[shown["panel"] == panel]["tick"].nunique() for panel in panels]
    figure, grid = new_figure(
        len(levels), len(panels), (max(5.5, 1.8 + 0.62 * sum(ticks)), 2.3 * len(levels) + 1),
        width_ratios=[count + 0.5 for count in ticks],
    )  # fmt: skip
    for axes_row, level in zip(grid, levels, strict=True):
        for axes, panel in zip(axes_row, panels, strict=True):
            rows = shown[(shown["panel"] == panel) & (shown["level"] == level)]
            if rows.empty:
                axes.axis("off")
            else:
                axes.set_title(f"{panel}, {level}s" if panel else f"{level}s")
                _networks(axes, rows, linked=bool(panel))
        axes_row[0].set_ylabel("AUROC (%)")
    found = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    named = [line for name, line in found.items() if not name.startswith("_")]
    figure.legend(handles=named, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(title, fontsize="medium")
    return figure


def nothing(why: str = "No cell of this table has been run yet.") -> Figure:
    """In the place of a figure that has nothing to show."""
    figure, ((axes,),) = new_figure(1, 1, (7, 0.8))
    axes.text(0.5, 0.5, why, ha="center", va="center")
    axes.axis("off")
    return figure


def _networks(axes: Axes, rows: pd.DataFrame, linked: bool) -> None:
    """One panel of `paper_against_ours`; ``linked`` joins what is printed, at least of each λ."""
    for x, row in enumerate(rows.itertuples()):
        verdict = str(row.verdict).split(" (")[0]
        colour = VERDICT_COLOURS[verdict]
        axes.vlines(x, row.low, row.high, color=colour, linewidth=9, alpha=0.18)
        values = [100 * run.metric(row.level) for run in row.runs]
        beside = x + 0.09 * (np.arange(len(values)) - (len(values) - 1) / 2)
        axes.plot(beside, values, "o", ms=5, color=colour, label=f"ours, each seed: {verdict}")
        axes.hlines(row.untrained, x - 0.3, x + 0.3, color=PAPER, linestyle=":")
    axes.plot([], [], ":", color=PAPER, label="untrained network")
    places, printed = np.arange(len(rows)), rows["paper"].to_numpy()
    axes.plot(places, printed, "D", color="black", markerfacecolor="none", label="paper", zorder=3)
    if linked:
        joined = rows["column"].str.startswith("lambda").to_numpy()
        joined = joined if joined.any() else ~joined
        axes.plot(places[joined], printed[joined], color="black", lw=0.8)
    ticks = [tick if "=" in tick else tick.replace(" ", "\n", 1) for tick in rows["tick"]]
    axes.set_xticks(places, ticks, fontsize=8)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", visible=False)


def thresholds(runs: list[Record]) -> Figure:
    """Image scores over the threshold of `n2n detect`: a line per run, a dot per test image.

    Above it the good images, below it the bad ones, and how many of these lie to its right.
    """
    if not runs:
        return nothing()
    figure, ((axes,),) = new_figure(1, 1, (8, 0.5 * len(runs) + 1))
    for y, run in enumerate(runs):
        scores = run.scores()
        ratio = scores["chosen"] / run.content["threshold"]["image"]
        bad = scores["anomalous"].eq(1)
        for part, colour, shift in ((ratio[~bad], NORMAL, -0.17), (ratio[bad], ANOMALOUS, 0.17)):
            axes.plot(part, np.full(len(part), y + shift), "|", color=colour, ms=9, alpha=0.7)
        found = f"{int((ratio[bad] > 1).sum())} of {int(bad.sum())}"
        axes.text(1.01, y + 0.17, found, transform=axes.get_yaxis_transform(), va="center",
                  color=ANOMALOUS)  # fmt: skip
    axes.axvline(1, color="black", lw=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    names = [f"{label(run.key.category)}, seed {run.key.seed}" for run in runs]
    axes.set_yticks(range(len(runs)), names)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("score of an image, in units of the threshold")
    for colour, name in ((NORMAL, "good"), (ANOMALOUS, "bad")):
        axes.plot([], [], "|", ms=9, color=colour, label=name)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8)
    return figure


def accuracy_against_cost(costs: pd.DataFrame) -> Figure:
    """A panel per category: image AUROC over seconds of training; `baseline_tables.costs`.

    A dot is open where the training had a part of the method's own budget.
    """
    categories = list(dict.fromkeys(costs["category"]))
    rows = max(math.ceil(len(categories) / 2), 1)
    figure, grid = new_figure(rows, 2, (10, 3.9 * rows), sharey=True, sharex=True)
    colours = (OURS, NORMAL, "#56b4e9", "#cc79a7", ANOMALOUS, PAPER)
    families = dict(zip(FAMILIES, colours, strict=True))
    low = costs["auroc"].min() - 4 if len(costs) else 0
    for axes, category in zip(grid.flat, categories, strict=False):
        part = costs[costs["category"] == category].sort_values("auroc")
        for row in part.itertuples():
            colour = families[row.family]
            whole = row.method == row.detector  # else the name says how short the training was
            face = {"mfc": colour, "mec": "white"} if whole else {"mfc": "white", "mec": colour}
            axes.plot(row.seconds, row.auroc, "o", ms=7, **face)
        axes.set(xscale="log", title=category, ylim=(low, 103))
        name_in_margin(
            axes, part["seconds"].tolist(), part["auroc"].tolist(),
            [_named(row) for row in part.itertuples()], [families[name] for name in part["family"]],
        )  # fmt: skip
        axes.grid(alpha=0.5)
    for axes in list(grid.flat)[len(categories) :]:
        axes.axis("off")
    figure.supxlabel("training, s", fontsize=10)
    figure.supylabel("image AUROC, %", fontsize=10)
    if len(costs):
        grid[0, 0].set_xlim(costs["seconds"].min() / 2, costs["seconds"].max() * 2)
        handles = [
            Line2D([], [], marker="o", ls="", color=families[name], label=name)
            for name in FAMILIES
            if (costs["family"] == name).any()
        ]
        cut = "open: not the whole budget"
        handles.append(Line2D([], [], marker="o", ls="", mfc="white", mec="black", label=cut))
        figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9)
    return figure


def name_in_margin(
    axes: Axes, x: list[float], y: list[float], names: list[str], colours: list[str]
) -> None:
    """Name points, of ascending ``y``, to the right of the axes, with a thin line to each."""
    low, high = axes.get_ylim()
    heights = _apart(y, (high - low) / 18, high - (high - low) / 50)
    for right, up, name, colour, height in zip(x, y, names, colours, heights, strict=True):
        axes.annotate(
            name, (right, up), (1.03, height), textcoords=axes.get_yaxis_transform(), va="center",
            fontsize=8, color=colour,
            arrowprops={
                "arrowstyle": "-", "color": colour, "lw": 0.5, "relpos": (0, 0.5), "shrinkB": 4
            },
        )  # fmt: skip


def _named(row: Any) -> str:
    """A method; its backbone is told by the colour, other things that stand in beside the name."""
    features = row.family.startswith("features")
    return str(row.detector.partition(" (")[0] if features else row.detector)


def _apart(values: list[float], gap: float, top: float) -> list[float]:
    """Heights for labels of ascending values, at least ``gap`` apart and at most ``top``."""
    heights: list[float] = []
    for value in values:
        heights.append(max([value, *(height + gap for height in heights[-1:])]))
    limit = top
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], limit)
        limit = heights[index] - gap
    return heights
