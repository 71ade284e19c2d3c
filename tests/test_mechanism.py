"""What the noise does to the errors, from records written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from n2n.analysis import mechanism
from n2n.settings import make_settings
from tests.records import small, study_run, write


def test_how_much_the_best_linear_guess_keeps() -> None:
    """Least squares over drawn areas finds the same share."""
    rng = np.random.default_rng(0)
    areas = rng.normal(0, 0.1, 400_000)
    seen = areas + rng.normal(0, 0.5 * 0.3 / 0.7 / 3, areas.shape)
    share = float(np.polyfit(seen, areas, 1)[0])
    assert abs(mechanism.shrinkage(3, 0.3) - share) < 0.005
    assert mechanism.shrinkage(1, 0.0) == 1
    assert np.round(mechanism.shrinkage([1, 3, 30], 0.3), 3).tolist() == [0.179, 0.662, 0.995]
    names = [text.get_text() for text in mechanism.shrinkage_figure().axes[0].texts]
    assert names == ["λ = 0.1", "λ = 0.2", "λ = 0.3", "λ = 0.4", "λ = 0.6"]


def test_errors_inside_the_masks_and_beside_them(small_study: Path) -> None:
    inside = mechanism.mechanism_table(small_study)
    assert list(inside["λ"]) == [0.0, 0.3]
    assert list(inside["defects : beside"]) == [4.0, 4.0]
    assert list(inside["peak in the defect"]) == [25.0, 25.0]
    assert list(inside["largest value"]) == [46.7, 73.0]  # means of three and of two seeds
    assert list(inside["which seeds"]) == ["0–2", "0, 1"]
    assert list(inside["AUPRO"]) == [80.0, 80.0]
    study_run(small_study, small(noise_grain=4), 0.5)
    coarse = mechanism.mechanism_table(small_study, varied="grain of the noise")
    assert coarse[["grain of the noise", "largest value", "which seeds"]].to_numpy().tolist() == [
        [1, 73.0, "0, 1"], [4, 50.0, "0"]
    ]  # fmt: skip
    study_run(small_study, small(noise_grain=4, noise_octaves=3), 0.25)
    grains = mechanism.mechanism_table(small_study, varied="grain of the noise")
    assert list(grains["grain of the noise"]) == [1, 4, "4 + 2 + 1"]
    sides = mechanism.mechanism_table(small_study, varied="pixels per side")
    assert list(sides["which seeds"]) == ["0, 1"]
    full = mechanism.mechanism_table(small_study, make_settings("replication"))
    assert (list(full["λ"]), list(full["largest value"])) == ([0.3], [99.0])


def test_how_much_of_a_drawn_defect_passes(small_study: Path) -> None:
    assert mechanism.passed_table(small_study).empty  # in no older record
    for seed, share in ((3, 0.75), (4, 0.25)):
        passed = {"transplant": 1.0, "stain": share, "scratch": None}
        write(small_study, small(), seed=seed, passed_defects=passed)
    write(small_study, small(noise_grain=16), seed=3, passed_defects=dict.fromkeys(passed, 0.125))
    write(small_study, small(width=8), seed=3, passed_defects=dict.fromkeys(passed, 0.1))
    shares = mechanism.passed_table(small_study).set_index("run")
    assert shares.index.tolist() == ["λ = 0.3", "noise grain 16"]
    assert shares.loc["λ = 0.3", ["which seeds", "patch", "stain"]].tolist() == ["3, 4", 100, 50]
    assert np.isnan(shares.loc["λ = 0.3", "scratch"])
    assert shares.loc["noise grain 16", "scratch"] == 12.5
    drawn = mechanism.passed_figure(shares.reset_index()).axes[0]
    assert [text.get_text() for text in drawn.get_yticklabels()] == shares.index.tolist()
    assert {line.get_label(): list(line.get_xdata())[1] for line in drawn.get_lines()} == {
        "patch": 12.5, "stain": 12.5, "scratch": 12.5
    }  # fmt: skip


def test_detection_over_reconstruction(small_study: Path) -> None:
    study_run(small_study, small(attention=False, border="zero"), 0.5)  # no name for two
    study_run(small_study, small(learning_rate=1e-6), 0.5)  # off the scale
    images, pixels = mechanism.quality_figure(small_study).axes
    assert [text.get_text() for text in images.texts] == ["λ = 0 (no noise)"]
    drawn = {line.get_label(): line for line in images.get_lines()}
    shares = {name: sorted(map(float, drawn[name].get_ydata())) for name in mechanism.GROUPS}
    assert shares == {
        "the base": [70, 76], "other training or width": [71], "other noise": [10, 60, 70],
        "another network": [50],
        "another loss": [],
    }  # fmt: skip
    assert set(pixels.get_lines()[0].get_ydata()) == {90}


def test_the_mean_of_the_noise_at_test_time(tmp_path: Path) -> None:
    passed = {"transplant": 1.0, "scratch": None}
    error = {"defects": 6, "beside": 3, "normal": 2}
    base = "replication_image-size-128_width-16_t-max-40_epochs-40"
    uses = [
        (5, {}, 0.5, None), (5, {"mean_at_test": True}, 0.254, base),
        (5, {"noise_draws": 4}, 0.1, base), (6, {}, 0.504, base),
        (6, {"mean_at_test": True}, 0.26, base),
        (7, {}, 0.1, None), (7, {"mean_at_test": True}, 0.9, None),  # a training of its own
        (5, {"noise_grain": 8, "mean_at_test": True}, 0.1, None),  # of no other use
        (5, {"noise": 0.2}, 0.3, None),
        (5, {"noise": 0.2, "mean_at_test": True}, 0.2, base.replace("128_", "128_noise-0.2_")),
    ]  # fmt: skip
    for seed, use, image, by in uses:
        settings = small(**use)
        write(
            tmp_path, settings, image, seed=seed, passed_defects=passed | {"stain": image},
            reconstruction={"absolute": error | {"beside": 3 + settings.mean_at_test}},
            training={"epochs": 40, "stopped": "epochs", "by": by and {"variant": by}},
        )  # fmt: skip
    less, at_test = mechanism.at_test_table(tmp_path).to_dict("records")
    assert (less["run"], less["which seeds"], less["stain"]) == ("λ = 0.2", "5", "30→20")
    assert at_test == {
        "category": "Metal Plate", "run": "λ = 0.3", "which seeds": "5, 6", "patch": "100→100",
        "stain": "50→26", "scratch": "", "ratio": "2.0→1.5", "images": "50→26",
        "pixels": "90→90", "AP": "10→10", "AUPRO": "80→80",
    }  # fmt: skip
