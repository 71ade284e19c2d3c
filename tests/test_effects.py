"""What each choice changes; from records written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from n2n.analysis import effects, sensitivity
from n2n.errors import N2NError
from n2n.settings import make_settings
from tests.records import small, study_run

SCORED = ["maximum score", "mean score"]  # of the base's own maps


def test_effects_are_those_of_a_two_way_layout(small_study: Path) -> None:
    study_run(small_study, small(width=8), 0.73, seed=1)
    found = effects.of_choices(sensitivity.study_runs(small_study))
    image = found[found["level"] == "image"].set_index("variant")
    assert list(image.index) == ["λ = 0 (no noise)", "width 8", *SCORED]
    by_mean = found[found["level"] == "mean"].set_index("variant")
    # Of the record's own means, though these runs are judged by their largest values
    assert by_mean["effect"].to_dict() == pytest.approx(dict.fromkeys(image.index, 0.0))
    noise, width = image.loc["λ = 0 (no noise)"], image.loc["width 8"]
    assert noise["effect"] == pytest.approx(-8.0)  # the mean of -10 and -6
    assert noise["seeds"] == 2
    assert width["effect"] == pytest.approx(-1.0)  # of +1 and -3
    # The sums of squares of variants (rows) and seeds (columns), by the textbook
    grid = np.array([(70, 76), (60, 70), (71, 73)], float)
    rest = grid - grid.mean(1, keepdims=True) - grid.mean(0) + grid.mean()
    deviation = ((rest**2).sum() / ((3 - 1) * (2 - 1))) ** 0.5
    reach = stats.t.ppf(0.975, 2) * deviation * (1 / 2 + 1 / 2) ** 0.5
    for row in (noise, width):
        assert (row["low"], row["high"]) == pytest.approx(
            (row["effect"] - reach, row["effect"] + reach)
        )
        p = 2 * stats.t.sf(abs(row["effect"]) / deviation, 2)
        assert row["p"] == pytest.approx(p)
    # The base's own maps: their mean has 60 % in either seed, their largest value what it has
    scored = image.loc[SCORED]
    assert scored["effect"].tolist() == pytest.approx([0.0, -13.0])
    assert scored[["low", "high"]].loc["mean score"].tolist() == pytest.approx([-16.0, -10.0])
    assert scored["seeds"].tolist() == [2, 2]
    synthetic = found[found["level"] == "synthetic"].set_index("variant")["effect"]
    assert synthetic[SCORED].tolist() == pytest.approx([-10.0, 0.0])


def test_the_effect_of_a_variant_that_lacks_a_seed(small_study: Path) -> None:
    found = effects.of_choices(sensitivity.study_runs(small_study))
    width = found[found["level"] == "image"].set_index("variant").loc["width 8"]
    # Yates' formula for a missing plot: (t T + b B - G) / ((t - 1)(b - 1)), with t = 3 variants,
    # b = 2 seeds, and the sums of what the variant, the seed and all have otherwise
    missing = (3 * 71 + 2 * (76 + 70) - (70 + 76 + 60 + 70 + 71)) / (2 * 1)
    assert width["effect"] == pytest.approx((71 + missing) / 2 - (70 + 76) / 2)
    assert width["seeds"] == 1
    # What is trained once is known less surely than what is trained twice
    noise = found[found["level"] == "image"].set_index("variant").loc["λ = 0 (no noise)"]
    assert width["high"] - width["low"] > noise["high"] - noise["low"]


def test_another_score_of_another_training_is_no_variant(small_study: Path) -> None:
    """What is trained otherwise is compared by the base's score, and counted once."""
    before = effects.of_choices(sensitivity.study_runs(small_study))
    study_run(small_study, small(noise=0.0, image_score="max"), 0.99)
    assert effects.of_choices(sensitivity.study_runs(small_study)).equals(before)
    study_run(small_study, small(tanh=True, image_score="max"), 0.99)
    found = effects.of_choices(sensitivity.study_runs(small_study)).set_index("variant")
    top = found.query("level == 'image'").loc["tanh of the output; maximum score"]
    assert top["effect"] != pytest.approx(99 - 73)


def test_where_no_setting_has_two_seeds_no_interval_is_claimed(tmp_path: Path) -> None:
    study_run(tmp_path, small(), 0.70)
    study_run(tmp_path, small(noise=0.0), 0.60)
    found = effects.of_choices(sensitivity.study_runs(tmp_path))
    trained = found[found["stage"] == "training"]
    assert trained["effect"].notna().all()
    assert trained[["low", "high"]].isna().all(axis=None)
    assert effects.effects_table(trained)["Metal Plate, test images"].tolist() == ["-10.0"]
    assert effects.beyond_chance(found).startswith("Of 0 such intervals 0 exclude zero")


def test_intervals_beyond_chance_are_counted() -> None:
    ends = [(-1.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (float("nan"), float("nan"))] * 20
    found = pd.DataFrame(ends, columns=["low", "high"]).assign(
        stage="training", p=[0.5, 0.04, 1e-5, float("nan")] * 20, category="a", level="b"
    )
    used = found.assign(stage="same training", p=np.nan)
    sentence = effects.beyond_chance(pd.concat([found, used], ignore_index=True))
    assert sentence.startswith("Of 60 such intervals 40 exclude zero; about 3 would")
    assert "trainings. 20 would still do so" in sentence


def test_how_good_a_guide_synthetic_defects_are() -> None:
    values_of = {"synthetic": [1.0, 2.0, 3.0, 4.0], "image": [10.0, 30.0, 20.0, 40.0]}
    found = pd.DataFrame(
        {"variant": str(n), "category": "Plate", "level": level, "effect": effect}
        for level, values in values_of.items()
        for n, effect in enumerate(values)
    ).assign(stage="training")
    used = found.assign(variant="used " + found["variant"], effect=1.0, stage="same training")
    (row,) = effects.guide_table(pd.concat([found, used])).to_dict("records")
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1)) = 0.8
    assert row == {"category": "Plate", "choices": 4, "test images": "0.80"}
    assert effects.guide_table(used).empty


def test_runs_of_different_images_are_not_compared(small_study: Path) -> None:
    study_run(small_study, small(width=32), 0.71, images="others")
    with pytest.raises(N2NError, match="different images"):
        effects.of_choices(sensitivity.study_runs(small_study))


def test_effects_around_the_runs_of_the_tables(small_study: Path) -> None:
    full = make_settings("replication")
    study_run(small_study, make_settings("replication", noise=0.2), 0.90)
    study_run(small_study, make_settings("replication", epochs=25, t_max=25), 0.80)
    both = make_settings("replication", epochs=25, t_max=25, noise=0.2)
    study_run(small_study, both, 0.70)
    found = effects.of_choices(sensitivity.study_runs(small_study, full))
    image = found[found["level"] == "image"].set_index("variant")["effect"]
    assert image.drop(SCORED).to_dict() == pytest.approx({"λ = 0.2": -9.0, "epochs 25": -19.0})


def test_equal_settings_under_two_presets_are_one_run(tmp_path: Path) -> None:
    study_run(tmp_path, small(learning_rate=0.001), 0.70)
    study_run(tmp_path, small(noise=0.0), 0.60)
    study_run(tmp_path, make_settings("demo", learning_rate=0.001), 0.80)
    image = (
        effects.of_choices(sensitivity.study_runs(tmp_path))
        .query("level == 'image'")
        .set_index("variant")
    )
    assert image.drop(SCORED)["seeds"].to_dict() == {"λ = 0 (no noise)": 1}
    (row,) = sensitivity.base_table(tmp_path).query("level == 'test images'").to_dict("records")
    assert row["seeds"] == 1


def test_where_nothing_was_run_there_is_no_effect(tmp_path: Path) -> None:
    assert effects.of_choices(sensitivity.study_runs(tmp_path)).empty


def test_effects_as_text(small_study: Path) -> None:
    found = effects.of_choices(sensitivity.study_runs(small_study))
    table = effects.effects_table(found)
    assert len(table) == 2 + len(SCORED)
    assert list(table.columns[1:]) == [
        f"Metal Plate, {level}" for level in sensitivity.LEVELS.values()
    ]
    narrow = effects.effects_table(found, narrow=True)
    assert list(narrow.columns) == ["variant", "level", "Metal Plate"]
    assert list(narrow["level"]) == len(table) * list(sensitivity.LEVELS.values())
    assert narrow["Metal Plate"][1] == table["Metal Plate, test images"][0]


def test_topics_are_those_of_the_settings() -> None:
    assert effects.topic(["noise"]) == effects.topic(["fresh_noise", "noise_std"]) == "Noise"
    assert effects.topic(["resize"]) == "Images"
    assert effects.topic(["tanh"]) == "Network"
    assert effects.topic(["c1", "c2"]) == "Loss"
    assert effects.topic(["weight_average"]) == "Training"
    assert effects.topic(["mask_rule"]) == "Detection"
    assert effects.topic(["c1", "c2", "batch_size"]) == "Several"


def test_the_figure_cuts_off_what_lies_far_out_and_pales_what_may_be_chance() -> None:
    found = pd.DataFrame(
        [
            ("far", ("noise",), -77.0, -77.0, -77.0), ("near", ("tanh",), 9.0, 8.0, 10.0),
            ("chance", ("blocks",), 0.5, -0.5, 1.5), ("unknown", ("levels",), 0.4, np.nan, np.nan),
        ],
        columns=["variant", "changed", "effect", "low", "high"],
    ).assign(category="Metal Plate", level="pixel")  # fmt: skip
    figure = effects.effects_figure(found)
    panel = figure.axes[-1]
    assert [text.get_text() for text in panel.texts] == ["-77"]
    assert panel.get_xlim() == pytest.approx((-13.2, 13.2))  # 1.1 times 1.2 times the next
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks == ["Noise", "far", "Network", "near", "chance", "unknown"]
    shown = {line.get_ydata()[0]: line.get_alpha() for line in panel.lines if line.get_alpha()}
    assert shown == {-1: 1.0, -3: 1.0, -4: 0.3, -5: 0.3}
