"""The effects of choices, from records written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from n2n.analysis import beyond, confounds, course, effects, mechanism, sensitivity
from n2n.analysis.selection import own_records
from n2n.baselines.settings import make_baseline_settings
from n2n.errors import N2NError
from n2n.settings import Settings, changes, make_settings
from tests.records import write

SCORED = ["maximum score", "mean score"]  # of the base's own maps


def record(
    results: Path, settings: Settings, image: float, seed: int = 0, images: str = "some"
) -> None:
    error = {"defects": 0.04, "beside": 0.01, "normal": 0.02}
    synthetic = {"image_max": 0.7, "image_mean": 0.8, "image_top1%": 0.8, "pixel": 0.9}
    write(
        results, settings, image, seed=seed, files=lambda folder: write_scores(folder, image),
        intervals={"image": {"auroc": (image - 0.05, image)}, "pixel": {"auroc": (0.8, 0.95)}},
        image_scores={
            name: {"auroc": auroc}
            for name, auroc in (("max", image), ("mean", 0.6), ("top1%", image))
        },
        development={"all": synthetic},
        trivial={
            name: {"image": {"auroc": 0.3}, "pixel": {"auroc": 0.4}}
            for name in ("mean_image", "blurred_image")
        },
        reconstruction={"absolute": error, "anomaly_map": error},
        peak_in_defect={"maps": 0.25, "scored": 0.5},
        hidden_defects={"max": 0.1, "mean": 0.2, "top1%": 0.3},
        hidden_alike={"max": 0.4, "mean": 0.5, "top1%": 0.6},
        hidden_alike_farther={"max": 0.3, "mean": None, "top1%": 0.7},
        training={"epochs": settings.epochs, "stopped": "epochs"},
        threshold={"image": 0.25},
        data={"fingerprint": images, "test_anomalous": 100},
    )  # fmt: skip


def write_scores(folder: Path, image: float) -> None:
    """Of one good and 100 bad images, of which so large a share is above the good one."""
    table = pd.DataFrame({"image": [f"{n:03d}.png" for n in range(101)]})
    table["anomalous"] = [0] + 100 * [1]
    table["top1%"] = [0.5] + [float(n < round(100 * image)) for n in range(100)]
    table["max"] = table["mean"] = table["top1%"]
    table.to_csv(folder / "scores.csv", index=False)


def small(**changes: object) -> Settings:
    size = {"image_size": 128, "width": 16, "epochs": 40, "t_max": 40}
    return make_settings("replication", **(size | changes))  # type: ignore[arg-type]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    record(tmp_path, small(), 0.70)
    record(tmp_path, small(), 0.76, seed=1)
    record(tmp_path, small(noise=0.0), 0.60)
    record(tmp_path, small(noise=0.0), 0.70, seed=1)
    record(tmp_path, small(noise=0.0), 0.10, seed=2)  # no base of this seed to compare with
    record(tmp_path, small(width=8), 0.71)
    record(tmp_path, make_settings("replication"), 0.99)  # of another size: not in the study
    return tmp_path


def test_effects_compare_runs_of_one_seed(results: Path) -> None:
    record(results, small(width=8), 0.73, seed=1)
    found = effects.of_choices(sensitivity.study_runs(results))
    image = found[found["level"] == "image"].set_index("variant")
    assert list(image.index) == ["λ = 0 (no noise)", "width 8", *SCORED]
    by_mean = found[found["level"] == "mean"].set_index("variant")
    # Of the record's own means, though these runs are judged by their largest values
    assert by_mean["effect"].to_dict() == dict.fromkeys(image.index, 0.0)
    noise, width = image.loc["λ = 0 (no noise)"], image.loc["width 8"]
    assert noise["effect"] == pytest.approx(-8.0)  # the mean of -10 and -6
    assert noise["seeds"] == 2
    assert width["effect"] == pytest.approx(-1.0)  # of +1 and -3
    # Student's interval for two samples, -10 and -6 here and +1 and -3 there, pools their
    # deviations; that of a single mean has one of two terms under its root.
    ends = stats.ttest_ind([-10, -6], [1, -3]).confidence_interval()
    reach = (ends.high - ends.low) / 2 / 2**0.5
    for row in (noise, width):
        assert (row["low"], row["high"]) == pytest.approx(
            (row["effect"] - reach, row["effect"] + reach)
        )
    pixel = found[found["level"] == "pixel"].set_index("variant").loc["λ = 0 (no noise)"]
    assert pixel["low"] == pixel["effect"] == pixel["high"] == 0
    # The base's own maps: their mean has 60 % in either seed, their largest value what it has
    scored = image.loc[SCORED]
    assert scored["effect"].tolist() == pytest.approx([0.0, -13.0])
    assert scored[["low", "high"]].loc["mean score"].tolist() == pytest.approx([-16.0, -10.0])
    assert scored["seeds"].tolist() == [2, 2]
    synthetic = found[found["level"] == "synthetic"].set_index("variant")["effect"]
    assert synthetic[SCORED].tolist() == pytest.approx([-10.0, 0.0])


def test_the_luck_of_a_training(results: Path) -> None:
    record(results, small(image_score="max"), 0.99)  # networks of the base: no trainings more
    record(results, small(noise=0.0, image_score="max"), 0.99)
    runs = sensitivity.study_runs(results)
    found = effects.luck(runs).loc[("Metal Plate", "image")]
    within = 2 * 3.0**2 + sum((value - 140 / 3) ** 2 for value in (60, 70, 10))
    assert found["of a training"] == pytest.approx((within / (1 + 2)) ** 0.5)
    # Without noise less the base of the same seed: -10 and -6
    assert found["of a difference"] == pytest.approx(8**0.5)
    assert found["degrees"] == 1
    row = effects.luck_table(runs).set_index("level").loc["test images"]
    assert row.tolist() == ["Metal Plate", "26.4", "2.8", "± 35.9", "± 20.7"]  # 12.706 deviations
    none = sensitivity.study_runs(results / "nowhere")
    assert effects.luck_table(none).empty
    assert effects.of_choices(none).empty


def test_where_no_setting_has_two_seeds_no_interval_is_claimed(tmp_path: Path) -> None:
    record(tmp_path, small(), 0.70)
    record(tmp_path, small(noise=0.0), 0.60)
    found = effects.of_choices(sensitivity.study_runs(tmp_path))
    trained = found[found["stage"] == "training"]
    assert trained["effect"].notna().all()
    assert trained[["low", "high"]].isna().all(axis=None)
    assert effects.effects_table(trained)["Metal Plate, test images"].tolist() == ["-10.0"]
    assert effects.beyond_chance(found).startswith("Of 0 such intervals 0 exclude zero")


def test_intervals_beyond_chance_are_counted() -> None:
    ends = [(-1.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (float("nan"), float("nan"))] * 20
    found = pd.DataFrame(ends, columns=["low", "high"]).assign(stage="training")
    used = found.assign(stage="detection")
    sentence = effects.beyond_chance(pd.concat([found, used]))
    assert sentence.startswith("Of 60 such intervals 40 exclude zero; about 3 would")


def test_another_precision_is_named(tmp_path: Path) -> None:
    record(tmp_path, small(), 0.7)
    write(tmp_path, small(width=8), 0.6, provenance={"precision": "float32"})
    write(tmp_path, small(width=24), 0.6)
    other = {"category": "bracket_white", "provenance": {"precision": "float32"}}
    write(tmp_path, small(), 0.7, **other)
    write(tmp_path, small(width=8), 0.6, **other)  # as the base of its part
    runs = sensitivity.study_runs(tmp_path).query("level == 'image' and stage == 'training'")
    assert sorted(zip(runs["category"], runs["variant"], strict=True)) == [
        ("Bracket White", "width 8"),
        ("Metal Plate", "width 24"),
        ("Metal Plate", "width 8, float32"),
    ]


def test_how_good_a_guide_synthetic_defects_are() -> None:
    values_of = {"synthetic": [1.0, 2.0, 3.0, 4.0], "image": [10.0, 30.0, 20.0, 40.0]}
    found = pd.DataFrame(
        {"variant": str(n), "category": "Plate", "level": level, "effect": effect}
        for level, values in values_of.items()
        for n, effect in enumerate(values)
    ).assign(stage="training")
    used = found.assign(variant="used " + found["variant"], effect=1.0, stage="detection")
    (row,) = effects.guide_table(pd.concat([found, used])).to_dict("records")
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1)) = 0.8
    assert row == {"category": "Plate", "trainings": 4, "test images": "0.80"}
    assert effects.guide_table(used).empty


def test_runs_of_different_images_are_not_compared(results: Path) -> None:
    record(results, small(width=32), 0.71, images="others")
    with pytest.raises(N2NError, match="different images"):
        effects.of_choices(sensitivity.study_runs(results))


def test_effects_around_the_runs_of_the_tables(results: Path) -> None:
    full = make_settings("replication")
    record(results, make_settings("replication", noise=0.2), 0.90)
    record(results, make_settings("replication", epochs=25, t_max=25), 0.80)
    record(results, make_settings("replication", epochs=25, t_max=25, noise=0.2), 0.70)  # of both
    found = effects.of_choices(sensitivity.study_runs(results, full))
    image = found[found["level"] == "image"].set_index("variant")["effect"]
    assert image.drop(SCORED).to_dict() == pytest.approx({"λ = 0.2": -9.0, "epochs 25": -19.0})


def test_thumbnails_stand_beside_the_printed_cell(tmp_path: Path) -> None:
    for side in (8, 16):
        write(
            tmp_path, make_baseline_settings("thumbnail", side=side), side / 20,
            category="bracket_white",
            intervals={"image": {"auroc": (0.4, 0.6)}, "pixel": {"auroc": (0.8, 0.95)}},
            image_scores={name: {"auroc": side / 20} for name in ("max", "mean", "top1%")},
            hidden_defects={"max": 0.1, "mean": 0.3, "top1%": 0.2},
            hidden_alike={"max": 0.4, "mean": 0.5, "top1%": 0.6},
            data={"masks": {"median": 0.001, "grown_median": 0.04, "largest_fifth": 0.75}},
        )  # fmt: skip
    table = confounds.thumbnail_table(tmp_path)
    assert table.to_numpy().tolist() == [
        ["Bracket White", "8×8", "40.0 (40 to 60)", "50.0", "89.33"],
        ["Bracket White", "16×16", "80.0 (40 to 60)", "50.0", "89.33"],
    ]
    assert confounds.masks_table(tmp_path).to_numpy().tolist() == [
        ["Bracket White", "0.10", "4.0", "75"]
    ]
    found = confounds.hidden_defects(tmp_path)  # of the method's own size alone
    assert found[["detector", "whole", "hidden"]].to_numpy().tolist() == [
        ["Nearest thumbnail", 40.0, 30.0]
    ]


def test_the_seeds_of_a_learning_rate_share_a_name(tmp_path: Path) -> None:
    def files(folder: Path) -> None:
        table = pd.DataFrame({"epoch": [1, 2], "validation_loss": [0.2, 0.1]})
        table.to_csv(folder / "history.csv", index=False)
        traced = pd.DataFrame({"epoch": [2], "test_image_top1%": [0.5], "test_pixel": [0.75]})
        traced.to_csv(folder / "trace.csv", index=False)

    for settings, seed in (
        (small(), 1), (small(learning_rate=1e-4), 2), (small(), 2), (small(learning_rate=1e-4), 1),
        (small(width=8), 1),  # more than another rate
    ):  # fmt: skip
        write(tmp_path, settings, seed=seed, files=files)
    figure = course.trace_figure(tmp_path, ("MPDD", "metal_plate"))
    losses, images, _ = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0.0001", "0.001"]
    assert len(losses.lines) == 4
    untrained = 100 * own_records(tmp_path)[0].content["untrained"]["image"]["auroc"]
    for line in images.lines:
        assert line.get_ydata().tolist() == [untrained, 50.0]
    assert course.trace_figure(tmp_path, ("MPDD", "tubes")).axes[0].lines[:] == []


def test_the_largest_jump_of_a_loss(tmp_path: Path) -> None:
    settings = make_settings("replication")
    losses = {tmp_path: [1.0, 0.5, 0.75, 0.2, 0.3], tmp_path / "float32": [1.0, 0.5, 0.1]}
    for root in losses:
        record(root, settings, 0.9)
        record(root, make_settings("replication", image_score="max"), 0.9)  # the same network
        record(root, make_settings("replication", epochs=5, t_max=5), 0.9)  # a smaller budget
    record(tmp_path, make_settings("replication", learning_rate=5e-4), 0.8)
    record(tmp_path, make_settings("replication", noise=0.2), 0.8)
    record(tmp_path, make_settings("improved"), 0.8)  # the first by name, of the same network
    for root, values in losses.items():
        for folder in (root / "runs/MPDD/metal_plate/n2n").glob("*/*"):
            content = json.loads((folder / "record.json").read_text())
            content["training"] |= {"best_epoch": 4}
            content["provenance"] = {"precision": "float32" if root.name == "float32" else "half"}
            (folder / "record.json").write_text(json.dumps(content))
            history = pd.DataFrame({"epoch": range(1, len(values) + 1), "train_loss": values})
            history.to_csv(folder / "history.csv", index=False)
    found = course.jumps(tmp_path)
    assert found[["run", "precision", "jump", "epoch", "kept"]].to_numpy().tolist() == [
        ["learning rate 0.0005", "half", pytest.approx(1.5), 3, 4],
        ["λ = 0.2", "half", pytest.approx(1.5), 3, 4],
        ["λ = 0.3", "float32", pytest.approx(0.5), 2, 4],
        ["λ = 0.3", "half", pytest.approx(1.5), 3, 4],
    ]
    (axes,) = course.jumps_figure(found).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[2:] == ["λ = 0.3, seed 0, float32", "λ = 0.3, seed 0"]
    table = course.steadier_table(found)
    by = ["learning rate", "precision"]
    assert table[by].to_numpy().tolist() == [
        ["0.0005", "half"], ["0.001", "float32"], ["0.001", "half"],
    ]  # fmt: skip
    assert dict(table.iloc[2]) == {
        "category": "Metal Plate", "learning rate": "0.001", "precision": "half", "seed": 0,
        "largest jump": "1.5", "images, synthetic": 80.0, "images": 90.0,
        "images, maximum": 90.0, "pixels": 90.0, "found": "90 of 100 (1)",
    }  # fmt: skip


def test_losses_along_the_training(tmp_path: Path) -> None:
    """Of the seeds that every network has, by hand."""

    def trained(settings: Settings, seed: int, losses: list[float]) -> None:
        def files(folder: Path) -> None:
            epochs = range(1, len(losses) + 1)
            table = pd.DataFrame({"epoch": epochs, "validation_loss": losses})
            table.to_csv(folder / "history.csv", index=False)

        write(tmp_path, settings, seed=seed, files=files)

    trained(small(), 0, [0.5, 0.030, 0.4, 0.4, 0.010])
    trained(small(), 1, [0.5, 0.050, 0.4, 0.4, 0.020])
    trained(small(), 2, [0.5, 0.9, 0.4, 0.4, 0.9])
    bare = small(attention_identity=False)
    trained(bare, 0, [0.5, 0.2, 0.4, 0.4, 0.1])
    trained(bare, 1, [0.5, 0.4, 0.4])  # stopped early
    trained(small(attention_gate=False, width=8), 0, [0.5, 0.2, 0.4, 0.4, 0.1])
    found = course.losses_along(tmp_path).set_index("network")
    assert found.index.tolist() == ["without residual connections", "the whole network"]
    assert found["seeds"].tolist() == [2, 2]
    assert found["epoch 2"].tolist() == [300, 40]
    assert np.isnan(found.loc["without residual connections", "epoch 5"])
    assert found.loc["the whole network", "epoch 5"] == 15
    assert found["epoch 10"].isna().all()
    trained(small(attention=False), 3, [0.5])  # a seed of its own
    assert course.losses_along(tmp_path).empty


def test_what_a_larger_budget_changes(tmp_path: Path) -> None:
    for epochs, image in ((25, 0.5), (100, 0.75)):
        for noise in (0.3, 0.0):
            if (epochs, noise) != (25, 0.0):  # one budget alone is no comparison
                settings = make_settings("replication", noise=noise, epochs=epochs, t_max=epochs)
                record(tmp_path, settings, image)
    write(tmp_path, make_settings("replication"), 0.1, dataset="mine")  # another part of this name
    table = course.longer_training(tmp_path, ("MPDD", "metal_plate"))
    assert list(table.columns) == ["25 → 100 epochs", "λ = 0.3"]
    assert dict(table.to_numpy().tolist())["images, top 1 %"] == "50.0 → 75.0"
    assert dict(table.to_numpy().tolist())["error in the defects : beside them"] == "4.0 → 4.0"


def test_one_number_is_asked_for_itself_and_for_its_distance(tmp_path: Path) -> None:
    write(
        tmp_path, make_baseline_settings("image-mean", quantity="detail"), 0.7,
        dataset="VisA", category="pcb1",
        intervals={"image": {"auroc": (0.6, 0.8)}, "pixel": {"auroc": (0.4, 0.6)}},
        image_scores={"mean": {"auroc": 0.2}}, hidden_defects={"mean": 0.1},
        hidden_alike={"mean": 0.3},
    )  # fmt: skip
    assert confounds.image_mean_table(tmp_path).to_numpy().tolist() == [
        ["PCB1", "detail", "20.0", "30.0", "70.0 (60 to 80)"]
    ]
    assert confounds.hidden_defects(tmp_path).empty


def test_hidden_defects_of_full_size_runs(results: Path) -> None:
    record(results, make_settings("replication"), 0.97, seed=1)
    record(results, make_settings("replication", epochs=5, t_max=5), 0.1)  # a smaller budget
    record(results, make_settings("improved"), 0.88)
    record(results, make_settings("replication", noise=0.2, image_score="mean"), 0.5)
    found = confounds.hidden_defects(results).set_index("detector")
    assert dict(found["whole"]) == pytest.approx(
        {
            "N2N, as in the tables": 98,
            "N2N, improved: the score calibrated": 88,
            "N2N, λ = 0.2; mean score": 60,
        }
    )
    assert dict(found["hidden"]) == pytest.approx(
        {
            "N2N, as in the tables": 30,
            "N2N, improved: the score calibrated": 30,
            "N2N, λ = 0.2; mean score": 20,
        }
    )
    assert found["alike"].tolist() == pytest.approx([60, 60, 50])
    margins = confounds.margins_table(results)
    assert list(margins["detector"].unique()) == [
        "N2N, improved: the score calibrated", "N2N, as in the tables", "N2N, λ = 0.2"
    ]  # fmt: skip
    second = margins[(margins["detector"] == "N2N, as in the tables") & (margins["seed"] == 1)]
    assert second.iloc[:, 3:].to_numpy().tolist() == [
        ["max", "97.0", "40.0", "30.0"], ["mean", "60.0", "50.0", "–"],
        ["top1%", "97.0", "60.0", "70.0"],
    ]  # fmt: skip
    older = next(results.glob("runs/*/*/n2n/replication/seed1/record.json"))
    content = json.loads(older.read_text())
    del content["hidden_alike"]
    older.write_text(json.dumps(content))
    again = confounds.hidden_defects(results).set_index("detector")
    assert np.isnan(again.loc["N2N, as in the tables", "alike"])  # not that of the other seed
    assert again.loc["N2N, as in the tables", "hidden"] == pytest.approx(30)
    axes = confounds.hidden_figure(found.reset_index()).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "N2N, λ = 0.2; mean score", "N2N, improved: the score calibrated", "N2N, as in the tables"
    ]  # fmt: skip


def test_tables_from_records(results: Path) -> None:
    table = effects.effects_table(effects.of_choices(sensitivity.study_runs(results)))
    assert len(table) == 2 + len(SCORED)
    assert list(table.columns[1:]) == [
        f"Metal Plate, {level}" for level in sensitivity.LEVELS.values()
    ]
    narrow = effects.effects_table(effects.of_choices(sensitivity.study_runs(results)), narrow=True)
    assert list(narrow.columns) == ["variant", "level", "Metal Plate"]
    assert list(narrow["level"]) == len(table) * list(sensitivity.LEVELS.values())
    assert narrow["Metal Plate"][1] == table["Metal Plate, test images"][0]
    scores = sensitivity.development_table(results, make_settings("replication"))
    assert list(scores["test images"]) == ["99.0", "60.0", "99.0"]  # of the one run at full size
    assert list(scores["seeds"]) == [1, 1, 1]
    base = sensitivity.base_table(results).iloc[0]
    assert (base["AUROC, %"], base["lowest to highest seed"]) == ("73.0", "70.0 to 76.0")
    inside = mechanism.mechanism_table(results)
    assert list(inside["λ"]) == [0.0, 0.3]
    assert list(inside["defects : beside"]) == [4.0, 4.0]
    assert list(inside["peak in the defect"]) == [25.0, 25.0]
    assert list(inside["largest value"]) == [46.7, 73.0]  # means of three and of two seeds
    assert list(inside["which seeds"]) == ["0–2", "0, 1"]
    assert list(inside["AUPRO"]) == [80.0, 80.0]
    record(results, small(noise_grain=4), 0.5)
    coarse = mechanism.mechanism_table(results, varied="grain of the noise")
    assert coarse[["grain of the noise", "largest value", "which seeds"]].to_numpy().tolist() == [
        [1, 73.0, "0, 1"], [4, 50.0, "0"]
    ]  # fmt: skip
    record(results, small(noise_grain=4, noise_octaves=3), 0.25)
    grains = mechanism.mechanism_table(results, varied="grain of the noise")
    assert list(grains["grain of the noise"]) == [1, 4, "4 + 2 + 1"]
    assert mechanism.mechanism_table(results, varied="pixels per side")["which seeds"].tolist() == [
        "0, 1"
    ]
    assert mechanism.passed_table(results).empty  # in no older record
    for seed, share in ((3, 0.75), (4, 0.25)):
        passed = {"transplant": 1.0, "stain": share, "scratch": None}
        write(results, small(), seed=seed, passed_defects=passed)
    write(results, small(noise_grain=16), seed=3, passed_defects=dict.fromkeys(passed, 0.125))
    write(results, small(width=8), seed=3, passed_defects=dict.fromkeys(passed, 0.1))
    shares = mechanism.passed_table(results).set_index("run")
    assert shares.index.tolist() == ["λ = 0.3", "noise grain 16"]
    assert shares.loc["λ = 0.3", ["which seeds", "patch", "stain"]].tolist() == ["3, 4", 100, 50]
    assert np.isnan(shares.loc["λ = 0.3", "scratch"])
    assert shares.loc["noise grain 16", "scratch"] == 12.5
    drawn = mechanism.passed_figure(shares.reset_index()).axes[0]
    assert [text.get_text() for text in drawn.get_yticklabels()] == shares.index.tolist()
    assert {line.get_label(): list(line.get_xdata())[1] for line in drawn.get_lines()} == {
        "patch": 12.5, "stain": 12.5, "scratch": 12.5
    }  # fmt: skip
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
            results, settings, image, seed=seed, passed_defects=passed | {"stain": image},
            reconstruction={"absolute": error | {"beside": 3 + settings.mean_at_test}},
            training={"epochs": 40, "stopped": "epochs", "by": by and {"variant": by}},
        )  # fmt: skip
    less, at_test = mechanism.at_test_table(results).to_dict("records")
    assert (less["run"], less["which seeds"], less["stain"]) == ("λ = 0.2", "5", "30→20")
    assert at_test == {
        "category": "Metal Plate", "run": "λ = 0.3", "which seeds": "5, 6", "patch": "100→100",
        "stain": "50→26", "scratch": "", "ratio": "2.0→1.5", "images": "50→26",
        "pixels": "90→90", "AUPRO": "80→80",
    }  # fmt: skip
    full = mechanism.mechanism_table(results, make_settings("replication"))
    assert (list(full["λ"]), list(full["largest value"])) == ([0.3], [99.0])
    trivial = confounds.trivial_table(results).set_index("detector")
    assert trivial.loc["distance to the mean image", "Metal Plate, image"] == 30.0
    assert trivial.loc["trained network", "Metal Plate, image"] == 73.0


def test_one_map_for_all_images(tmp_path: Path) -> None:
    settings = make_settings("replication")
    for seed, alone in ((0, 0.5), (1, 0.75)):
        write(tmp_path, settings, seed=seed, by_position={"alone": alone, "beyond": 0.875})
    mean = make_settings("replication", mean_at_test=True)
    write(tmp_path, mean, by_position={"alone": 0.25, "beyond": 0.5})
    write(tmp_path, make_settings("replication", noise=0.0), by_position={"alone": 1, "beyond": 1})
    for other in ({"width": 8}, {"noise_draws": 4}, {"noise_at_test": False}, {"map_sigma": 2.0}):
        write(
            tmp_path, make_settings("replication", **other), by_position={"alone": 0, "beyond": 0}
        )
    write(tmp_path, make_settings("replication", noise=0.2))  # an older record
    assert confounds.position_table(tmp_path).to_numpy().tolist() == [
        ["Metal Plate", "λ = 0 (no noise)", "", "0", 90.0, 100.0, 100.0],
        ["Metal Plate", "λ = 0.3", "the noise", "0, 1", 90.0, 62.5, 87.5],
        ["Metal Plate", "λ = 0.3", "its mean", "0", 90.0, 25.0, 50.0],
    ]


def test_two_data_sets_may_share_a_category(tmp_path: Path) -> None:
    for dataset, image in (("MPDD", 0.9), ("mine", 0.5)):
        error = {"defects": image, "beside": 0.1, "normal": 0.1}
        write(
            tmp_path, small(), image, dataset=dataset, reconstruction={"absolute": error},
            peak_in_defect={"maps": 0.5, "scored": 0.5},
            trivial={name: {"image": {"auroc": 0.3}, "pixel": {"auroc": 0.4}}
                     for name in ("mean_image", "blurred_image")},
            development={"all": dict.fromkeys(("image_max", "image_mean", "image_top1%"), image)},
        )  # fmt: skip
    names = ["Metal Plate (MPDD)", "Metal Plate (mine)"]
    assert mechanism.mechanism_table(tmp_path)["defects : beside"].tolist() == [9.0, 5.0]
    scores = sensitivity.development_table(tmp_path).query("`image score` == 'top1%'")
    assert scores[["category", "test images"]].to_numpy().tolist() == [
        [names[0], "90.0"], [names[1], "50.0"]
    ]  # fmt: skip
    trivial = confounds.trivial_table(tmp_path).set_index("detector").loc["trained network"]
    assert trivial[[f"{name}, image" for name in names]].tolist() == [90.0, 50.0]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "the base"),
        ({"noise": 0.2}, "λ = 0.2"),
        ({"learning_rate": 1e-6}, "learning rate 1e-06"),
        ({"attention": False}, "without residual attention"),
        ({"epochs": 10, "t_max": 10}, "epochs 10"),
        ({"epochs": 10}, "10 epochs on the same schedule"),
        ({"epochs": 10, "t_max": 20}, "t max 20; epochs 10"),
        ({"c1": 1e-4, "c2": 9e-4}, "squared constants"),
        ({"sigmas": (0.5, 1.0)}, "sigmas 0.5, 1"),
        ({"sigmas": (0.5, 1.0, 2.0, 4.0)}, "without the widest filter"),
    ],
)
def test_labels(changed: dict[str, object], expected: str) -> None:
    assert sensitivity.variant_label(changes(small(**changed), sensitivity.BASE)) == expected


def test_the_literal_paper_has_a_name(tmp_path: Path) -> None:
    record(tmp_path, make_settings("paper", image_size=128, width=16, epochs=40, t_max=40), 0.5)
    record(tmp_path, make_settings("paper", epochs=100), 0.5)  # at full size
    for base in (small(), make_settings("replication")):
        assert set(sensitivity.study_runs(tmp_path, base)["variant"]) == {"preset paper"}
    assert sensitivity.variant_label(changes(make_settings("paper"), make_settings())) == (
        "preset paper; 500 epochs on the same schedule"
    )


def test_equal_settings_under_two_presets_are_one_run(tmp_path: Path) -> None:
    record(tmp_path, small(learning_rate=0.001), 0.70)
    record(tmp_path, small(noise=0.0), 0.60)
    record(tmp_path, make_settings("demo", learning_rate=0.001), 0.80)
    image = (
        effects.of_choices(sensitivity.study_runs(tmp_path))
        .query("level == 'image'")
        .set_index("variant")
    )
    assert image.drop(SCORED)["seeds"].to_dict() == {"λ = 0 (no noise)": 1}
    (row,) = sensitivity.base_table(tmp_path).query("level == 'test images'").to_dict("records")
    assert row["seeds"] == 1


def test_improved_stands_beside_the_largest_budget_of_replication(tmp_path: Path) -> None:
    for epochs, image in ((100, 0.9), (25, 0.3)):
        record(tmp_path, make_settings("replication", epochs=epochs, t_max=epochs), image)
    record(tmp_path, make_settings("replication", **beyond.OTHER_TRAINING), 0.92)
    record(tmp_path, make_settings("improved"), 0.93)
    record(tmp_path, make_settings("improved"), 0.97, seed=1)  # of no use: no base of this seed
    for name in ("replication", "improved"):
        record(tmp_path / "two", make_settings(name), 0.90)
        record(tmp_path / "two", make_settings(name), 0.96, seed=1)
    row = beyond.beside_paper(tmp_path / "two").to_dict("records")[0]
    assert row["95 % interval"] == "88.00 to 93.00"  # of 85 to 90 and of 91 to 96
    image, pixel = beyond.beside_paper(tmp_path).to_dict("records")
    assert (image["category"], image["level"], pixel["level"]) == ("Metal Plate", "image", "pixel")
    assert (image["paper"], image["replication"], image["improved"]) == ("99.57", "90.00", "93.00")
    assert (image["seeds"], image["epochs"]) == (1, "100")
    table = beyond.ingredients(tmp_path).set_index("run")
    # Over all seeds; the change where both have one
    assert list(table["images, test"]) == ["90.00", "95.00 (+3.0)", "92.00 (+2.0)"]
    assert list(table["peak in the defect"]) == ["50.00", "50.00 (+0.0)", "50.00 (+0.0)"]


def test_an_ingredient_is_found_whatever_preset_it_was_named_after(tmp_path: Path) -> None:
    record(tmp_path, make_settings("replication", calibration="scores"), 0.8)  # that is `improved`
    (row,) = beyond.ingredients(tmp_path).to_dict("records")
    assert (row["run"], row["images, test"]) == ("improved: the score calibrated", "80.00")


def test_the_base_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for seed, image in ((0, 0.5), (1, 0.6)):
        write(here, sensitivity.BASE, seed=seed, image=image)
    write(there, sensitivity.BASE, seed=1, image=0.75)
    (row,) = sensitivity.elsewhere_table(here, there).to_dict("records")
    assert (row["category"], row["seed"]) == ("Metal Plate", 1)
    assert row["test images"] == "60.0 → 75.0"
    assert row["test images, by the mean"] == "50.0 → 65.0"
    assert row["test pixels"] == "90.0 → 90.0"
    assert sensitivity.elsewhere_table(there, tmp_path / "nowhere").empty


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
