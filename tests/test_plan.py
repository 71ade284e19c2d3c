"""Study files: the order of their runs, and what is refused."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest

from n2n.baselines.settings import make_baseline_settings
from n2n.cli import _parse_setting, main
from n2n.errors import N2NError
from n2n.plan import Run, read_study, run_of
from n2n.progress import overview
from n2n.records import Record, RunKey, find_records, only_one, write_record
from n2n.settings import make_settings
from n2n.study import run_study

ROOT = Path(__file__).parents[1]
SHIPPED, RESULTS = sorted((ROOT / "studies").glob("*.yaml")), ROOT / "results"
HEAD = "title: T\npurpose: P\nruns:\n"


def study(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_ones_can_be_read(path: Path) -> None:
    runs = read_study(path).runs
    assert runs
    assert len({run.key for run in runs}) == len(runs)


def committed_records() -> list[Record]:
    if not (RESULTS / "runs").is_dir():
        pytest.skip("the committed results are not beside the tests")
    return find_records(RESULTS)


def test_every_committed_record_is_of_a_shipped_study() -> None:
    shipped = {run.key for path in SHIPPED for run in read_study(path).runs}
    assert {record.key for record in committed_records()} <= shipped


def test_every_committed_record_has_the_precision_that_its_study_asks_for() -> None:
    asked: dict[RunKey, set[str]] = {}
    for run in (run for path in SHIPPED for run in read_study(path).runs):
        asked.setdefault(run.key, set()).add(run.precision)
    for record in committed_records():
        assert asked[record.key] & {"auto", record.precision}, record.folder


def test_the_exercises_records_are_those_of_their_study() -> None:
    runs = read_study(ROOT / "studies" / "exercises.yaml").runs
    records = find_records(RESULTS / "exercises")
    if not records:
        pytest.skip("no records of the exercises are in results/")
    assert {record.key for record in records} <= {run.key for run in runs}


def test_a_committed_record_is_made_again_by_its_command() -> None:
    """Its options, as the command line reads them, give the record's settings."""
    for record in committed_records():
        run = run_of(record)
        assert run.key == record.key
        _, name, *arguments = shlex.split(run.command)
        given = main.commands[name].make_context(name, arguments).params
        assert given["precision"] == record.precision
        changes = dict(_parse_setting(text) for text in given["changes"])
        if record.key.method == "n2n":
            assert make_settings(given["preset"], **changes) == run.settings
        else:
            made = make_baseline_settings(given["method"], backbone=given["backbone"], **changes)
            assert made == run.settings


def test_all_variants_of_a_seed_come_before_the_next_seed(tmp_path: Path) -> None:
    text = HEAD + (
        "- {dataset: D, categories: [a, b], seeds: [1, 0], base: {width: 16}, "
        "variants: [{}, {noise: 0.2}], trace: 5}\n"
        "- {dataset: D, categories: [a]}\n"
    )
    runs = read_study(study(tmp_path, text)).runs
    found = [(r.category, r.settings.noise, r.settings.width, r.seed, r.trace) for r in runs]
    assert found == [
        ("a", 0.3, 16, 1, 5), ("b", 0.3, 16, 1, 5), ("a", 0.2, 16, 1, 5), ("b", 0.2, 16, 1, 5),
        ("a", 0.3, 16, 0, 5), ("b", 0.3, 16, 0, 5), ("a", 0.2, 16, 0, 5), ("b", 0.2, 16, 0, 5),
        ("a", 0.3, 32, 0, 0),
    ]  # fmt: skip


def test_of_the_same_run_the_first_counts(tmp_path: Path) -> None:
    block = "- {{dataset: D, categories: [a], precision: {}}}\n"
    runs = read_study(study(tmp_path, HEAD + block.format("float32") + block.format("auto"))).runs
    assert [run.precision for run in runs] == ["float32"]


def test_what_has_a_record_is_not_missing(tmp_path: Path) -> None:
    plan = read_study(study(tmp_path, HEAD + "- {dataset: D, categories: [a, b]}\n"))
    done = plan.runs[0].key.folder(tmp_path)
    done.mkdir(parents=True)
    assert plan.missing(tmp_path) == list(plan.runs)  # a folder alone is no record
    (done / "record.json").write_text("{}")
    assert plan.missing(tmp_path) == [plan.runs[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not YAML"),
        (HEAD, "'runs' must be a list"),
        (HEAD + "  []\n", "'runs' is empty"),
        ("title: T\n" + HEAD, "the entry 'title' is there twice"),
        (HEAD + "- {dataset: D, categories: [a], base: {noise: 0.1}, base: {}}\n", "'base' is"),
        (
            HEAD
            + "- {dataset: D, categories: [a], precision: float32}\n"
            + "- {dataset: D, categories: [a], precision: bfloat16}\n",
            "is listed in float32 and in bfloat16",
        ),
        ("title: T\n", "entry 'purpose' is missing"),
        (HEAD + "- {dataset: D}\n", "block 1: the entry 'categories' is missing"),
        (HEAD + "- {dataset: D, categories: [a], seed: 1}\n", "no entry 'seed'"),
        (HEAD + "- {dataset: D, categories: a}\n", "'categories' must be a list"),
        (HEAD + "- {dataset: D, categories: [010]}\n", "8 is not the name of a category; put"),
        (HEAD + "- {dataset: D, categories: [a], seeds: [x]}\n", "whole numbers from 0"),
        (HEAD + "- {dataset: D, categories: [a], variants: [1]}\n", "set of settings"),
        (HEAD + "- {dataset: D, categories: [a], base: {nois: 1}}\n", "no setting 'nois'"),
        (HEAD + "- {dataset: D, categories: [a], base: {noise: 1e-1x}}\n", "must be a number"),
        (HEAD + "- {dataset: D, categories: [a], base: {noise: 3e-1}}\n", "a point in it, 3.0e-1"),
        (HEAD + "- {dataset: D, categories: [a], base: {noise: -.3e}}\n", "must be a number."),
        (HEAD + "- {dataset: D, categories: [a], base: {noise: '.3'}}\n", "write it as 0.3"),
        (HEAD + "- {dataset: D, categories: [a], base: {noise: 2}}\n", "between 0 and 1"),
        (HEAD + "- {dataset: D, categories: [a], preset: best}\n", "no preset 'best'"),
        (HEAD + "- {dataset: D, categories: [a], weights: a.pth}\n", "n2n uses none"),
        (HEAD + "- {dataset: D, categories: [a], seeds: []}\n", "'seeds' is empty"),
        (HEAD + "- {dataset: D, categories: [a], variants: [{3: 1}]}\n", "3 is not the name"),
        (HEAD + "- {dataset: D, categories: [a], trace: -3}\n", "a number of epochs"),
        (HEAD + "- {dataset: D, categories: [a], trace: true}\n", "'trace' must be a number"),
        (HEAD + "- {dataset: D, categories: [null]}\n", "None is not the name of a category"),
        (HEAD + "- {dataset: D, categories: [a], seeds: [true]}\n", "whole numbers from 0"),
        (HEAD + "- {dataset: D, categories: [a], precision: bf16}\n", "auto, float32, bfloat16"),
        (
            HEAD + "- {dataset: D, categories: [a], method: padim, base: {method: cflow}}\n",
            "no setting 'method'",
        ),
        (HEAD + "- {dataset: D, categories: [a], method: padim, trace: 5}\n", "belongs to n2n"),
        (
            HEAD + "- {dataset: D, categories: [a], method: patchcore, base: {coreset: 1%}}\n",
            "coreset=1% must be a number",
        ),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    path = study(tmp_path, text)
    with pytest.raises(N2NError, match=message) as caught:
        read_study(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(N2NError, match="no study"):
        read_study(tmp_path / "none.yaml")
    with pytest.raises(N2NError, match=r"cannot be read .*name a file"):
        read_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("title: größer".encode("latin-1"))
    with pytest.raises(N2NError, match=r"latin\.yaml is not in UTF-8"):
        read_study(tmp_path / "latin.yaml")


def test_an_entry_may_replace_what_is_merged(tmp_path: Path) -> None:
    text = HEAD + "- &a {dataset: D, categories: [a], seeds: [1]}\n- {<<: *a, seeds: [2]}\n"
    assert [run.seed for run in read_study(study(tmp_path, text)).runs] == [1, 2]


def test_a_study_makes_what_it_can_and_names_what_failed(
    tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = "{image_size: 64, width: 4, epochs: 1, t_max: 1}"
    text = HEAD + (
        f"- {{dataset: parts, categories: [disc, absent], preset: demo, base: {base}, "
        "variants: [{validation_fraction: 0.01}, {}, {noise: 0.2}]}\n"
    )
    plan = read_study(study(tmp_path, text))
    first, second, third = (run for run in plan.runs if run.category == "disc")
    results = tmp_path / "results"
    with only_one(third.key, results):
        failures = run_study(plan, parts, results, device="cpu", progress=False)
    assert len(failures) == 1
    assert "cannot be split" in failures[0]
    assert str(first.key.folder(results)) in failures[0]
    said = capsys.readouterr().out
    assert "parts/absent" in said
    assert "left to the other process" in said
    assert second not in plan.missing(results)
    assert third in plan.missing(results)


@pytest.mark.parametrize("precision", ["", "precision: float32,"])
def test_a_damaged_record_is_named_and_stops_no_other_run(
    tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    block = f"- {{dataset: parts, categories: [disc], {precision} variants: [{{}}, {{noise: 0}}]}}"
    plan = read_study(study(tmp_path, HEAD + block))
    results, tried = tmp_path / "results", []
    damaged = plan.runs[0].key.folder(results) / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    monkeypatch.setattr("n2n.study.make_record", lambda run, *_, **__: tried.append(run))
    (said,) = run_study(plan, parts, results, device="cpu", progress=False)
    assert f"{damaged} is damaged" in said
    assert tried == [plan.runs[1]]


def test_a_network_that_another_process_trains_is_waited_for(
    tmp_path: Path,
    parts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = []

    def make(run: Run, *arguments: object, **options: object) -> None:
        tried.append(run.key.variant)

    def sleep(seconds: float) -> None:
        tried.append("slept")
        if tried.count("slept") == 3:
            other.close()

    monkeypatch.setattr("n2n.study.make_record", make)
    monkeypatch.setattr("n2n.study.time.sleep", sleep)
    block = "- {dataset: parts, categories: [disc], variants: [{}, {image_score: max}, {noise: 0}]}"
    plan = read_study(study(tmp_path, HEAD + block))
    results = tmp_path / "results"
    with contextlib.ExitStack() as other:
        other.enter_context(only_one(plan.runs[0].key, results))
        run_study(plan, parts, results, device="cpu", progress=False)
    # The first is held itself, which its own lock says; the second needs its network
    assert tried == [
        "replication", "replication_noise-0", *3 * ["slept"], "replication_image-score-max",
    ]  # fmt: skip
    assert capsys.readouterr().out.count("waiting for another process") == 1


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize(
    ("name", "message", "reached"),
    [
        ("RuntimeError", "an illegal address", ["disc", "disc2"]),
        ("AcceleratorError", "CUDA error: an illegal address", ["disc"]),
        ("AcceleratorError", "CUDA error: out of memory", ["disc", "disc2"]),
    ],
)
def test_an_error_that_nobody_foresaw_stops_its_run_alone(
    tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str,
    reached: list[str], said: bool,
) -> None:  # fmt: skip
    """But where a GPU fails the process cannot use it again, and each run after it would fail."""
    tried = []

    def broken(run: Run, *arguments: object, **options: object) -> None:
        tried.append(run.category)
        error = type(name, (RuntimeError,), {})(message)
        if said:
            raise N2NError(f"It cannot be used: {message}.") from error
        raise error

    monkeypatch.setattr("n2n.study.make_record", broken)
    plan = read_study(study(tmp_path, HEAD + "- {dataset: parts, categories: [disc, disc2]}\n"))
    (parts / "parts" / "disc2").symlink_to(parts / "parts" / "disc")
    failures = run_study(plan, parts, tmp_path / "results", device="cpu", progress=False)
    (parts / "parts" / "disc2").unlink()
    assert tried == reached
    assert [message in failure for failure in failures] == [True] * len(reached)


def test_the_time_that_is_left_follows_epochs_size_and_images(tmp_path: Path) -> None:
    text = HEAD + (
        "- {dataset: MPDD, categories: [metal_plate, bracket_black], "
        "variants: [{}, {epochs: 50}, {calibration: scores}]}\n"
        "- {dataset: MPDD, categories: [tubes], method: padim}\n"
    )
    plan = read_study(study(tmp_path, text))
    content = {"provenance": {"wall_seconds": 540.0}, "settings": make_settings().as_dict()}
    metrics = {"image": {"auroc": 0.5}, "pixel": {"auroc": 0.5}}
    intervals = {level: {"auroc": [0.4, 0.6]} for level in metrics}
    done = {
        "metrics": metrics, "intervals": intervals, "untrained": metrics, **content,
        "image_scores": {"top1%": {"auroc": 0.5}},
        "training": {"epochs": 100, "stopped": "epochs"},
    }  # fmt: skip
    record = write_record(
        plan.runs[0].key, tmp_path, done, lambda folder: (folder / "weights.pt").touch()
    )
    (plan.runs[1].key.work(tmp_path)).mkdir(parents=True)
    (plan.runs[1].key.work(tmp_path) / "checkpoint.pt").touch()
    with only_one(plan.runs[2].key, tmp_path):
        text = overview(plan, tmp_path)
    assert text.splitlines()[1].split() == ["MPDD", "n2n", "1", "1", "0", "1", "3"]
    # 10 seconds for each of 54 images; 289 images, and of both half the epochs; calibrated, none
    hours = 10 * (289 + 54 / 2 + 289 / 2) / 3600
    assert f"about {hours:.1f} h, without padim" in text
    (record.folder / "weights.pt").unlink()  # then there is no network to take over
    assert f"about {hours + 540 / 3600:.1f} h, without padim" in overview(plan, tmp_path)
