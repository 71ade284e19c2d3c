"""What each choice changes: effects on AUROC, and how much of them may be luck.

The runs are those of `n2n.analysis.sensitivity`. All have the same test images, those of the
paper; what may be chance in a difference is the luck of the trainings, see `luck`.
"""

from __future__ import annotations

import bisect
import dataclasses
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import t as student

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
    that was trained, the effect and the ends of its 95 % interval are those of `fit`; the ends are
    NaN where nothing tells how large the luck of a training is. Of another use of the base's own
    trainings, the effect is the mean difference from the base with the same seed, ``low`` and
    ``high`` are the smallest and the largest.

    Returns:
        Columns: variant, changed, category, level, effect, low, high, p (of no effect, for luck
        alone), seeds, stage.

    Raises:
        N2NError: where runs that would be compared have seen different test images.
    """
    rows = []
    for (category, level), data in runs.groupby(["category", "level"], sort=False):
        data = _of_shared_seeds(data)
        base = data[data["variant"] == BASE_NAME]
        trained = fit(data)
        for variant, group in data.groupby("variant", sort=False):
            if variant == BASE_NAME:
                continue
            check_same_images([*group["record"], *base["record"]])
            stage, p = group["stage"].iloc[0], np.nan
            if stage == "training":
                effect, error = trained.effects[variant], trained.errors[variant]
                reach = half_width(error, trained.degrees)
                low, high = effect - reach, effect + reach
                p = 2 * student.sf(abs(effect) / (error or np.nan), trained.degrees)
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


def _of_shared_seeds(data: pd.DataFrame) -> pd.DataFrame:
    """The runs of a category and level whose seeds the base has, too."""
    return data[data["seed"].isin(data.loc[data["variant"] == BASE_NAME, "seed"])]


def _trainings(data: pd.DataFrame) -> pd.DataFrame:
    """Of the runs of a category and level those that `fit` takes: a training each."""
    shared = _of_shared_seeds(data)
    return shared[shared["stage"].eq("training") | shared["variant"].eq(BASE_NAME)]


class Fit(NamedTuple):
    """What `fit` finds, in points of AUROC; by the name of the variant where it is a mapping."""

    effects: dict[str, float]
    errors: dict[str, float]  # standard errors of the effects
    deviation: float  # of one training, from luck
    degrees: int  # of freedom, of the deviation


def fit(data: pd.DataFrame) -> Fit:
    """AUROC as the sum of a variant, a seed and luck, by least squares, of one category and level.

    A two-way layout without interaction (Montgomery, *Design and Analysis of Experiments*, section
    4.1, where seeds are the blocks). Runs of one seed share the held-out images and, where the
    network is the same, its first weights: what that does to all of them is no effect of a choice.
    Luck is taken to be equally large with any choice. Without a degree of freedom it is NaN.
    """
    trained = _trainings(data)
    named = [name for name in trained["variant"].unique() if name != BASE_NAME]
    columns = [(trained["variant"] == name).to_numpy(float) for name in named]
    columns += [(trained["seed"] == seed).to_numpy(float) for seed in trained["seed"].unique()]
    design = np.array(columns).T.reshape(len(trained), len(columns))
    auroc = trained["auroc"].to_numpy()
    found, _, rank, _ = np.linalg.lstsq(design, auroc)
    degrees = len(auroc) - int(rank)
    squares = float(((auroc - design @ found) ** 2).sum())
    deviation = np.sqrt(squares / degrees) if degrees else np.nan
    errors = deviation * np.sqrt(np.diag(np.linalg.pinv(design.T @ design)))
    return Fit(
        dict(zip(named, found.tolist(), strict=False)),
        dict(zip(named, errors.tolist(), strict=False)),
        float(deviation),
        degrees,
    )


def half_width(deviation: float, degrees: int) -> float:
    """How far a 95 % interval reaches, by Student's distribution."""
    return float(student.ppf(0.975, degrees)) * deviation


def after_holm(found: pd.DataFrame) -> pd.Series[bool]:
    """Which rows of `of_choices` exceed luck although so many variants were tried.

    By Holm's step-down procedure (*Scandinavian Journal of Statistics* 6, 1979) over the trainings
    of a category and level: with a chance of 0.05 or less it names a choice that does nothing.
    """
    beyond = pd.Series(False, found.index)
    for _, group in found.dropna(subset="p").groupby(["category", "level"]):
        ranked = group["p"].sort_values()
        passed = ranked.to_numpy() <= 0.05 / np.arange(len(ranked), 0, -1)
        beyond.loc[ranked.index] = np.logical_and.accumulate(passed)
    return beyond


def luck(runs: pd.DataFrame) -> pd.DataFrame:
    """How far chance moves trainings and the difference of two, from those of `study_runs`.

    ``of a training`` is the standard deviation that `fit` leaves to luck, ``degrees`` its degrees
    of freedom, ``of two`` how far two equal choices may lie apart that were trained once each: with
    a chance of 95 %, by Student's distribution. ``steady`` is the same without the three variants
    that scatter most, which is shorter even where luck is equal.

    Returns:
        Index: category, level. Columns: of a training, degrees, of two, steady; all but the degrees
        in points.
    """
    rows = {}
    for place, data in runs.groupby(["category", "level"], sort=False):
        trained = _trainings(data)
        squares = trained.groupby("variant")["auroc"].agg(lambda of: len(of) * of.var(ddof=0))
        least = squares.drop(BASE_NAME, errors="ignore").nlargest(3).index
        every, steady = fit(trained), fit(trained[~trained["variant"].isin(least)])
        of_two = [half_width(found.deviation * 2**0.5, found.degrees) for found in (every, steady)]
        rows[place] = (every.deviation, every.degrees, *of_two)
    index = pd.MultiIndex.from_tuples(rows, names=["category", "level"]) if rows else None
    columns = ["of a training", "degrees", "of two", "steady"]
    return pd.DataFrame(list(rows.values()), index, columns)


def luck_table(runs: pd.DataFrame) -> pd.DataFrame:
    """`luck` as text, a row per category and level, with what few trainings can show."""
    return pd.DataFrame(
        {
            "category": category,
            "level": LEVELS[level],
            "a training": f"{trained:.1f}",
            "two trainings": f"± {reach:.1f}",
            "three of each": f"± {reach / np.sqrt(3):.1f}",
            "two, without the three least steady variants": f"± {steady:.1f}",
        }
        for (category, level), (trained, degrees, reach, steady) in luck(runs).iterrows()
        if degrees
    )


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
