"""What the verdicts can tell apart, from records written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from n2n.analysis import verdicts
from n2n.baselines.settings import make_baseline_settings
from n2n.settings import make_settings
from tests.records import table_run, write


def baseline(results: Path, method: str, image: float, **changes: object) -> Path:
    return write(
        results, make_baseline_settings(method, **changes), image,
        intervals={"image": {"auroc": (image, image)}, "pixel": {"auroc": (0.49, 0.51)}},
    )  # fmt: skip


def test_each_noise_level_is_judged_against_the_printed_value_of_each(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.989, noise=0.2)  # printed: 98.92; an interval of 98.7 to 99.1
    table_run(tmp_path, image=0.9)  # printed: 99.57
    short = {"epochs": 5, "t_max": 5, "stopped": "epochs"}
    table_run(tmp_path, image=0.993, noise=0.4, **short)  # left out, though it agrees
    table_run(tmp_path, image=0.5, noise=0.0, **short)
    table = verdicts.crossed(tmp_path)
    images = table[table["level"] == "image"].drop(columns=["category", "level"])
    assert list(images.columns) == ["ours at", "ours", "λ = 0", "λ = 0.2", "λ = 0.3", "λ = 0.4"]
    assert images.to_numpy().tolist() == [
        ["", "printed", "97.83", "98.92", "99.57", "99.30"],
        ["λ = 0.2", "98.90", "not reproduced (higher)", *3 * ["reproduced"]],
        ["λ = 0.3", "90.00", *4 * ["not reproduced (lower)"]],
    ]


def test_other_methods_against_the_cells_of_n2n(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.9)
    baseline(tmp_path, "padim", 0.99)
    baseline(tmp_path, "dagan", 0.2, epochs=5)
    baseline(tmp_path, "dagan", 0.3, epochs=10)  # of several budgets the largest
    baseline(tmp_path, "thumbnail", 0.99, side=16)  # not the method's own settings
    baseline(tmp_path, "padim", 0.5, backbone="wide-resnet50-2")  # another method
    table = verdicts.other_methods(tmp_path).set_index("method")["Metal Plate, image"]
    assert table.to_dict() == {
        "printed for N2N": "99.57", "N2N": "90.0", "PaDiM (EfficientNet-Lite0)": "99.0 ✓",
        "PaDiM (WideResNet-50-2)": "50.0", "DAGAN": "30.0",
    }  # fmt: skip


def test_a_further_training_by_hand(tmp_path: Path) -> None:
    for seed, image in enumerate((0.95, 0.96, 0.97)):
        table_run(tmp_path, image=image, seed=seed)
    table_run(tmp_path, image=0.97, noise=0.2)  # one seed says nothing of it
    for seed in range(3):
        table_run(tmp_path, seed=seed, noise=0.4, epochs=5, t_max=5, stopped="epochs")
    table = verdicts.further_training(tmp_path)
    assert set(table["column"]) == {"λ = 0.3"}
    row = table[table["level"] == "image"].iloc[0]
    # Mean 96, deviation 1; t of two degrees of freedom is 4.3027: 4.3027 sqrt(4 / 3) = 4.968
    assert row["a further training, by its own seeds"] == "91.0 to 100.0 ✓"
    assert row["verdict"] == "not reproduced (lower)"
    row = table[table["level"] == "pixel"].iloc[0]  # 90 three times, printed: 98.78
    assert row["a further training, by its own seeds"] == "90.0 to 90.0"


def two_networks(results: Path) -> None:
    """Records of three seeds at λ = 0.3 and three at 0.2, AUROC of pixels 90 % in each."""
    for noise, images in ((0.3, (0.95, 0.96, 0.97)), (0.2, (0.90, 0.94, 0.98))):
        for seed, image in enumerate(images):
            table_run(results, image=image, seed=seed, noise=noise)


def test_a_further_training_by_the_luck_of_all_networks(tmp_path: Path) -> None:
    two_networks(tmp_path)
    table = verdicts.further_training(tmp_path)
    row = table[(table["level"] == "image") & (table["column"] == "λ = 0.3")].iloc[0]
    # 95 96 97 and 90 94 98 lie 1, 0, 1 and 4, 0, 4 from their means: of 34 a share of 34 / 4 is
    # left for each of 2 (3 - 1) degrees of freedom. Less what the seeds do to both, 2.5, 0, 2.5,
    # it is 1.5 in four of the six, so that 9 / 2 is luck and 4 the seeds', each of two degrees.
    few = (34 / 4) ** 2 / (4**2 / 2 + 4.5**2 / 2)
    reach = stats.t.ppf(0.975, few) * (34 / 4) ** 0.5 * (4 / 3) ** 0.5
    assert row["a further training, by all networks"] == f"{96 - reach:.1f} to 100.0 ✓"


def test_what_noise_changes_in_print_and_in_ours(tmp_path: Path) -> None:
    two_networks(tmp_path)
    found = verdicts.printed_effects(tmp_path)
    assert list(found["change"]) == ["λ = 0.2", "λ = 0.2"]
    table = verdicts.printed_effects_table(found)
    row = table[table["level"] == "image"].iloc[0]
    assert (row["printed"], row["ours"]) == ("-0.65", "-2.0")  # 98.92 less 99.57, 94 less 96
    reach = stats.t.ppf(0.975, 2) * 4.5**0.5 * (1 / 3 + 1 / 3 + 2) ** 0.5
    assert row["a further pair"] == f"{-2 - reach:+.1f} to {-2 + reach:+.1f}"
    assert row["agrees"] == "too wide to tell"
    row = table[table["level"] == "pixel"].iloc[0]  # 90 six times; printed: 98.96 less 98.78
    assert (row["printed"], row["ours"], row["agrees"]) == ("+0.18", "+0.0", "no")
    images, _ = verdicts.printed_effects_figure(found).axes
    assert images.get_title() == "Metal Plate, images"
    assert [text.get_text() for text in images.get_yticklabels()] == ["λ = 0.2"]
    (bar, dots), printed = images.collections, images.get_lines()[0]
    assert dots.get_offsets().tolist() == [pytest.approx([-2, 0])]
    assert bar.get_segments()[0][:, 0] == pytest.approx([-2 - reach, -2 + reach])
    assert printed.get_xdata() == pytest.approx([-0.65])
    for seed in range(3):  # another network, however unsteady, has no say
        table_run(tmp_path, image=0.5 + 0.2 * seed, seed=seed, standardise=True)
    pd.testing.assert_frame_equal(verdicts.printed_effects(tmp_path), found)


def test_luck_that_is_not_known_predicts_nothing(tmp_path: Path) -> None:
    table_run(tmp_path)
    for seed in (1, 2, 3):  # none of them the base's
        table_run(tmp_path, seed=seed, noise=0.2)
    (row, *_) = verdicts.further_training(tmp_path).to_dict("records")
    assert list(row) == [
        "category", "column", "level", "paper", "ours", "a further training, by its own seeds",
        "verdict",
    ]  # fmt: skip


@pytest.mark.parametrize(("apart", "agrees"), [(2.0, "yes"), (2.02, "too wide to tell")])
def test_an_effect_is_told_from_an_interval_of_ten_points(
    tmp_path: Path, apart: float, agrees: str
) -> None:
    """The luck of two and two degrees: (c - b) / sqrt(2) of -b 0 b and -c 0 c points."""
    width = 2 * stats.t.ppf(0.975, 2) * (apart - 1) / 2**0.5 * (1 / 3 + 1 / 3 + 2) ** 0.5
    assert bool(width > 10) is (agrees != "yes")
    for noise, scatter in ((0.3, 1.0), (0.2, apart)):
        for seed in range(3):
            image = 0.95 + scatter * (seed - 1) / 100
            table_run(tmp_path, image=image, seed=seed, noise=noise)
            write(  # another part of this name
                tmp_path,
                make_settings("replication", noise=noise),
                image,
                dataset="mine",
                seed=seed,
            )
    found = verdicts.printed_effects(tmp_path)
    assert found.loc[found["level"] == "image", "agrees"].tolist() == [agrees]
    by = "a further training, by all networks"
    assert verdicts.further_training(tmp_path)[by].ne("").all()


def test_bad_images_above_every_good_one(tmp_path: Path) -> None:
    frame = pd.DataFrame({"anomalous": [0, 0, 1, 1, 1]})
    for seed, top in enumerate(([0.1, 0.5, 0.5, 0.6, 0.7], [0.1, 0.9, 0.5, 0.6, 0.7])):
        folder = table_run(tmp_path, seed=seed)
        frame.assign(**{"top1%": top, "max": 0.0}).to_csv(folder / "scores.csv", index=False)
    folder = baseline(tmp_path, "padim", 0.5)
    frame.assign(own=[0.0, 0.1, 0.2, 0.3, 0.4]).to_csv(folder / "scores.csv", index=False)
    folder = baseline(tmp_path, "dagan", 0.5)
    frame.assign(own=0.5, anomalous=1).to_csv(folder / "scores.csv", index=False)  # no good one
    table = verdicts.above_every_good(tmp_path).set_index("method")["Metal Plate"]
    assert table.to_dict() == {"N2N": "2, 0 of 3", "PaDiM (EfficientNet-Lite0)": "3 of 3"}


def test_each_image_score_is_judged(tmp_path: Path) -> None:
    scores = {"max": {"auroc": 0.99}, "mean": {"auroc": 0.95}, "top1%": {"auroc": 0.4}}
    folder = write(tmp_path, make_settings("replication"), 0.4, image_scores=scores)
    good, bad = np.linspace(0, 1, 50), np.linspace(2, 3, 50)
    frame = pd.DataFrame({"anomalous": np.repeat([0, 1], 50), "max": np.append(good, bad)})
    frame["mean"] = frame["max"].where(np.arange(100) < 95, -1)  # five bad ones below all
    frame.assign(**{"top1%": -frame["max"]}).to_csv(folder / "scores.csv", index=False)
    (row, last) = verdicts.by_score(tmp_path).to_dict("records")
    assert row["max"] == "99.0 (100.0 to 100.0), reproduced"  # within a point
    assert row["mean"].endswith("not reproduced (lower)")
    low, high = (float(end) for end in row["mean"].split("(")[1].split(")")[0].split(" to "))
    assert low < 90 < high  # what five of fifty cost
    assert row["top1%"] == "40.0 (0.0 to 0.0), not reproduced (lower)"
    assert (last["max"], last["mean"]) == ("1 of 1 reproduced", "0 of 1 reproduced")


@pytest.mark.parametrize(
    "table",
    [
        verdicts.crossed, verdicts.other_methods, verdicts.further_training,
        verdicts.printed_effects, verdicts.above_every_good,
    ],
)  # fmt: skip
def test_without_a_run_there_is_nothing(table: object, tmp_path: Path) -> None:
    assert table(tmp_path).empty  # type: ignore[operator]
