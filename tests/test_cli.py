"""The command line, from images to tables, and what it says when something is wrong."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.metrics import roc_auc_score

from n2n import experiment, training
from n2n.cli import main
from n2n.corruption import corrupt, fixed_noise, normalise
from n2n.data import load_category
from n2n.detection import Detection, Expected, detect, expected_error, image_scores
from n2n.errors import N2NError
from n2n.loss import error_map
from n2n.measurement import (
    MARGIN,
    by_position,
    development_metrics,
    development_set,
    hidden_alike,
    hidden_defects,
    passed_defects,
    peak_in_defect,
    reconstruction_errors,
)
from n2n.training import build_network, split_validation
from n2n.weights import load_network
from tests.conftest import draw_parts

TINY = ["--preset", "demo", "--image-size", "64", "--width", "4", "--quiet", "--device", "cpu"]


def n2n(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_parts(parts: Path, results: Path, *more: object) -> Result:
    return n2n(
        "run", "--data", parts, "--dataset", "parts", "--category", "disc", "--results", results,
        "--epochs", 2, *TINY, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    outcome = run_parts(parts, results)
    assert outcome.exit_code == 0, outcome.output
    return next(results.glob("runs/*/*/*/*/seed0"))


def test_run_writes_a_whole_record(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "record.json", "history.csv", "scores.csv", "pixel_roc.csv", "weights.pt",
    }  # fmt: skip
    record = json.loads((finished / "record.json").read_text())
    assert record["data"]["test_anomalous"] == 4
    assert record["training"]["epochs"] == 2
    assert record["settings"]["image_size"] == 64
    assert record["provenance"]["packages"]["torch"]
    # The work folder is gone: nothing half-finished is left, but the empty file of the lock.
    work = finished.parents[5] / "work" / "parts"
    left = [path for path in work.rglob("*") if path.is_file()]
    assert [(path.suffix, path.stat().st_size) for path in left] == [(".lock", 0)]


def test_bars_do_not_fill_a_log_file(parts: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "n2n", "run", "--data", parts, "--dataset", "parts",
        "--category", "disc", "--results", tmp_path, "--epochs", "1", *TINY,
    ]  # fmt: skip
    command.remove("--quiet")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "image" in done.stdout
    assert done.stderr == ""  # a run of seconds; in a terminal a dozen bars


def test_record_agrees_with_scikit_learn_on_its_own_scores(finished: Path) -> None:
    record = json.loads((finished / "record.json").read_text())
    scores = pd.read_csv(finished / "scores.csv")
    expected = roc_auc_score(scores["anomalous"], scores[record["settings"]["image_score"]])
    assert record["metrics"]["image"]["auroc"] == pytest.approx(expected, abs=1e-9)


def test_the_record_is_what_its_weights_show(finished: Path, parts: Path, tmp_path: Path) -> None:
    """Scores, threshold and metrics from the maps of Eq. (9), by NumPy and scikit-learn."""
    record, cpu = json.loads((finished / "record.json").read_text()), torch.device("cpu")
    network, settings, *_ = load_network(finished, cpu)
    images = load_category(parts, "parts", "disc", 64, progress=False)
    _, held_out = split_validation(len(images.train), 0.2, 0)

    def maps_of(net: torch.nn.Module, pictures: torch.Tensor) -> np.ndarray:
        x0 = normalise(pictures)
        with torch.inference_mode():
            return error_map(net(corrupt(x0, fixed_noise(settings), 0.3)), x0, settings).numpy()

    def top(maps: np.ndarray) -> np.ndarray:  # a hundredth of 64x64 pixels
        return np.sort(maps.reshape(len(maps), -1))[:, -40:].mean(1)

    normal, tested = maps_of(network, images.train[held_out]), maps_of(network, images.test)
    largest = {"image": top(normal).max(), "pixel": normal.max()}
    assert record["threshold"] == pytest.approx(largest, rel=1e-5)
    scores = pd.read_csv(finished / "scores.csv")
    assert scores["top1%"].to_numpy() == pytest.approx(top(tested), rel=1e-5)
    bare = maps_of(build_network(settings, 0, cpu), images.test)
    masks = images.masks.numpy().ravel()
    for found, maps in ((record["metrics"], tested), (record["untrained"], bare)):
        wanted = roc_auc_score(masks, maps.ravel())
        assert found["pixel"]["auroc"] == pytest.approx(wanted, abs=1e-5)

    image = parts / "parts/disc" / scores["image"].iloc[-1]
    outcome = n2n("detect", "--run", finished, "--out", tmp_path, "--device", "cpu", image)
    assert outcome.exit_code == 0, outcome.output
    row = pd.read_csv(tmp_path / "scores.csv").iloc[0]
    assert row["threshold"] == pytest.approx(largest["image"], rel=1e-5)
    assert row["anomalous"] == (top(tested)[-1] > largest["image"])


def test_a_calibrated_record_is_what_its_weights_show(parts: Path, tmp_path: Path) -> None:
    """Which images calibrate, set the threshold and are judged, and by which of the two maps."""
    # Without filters a defect is hidden whole, and what is left differs from map to map
    options = ("--set", "calibration=scores", "--set", "alpha=0", "--seed", 13)
    outcome = run_parts(parts, tmp_path, *options)
    assert outcome.exit_code == 0, outcome.output
    folder = next(tmp_path.glob("runs/*/*/*/*/seed13"))
    record, cpu = json.loads((folder / "record.json").read_text()), torch.device("cpu")
    network, settings, *_ = load_network(folder, cpu)
    images = load_category(parts, "parts", "disc", 64, progress=False)
    learned, held_out = split_validation(len(images.train), 0.2, 13)
    development = development_set(images, held_out)
    good = ~development.labels

    def seen(pictures: torch.Tensor, expected: Expected | None) -> Detection:
        return detect(network, pictures, settings, cpu, expected=expected, progress=False)

    expected = expected_error(seen(images.train[learned], None).maps)
    tested, normal = seen(images.test, expected), seen(development.test, expected)
    top = image_scores(tested.scored)["top1%"]
    assert pd.read_csv(folder / "scores.csv")["top1%"].to_numpy() == pytest.approx(top, rel=1e-4)
    largest = {
        "image": float(image_scores(normal.scored[good])["top1%"].max()),
        "pixel": float(normal.maps[good].max()),
    }
    assert record["threshold"] == pytest.approx(largest, rel=1e-4)
    close = functools.partial(pytest.approx, rel=1e-3, abs=1e-4)
    wanted = {
        "hidden_defects": hidden_defects(images, tested.scored),
        "hidden_alike": hidden_alike(images, tested.scored),
        "hidden_alike_farther": hidden_alike(images, tested.scored, 2 * MARGIN),
        "by_position": by_position(images, tested.maps, normal.maps[good]),
        "peak_in_defect": {
            "maps": peak_in_defect(images, tested.maps),
            "scored": peak_in_defect(images, tested.scored),
        },
    }
    for name, value in wanted.items():
        assert record[name] == close(value), name
    for name, value in reconstruction_errors(images, tested).items():
        assert record["reconstruction"][name] == close(value)
    for name, value in development_metrics(development, normal).items():
        assert record["development"][name] == close(value)
    for name, value in passed_defects(development, normal).items():
        assert record["passed_defects"][name] == close(value)


def test_a_complete_record_is_reused(finished: Path, parts: Path) -> None:
    before = (finished / "record.json").stat().st_mtime_ns
    assert run_parts(parts, finished.parents[5]).exit_code == 0
    assert (finished / "record.json").stat().st_mtime_ns == before


def test_the_same_run_elsewhere_gives_the_same_numbers(
    finished: Path, parts: Path, tmp_path: Path
) -> None:
    run_parts(parts, tmp_path)
    again = next(tmp_path.glob("runs/*/*/*/*/seed0"))
    assert (again / "scores.csv").read_bytes() == (finished / "scores.csv").read_bytes()


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
def test_another_use_of_the_network_is_not_trained_again(parts: Path, tmp_path: Path) -> None:
    """The record names the run that trained it, and keeps its history; its trace if that fits."""
    assert run_parts(parts, tmp_path, "--trace", 1).exit_code == 0
    (path,) = tmp_path.glob("runs/*/*/*/*/seed0/record.json")
    older = json.loads(path.read_text())
    del older["settings"]["map_sigma"]  # as in a record from before there was such a setting
    path.write_text(json.dumps(older))
    for change, said in (("calibration=scores", True), ("image_score=mean", False)):
        outcome = run_parts(parts, tmp_path, "--trace", 1, "--set", change)
        assert outcome.exit_code == 0
        assert ("no trace.csv is written" in outcome.output) == said
    folder = tmp_path / "runs/parts/disc/n2n"
    for name in ("gone", "damaged"):  # Git removes records alone
        left = folder / name / "seed0/weights.pt"
        left.parent.mkdir(parents=True)
        left.touch()
    (left.parent / "record.json").write_text("{")
    shutil.copytree(path.parent, folder / "a trace is missing" / "seed0")
    (folder / "a trace is missing" / "seed0" / "trace.csv").write_text("")
    assert run_parts(parts, tmp_path, "--set", "noise=0.2").exit_code == 0
    folders = tmp_path / "runs/parts/disc/n2n"
    name = "demo_image-size-64_{}width-4_t-max-2_epochs-2{}"
    plain, other, trained, scored = (
        folders / name.format(*parts) / "seed0"
        for parts in (
            ("", ""), ("", "_calibration-scores"), ("noise-0.2_", ""), ("", "_image-score-mean"),
        )
    )  # fmt: skip
    records = [json.loads((f / "record.json").read_text()) for f in (plain, other, trained, scored)]
    by = [record["training"]["by"] for record in records]
    assert by[0] is None
    assert by[1]["variant"] == plain.parent.name
    assert by[2] is None
    assert by[3]["variant"] == plain.parent.name
    assert "compiled" in by[3]
    for name in ("history.csv", "pixel_roc.csv"):
        assert (plain / name).read_bytes() == (other / name).read_bytes()
    trace = pd.read_csv(plain / "trace.csv")
    assert list(trace["epoch"]) == [1, 2]
    assert (scored / "trace.csv").read_bytes() == (plain / "trace.csv").read_bytes()
    assert not (other / "trace.csv").exists()  # its maps are others
    # Maps are calibrated on the CPU, wherever the network is
    expected = load_network(other, torch.device("meta"))[3]
    assert expected is not None
    assert expected.mean.device.type == "cpu"
    assert records[3]["training"]["best_epoch"] == 2
    seen = records[3]["metrics"]["image"]["auroc"]
    assert trace["test_image_mean"].iloc[-1] == pytest.approx(seen, abs=1e-5)
    assert (plain / "scores.csv").read_bytes() != (other / "scores.csv").read_bytes()


def test_an_interrupted_trace_goes_on_with_its_checkpoint_and_not_without(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2n.training.CHECKPOINT_SECONDS", 0.0)
    write = experiment._write_trace

    def interrupted(path: Path, rows: dict[int, dict[str, float]]) -> None:
        write(path, rows)
        if len(rows) == 2:
            raise KeyboardInterrupt

    assert run_parts(parts, tmp_path / "whole", "--trace", 1).exit_code == 0
    (whole,) = (tmp_path / "whole").glob("runs/*/*/*/*/*/trace.csv")
    for folder, with_checkpoint in ((tmp_path / "kept", True), (tmp_path / "lost", False)):
        with monkeypatch.context() as patch:
            patch.setattr(experiment, "_write_trace", interrupted)
            assert run_parts(parts, folder, "--trace", 1).exit_code == 130
        (trace,) = folder.glob("work/*/*/*/*/*/trace.csv")
        assert (trace.parent / "checkpoint.pt").exists()
        kept = trace.read_text()
        trace.write_text("")
        refused = run_parts(parts, folder, "--trace", 1)
        assert refused.exit_code == 1
        assert f"{trace} cannot be read; delete it to go on" in refused.output
        trace.write_text(kept)
        if not with_checkpoint:  # as the messages advise; then the rows are of another training
            (trace.parent / "checkpoint.pt").unlink()
            write(trace, {9: dict.fromkeys(pd.read_csv(trace).columns[1:], 0.5)})
        assert run_parts(parts, folder, "--trace", 1).exit_code == 0
        (again,) = folder.glob("runs/*/*/*/*/*/trace.csv")
        assert again.read_bytes() == whole.read_bytes()


def test_a_trace_that_begins_late_says_so(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was begun without a trace, and is continued with one."""
    monkeypatch.setattr("n2n.training.CHECKPOINT_SECONDS", 0.0)
    save = training._State.save

    def interrupted(state: training._State, path: Path) -> None:
        save(state, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._State, "save", interrupted)
        assert run_parts(parts, tmp_path).exit_code == 130
    outcome = run_parts(parts, tmp_path, "--trace", 1)
    assert outcome.exit_code == 0, outcome.output
    assert "trace.csv will begin where" in outcome.output
    (trace,) = tmp_path.glob("runs/*/*/*/*/*/trace.csv")
    assert pd.read_csv(trace)["epoch"].tolist() == [2]


def test_the_recorded_command_is_the_run(parts: Path, tmp_path: Path) -> None:
    """Copied into a shell, it makes the same record in another folder."""
    more = ["--set", "sigmas=[0.5, 1, 2]", "--precision", "float32", "--trace", 1]
    run_parts(parts, tmp_path / "one", *more)
    record = json.loads(next(tmp_path.glob("one/runs/*/*/*/*/*/record.json")).read_text())
    program, *arguments = shlex.split(record["provenance"]["command"])
    assert (program, arguments[-4:]) == ("n2n", ["--precision", "float32", "--trace", "1"])
    arguments[arguments.index("ROOT")] = str(parts)
    assert n2n(*arguments, "--results", tmp_path / "two", "--quiet").exit_code == 0
    again = json.loads(next(tmp_path.glob("two/runs/*/*/*/*/*/record.json")).read_text())
    assert (again["variant"], again["metrics"]) == (record["variant"], record["metrics"])
    one, two = sorted(tmp_path.glob("*/runs/*/*/*/*/*/trace.csv"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sigmas=8", "sigmas=8 must be a list of numbers"),
        ("preset=paper", "no setting 'preset'"),
    ],
)
def test_settings_of_the_wrong_kind(parts: Path, tmp_path: Path, value: str, message: str) -> None:
    outcome = run_parts(parts, tmp_path, "--set", value)
    assert outcome.exit_code == 1
    assert message in outcome.output


def test_options_of_n2n_are_refused_for_other_methods(parts: Path, tmp_path: Path) -> None:
    outcome = n2n(
        "run", "--data", parts, "--dataset", "parts", "--category", "disc", "--results", tmp_path,
        "--method", "padim", "--noise", 0.2,
    )  # fmt: skip
    assert outcome.exit_code == 1
    assert "--noise belongs to n2n" in outcome.output


def test_set_may_name_what_has_an_option_of_its_own(parts: Path, tmp_path: Path) -> None:
    """The commands in run records are written with --set throughout."""
    outcome = run_parts(parts, tmp_path, "--set", "image_size=72", "--set", "noise=0.2")
    assert outcome.exit_code == 0, outcome.output
    record = json.loads(next(tmp_path.glob("runs/*/*/*/*/*/record.json")).read_text())
    assert (record["settings"]["image_size"], record["settings"]["noise"]) == (72, 0.2)


def test_detect_writes_pictures_and_scores(finished: Path, parts: Path, tmp_path: Path) -> None:
    image = parts / "parts/disc/test/spot/000.png"
    outcome = n2n("detect", "--run", finished, "--out", tmp_path / "out", "--device", "cpu", image)
    assert outcome.exit_code == 0, outcome.output
    table = pd.read_csv(tmp_path / "out/scores.csv")
    recorded = pd.read_csv(finished / "scores.csv").set_index("image")["top1%"]
    assert table["score"].item() == pytest.approx(recorded["test/spot/000.png"], rel=1e-6)
    for name in ("000_heat.png", "000_overlay.png"):
        assert Image.open(tmp_path / "out" / name).size == (64, 64)
    for shift, called in ((-1e-4, True), (1e-4, False)):
        limit = table["score"].item() + shift
        arguments = ["--run", finished, "--out", tmp_path / "out", "--threshold", limit, image]
        assert n2n("detect", *arguments).exit_code == 0
        again = pd.read_csv(tmp_path / "out/scores.csv")
        assert (again["threshold"].item(), again["anomalous"].item()) == (
            pytest.approx(limit), called
        )  # fmt: skip


def test_images_and_masks_are_read_as_the_run_asks(parts: Path, tmp_path: Path) -> None:
    """From the settings to the record, and in `n2n detect`."""
    shutil.copytree(parts, tmp_path / "data")
    parts = tmp_path / "data"
    for path in parts.rglob("*.png"):  # larger, so that there is something to reduce
        Image.open(path).resize((96, 96), Image.Resampling.NEAREST).save(path)
    found = {}
    for name, more in {
        "plain": [], "mask": ["--set", "mask_rule=any"], "sharp": ["--set", "resize=nearest"],
    }.items():  # fmt: skip
        outcome = run_parts(parts, tmp_path, *more)
        assert outcome.exit_code == 0, outcome.output
        (path,) = {p.parent for p in tmp_path.glob("runs/*/*/*/*/*/record.json")} - {
            folder for folder, _ in found.values()
        }
        found[name] = path, json.loads((path / "record.json").read_text())
    plain, mask = found["plain"][1], found["mask"][1]
    assert mask["training"]["by"]["variant"] == plain["variant"]  # the same network
    assert mask["metrics"]["image"] == plain["metrics"]["image"]
    assert mask["data"]["masks"]["median"] > plain["data"]["masks"]["median"]
    assert mask["metrics"]["pixel"] != plain["metrics"]["pixel"]

    folder, record = found["sharp"]
    assert record["training"]["by"] is None
    image, out = parts / "parts/disc/test/spot/000.png", tmp_path / "out"
    outcome = n2n("detect", "--run", folder, "--out", out, "--device", "cpu", image)
    assert outcome.exit_code == 0, outcome.output
    (score,) = pd.read_csv(out / "scores.csv")["score"]
    recorded, other = (
        pd.read_csv(path / "scores.csv").set_index("image").loc["test/spot/000.png", "top1%"]
        for path in (folder, found["plain"][0])
    )
    assert score == pytest.approx(recorded, rel=1e-6)
    assert score != pytest.approx(other, rel=1e-3)


def test_detect_overwrites_no_image_that_it_is_given(
    finished: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [tmp_path / "a.png", tmp_path / "a_heat.png"]
    for path in images:
        shutil.copy(parts / "parts/disc/test/spot/000.png", path)
    before = images[1].read_bytes()
    monkeypatch.chdir(tmp_path)
    outcome = n2n("detect", "--run", finished, "--out", ".", "--device", "cpu", *images)
    assert outcome.exit_code == 1
    assert "a_heat.png would be overwritten; choose another --out" in outcome.output
    assert sorted(tmp_path.iterdir()) == images
    assert images[1].read_bytes() == before
    outcome = n2n("detect", "--run", finished, "--out", finished, "--device", "cpu", images[0])
    assert (outcome.exit_code, "holds a run record" in outcome.output) == (1, True)


def test_detect_writes_no_picture_over_another(finished: Path, tmp_path: Path) -> None:
    images = [tmp_path / "Photo.jpg", tmp_path / "photo.png"]  # one name for some file systems
    for image in images:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    outcome = n2n("detect", "--run", finished, "--out", tmp_path / "out", *images)
    assert outcome.exit_code == 1
    assert "Two images are called 'Photo'" in outcome.output


def test_detect_leaves_no_half_a_picture(
    finished: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Image.Image.save

    def fails(picture: Image.Image, file: Path, *more: str) -> None:
        save(picture, file, *more)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fails)
    image = parts / "parts/disc/test/spot/000.png"
    outcome = n2n("detect", "--run", finished, "--out", tmp_path, "--device", "cpu", image)
    assert outcome.exit_code == 1
    assert "cannot be written (No space left on device); choose another --out" in outcome.output
    assert list(tmp_path.iterdir()) == []


def test_scores_are_single_precision_whatever_the_training_was(parts: Path, tmp_path: Path) -> None:
    assert run_parts(parts, tmp_path, "--precision", "bfloat16").exit_code == 0
    run = next(tmp_path.glob("runs/*/*/*/*/seed0"))
    origin = json.loads((run / "record.json").read_text())["provenance"]
    assert (origin["precision"], origin["scored_in"]) == ("bfloat16", "float32")
    recorded = pd.read_csv(run / "scores.csv").set_index("image")["top1%"]["test/spot/000.png"]
    image = parts / "parts/disc/test/spot/000.png"
    scores = {}
    for precision in ("float32", "float16", "bfloat16"):
        out = tmp_path / precision
        outcome = n2n(
            "detect", "--run", run, "--out", out, "--precision", precision, "--device", "cpu", image
        )
        assert outcome.exit_code == 0, outcome.output
        scores[precision] = pd.read_csv(out / "scores.csv")["score"].item()
    assert scores["float32"] == pytest.approx(recorded, rel=1e-6)
    assert scores["bfloat16"] != pytest.approx(recorded, rel=1e-6)
    assert 0 < abs(scores["float16"] - recorded) < abs(scores["bfloat16"] - recorded)


def test_a_training_in_float16_is_refused(parts: Path, tmp_path: Path) -> None:
    outcome = run_parts(parts, tmp_path, "--precision", "float16")
    assert outcome.exit_code == 1
    assert "no precision 'float16' here; choose auto, float32 or bfloat16" in outcome.output
    assert not (tmp_path / "runs").exists()


def test_detect_refuses_what_it_cannot_read(finished: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    outcome = n2n("detect", "--run", finished, "--out", tmp_path / "out", broken)
    assert outcome.exit_code == 1
    assert "broken.png" in outcome.output
    assert not (tmp_path / "out").exists()
    outcome = n2n("detect", "--run", tmp_path, "--out", tmp_path / "out", broken)
    assert outcome.exit_code == 1
    assert "weights" in outcome.output


def test_detect_refuses_a_name_that_no_table_can_hold(finished: Path, tmp_path: Path) -> None:
    photo = tmp_path / os.fsdecode(b"gr\xf6.png")
    Image.new("RGB", (64, 64)).save(photo)
    outcome = n2n("detect", photo, "--run", finished, "--out", tmp_path / "out")
    assert outcome.exit_code == 1
    assert "gr\\udcf6.png' has a name that is not UTF-8; rename it." in outcome.output
    assert not (tmp_path / "out").exists()


def test_detect_says_how_to_come_by_missing_weights(
    finished: Path, parts: Path, tmp_path: Path
) -> None:
    def said(run: Path) -> str:
        image = parts / "parts/disc/test/spot/000.png"
        outcome = n2n("detect", "--run", run, "--out", tmp_path / "out", image)
        assert outcome.exit_code == 1
        return outcome.output

    bare = tmp_path / "runs/bare"
    shutil.copytree(finished, bare, ignore=shutil.ignore_patterns("weights.pt"))
    assert f"run it again into another --results folder, or delete {bare} first" in said(bare)
    assert f"or delete {bare} first" in said(bare / "weights.pt")
    other = ["--method", "thumbnail", "--image-size", 64, "--device", "cpu", "--quiet"]
    where = ["--data", parts, "--dataset", "parts", "--category", "disc", "--results", tmp_path]
    assert n2n("run", *where, *other).exit_code == 0
    (thumbnail,) = tmp_path.glob("runs/parts/disc/thumbnail/*/seed0")
    assert "thumbnail keeps none; name a run of n2n" in said(thumbnail)


@pytest.mark.parametrize("moment", ["torch.load", "n2n.weights.build_network"])
def test_weights_are_not_foreign_where_the_memory_is_too_small(
    finished: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(moment, greedy)
    with pytest.raises(N2NError, match="memory is too small for this run; close other programs"):
        load_network(finished, torch.device("cpu"))


def test_weights_of_another_version_are_named_so(finished: Path, tmp_path: Path) -> None:
    saved = torch.load(finished / "weights.pt", weights_only=True)
    torch.save(saved | {"settings": saved["settings"] | {"younger": 1}}, tmp_path / "weights.pt")
    with pytest.raises(N2NError, match=r"another version of this program.*'younger'"):
        load_network(tmp_path, torch.device("cpu"))


def test_detect_refuses_foreign_weights(tmp_path: Path) -> None:
    foreign = tmp_path / "weights.pt"
    foreign.write_bytes(b"foreign")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    outcome = n2n("detect", "--run", foreign, "--out", tmp_path / "out", tmp_path / "a.png")
    assert outcome.exit_code == 1
    assert "is not a file of weights" in outcome.output


def test_detect_names_what_is_no_file(finished: Path, tmp_path: Path) -> None:
    for given, sentence in (
        ([tmp_path], "is a folder; name the images in it"),
        ([tmp_path / "*.bmp"], "check its name"),
        (["--threshold", "nan", finished / "record.json"], "threshold nan is not finite"),
    ):
        outcome = n2n("detect", "--run", finished, "--out", tmp_path / "out", *given)
        assert outcome.exit_code == 1
        assert sentence in outcome.output


def test_damaged_weights_beside_a_record_are_named_so(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "weights.pt").write_bytes((run / "weights.pt").read_bytes()[:1000])
    with pytest.raises(N2NError, match="it may be damaged: delete its folder and run it again"):
        load_network(run, torch.device("cpu"))


def test_check_lists_own_data_and_fails_on_damage(parts: Path, tmp_path: Path) -> None:
    outcome = n2n("check", parts)
    assert outcome.exit_code == 0, outcome.output
    assert "parts/disc" in outcome.output
    draw_parts(tmp_path / "renamed/anomaly_dataset/tubes")
    outcome = n2n("check", tmp_path / "renamed")
    assert outcome.exit_code == 0, outcome.output
    assert "if it is a part of MPDD, rename the folder anomaly_dataset to MPDD" in outcome.output
    folder = tmp_path / "mine/part/train/good"
    folder.mkdir(parents=True)
    (folder / "000.png").write_bytes(b"")
    outcome = n2n("check", tmp_path)
    assert outcome.exit_code == 1
    assert "000.png" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--category", "absent"], "absent"),
        (["--noise", "1.5"], "noise=1.5 must be between 0 and 1"),
        (["--set", "colour=1"], "no setting 'colour'"),
        (["--set", "colour"], "NAME=VALUE"),
        (["--set", "noise=null"], "gives no value"),
        (["--device", "quantum"], "'quantum' cannot be used"),
        (["--precision", "int4"], "no precision 'int4'"),
        (["--method", "foo", "--preset", "demo"], "no method 'foo'"),
    ],
)
def test_bad_input_gets_one_sentence(
    parts: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    outcome = run_parts(parts, tmp_path, *arguments)
    assert outcome.exit_code == 1
    assert outcome.output.startswith("n2n: ")
    assert len(outcome.output.strip().splitlines()) == 1
    assert sentence in outcome.output


def test_set_reaches_any_setting(parts: Path, tmp_path: Path) -> None:
    outcome = run_parts(parts, tmp_path, "--set", "sigmas=[1, 2]", "--set", "image_score=mean")
    assert outcome.exit_code == 0, outcome.output
    record = json.loads(next(tmp_path.glob("runs/**/record.json")).read_text())
    assert record["settings"]["sigmas"] == [1, 2]
    assert "sigmas-1+2" in record["variant"]


def test_tables_and_audit(tmp_path: Path) -> None:
    outcome = n2n("tables", "--results", tmp_path / "none", "--out", tmp_path / "out")
    assert outcome.exit_code == 1
    assert "no results folder" in outcome.output
    outcome = n2n("tables", "--results", tmp_path, "--out", "/dev/null/out")
    assert outcome.exit_code == 1
    assert outcome.output.strip() == (
        "n2n: /dev/null/out cannot be written (Not a directory); choose another folder."
    )
    outcome = n2n("tables", "--results", tmp_path, "--out", tmp_path / "out")
    assert outcome.exit_code == 0, outcome.output
    assert "not run" in outcome.output
    both = ("--results", tmp_path, "--beside", tmp_path / "out" / "..")
    outcome = n2n("tables", *both, "--out", tmp_path / "out")
    assert outcome.exit_code == 1
    assert "name another results folder" in outcome.output
    outcome = n2n("audit")
    assert outcome.exit_code == 0, outcome.output
    assert "do not hold" in outcome.output


def test_a_study_from_its_list_to_its_records(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("N2N_DATA", raising=False)
    file, results, data = tmp_path / "study.yaml", tmp_path / "results", tmp_path / "data"
    file.write_text(
        "title: T\npurpose: P\nruns:\n- {dataset: parts, categories: [disc, ring], preset: demo, "
        "base: {image_size: 64, width: 4, epochs: 1}}\n"
    )
    for category in ("disc", "ring"):
        shutil.copytree(parts / "parts/disc", data / "parts" / category)
    (data / "parts/ring/train/good/000.png").write_bytes(b"")
    of_results = ("--results", results)
    assert "no results folder" in n2n("status", file, *of_results).output
    outcome = n2n("study", file, "--dry-run", *of_results)
    assert (outcome.exit_code, outcome.output.count("missing  ")) == (0, 2)
    outcome = n2n("study", file, *of_results)
    assert outcome.exit_code == 1
    assert "with --data or the variable N2N_DATA" in outcome.output
    outcome = n2n("study", file, "--data", data, "--device", "cpu", "--quiet", *of_results)
    assert outcome.exit_code == 1
    assert outcome.output.count("000.png cannot be read: it is empty") == 2  # at once, at the end
    assert "1 of 2 runs are done" in n2n("study", file, "--dry-run", *of_results).output
    outcome = n2n("status", file, *of_results)
    assert outcome.exit_code == 0, outcome.output
    assert "failed" in outcome.output


@pytest.mark.parametrize("root", [None, "data"])
def test_a_replication_reads_the_variable_of_the_images(
    monkeypatch: pytest.MonkeyPatch, root: str | None
) -> None:
    asked = []
    monkeypatch.setattr("n2n.book.replicate", lambda data, **_: asked.append(data))
    monkeypatch.setenv("N2N_DATA", root or "")
    assert n2n("replicate").exit_code == 0
    assert asked == [root and Path(root)]


@pytest.mark.parametrize(
    "command",
    ["", "demo-data", "check", "run", "study", "status", "detect", "tables", "audit", "replicate"],
)
def test_help(command: str) -> None:
    outcome = n2n(*filter(None, [command]), "--help")
    assert outcome.exit_code == 0
    assert "Usage" in outcome.output


def test_help_does_not_import_torch() -> None:
    code = "import sys, n2n.cli; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
