"""Chance in a study of choices: how far it moves a training, and how often it passes for an effect.

The runs are those of `n2n.analysis.sensitivity`, the effects those of `n2n.analysis.effects`. All
trainings of a part have the same test images, those of the paper; so the chance here is that of the
training, not of the images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from n2n.analysis.sensitivity import BASE_NAME, LEVELS

SIMULATED = 4000  # tables; a share of 3 % of them is then good to half a point


def of_shared_seeds(data: pd.DataFrame) -> pd.DataFrame:
    """The runs of a category and level whose seeds the base has, too."""
    return data[data["seed"].isin(data.loc[data["variant"] == BASE_NAME, "seed"])]


def _trainings(data: pd.DataFrame) -> pd.DataFrame:
    """Of the runs of a category and level those that `fit` takes: a training each."""
    shared = of_shared_seeds(data)
    return shared[shared["stage"].eq("training") | shared["variant"].eq(BASE_NAME)]


def _design(trained: pd.DataFrame) -> tuple[list[str], list[int], np.ndarray]:
    """The variants apart from the base, the seeds, and who has which of both: [trainings, all]."""
    named = [name for name in trained["variant"].unique() if name != BASE_NAME]
    seeds = trained["seed"].unique().tolist()
    columns = [(trained["variant"] == name).to_numpy(float) for name in named]
    columns += [(trained["seed"] == seed).to_numpy(float) for seed in seeds]
    return named, seeds, np.array(columns).T.reshape(len(trained), len(columns))


class Fit(NamedTuple):
    """What `fit` finds, in points of AUROC; by the name of the variant where it is a mapping."""

    effects: dict[str, float]
    errors: dict[str, float]  # standard errors of the effects
    seeds: dict[int, float]  # what the base has with each, without luck
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
    named, seeds, design = _design(trained)
    auroc = trained["auroc"].to_numpy()
    found, _, rank, _ = np.linalg.lstsq(design, auroc)
    degrees = len(auroc) - int(rank)
    squares = float(((auroc - design @ found) ** 2).sum())
    deviation = np.sqrt(squares / degrees) if degrees else np.nan
    errors = deviation * np.sqrt(np.diag(np.linalg.pinv(design.T @ design)))
    return Fit(
        dict(zip(named, found.tolist(), strict=False)),
        dict(zip(named, errors.tolist(), strict=False)),
        dict(zip(seeds, found[len(named) :].tolist(), strict=True)),
        float(deviation),
        degrees,
    )


def half_width(deviation: float, degrees: float) -> float:
    """How far a 95 % interval reaches, by Student's distribution."""
    return float(stats.t.ppf(0.975, degrees)) * deviation


def of_seeds(data: pd.DataFrame) -> tuple[float, float]:
    """How far the seeds of a choice scatter, in points, and its degrees of freedom.

    The standard deviation, pooled over the choices of a category and level. Luck is in it, and what
    the seed does to all choices alike, which `fit` takes away. The latter is known of a few seeds
    only, however many trainings share them: hence Satterthwaite's degrees of freedom (*Biometrics
    Bulletin* 2, 1946) of the sum of the two variances.
    """
    trained, found = _trainings(data), fit(data)
    degrees = len(trained) - trained["variant"].nunique()
    if not found.degrees:
        return np.nan, 0
    luck = found.deviation**2
    seed = max(float(_squares(trained).sum()) / degrees - luck, 0.0)
    if not luck + seed:
        return 0.0, found.degrees
    few = seed**2 / (len(found.seeds) - 1) + luck**2 / found.degrees
    return float(np.sqrt(luck + seed)), (luck + seed) ** 2 / few


def _squares(trained: pd.DataFrame) -> pd.Series[float]:
    """The squared distances of each variant's trainings from their mean, added up."""
    return trained.groupby("variant")["auroc"].agg(lambda of: len(of) * of.var(ddof=0))


def of_trainings(runs: pd.DataFrame) -> pd.DataFrame:
    """How far chance moves trainings and the difference of two, from those of `study_runs`.

    ``of a training`` is the standard deviation that `fit` leaves to luck, ``degrees`` its degrees
    of freedom, ``of two`` how far two equal choices may lie apart that were trained once each, with
    one seed: with a chance of 95 %, by Student's distribution. ``of two seeds`` is the same where
    each has another, by `of_seeds`. ``steady`` is ``of two`` without the three variants that
    scatter most, which is shorter even where luck is equal; ``share`` is their part of the squared
    distances of all trainings from the means of their variants.

    Returns:
        Index: category, level. Columns: of a training, degrees, of two, of two seeds, steady, share
        (0 to 1); but for this and the degrees in points.
    """
    rows = {}
    for place, data in runs.groupby(["category", "level"], sort=False):
        trained = _trainings(data)
        squares = _squares(trained)
        least = squares.drop(BASE_NAME, errors="ignore").nlargest(3)
        every, steady = fit(trained), fit(trained[~trained["variant"].isin(least.index)])
        kinds = [
            (every.deviation, every.degrees),
            of_seeds(data),
            (steady.deviation, steady.degrees),
        ]
        of_two = [half_width(deviation * 2**0.5, degrees) for deviation, degrees in kinds]
        share = least.sum() / squares.sum() if squares.any() else np.nan
        rows[place] = (every.deviation, every.degrees, *of_two, share)
    index = pd.MultiIndex.from_tuples(rows, names=["category", "level"]) if rows else None
    columns = ["of a training", "degrees", "of two", "of two seeds", "steady", "share"]
    return pd.DataFrame(list(rows.values()), index, columns)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """`of_trainings` as text, a row per category and level, with what few trainings can show."""
    return pd.DataFrame(
        {
            "category": category,
            "level": LEVELS[level],
            "a training": f"{trained:.1f}",
            "two trainings": f"± {reach:.1f}",
            "with a seed each": f"± {apart:.1f}",
            "three of each": f"± {reach / np.sqrt(3):.1f}",
            "two of the steadier": f"± {steady:.1f}",
            "share of the other three": f"{100 * share:.0f} %",
        }
        for (category, level), (trained, degrees, reach, apart, steady, share) in of_trainings(
            runs
        ).iterrows()
        if degrees
    )


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


def of_each(data: pd.DataFrame) -> pd.DataFrame:
    """How large luck may be with each choice, in points, by three suppositions.

    Equal for all choices, as `fit` finds it; of the choice's own trainings, less what `fit` puts
    down to their seeds, where a single training has the median of the others; and the root of the
    mean of these two variances. The scatters of few trainings differ more widely than those of the
    choices that they are drawn from, so the truth is expected between the first and the last.

    Returns:
        Index: variant. Columns: equal, between, its own.
    """
    trained, found = _trainings(data), fit(data)
    less_seed = trained["auroc"] - trained["seed"].map(found.seeds)
    own = less_seed.groupby(trained["variant"], sort=False).std()
    own = own.fillna(own.median())
    between = np.sqrt((found.deviation**2 + own**2) / 2)
    return pd.DataFrame({"equal": found.deviation, "between": between, "its own": own})


def false_alarms(runs: pd.DataFrame) -> pd.DataFrame:
    """How often `after_holm` would name a choice if none did anything, by simulation, as text.

    For each category and level, and each supposition of `of_each`, `SIMULATED` tables are drawn
    that have the study's own choices and seeds and are nothing but normal luck.
    """
    rows = []
    for (category, level), data in runs.groupby(["category", "level"], sort=False):
        trained = _trainings(data)
        named, _, design = _design(trained)
        found = fit(data)
        if not named or not found.deviation > 1e-9:  # unknown, or none but rounding
            continue
        inverse = np.linalg.pinv(design)
        spread = np.sqrt(np.diag(inverse @ inverse.T))[: len(named)]
        row = {"category": category, "level": LEVELS[level], "choices": len(named)}
        for kind, deviations in of_each(data).loc[trained["variant"]].items():
            chance = np.random.default_rng(0).normal(size=(SIMULATED, len(trained)))
            luck = chance * deviations.to_numpy()
            effects = luck @ inverse.T
            left = ((luck - effects @ design.T) ** 2).sum(axis=1) / found.degrees
            surest = np.abs(effects[:, : len(named)] / spread).max(axis=1) / np.sqrt(left)
            p = 2 * stats.t.sf(surest, found.degrees)
            row[str(kind)] = f"{100 * (p <= 0.05 / len(named)).mean():.0f} %"
        rows.append(row)
    return pd.DataFrame(rows)


def beyond_table(runs: pd.DataFrame, beyond: pd.DataFrame) -> pd.DataFrame:
    """What exceeds luck, seed by seed and the largest effect first, as text.

    Beside the effect stand its differences from the base with the same seed, and what Welch's test
    says of the two scatters alone, without the other choices and each asked alone: the chance of
    such a difference of means if choice and base were the same. *One seed* has no scatter.

    Args:
        runs: of `n2n.analysis.sensitivity.study_runs`.
        beyond: of their effects those that `after_holm` names.
    """
    rows = []
    for row in beyond.sort_values("effect", key=abs, ascending=False, kind="stable").itertuples():
        data = runs[runs["category"].eq(row.category) & runs["level"].eq(row.level)]
        by_seed = of_shared_seeds(data).pivot(index="seed", columns="variant", values="auroc")
        base, variant = by_seed[BASE_NAME].dropna(), by_seed[row.variant].dropna()
        apart = (variant - base).dropna()
        alone = stats.ttest_ind(variant, base, equal_var=False).pvalue if len(variant) > 1 else None
        rows.append(
            {
                "category": row.category,
                "level": LEVELS[str(row.level)],
                "choice": row.variant,
                "effect": f"{row.effect:+.1f}",
                "by seed": ", ".join(f"{value:+.1f}" for value in apart),
                "Welch's p": "one seed" if alone is None else f"{alone:.1g}",
            }
        )
    columns = ["category", "level", "choice", "effect", "by seed", "Welch's p"]
    return pd.DataFrame(rows, columns=columns)
