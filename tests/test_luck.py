"""How much of what choices seem to change may be luck; from records written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from n2n.analysis import effects, luck, sensitivity
from tests.records import small, study_run


def test_the_luck_of_a_training(small_study: Path) -> None:
    # Networks of the base, no trainings more
    study_run(small_study, small(image_score="max"), 0.99)
    study_run(small_study, small(noise=0.0, image_score="max"), 0.99)
    study_run(small_study, small(checkpoint="last"), 0.10)  # nor this one
    runs = sensitivity.study_runs(small_study)
    found = luck.of_trainings(runs).loc[("Metal Plate", "image")]
    # 70 and 76 with the base, 60 and 70 without noise; width 8 has one training, and fits itself
    rest = np.array([(70, 76), (60, 70)], float)
    rest += rest.mean() - rest.mean(1, keepdims=True) - rest.mean(0)
    assert found["of a training"] == pytest.approx((rest**2).sum() ** 0.5)
    assert found["degrees"] == 1
    row = luck.table(runs).set_index("level").loc["test images"]
    one = ["Metal Plate", "2.0", "± 35.9", "± 20.7"]  # 12.706 deviations of a difference
    assert row.drop(["with a seed each", "share of the other three"]).tolist() == [
        *one,
        "± nan",
    ]  # nothing is left without three of two variants
    # Squared distances from the means: 3² + 3² of the base, 5² + 5² without noise, one free in each
    assert row["share of the other three"] == "74 %"
    # Of which luck is 4, of one degree of freedom, and what the two seeds do, of another, 34 - 4
    few = 34**2 / (30**2 / 1 + 4**2 / 1)
    assert found["of two seeds"] == pytest.approx(stats.t.ppf(0.975, few) * (34 * 2) ** 0.5)
    none = sensitivity.study_runs(small_study / "nowhere")
    assert luck.table(none).empty
    assert luck.false_alarms(none).empty
    assert luck.beyond_table(none, effects.of_choices(none)).empty


def test_steady_luck_leaves_out_the_three_least_steady(tmp_path: Path) -> None:
    changes = {"noise": (9, 1), "width": (-8, 4), "levels": (20, 2), "blocks": (3, 1)}
    for seed in (0, 1):
        study_run(tmp_path, small(), 0.5, seed=seed)
        values = {"noise": 0.2, "width": 8, "levels": 3, "blocks": 2}
        for name, moved in changes.items():
            study_run(tmp_path, small(**{name: values[name]}), 0.5 + moved[seed] / 100, seed=seed)
    found = luck.of_trainings(sensitivity.study_runs(tmp_path)).loc[("Metal Plate", "image")]
    apart = np.array([0, -8, 12, -18, -2])  # of the two seeds, the base first
    deviation = (((apart - apart.mean()) ** 2).sum() / 2 / 4) ** 0.5
    assert found["of two"] == pytest.approx(stats.t.ppf(0.975, 4) * deviation * 2**0.5)
    # What is left is the base and two modules in a row, 0 and -2 apart: a deviation of 1
    assert found["steady"] == pytest.approx(stats.t.ppf(0.975, 1) * 1.0 * 2**0.5)


def test_holm_s_correction_by_hand() -> None:
    p = [0.04, 0.001, 0.02, 0.014, np.nan]
    found = pd.DataFrame({"p": p, "category": "a", "level": "b"})
    # In order: 0.001 < 0.05 / 4 and 0.014 < 0.05 / 3, 0.02 < 0.05 / 2 and 0.04 < 0.05
    assert luck.after_holm(found).tolist() == [True, True, True, True, False]
    found.loc[3, "p"] = 0.018  # more than a third of 0.05: it stops here
    assert luck.after_holm(found).tolist() == [False, True, False, False, False]
    found.loc[1, "level"] = "c"  # of another column: there are three here
    assert luck.after_holm(found).tolist() == [False, True, False, False, False]


def _drawn(results: Path, deviations: dict[str, float]) -> pd.DataFrame:
    """Three seeds of the base and of choices of a few settings, whose luck is so large."""
    chance = np.random.default_rng(5)
    values = {"width": 8, "levels": 3, "blocks": 2, "tanh": True, "noise": 0.2}
    for seed in range(3):
        study_run(results, small(), 0.5 + chance.normal(0, 0.01), seed=seed)
        for name, deviation in deviations.items():
            auroc = 0.5 + chance.normal(0, deviation)
            study_run(results, small(**{name: values[name]}), auroc, seed=seed)
    return sensitivity.study_runs(results)


def _share(alarms: pd.DataFrame, kind: str) -> float:
    text = alarms.set_index("level").loc["test images", kind]
    return float(str(text).removesuffix(" %"))


def test_where_luck_is_equal_holm_s_correction_keeps_its_word(tmp_path: Path) -> None:
    alarms = luck.false_alarms(_drawn(tmp_path, {"width": 0.01}))
    assert alarms["choices"].eq(1).all()
    # A choice alone is a single t test: 5 % by its definition, and half a point by 4000 draws
    assert _share(alarms, "equal") == pytest.approx(5, abs=1.5)


def test_where_luck_is_not_equal_it_does_not(tmp_path: Path) -> None:
    names = ("width", "levels", "blocks", "noise")
    runs = _drawn(tmp_path, dict.fromkeys(names, 0.002) | {"tanh": 0.1})
    alarms = luck.false_alarms(runs)
    assert 2 <= _share(alarms, "equal") <= 6  # of five choices: at most 5 %, and little less
    assert _share(alarms, "equal") < _share(alarms, "between") <= _share(alarms, "its own")
    assert _share(alarms, "its own") > 10


def test_what_exceeds_luck_is_shown_seed_by_seed(small_study: Path) -> None:
    for seed, base in enumerate((0.70, 0.76)):
        for name, value in {"levels": 3, "blocks": 2, "batch_size": 1}.items():
            study_run(small_study, small(**{name: value}), base + 0.001 * seed, seed=seed)
        study_run(small_study, small(network="unet"), base - 0.3 - 0.01 * seed, seed=seed)
    study_run(small_study, small(weight_decay=0.0), 0.2)
    runs = sensitivity.study_runs(small_study)
    found = effects.of_choices(runs)
    shown = luck.beyond_table(runs, found[luck.after_holm(found) & found["level"].eq("image")])
    assert set(shown["level"]) == {"test images"}

    rows = shown.set_index("choice")
    assert list(rows.index)[:2] == ["weight decay 0", "plain U-Net"]  # the largest first
    assert rows.loc["weight decay 0", ["by seed", "Welch's p"]].tolist() == ["-50.0", "one seed"]
    assert rows.loc["plain U-Net", "by seed"] == "-30.0, -31.0"
    # Welch's t by hand: the means 42.5 and 73 lie 30.5 apart, the variances are 12.5 and 18
    t, degrees = 30.5 / 15.25**0.5, (15.25**2) / (6.25**2 + 9.0**2)
    p = 2 * stats.t.sf(t, degrees)
    assert rows.loc["plain U-Net", "Welch's p"] == f"{p:.1g}"


def _named_by_luck(deviations: dict[tuple[str, int], float], draws: int = 3000) -> float:
    """The percentage of tables of luck alone in which a choice is named, by fits of their own."""
    names = sorted({name for name, _ in deviations} - {"base"})
    seeds = sorted({seed for _, seed in deviations})
    columns = [[name == of for name, _ in deviations] for of in names]
    columns += [[seed == of for _, seed in deviations] for of in seeds]
    design = np.array(columns, float).T
    inverse = np.linalg.inv(design.T @ design)
    degrees = len(deviations) - design.shape[1]
    rng, named = np.random.default_rng(11), 0
    for _ in range(draws):
        drawn = rng.normal(0, list(deviations.values()))
        found = np.linalg.lstsq(design, drawn)[0]
        error = ((drawn - design @ found) ** 2).sum() / degrees * np.diag(inverse)
        p = 2 * stats.t.sf(np.abs(found) / error**0.5, degrees)[: len(names)]
        named += p.min() <= 0.05 / len(names)
    return 100 * named / draws


def test_false_alarms_against_fits_of_their_own(tmp_path: Path) -> None:
    """Choices of unlike scatter, the seeds far apart, and one choice that was trained once."""
    luck_of = {"levels": (9, -9, 0), "blocks": (1, 0, -1), "noise": (0, 2, -2), "base": (1, -1, 0)}
    values = {"levels": 3, "blocks": 2, "noise": 0.2, "width": 8}
    for seed in range(3):
        for name, moved in luck_of.items():
            changed = {} if name == "base" else {name: values[name]}
            auroc = 0.5 + 0.1 * seed + moved[seed] / 100
            study_run(tmp_path, small(**changed), auroc, seed=seed)
    study_run(tmp_path, small(width=8), 0.5)
    runs = sensitivity.study_runs(tmp_path)
    data = runs[runs["level"].eq("image")]
    every = luck.fit(data)
    # The scatter of each that is left when the seeds' terms are taken away, by hand: the terms are
    # the means of the four choices that have all seeds, 10 points and 2, -2, -3/4 thirds apart
    term = np.array([11 / 4, -8 / 4, -3 / 4])
    own = {name: float(np.std(np.array(moved) - term, ddof=1)) for name, moved in luck_of.items()}
    own["width"] = float(np.median(list(own.values())))
    of_each = {(name, seed): own[name] for name in own for seed in range(3)}
    of_each = {key: value for key, value in of_each.items() if key[0] != "width" or not key[1]}
    between = {key: ((v**2 + every.deviation**2) / 2) ** 0.5 for key, v in of_each.items()}
    each = luck.of_each(data).rename({"the base": "base", "λ = 0.2": "noise", "width 8": "width"})
    each = each.rename({"levels 3": "levels", "two modules in a row": "blocks"})
    assert each["its own"].to_dict() == pytest.approx(own)
    assert each["between"].to_dict() == pytest.approx({of: between[of, 0] for of in own})
    assert each["equal"].tolist() == pytest.approx([every.deviation] * 5)
    alarms = luck.false_alarms(runs)
    assert _share(alarms, "its own") == pytest.approx(_named_by_luck(of_each), abs=2)
    assert _share(alarms, "between") == pytest.approx(_named_by_luck(between), abs=2)
    equal = dict.fromkeys(of_each, every.deviation)
    assert _share(alarms, "equal") == pytest.approx(_named_by_luck(equal), abs=1.5)
