"""What each choice changes: effects on AUROC, and how much of them may be luck.

The runs are those of `n2n.analysis.sensitivity`. All have the same test images, those of the
paper; what may be chance in a difference is the luck of the trainings, see `luck`.
"""

from __future__ import annotations

import bisect
import dataclasses
import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import t as student

from n2n.analysis.figures import ANOMALOUS, NORMAL, OURS, PAPER, new_figure
from n2n.analysis.sensitivity import LEVELS
from n2n.records import check_same_images
from n2n.settings import DETECTION, Settings

COLOURS = {"Metal Plate": NORMAL, "Bracket White": ANOMALOUS, "Fryum": OURS}
TOPICS = {  # in the order of `Settings`, by the first setting of each
    "image_size": "Images", "noise": "Noise", "network": "Network", "loss": "Loss",
    "learning_rate": "Training", "noise_at_test": "Detection",
}  # fmt: skip


def of_choices(runs: pd.DataFrame) -> pd.DataFrame:
    """The effect of each variant of a base on AUROC, by category and level, in points.

    Of the runs around a base, as `n2n.analysis.sensitivity.study_runs` gives them.
    A difference is taken between runs of the same seed, then averaged. Of a variant that was
    trained, ``low`` and ``high`` are the ends of the 95 % interval that the luck of so many
    trainings leaves, see `luck`; NaN where nothing tells how large that is. Of another use of the
    base's own networks they are the smallest and the largest difference.

    Returns:
        Columns: variant, changed, category, level, effect, low, high, p (of no effect, for luck
        alone), seeds, stage.

    Raises:
        N2NError: where runs that would be compared have seen different test images.
    """
    spread = luck(runs)
    base = dict(list(runs[runs["variant"] == "the base"].groupby(["category", "level"])))
    rows = []
    groups = runs[runs["variant"] != "the base"].groupby(
        ["variant", "category", "level"], sort=False
    )
    for (variant, category, level), group in groups:
        if (category, level) not in base:
            continue
        every = base[category, level]
        check_same_images([*group["record"], *every["record"]])
        difference = _of_one_seed(group, every)
        if difference.empty:
            continue
        effect, stage = difference.mean(), group["stage"].iloc[0]
        if stage == "training":
            _, deviation, degrees, reach, _ = spread.loc[(category, level)]
            low, high = (effect + sign * reach / np.sqrt(len(difference)) for sign in (-1, 1))
            far = abs(effect) * np.sqrt(len(difference)) / (deviation or np.nan)
            p = 2 * student.sf(far, degrees)
        else:
            low, high, p = difference.min(), difference.max(), np.nan
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
                "seeds": len(difference),
                "stage": stage,
            }
        )
    columns = [
        "variant", "changed", "category", "level", "effect", "low", "high", "p", "seeds", "stage",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def after_holm(found: pd.DataFrame, share: float = 0.05) -> pd.Series[bool]:
    """Which rows of `of_choices` exceed luck although so many variants were tried.

    By Holm's step-down procedure (*Scandinavian Journal of Statistics* 6, 1979) over the trainings
    of a category and level: with the chance ``share`` or less it names a choice that does nothing.
    """
    beyond = pd.Series(False, found.index)
    for _, group in found.dropna(subset="p").groupby(["category", "level"]):
        ranked = group["p"].sort_values()
        passed = ranked.to_numpy() <= share / np.arange(len(ranked), 0, -1)
        beyond.loc[ranked.index] = np.logical_and.accumulate(passed)
    return beyond


def luck(runs: pd.DataFrame) -> pd.DataFrame:
    """How far chance moves trainings, and differences between two, from those of `study_runs`.

    ``of a training`` is the standard deviation of AUROC over seeds within one variant, pooled over
    all of them as in an analysis of variance with one factor (Montgomery, *Design and Analysis of
    Experiments*, section 3.3): it takes luck to be equally large with any choice. ``of a
    difference`` is the same of the difference from the base with the same seed, and ``reach``
    how far the 95 % interval of one such difference reaches, by Student's distribution. ``steady``
    is that reach without the three variants whose seeds lie farthest apart, which is shorter even
    where luck is equal. All differences share the base's few trainings, so that the degrees of
    freedom are fewer than they are counted, and intervals miss together or not at all.

    Returns:
        Index: category, level. Columns: of a training, of a difference, degrees (of freedom, of
        the latter), reach, steady; all but the degrees in points.
    """
    trained = runs[runs["changed"].map(DETECTION.isdisjoint).astype(bool)]
    rows = {}
    for place, data in trained.groupby(["category", "level"], sort=False):
        base = data[data["variant"] == "the base"]
        changes = [
            _of_one_seed(group, base)
            for _, group in data[data["variant"] != "the base"].groupby("variant")
        ]
        changes.sort(key=lambda values: float(values.var(ddof=0)) * len(values))
        deviation, _ = _pooled(group["auroc"] for _, group in data.groupby("variant"))
        every, steady = _pooled(changes), _pooled(changes[:-3])
        rows[place] = (deviation, *every, _reach_of(*every), _reach_of(*steady))
    index = pd.MultiIndex.from_tuples(rows, names=["category", "level"]) if rows else None
    columns = ["of a training", "of a difference", "degrees", "reach", "steady"]
    return pd.DataFrame(list(rows.values()), index, columns)


def _reach_of(deviation: float, degrees: int) -> float:
    return float(student.ppf(0.975, degrees)) * deviation


def _of_one_seed(group: pd.DataFrame, base: pd.DataFrame) -> pd.Series[float]:
    """A variant's AUROC less the base's, where both have a run of a seed."""
    difference = group.set_index("seed")["auroc"] - base.set_index("seed")["auroc"]
    return difference.dropna()


def _pooled(groups: Iterable[pd.Series[float]]) -> tuple[float, int]:
    """The standard deviation within groups, and its degrees of freedom; NaN if these are none."""
    squares, degrees = 0.0, 0
    for group in groups:
        squares += float(((group - group.mean()) ** 2).sum())
        degrees += max(len(group) - 1, 0)
    return (np.sqrt(squares / degrees) if degrees else np.nan), degrees


def luck_table(runs: pd.DataFrame) -> pd.DataFrame:
    """`luck` as text, a row per category and level, with what one pair of trainings can show."""
    return pd.DataFrame(
        {
            "category": category,
            "level": LEVELS[level],
            "a training": f"{trained:.1f}",
            "a difference of one seed": f"{change:.1f}",
            "one pair shows": f"± {reach:.1f}",
            "three pairs": f"± {reach / np.sqrt(3):.1f}",
            "one pair, without the three least steady variants": f"± {steady:.1f}",
        }
        for (category, level), (trained, change, degrees, reach, steady) in luck(runs).iterrows()
        if degrees
    )


def coverage(found: pd.DataFrame) -> str:
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
    return (
        f"Of {len(trained)} such intervals {beyond} exclude zero; about {0.05 * len(trained):.0f} "
        "would on average if no choice had any effect, and by chance several times as many, as all "
        f"share the base's trainings. {int(after_holm(found).sum())} would still do so if each "
        "column were asked for all of its variants at once (Holm's correction)."
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
    of the test images, over the trainings of a part in ``found``, the table of `of_choices`.
    """
    trained = found[found["stage"] == "training"]
    rows = []
    for category, group in trained.groupby("category", sort=False):
        wide = group.pivot(index="variant", columns="level", values="effect")
        if "synthetic" not in wide or len(wide) < 3:
            continue
        agreement = wide.corr(method="spearman")["synthetic"].drop("synthetic")
        named = {LEVELS[str(level)]: f"{value:.2f}" for level, value in agreement.items()}
        rows.append({"category": category, "trainings": len(wide)} | named)
    return pd.DataFrame(rows)
