"""What each choice does to the numbers: run records that differ from a base in one choice.

The base and its variants are those of ``studies/sensitivity.yaml``. All compare the same test
images, so a difference between two runs of one seed is free of the images' luck, but not of the
seed's; the base's own spread over its seeds says how much that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from n2n.figures import ANOMALOUS, NORMAL, OURS, PAPER
from n2n.records import Record, find_records
from n2n.settings import DETECTION, PRESETS, Settings, make_settings, settings_from_dict

BASE = make_settings("replication", image_size=128, width=16, epochs=40, t_max=40)
COLOURS = {"metal_plate": NORMAL, "bracket_white": ANOMALOUS, "fryum": OURS}
WORDS: dict[str, dict[Any, str]] = {
    "attention": {False: "without residual attention"},
    "loss_range": {"normalised": "loss on [-1, 1]"},
    "noise_at_test": {False: "no noise on test images"},
    "anomaly_map": {"l1": "map: absolute error alone"},
    "network": {"unet": "plain U-Net"},
    "global_residual": {True: "global residual"},
    "border": {"zero": "zeros beyond the border"},
    "checkpoint": {"last": "last epoch instead of the best"},
    "noise": {0.0: "λ = 0 (no noise)", 0.2: "λ = 0.2", 0.4: "λ = 0.4"},
}


def changes(settings: Settings, base: Settings = BASE) -> dict[str, Any]:
    """The settings that differ from the base's, by name."""
    there = base.as_dict()
    return {
        name: value
        for name, value in settings.as_dict().items()
        if name != "preset" and value != there[name]
    }


def label(changed: dict[str, Any]) -> str:
    """A short name of a variant for a reader: 'λ = 0.2', 'learning rate 0.0001'."""
    if not changed:
        return "the base"
    if changed == changes(_small_paper()):
        return "every value as printed"
    parts = []
    for name, value in changed.items():
        if name == "t_max" and "epochs" in changed:
            continue
        if isinstance(value, bool | str | float) and value in WORDS.get(name, {}):
            parts.append(WORDS[name][value])
        elif isinstance(value, tuple):
            parts.append(f"{name} {', '.join(f'{item:g}' for item in value)}")
        else:
            number = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(f"{name.replace('_', ' ')} {number}")
    return "; ".join(parts)


def study_runs(results: Path) -> pd.DataFrame:
    """A row per run of the study and level.

    Columns: category, variant (its label), changed (names of the settings, sorted), seed, level,
    auroc, untrained (percent), stage ('training' or 'detection'), record.
    """
    rows = []
    for record in _own(results):
        settings = settings_from_dict(record.content["settings"])
        if not _in_study(settings):
            continue
        changed = changes(settings)
        for level in ("image", "pixel"):
            rows.append(
                {
                    "category": record.key.category,
                    "variant": label(changed),
                    "changed": tuple(sorted(changed)),
                    "seed": record.key.seed,
                    "level": level,
                    "auroc": 100 * record.metric(level),
                    "untrained": 100 * record.content["untrained"][level]["auroc"],
                    "stage": "detection" if changed.keys() <= DETECTION else "training",
                    "record": record.folder.as_posix(),
                }
            )
    columns = [
        "category", "variant", "changed", "seed", "level", "auroc", "untrained", "stage", "record",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def effects(results: Path) -> pd.DataFrame:
    """The effect of each variant on AUROC, by category and level, in points.

    A difference is taken between runs of the same seed, then averaged. ``low`` and ``high`` span
    the differences of the seeds; with one seed both equal the effect. ``noise`` is the largest
    difference between two seeds of the base: an effect inside it may be the seed's.

    Returns:
        Columns: variant, changed, category, level, effect, low, high, seeds, base, noise, stage.
    """
    runs = study_runs(results)
    base = runs[runs["variant"] == "the base"]
    rows = []
    groups = runs[runs["variant"] != "the base"].groupby(
        ["variant", "category", "level"], sort=False
    )
    for (variant, category, level), group in groups:
        same = base[(base["category"] == category) & (base["level"] == level)].set_index("seed")
        paired = group[group["seed"].isin(same.index)].set_index("seed")
        if paired.empty:
            continue
        difference = paired["auroc"] - same["auroc"].loc[paired.index]
        rows.append(
            {
                "variant": variant,
                "changed": group["changed"].iloc[0],
                "category": category,
                "level": level,
                "effect": difference.mean(),
                "low": difference.min(),
                "high": difference.max(),
                "seeds": len(difference),
                "base": same["auroc"].mean(),
                "noise": same["auroc"].max() - same["auroc"].min(),
                "stage": group["stage"].iloc[0],
            }
        )
    columns = [
        "variant", "changed", "category", "level", "effect", "low", "high", "seeds", "base",
        "noise", "stage",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def coverage(found: pd.DataFrame) -> str:
    """How many variants were run, in Markdown."""
    if found.empty:
        return "*No run of this study is there yet.*"
    seeds = found.groupby("variant")["seeds"].max()
    categories = " and ".join(dict.fromkeys(found["category"].str.replace("_", " ")))
    return (
        f"{len(seeds)} variants were run on {categories}, {int((seeds > 1).sum())} of them with "
        "several seeds."
    )


def effects_figure(found: pd.DataFrame) -> Figure:
    """A line per variant: how far it moves AUROC from the base, at both levels.

    Grey: the spread of the base's own seeds, where an effect cannot be told from chance.
    """
    order = found.groupby("variant")["effect"].apply(lambda values: values.abs().max())
    order = order.sort_values()
    at = {variant: row for row, variant in enumerate(order.index)}
    figure, columns = plt.subplots(
        1, 2, figsize=(10, 1.2 + 0.3 * len(at)), sharey=True, layout="constrained"
    )
    for axes, level in zip(columns, ("image", "pixel"), strict=True):
        part = found[found["level"] == level]
        spread = part.groupby("category")["noise"].max()
        for number, (category, width) in enumerate(spread.items()):
            axes.axvspan(-width, width, color=PAPER, alpha=0.12, linewidth=0)
            rows = part[part["category"] == category]
            shift = 0.18 * (number - (len(spread) - 1) / 2)
            y = rows["variant"].map(at) + shift
            axes.hlines(y, rows["low"], rows["high"], color=COLOURS.get(category, PAPER), lw=2)
            axes.plot(
                rows["effect"], y, "o", ms=5, color=COLOURS.get(category, PAPER),
                label=str(category).replace("_", " "),
            )  # fmt: skip
        axes.axvline(0, color="black", lw=0.8)
        axes.set(xlabel=f"change of {level} AUROC, points", yticks=list(at.values()))
        axes.set_yticklabels(list(at))
        axes.set_ylim(-0.7, len(at) - 0.3)
        axes.grid(axis="y", alpha=0.4)
    if at:
        figure.legend(*columns[1].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    plt.close(figure)  # a notebook shows the value of its cell, and not a second copy
    return figure


def effects_table(found: pd.DataFrame) -> pd.DataFrame:
    """The effects as text, a row per variant, a column per category and level."""
    text = [
        f"{row.effect:+.1f}" + (f" ({row.low:+.1f} to {row.high:+.1f})" if row.seeds > 1 else "")
        for row in found.itertuples()
    ]
    column = found["category"].str.replace("_", " ") + ", " + found["level"]
    wide = found.assign(text=text, column=column).pivot(
        index="variant", columns="column", values="text"
    )
    largest = found.groupby("variant")["effect"].apply(lambda values: values.abs().max())
    wide = wide.loc[largest.sort_values(ascending=False).index].fillna("")
    wide.columns.name = None
    return wide.reset_index()


def base_table(results: Path) -> pd.DataFrame:
    """The base's own AUROC (percent): mean over the seeds, spread, and the untrained network's."""
    runs = study_runs(results)
    base = runs[runs["variant"] == "the base"]
    rows = [
        {
            "category": str(category).replace("_", " "),
            "level": level,
            "AUROC, %": f"{group['auroc'].mean():.1f}",
            "lowest to highest seed": f"{group['auroc'].min():.1f} to {group['auroc'].max():.1f}",
            "untrained, %": f"{group['untrained'].mean():.1f}",
            "seeds": len(group),
        }
        for (category, level), group in base.groupby(["category", "level"], sort=False)
    ]
    return pd.DataFrame(rows)


def traced(results: Path) -> list[tuple[Record, pd.DataFrame]]:
    """The runs whose detection was measured along the training, and those measurements."""
    return [
        (record, pd.read_csv(record.folder / "trace.csv"))
        for record in _own(results)
        if (record.folder / "trace.csv").exists()
    ]


def trace_figure(results: Path, category: str, image_score: str = BASE.image_score) -> Figure:
    """Detection and validation loss along the training, for each learning rate of the study."""
    figure, columns = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    rates = plt.get_cmap("viridis")
    chosen = [
        (record, trace)
        for record, trace in traced(results)
        if record.key.category == category
        and record.key.seed == 0
        and set(changes(settings_from_dict(record.content["settings"]))) <= {"learning_rate"}
    ]
    chosen.sort(key=lambda item: item[0].content["settings"]["learning_rate"])
    for number, (record, trace) in enumerate(chosen):
        history = pd.read_csv(record.folder / "history.csv")
        colour = rates(0.15 + 0.7 * number / max(len(chosen) - 1, 1))
        name = f"{record.content['settings']['learning_rate']:g}"
        columns[0].plot(history["epoch"], history["validation_loss"], color=colour, label=name)
        for axes, column in (
            (columns[1], f"test_image_{image_score}"),
            (columns[2], "test_pixel"),
        ):
            untrained = record.content["untrained"]["pixel" if "pixel" in column else "image"]
            epochs = np.concatenate([[0], trace["epoch"]])
            values = np.concatenate([[untrained["auroc"]], trace[column]])
            axes.plot(epochs, 100 * values, "o-", ms=3, color=colour, label=name)
    columns[0].set(xlabel="epoch", ylabel="validation loss", yscale="log", title="Loss")
    if chosen:
        columns[0].legend(title="learning rate")
    columns[1].set(xlabel="epoch", ylabel="%", title=f"Image AUROC ({image_score})")
    columns[2].set(xlabel="epoch", ylabel="%", title="Pixel AUROC")
    figure.suptitle(category.replace("_", " "))
    plt.close(figure)
    return figure


def full_size_figure(results: Path) -> Figure:
    """Detection along the training of the tables' own runs, on synthetic and on real defects."""
    chosen = [
        (record, trace)
        for record, trace in traced(results)
        if changes(settings_from_dict(record.content["settings"]), PRESETS["replication"]).keys()
        <= {"epochs", "t_max"}
    ]
    figure, grid = plt.subplots(
        1, max(len(chosen), 1), figsize=(4.2 * max(len(chosen), 1), 3.4), sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, (record, trace) in zip(grid[0], chosen, strict=False):
        for part, style in (("test", "-"), ("development", ":")):
            for level, colour in (("image_top1%", ANOMALOUS), ("pixel", NORMAL)):
                name = f"{'images' if level != 'pixel' else 'pixels'}, " + (
                    "test" if part == "test" else "synthetic"
                )
                values = 100 * trace[f"{part}_{level}"]
                axes.plot(trace["epoch"], values, style, color=colour, label=name)
        category = record.key.category.replace("_", " ")
        axes.set(xlabel="epoch", title=f"{category}, seed {record.key.seed}")
    grid[0, 0].set_ylabel("AUROC, %")
    if chosen:
        grid[0, 0].legend(fontsize="small")
    plt.close(figure)
    return figure


def development_table(results: Path) -> pd.DataFrame:
    """For each category of the base: AUROC by image score, on synthetic and on real defects."""
    rows = []
    for record in _own(results):
        settings = settings_from_dict(record.content["settings"])
        if not _in_study(settings) or changes(settings) or "development" not in record.content:
            continue
        found = record.content["development"]["all"]
        for score, values in record.content["image_scores"].items():
            rows.append(
                {
                    "category": record.key.category.replace("_", " "),
                    "image score": score,
                    "synthetic defects": 100 * found[f"image_{score}"],
                    "test images": 100 * values["auroc"],
                }
            )
    frame = pd.DataFrame(
        rows, columns=["category", "image score", "synthetic defects", "test images"]
    )
    means = frame.groupby(["category", "image score"], sort=False).mean().round(1).reset_index()
    return means.astype({"synthetic defects": str, "test images": str})


def mechanism_table(results: Path) -> pd.DataFrame:
    """Mean absolute reconstruction error inside and outside the masks, for each lambda.

    In thousandths of the range from black to white; the last column is the ratio of defects to
    what lies beside them in the same images.
    """
    rows = []
    for record in _own(results):
        settings = settings_from_dict(record.content["settings"])
        known = "reconstruction" in record.content and _in_study(settings)
        if not known or not changes(settings).keys() <= {"noise"}:
            continue
        error = record.content["reconstruction"]["absolute"]
        rows.append(
            {
                "category": record.key.category.replace("_", " "),
                "λ": settings.noise,
                "seed": record.key.seed,
                **{name: 1000 * error[name] for name in ("defects", "beside", "normal")},
                "ratio": error["defects"] / error["beside"],
            }
        )
    columns = ["category", "λ", "seed", "defects", "beside", "normal", "ratio"]
    frame = pd.DataFrame(rows, columns=columns).drop(columns="seed")
    means = frame.groupby(["category", "λ"]).mean().round(2).reset_index()
    names = {
        "defects": "in the defects",
        "beside": "beside them",
        "normal": "in normal images",
        "ratio": "defects : beside",
    }
    return means.rename(columns=names)


def trivial_table(results: Path) -> pd.DataFrame:
    """Detectors that learn nothing beside the trained network, AUROC in percent, base settings."""
    rows = []
    for record in _own(results):
        settings = settings_from_dict(record.content["settings"])
        if not _in_study(settings) or changes(settings) or "trivial" not in record.content:
            continue
        content = record.content
        detectors = {
            "trained network": content["metrics"],
            "untrained network": content["untrained"],
            "distance to the mean image": content["trivial"]["mean_image"],
            "distance to the blurred image": content["trivial"]["blurred_image"],
        }
        for name, found in detectors.items():
            for level in ("image", "pixel"):
                rows.append(
                    {
                        "detector": name,
                        "column": f"{record.key.category.replace('_', ' ')}, {level}",
                        "auroc": 100 * found[level]["auroc"],
                    }
                )
    frame = pd.DataFrame(rows, columns=["detector", "column", "auroc"])
    wide = frame.pivot_table(index="detector", columns="column", values="auroc", sort=False)
    wide.columns.name = None
    return wide.round(1).reset_index()


def _own(results: Path) -> list[Record]:
    """The records of our method."""
    return [record for record in find_records(results) if record.key.method == "n2n"]


def _small_paper() -> Settings:
    small = {name: getattr(BASE, name) for name in ("image_size", "width", "epochs", "t_max")}
    return make_settings("paper", **small)


def _in_study(settings: Settings) -> bool:
    """Whether a run has the study's size, or differs from the base in the size alone."""
    size = {"image_size", "width", "epochs", "t_max"}
    changed = changes(settings).keys()
    return settings.image_size == BASE.image_size and (
        not changed & size or changed <= {"epochs", "t_max"} or changed == {"width"}
    )
