"""Run records: whole or absent, and read with care."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from n2n.errors import N2NError
from n2n.records import RunKey, find_records, provenance, read_record, write_record

KEY = RunKey("MPDD", "tubes", "n2n", "replication", 0)
CONTENT = {
    "metrics": {"image": {"auroc": 0.9}, "pixel": {"auroc": float("nan")}},
    "intervals": {"image": {"auroc": (0.8, 0.95)}, "pixel": {"auroc": (float("nan"),) * 2}},
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


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        nothing(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(N2NError, match=r"No space left.*free some space"):
        write_record(KEY, tmp_path, CONTENT, full)
    assert find_records(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
    with pytest.raises(N2NError, match="another schema"):
        read_record(record.folder)


def test_no_records_yet(tmp_path: Path) -> None:
    assert find_records(tmp_path / "absent") == []
    with pytest.raises(N2NError, match="run the experiment first"):
        read_record(tmp_path)


def test_provenance_names_versions_and_commit() -> None:
    origin = provenance()
    assert origin["packages"].keys() >= {"torch", "numpy"}
    commit = origin["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
