"""What each choice changes: effects on AUROC, and how much of them may be luck.

The runs are those of `n2n.analysis.sensitivity`. All have the same test images, those of the
paper; what may be chance in a difference is that of the trainings, see `n2n.analysis.luck`.
"""

from __future__ import annotations

import bisect
import dataclasses
import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from n2n.analysis import luck
from n2n.analysis.figures import ANOMALOUS, NORMAL, OURS, PAPER, new_figure
from n2n.analysis.sensitivity import BASE_NAME, LEVELS
from n2n.records import check_same_images
from n2n.settings import Settings

COLOURS = {"Metal Plate": NORMAL, "Bracket White": ANOMALOUS, "Fryum": OURS}
TOPICS = {  # in the order of `Settings`, by the first setting of each
    "image_size": "Images", "noise": "Noise", "network": "Network", "loss": "Loss",
    "learning_rate": "Training", "noise_at_test": "Detection",
}  # fmt: skip


def of_choices(runs: pd.DataFrame) -> pd.DataFrame:
    """The effect of each variant of a base on AUROC, by category and level, in points.

    Of the runs around a base, as `n2n.analysis.sensitivity.study_runs` gives them. Of a variant
    that was trained, the effect and the ends of its 95 % interval are those of
    `n2n.analysis.luck.fit`; the ends are NaN where nothing tells how large the luck of a training
    is. Of another use of the base's own trainings, the effect is the mean difference from the base
    with the same seed, ``low`` and ``high`` are the smallest and the largest.

    Returns:
        Columns: variant, changed, category, level, effect, low, high, p (of no effect, for luck
        alone), seeds, stage.

    Raises:
        N2NError: where runs that would be compared have seen different test images.
    """
    rows = []
    for (category, level), data in runs.groupby(["category", "level"], sort=False):
        data = luck.of_shared_seeds(data)
        base = data[data["variant"] == BASE_NAME]
        trained = luck.fit(data)
        for variant, group in data.groupby("variant", sort=False):
            if variant == BASE_NAME:
                continue
            check_same_images([*group["record"], *base["record"]])
            stage, p = group["stage"].iloc[0], np.nan
            if stage == "training":
                effect, error = trained.effects[variant], trained.errors[variant]
                reach = luck.half_width(error, trained.degrees)
                low, high = effect - reach, effect + reach
                p = 2 * stats.t.sf(abs(effect) / (error or np.nan), trained.degrees)
            else:
                difference = group.set_index("seed")["auroc"] - base.set_index("seed")["auroc"]
                difference = difference.dropna()
                effect, low, high = difference.mean(), difference.min(), difference.max()
            rows.append(
                {
                    "variant": variant,
                    "changed": group["changed"].iloc[0],
                    "category": category,
                    "level": level,
                    "effect": effect,
                    "low": low,
                    "high": high,
                    "p": p,
                    "seeds": len(group),
                    "stage": stage,
                }
            )
    columns = [
        "variant", "changed", "category", "level", "effect", "low", "high", "p", "seeds", "stage",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def how_many(found: pd.DataFrame) -> str:
    """How many variants were run, in Markdown."""
    if found.empty:
        return "*No run of this study is there yet.*"
    seeds = found.groupby("variant")["seeds"].max()
    categories = " and ".join(dict.fromkeys(found["category"]))
    return (
        f"{len(seeds)} variants were run on {categories}, {int((seeds > 1).sum())} of them with "
        "several seeds."
    )


def beyond_chance(found: pd.DataFrame) -> str:
    """How many intervals of trainings exclude zero, and how many would by chance; in Markdown."""
    trained = found[found["stage"] == "training"].dropna(subset=["low", "high"])
    beyond = int(((trained["low"] > 0) | (trained["high"] < 0)).sum())
    after_holm = int(luck.after_holm(found).sum())
    return (
        f"Of {len(trained)} such intervals {beyond} exclude zero; about {0.05 * len(trained):.0f} "
        "would on average if no choice had any effect, and by chance several times as many, as all "
        f"share the base's trainings. {after_holm} would still do so if each column were asked for "
        "all of its variants at once (Holm's correction)."
    )


def topic(changed: Iterable[str]) -> str:
    """What settings are about: the heading in `TOPICS` that all of them share, or 'Several'."""
    order = [field.name for field in dataclasses.fields(Settings)]
    first = [order.index(name) for name in TOPICS]
    found = {bisect.bisect_right(first, order.index(name)) - 1 for name in changed}
    return list(TOPICS.values())[found.pop()] if len(found) == 1 else "Several"


def effects_figure(found: pd.DataFrame) -> Figure:
    """A line per variant under its topic: how far it moves AUROC from the base, a panel per level.

    Pale: zero lies within the bar, so that the effect cannot be told from chance. What is more than
    twice as far as all else of its panel is cut off, its value written.
    """
    variants = found.groupby("variant").agg(
        topic=("changed", lambda sets: topic(sets.iloc[0])),
        size=("effect", lambda values: values.abs().max()),
    )
    labels: list[str] = []
    for heading in (*TOPICS.values(), "Several"):
        inside = variants[variants["topic"] == heading].sort_values("size", ascending=False)
        labels += [heading, *inside.index] if len(inside) else []
    at = {label: -row for row, label in enumerate(labels)}
    size = (11, 1.2 + 0.25 * len(at))
    figure, (columns,) = new_figure(1, len(LEVELS), size, sharey=True)
    for axes, level in zip(columns, LEVELS, strict=True):
        part = found[found["level"] == level]
        reach = _reach(part)
        categories = list(dict.fromkeys(part["category"]))
        for number, category in enumerate(categories):
            colour = COLOURS.get(category, PAPER)
            shift = 0.18 * ((len(categories) - 1) / 2 - number)
            for row in part[part["category"] == category].itertuples():
                y = at[row.variant] + shift
                style = {"color": colour, "alpha": 1.0 if row.low > 0 or row.high < 0 else 0.3}
                if abs(row.effect) > reach:
                    edge = np.copysign(reach, row.effect)
                    axes.plot(edge, y, "<" if edge < 0 else ">", ms=5, **style)
                    axes.annotate(
                        f"{row.effect:+.0f}", (edge, y), (np.copysign(6, -edge), 0), color=colour,
                        textcoords="offset points", va="center", ha="left" if edge < 0 else "right",
                    )  # fmt: skip
                else:
                    axes.plot((row.low, row.high), (y, y), lw=2, **style)
                    axes.plot(row.effect, y, "o", ms=5, **style)
            axes.plot([], [], "o", color=colour, label=category)
        axes.axvline(0, color="black", lw=0.8)
        name = LEVELS[level].replace(", ", ",\n")
        axes.set(
            xlabel=f"AUROC, points\n{name}",
            xlim=(-1.1 * reach, 1.1 * reach),
            ylim=(0.7 - max(len(at), 1), 0.7),
        )
        axes.set_yticks(list(at.values()), [textwrap.fill(label, 40) for label in at])
        axes.grid(axis="y", alpha=0.4)
    for tick in columns[0].get_yticklabels():
        if tick.get_text() in (*TOPICS.values(), "Several"):
            tick.set_fontweight("bold")
    if at:
        figure.legend(*columns[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _reach(part: pd.DataFrame) -> float:
    """How far a panel reaches: to its farthest variant, or where that lies off, past the next."""
    sizes = part[["low", "effect", "high"]].abs().max(axis=1).groupby(part["variant"]).max()
    *_, second, first = sorted([0.0, 0.0, *sizes])
    return 1.2 * second if 0 < 2 * second < first else first or 1.0


def effects_table(found: pd.DataFrame, narrow: bool = False) -> pd.DataFrame:
    """The effects as text, a row per variant, a column per category and level.

    ``narrow`` gives each level a row instead, for a place that has no room for eight columns.
    """
    table = found.assign(column=found["category"], level=found["level"].map(LEVELS))
    table["text"] = [
        f"{row.effect:+.1f}"
        + (f" ({row.low:+.1f} to {row.high:+.1f})" if row.high - row.low > 0.05 else "")
        for row in found.itertuples()
    ]
    if not narrow:
        table["column"] += ", " + table["level"]
    largest = table.groupby("variant")["effect"].agg(lambda values: values.abs().max())
    order = [*largest.sort_values(ascending=False).index, *LEVELS.values()]
    table = table.pivot(
        index=["variant", "level"] if narrow else "variant", columns="column", values="text"
    ).sort_index(key=lambda names: names.map(order.index))
    table.columns.name = None
    return table.fillna("").reset_index()


def guide_table(found: pd.DataFrame) -> pd.DataFrame:
    """How far synthetic defects foretell what a choice does to the test images.

    Spearman's rank correlation between the effects on synthetic defects and those at each level
    of the test images, over the choices of a training in ``found``, the table of `of_choices`.
    """
    trained = found[found["stage"] == "training"]
    rows = []
    for category, group in trained.groupby("category", sort=False):
        wide = group.pivot(index="variant", columns="level", values="effect")
        if "synthetic" not in wide or len(wide) < 3:
            continue
        agreement = wide.corr(method="spearman")["synthetic"].drop("synthetic")
        named = {LEVELS[str(level)]: f"{value:.2f}" for level, value in agreement.items()}
        rows.append({"category": category, "choices": len(wide)} | named)
    return pd.DataFrame(rows)
