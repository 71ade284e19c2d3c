"""Run records: whole or absent, and read with care."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from n2n.baselines.settings import make_baseline_settings
from n2n.errors import N2NError
from n2n.measurement import about_run
from n2n.plan import Run
from n2n.records import (
    RunKey,
    commit,
    failure,
    find_records,
    finished,
    is_running,
    only_one,
    read_record,
    refuse_other_images,
    write_record,
)
from n2n.settings import make_settings

KEY = RunKey("MPDD", "tubes", "n2n", "replication", 0)
CONTENT: dict[str, Any] = {
    "metrics": {"image": {"auroc": 0.9}, "pixel": {"auroc": float("nan")}},
    "intervals": {"image": {"auroc": (0.8, 0.95)}, "pixel": {"auroc": (float("nan"),) * 2}},
    "settings": make_settings("replication").as_dict(),
    "training": {"epochs": 100, "stopped": "epochs"},
    "untrained": {"image": {"auroc": 0.5}, "pixel": {"auroc": float("nan")}},
    "image_scores": {"top1%": {"auroc": 0.9}},
}


def nothing(folder: Path) -> None:
    (folder / "scores.csv").write_text("image\n")


def test_round_trip(tmp_path: Path) -> None:
    written = write_record(KEY, tmp_path, CONTENT, nothing)
    assert written.folder == tmp_path / "runs/MPDD/tubes/n2n/replication/seed0"
    record = read_record(written.folder)
    assert record.key == KEY
    assert record.metric("image") == 0.9
    assert record.interval("image") == (0.8, 0.95)
    assert record.metric("pixel") != record.metric("pixel")  # NaN survives as null
    assert "NaN" not in (record.folder / "record.json").read_text()
    assert [found.key for found in find_records(tmp_path)] == [KEY]


def test_runs_of_other_images_are_kept_apart(tmp_path: Path) -> None:
    content = CONTENT | {"data": {"fingerprint": "ours"}}
    write_record(KEY, tmp_path, content, nothing)
    other = RunKey("MPDD", "tubes", "padim", "own", 1)
    damaged = other.folder(tmp_path) / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    refuse_other_images(other, tmp_path, "ours")
    with pytest.raises(N2NError, match=r"fingerprint ours, these have theirs.*another results"):
        refuse_other_images(other, tmp_path, "theirs")
    refuse_other_images(RunKey("MPDD", "connector", "n2n", "own", 1), tmp_path, "theirs")


def test_settings_of_a_baseline_are_checked(tmp_path: Path) -> None:
    key = RunKey("MPDD", "tubes", "padim", "own", 0)
    settings = asdict(make_baseline_settings("padim"))
    assert write_record(key, tmp_path, CONTENT | {"settings": settings}, nothing).key == key
    path = key.folder(tmp_path) / "record.json"
    path.write_text(path.read_text().replace('"coreset"', '"colour"'))
    with pytest.raises(N2NError, match=r"record\.json is damaged"):
        read_record(path.parent)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    checkpoint = KEY.work(tmp_path) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()

    def fail(folder: Path) -> None:
        nothing(folder)
        raise error

    with pytest.raises((N2NError, KeyboardInterrupt), match=r"No space left.*free some space|^$"):
        write_record(KEY, tmp_path, CONTENT, fail)
    assert find_records(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [checkpoint]
    write_record(KEY, tmp_path, CONTENT, nothing)
    assert not checkpoint.parent.exists()  # done: nothing to go on with


def test_a_complete_record_is_not_overwritten(tmp_path: Path) -> None:
    write_record(KEY, tmp_path, CONTENT, nothing)
    with pytest.raises(N2NError, match="delete it to run it again"):
        write_record(KEY, tmp_path, CONTENT, nothing)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "null"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    record = write_record(KEY, tmp_path, CONTENT, nothing)
    (record.folder / "record.json").write_text(text)
    with pytest.raises(N2NError, match=r"record\.json is damaged"):
        find_records(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    record = write_record(KEY, tmp_path, CONTENT, nothing)
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    for other in (content | {"schema": 0}, {k: v for k, v in content.items() if k != "settings"}):
        path.write_text(json.dumps(other))
        with pytest.raises(N2NError, match="another schema"):
            read_record(record.folder)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("dataset", "../MPDD"),
        ("category", ""),
        ("method", "a/b"),
        ("variant", 3),
        ("seed", "0"),
        ("seed", -1),
        ("seed", 2**32),
        ("metrics", {"image": {"auroc": "<b>best</b>"}, "pixel": {}}),
        ("metrics", {"image": {"auroc": 90}, "pixel": {}}),
        ("metrics", [1]),
        ("metrics", {}),
        ("training", {"epochs": 5}),
        ("untrained", {}),
        ("image_scores", {"max": {"auroc": 0.5}}),
        ("intervals", {"image": {"auroc": 0.5}, "pixel": {}}),
        ("intervals", {"image": {"auroc": [0.5]}, "pixel": {"auroc": [0, 1]}}),
        ("settings", {"preset": "replication", "epochs": "many"}),
        ("settings", {"colour": 1}),
        ("settings", {"preset": "replication", "noise": 10**400}),
    ],
)
def test_a_record_from_elsewhere_is_checked(tmp_path: Path, entry: str, value: object) -> None:
    record = write_record(KEY, tmp_path, CONTENT, nothing)
    path = record.folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
    with pytest.raises(N2NError, match=r"record\.json is .*damaged"):
        read_record(record.folder)


def test_a_record_that_must_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = write_record(KEY, tmp_path, CONTENT, nothing)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(N2NError, match=r"record\.json cannot be read \(Permission denied\)"):
        read_record(record.folder)


def test_a_younger_record_is_named_so(tmp_path: Path) -> None:
    record = write_record(KEY, tmp_path, CONTENT, nothing)
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    content["settings"]["younger"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(N2NError, match=r"of another version of this program.*'younger'"):
        read_record(record.folder)


def test_what_a_finished_record_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"precision": "bfloat16", "date": "2026-11-23T20:39:39+00:00"}
    record = write_record(KEY, tmp_path, CONTENT | {"provenance": about}, nothing)

    def said(*arguments: Any) -> str:
        assert finished(KEY, tmp_path, *arguments) is not None
        return capsys.readouterr().err

    assert "made on 2026-11-23;" in said("bfloat16", True)
    assert "made on 2026-11-23, trained in bfloat16;" in said("float32", False)
    assert said("auto", False) == said("bfloat16", False) == ""
    path = record.folder / "record.json"
    path.write_text(path.read_text().replace('"tubes"', '"plate"'))
    with pytest.raises(N2NError, match="the record of another run"):
        finished(KEY, tmp_path)


@pytest.mark.parametrize("text", [None, "", "anomalous,max\n0,0.5\n", "image\n1,2\n3,4,5\n"])
def test_damaged_scores_are_named(tmp_path: Path, text: str | None) -> None:
    record = write_record(KEY, tmp_path, CONTENT, lambda _: None)
    if text is not None:
        (record.folder / "scores.csv").write_text(text)
    with pytest.raises(N2NError, match=r"scores\.csv is missing or damaged; delete its folder"):
        record.scores()


def test_a_name_longer_than_a_file_system_takes_is_refused() -> None:
    with pytest.raises(N2NError, match="too long; change fewer settings"):
        RunKey("MPDD", "tubes", "n2n", 256 * "a", 0)


@given(parts=st.tuples(st.text(max_size=12), st.text(max_size=12)), seed=st.integers(-2, 10**6))
def test_no_name_leaves_the_results_folder(parts: tuple[str, str], seed: int) -> None:
    results = Path("results")
    try:
        key = RunKey(*parts, "n2n", "replication", seed)
    except N2NError:
        return
    relative = key.folder(results).relative_to(results / "runs")
    assert relative.parts == (*parts, "n2n", "replication", f"seed{seed}")


@given(
    st.dictionaries(
        st.sampled_from(["ap", "f1max", "aupro"]), st.floats(0, 1) | st.just(float("nan"))
    )
)
def test_any_metrics_survive_the_round_trip(values: dict[str, float]) -> None:
    intervals = {name: (value, value) for name, value in values.items()}
    content = CONTENT | {
        part: CONTENT[part] | {"image": CONTENT[part]["image"] | drawn}
        for part, drawn in (("metrics", values), ("intervals", intervals))
    }
    with tempfile.TemporaryDirectory() as results:
        record = read_record(write_record(KEY, Path(results), content, nothing).folder)
    for name, value in values.items():
        expected = pytest.approx(value, rel=0, abs=0, nan_ok=True)
        assert record.metric("image", name) == expected
        assert record.interval("image", name) == (expected, expected)


def test_a_folder_without_a_record_is_replaced(tmp_path: Path) -> None:
    stale = KEY.folder(tmp_path) / "weights.pt"
    stale.parent.mkdir(parents=True)
    stale.touch()
    write_record(KEY, tmp_path, CONTENT, nothing)
    assert not stale.exists()


HOLDER = """
import sys, time
from pathlib import Path
from n2n.records import RunKey, only_one
with only_one(RunKey("MPDD", "tubes", "n2n", "replication", 0), Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_one_process_holds_a_run_and_a_killed_one_lets_it_go(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_running(KEY, tmp_path)
        with pytest.raises(N2NError, match="Another process is at work"), only_one(KEY, tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not is_running(KEY, tmp_path)
    with only_one(KEY, tmp_path):
        pass


def test_why_a_run_failed_is_kept_until_it_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(N2NError), only_one(KEY, tmp_path):
        raise N2NError("The loss is not a number.")
    assert failure(KEY, tmp_path) == "The loss is not a number."
    with only_one(KEY, tmp_path):
        assert failure(KEY, tmp_path) is None


def test_no_records_yet(tmp_path: Path) -> None:
    assert find_records(tmp_path / "absent") == []
    with pytest.raises(N2NError, match="run the experiment first"):
        read_record(tmp_path)


def test_provenance_names_versions_and_commit() -> None:
    commit.cache_clear()  # another may have come since the first run of this process
    run = Run("MPDD", "tubes", make_settings())
    origin = about_run(run, torch.device("cpu"), 1.0, True)
    assert origin["packages"].keys() >= {"torch", "numpy"}
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert origin["commit"].removesuffix("-dirty") == head
