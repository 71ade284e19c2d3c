"""What the noise and the reconstruction of normal surface do to the detection.

All from run records; the small study's runs are those of `n2n.analysis.sensitivity`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from n2n.analysis.figures import ANOMALOUS, NORMAL, OURS, PAPER, name_in_margin, new_figure
from n2n.analysis.selection import (
    category_names,
    means_over_seeds,
    own_records,
    varied_runs,
)
from n2n.analysis.sensitivity import BASE, in_study, run_label, variant_label
from n2n.records import Record
from n2n.settings import DETECTION, OF_MNET, Settings, changes

# By `mechanism_table`, and how each is called there
VARIED: dict[str, tuple[str, ...]] = {
    "λ": ("noise",),
    "grain of the noise": ("noise_grain", "noise_octaves"),
    "pixels per side": ("image_size",),
}

SHOWN = {  # the kinds of synthetic defects, as the pages call them
    "transplant": "patch", "stain": "stain", "scratch": "scratch",
}  # fmt: skip
_AT_TEST = (*SHOWN.values(), "ratio", "images", "pixels", "AP", "AUPRO")  # of `at_test_table`

# What `quality_figure` names, if nothing else is changed
NAMED = (
    {"noise"}, {"noise_grain"}, {"attention"}, {"scaled_inputs"}, {"global_residual"},
    {"augmentation"}, {"c1", "c2"},
)  # fmt: skip
GROUPS = {  # of the trainings there, with marker and colour
    "the base": ("*", "black"), "other training or width": ("o", NORMAL),
    "other noise": ("s", OURS), "another network": ("X", ANOMALOUS), "another loss": ("^", PAPER),
}  # fmt: skip

COEFFICIENTS = (0.1, 0.2, 0.3, 0.4, 0.6)
SCATTER = 0.1  # of normal means about what is expected, on [-1, 1]


def shrinkage(side: ArrayLike, noise: float) -> np.ndarray:
    """The share of a deviation from the expected that the best linear guess keeps.

    An area of so many pixels a ``side``, whose mean scatters by `SCATTER`, is seen under noise of
    deviation 0.5 on each pixel, blended in by Eq. (1) with the coefficient ``noise``. The guess of
    the least squared error keeps ``s^2 / (s^2 + n^2 / side^2)``, where n is the deviation of the
    noise on the undimmed image (Wiener's filter; not in the paper).
    """
    deviation = 0.5 * noise / (1 - noise) / np.asarray(side, float)
    return SCATTER**2 / (SCATTER**2 + deviation**2)


def shrinkage_figure() -> Figure:
    """`shrinkage` over the side of the area, for several coefficients."""
    sides = np.geomspace(1, 30, 100)
    figure, ((axes,),) = new_figure(1, 1, (6.5, 3.2))
    colours = sns.color_palette("viridis", len(COEFFICIENTS))
    for noise, colour in zip(COEFFICIENTS, colours, strict=True):
        share = 100 * shrinkage(sides, noise)
        axes.plot(sides, share, color=colour, lw=2.5 if noise == BASE.noise else 1.5)
        # Each name at its own height of the curve, so that none hides another
        at = int(np.abs(share - 50).argmin())
        axes.annotate(
            f"λ = {noise:g}", (sides[at], share[at]), (6, -4), textcoords="offset points",
            color=colour, fontsize=9,
        )  # fmt: skip
    axes.set(
        xscale="log", ylim=(0, 102), xlabel="side of the area, pixels", ylabel="comes back, %",
        xticks=(1, 3, 10, 30), xticklabels=("1", "3", "10", "30"),
    )  # fmt: skip
    axes.minorticks_off()
    return figure


def mechanism_table(results: Path, base: Settings = BASE, varied: str = "λ") -> pd.DataFrame:
    """Mean absolute reconstruction error inside and outside the masks, for each lambda.

    Or for each value of something else in `VARIED`. In thousandths of the range from black to
    white, their ratio, and what the maps make of it: how often their largest value lies in the
    defect, the image-level AUROC of that value, and AUPRO, in percent. Means over the seeds of all
    runs that differ from ``base`` in that alone; not every value has the same seeds.
    """
    rows = []
    for name, record in varied_runs(results, base, *VARIED[varied]):
        content = record.content
        error = content["reconstruction"]["absolute"]
        rows.append(
            {
                "category": name,
                varied: _value(record.settings, varied),
                "seed": record.key.seed,
                "in the defects": 1000 * error["defects"],
                "beside them": 1000 * error["beside"],
                "in normal images": 1000 * error["normal"],
                "defects : beside": error["defects"] / error["beside"],
                "peak in the defect": 100 * content["peak_in_defect"]["maps"],
                "largest value": 100 * content["image_scores"]["max"]["auroc"],
                "AUPRO": 100 * record.metric("pixel", "aupro"),
            }
        )
    columns = (
        "category", varied, "seed", "in the defects", "beside them", "in normal images",
        "defects : beside", "peak in the defect", "largest value", "AUPRO",
    )  # fmt: skip
    return means_over_seeds(pd.DataFrame(rows, columns=list(columns)))


def passed_table(results: Path, base: Settings = BASE) -> pd.DataFrame:
    """How much of each kind of synthetic defect passes the network, in percent.

    See `n2n.measurement.passed_defects`. Means over the seeds of the runs that hold it and differ
    from ``base`` in the noise, the learning rate, the attention or the smaller inputs alone; first
    those that differ in lambda.
    """
    of_network = ("scaled_inputs", "input_filter", "attention")
    varied = (*VARIED["grain of the noise"], "learning_rate", *of_network)
    found = [
        (name, changes(record.settings, base), record)
        for name, record in varied_runs(results, base, "noise", *varied)
    ]
    found.sort(key=lambda run: (run[0], [other for other in varied if other in run[1]]))
    rows = []
    for name, changed, record in found:
        if "passed_defects" in record.content:
            run = run_label(changed, base)
            rows.append({"category": name, "run": run, "seed": record.key.seed} | _passed(record))
    columns = ["category", "run", "seed", *SHOWN.values()]
    return means_over_seeds(pd.DataFrame(rows, columns=columns))


def _passed(record: Record) -> dict[str, float]:
    """How much of each kind of synthetic defect passes, in percent; NaN where it was not asked."""
    passed = record.content.get("passed_defects", {})
    return {name: 100 * passed.get(kind, np.nan) for kind, name in SHOWN.items()}


def passed_figure(found: pd.DataFrame) -> Figure:
    """The shares of `passed_table`: a panel per category, a row per run, a point per kind.

    The runs that differ in λ alone come first, in its order.
    """
    categories = list(dict.fromkeys(found["category"]))
    named = dict.fromkeys(found["run"])
    noise = sorted(run for run in named if run.startswith("λ"))
    runs = [*noise, *(run for run in named if run not in noise)]
    size = (9, 1.3 + 0.35 * len(runs))
    figure, grid = new_figure(1, max(len(categories), 1), size, sharey=True)
    for axes, category in zip(grid[0], categories, strict=False):
        part = found[found["category"] == category].set_index("run")
        rows = [runs.index(run) for run in part.index]
        for kind, colour, marker in zip(
            SHOWN.values(), (ANOMALOUS, NORMAL, PAPER), "osD", strict=True
        ):
            axes.plot(part[kind], rows, marker, color=colour, ms=7, label=kind)
        axes.set(xlim=(-3, 103), title=category, yticks=range(len(runs)))
        axes.set_yticklabels(runs)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.grid(axis="y", alpha=0.4)
    figure.supxlabel(
        "share of a drawn defect that comes back, %: 0 nothing of it, 100 a copy", fontsize=9
    )
    if categories:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def at_test_table(results: Path, base: Settings = BASE) -> pd.DataFrame:
    """What changes where test images get the mean of the noise in place of the noise, as text.

    *With the noise → with its mean*, of networks that were tested in both ways and differ from
    ``base`` in the noise, the learning rate or the loss's constants alone: how much of each kind of
    synthetic defect passes, the *ratio* of the mean absolute errors in and beside the defects,
    image- and pixel-level AUROC, average precision (AP) and AUPRO, all but the ratio in percent.
    Means over the seeds.
    """
    varied = ("noise", *VARIED["grain of the noise"], "learning_rate", "c1", "c2", "mean_at_test")
    found = varied_runs(results, base, *varied)
    noisy = {
        (name, record.key.seed, record.settings): record
        for name, record in found
        if not record.settings.mean_at_test
    }
    rows = []
    for name, record in found:
        settings = dataclasses.replace(record.settings, mean_at_test=False)
        other = noisy.get((name, record.key.seed, settings))
        if not record.settings.mean_at_test or other is None or not _share_a_network(record, other):
            continue
        run = run_label(changes(settings, base), base)
        row = {"category": name, "run": run, "seed": record.key.seed}
        before = {f"before, {key}": value for key, value in _at_test(other).items()}
        rows.append(row | before | _at_test(record))
    columns = [*_AT_TEST, *(f"before, {name}" for name in _AT_TEST)]
    means = means_over_seeds(
        pd.DataFrame(rows, columns=["category", "run", "seed", *columns]), digits=None
    )
    for name in _AT_TEST:
        digits = 1 if name == "ratio" else 0
        means[name] = [
            "" if np.isnan(before + after) else f"{before:.{digits}f}→{after:.{digits}f}"
            for before, after in zip(means.pop(f"before, {name}"), means[name], strict=True)
        ]
    return means


def _at_test(record: Record) -> dict[str, float]:
    error = record.content["reconstruction"]["absolute"]
    values = (
        *_passed(record).values(),
        error["defects"] / error["beside"],
        100 * record.metric("image"),
        *(100 * record.metric("pixel", name) for name in ("auroc", "ap", "aupro")),
    )
    return dict(zip(_AT_TEST, values, strict=True))


def _share_a_network(one: Record, other: Record) -> bool:
    """Whether the same training made both, and not two of the same settings."""

    def origin(record: Record) -> str:
        by: dict[str, str] | None = record.content["training"].get("by")
        return by["variant"] if by else record.key.variant

    return origin(one) == origin(other)


def _value(settings: Settings, varied: str) -> object:
    """What the settings have for one of `VARIED`; of several octaves, every grain."""
    if settings.noise_octaves > 1 and varied == "grain of the noise":
        return " + ".join(str(grain) for grain in settings.noise_grains)
    return getattr(settings, VARIED[varied][0])


def quality_figure(results: Path) -> Figure:
    """Detection over how well normal images are reconstructed: a point per training, small study.

    A column of panels per category, with the images above, where some changes are named.
    Runs that differ from another in the use of the network alone are left out, and so are images
    resized otherwise, whose errors are of other images, and the literal learning rate, whose error
    is off the scale.
    """
    records, rows = own_records(results), []
    names = category_names(records)
    for record in records:
        settings = record.settings
        changed = changes(settings, BASE)
        apart = changed.keys() & {*DETECTION, "resize"} or settings.learning_rate < 1e-5
        if apart or not in_study(settings):
            continue
        rows.append(
            {
                "category": names[record.key.part],
                "group": _group(changed),
                "name": variant_label(changed) if changed.keys() in NAMED else "",
                "error": 1000 * record.content["reconstruction"]["absolute"]["normal"],
                "image": 100 * record.content["image_scores"][BASE.image_score]["auroc"],
                "pixel": 100 * record.metric("pixel"),
            }
        )
    frame = pd.DataFrame(rows, columns=["category", "group", "name", "error", "image", "pixel"])
    several = frame.groupby("category")["image"].transform("size") > 1
    categories = list(dict.fromkeys(frame[several]["category"]))
    columns = max(len(categories), 1)
    size = (5 * columns, 5.4)
    figure, grid = new_figure(2, columns, size, sharex="col", height_ratios=(1.7, 1))
    for axes, category in zip(grid.T, categories, strict=False):
        part = frame[frame["category"] == category]
        for level, panel in zip(("image", "pixel"), axes, strict=True):
            for group, (marker, colour) in GROUPS.items():
                chosen = part[part["group"] == group]
                large = 9 if marker == "*" else 5
                panel.plot(
                    chosen["error"], chosen[level], marker, color=colour, ms=large, label=group
                )
            panel.axhline(50, color=PAPER, lw=0.8, ls=":")
            panel.set(xscale="log", title=f"{category}, {level}s")
            panel.set_xticks((5, 10, 20), ("5", "10", "20"))
            panel.minorticks_off()
        axes[0].set_ylim(0, 102)
        axes[1].set_xlim(0.9 * part["error"].min(), 1.1 * part["error"].max())
        named = part[part["name"] != ""].drop_duplicates("name").sort_values("image")
        colours = [GROUPS[group][1] for group in named["group"]]
        name_in_margin(
            axes[0], named["error"].tolist(), named["image"].tolist(), named["name"].tolist(),
            colours,
        )  # fmt: skip
    grid[0, 0].set_ylabel(f"AUROC, % ({BASE.image_score})")
    grid[1, 0].set_ylabel("AUROC, %")
    figure.supxlabel("mean error of normal test images, 1/1000", fontsize=10)
    if categories:
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8
        )
    return figure


def _group(changed: dict[str, object]) -> str:
    """What kind of change a training of the small study is."""
    if any("noise" in name for name in changed):
        return "other noise"
    if changed.keys() & {"network", *OF_MNET}:
        return "another network"
    if changed.keys() & {"alpha", "sigmas", "c1", "c2", "border", "loss_range"}:
        return "another loss"
    return "other training or width" if changed else "the base"
