"""What the notebooks show of a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from n2n.analysis import report
from n2n.analysis.selection import own_records
from n2n.settings import make_settings
from tests.records import write

ORIGIN = {
    "date": "2026-01-01", "commit": "cafe", "device": "a GPU", "precision": "bfloat16",
    "packages": {"torch": "2"}, "wall_seconds": 120.0, "peak_memory_mib": 7,
}  # fmt: skip
BY = {"variant": "replication", "commit": "beef", "device": "a CPU", "compiled": False}


@pytest.mark.parametrize(
    ("training", "trained", "peak"),
    [
        ({"by": None}, None, "at most 7 MiB"),
        ({"by": None, "devices": ["a GPU"]}, None, "at most 7 MiB"),
        ({"by": None, "devices": ["a CPU", "a GPU"]}, "a CPU, then a GPU", "at most 7 MiB"),
        ({"by": BY}, "by replication, commit beef, on a CPU", None),  # whose memory is not known
        ({"by": {"variant": "a", "commit": "beef"}}, "by a, commit beef", None),  # an older record
    ],
)
def test_where_numbers_come_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    training: dict[str, Any],
    trained: str | None,
    peak: str | None,
) -> None:
    data = {"train": 1, "test_good": 2, "test_anomalous": 3, "fingerprint": "some"}
    write(
        tmp_path, make_settings("replication"), provenance=ORIGIN, data=data,
        training={"epochs": 1, "stopped": "epochs", "seconds": 60.0} | training,
    )  # fmt: skip
    (record,) = own_records(tmp_path)
    monkeypatch.setattr(report, "html_table", lambda frame, **_: frame)
    told = dict(report.provenance_table(record).to_numpy().tolist())  # type: ignore[attr-defined]
    assert told["device"] == "a GPU, bfloat16"
    assert told["time"] == "2.0 min in all, 1.0 min of training"
    assert (told.get("trained"), told.get("peak memory")) == (trained, peak)
