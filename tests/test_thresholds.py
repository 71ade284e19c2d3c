"""What a threshold finds, from records written by hand."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pandas as pd

from n2n.analysis import thresholds
from n2n.records import find_records
from n2n.settings import make_settings
from tests.records import table_run, with_scores, write


def test_what_the_threshold_of_detect_finds(tmp_path: Path) -> None:
    counts = {"data": {"test_good": 2, "test_anomalous": 3}}
    for seed, top in enumerate(([0.1, 0.6, 0.5, 0.7, 0.8], [0.0, 0.1, 0.5, 0.4, 0.5])):
        with_scores(table_run(tmp_path, seed=seed), 0.5, top, **counts)
    (row,) = thresholds.found_at(tmp_path, "MPDD").to_dict("records")
    assert row["defective images found"] == "2, 0 of 3"  # above, not at the threshold
    assert row["good images flagged"] == "1, 0 of 2"
    assert (row["category"], row["preset"], row["epochs"]) == (
        "Metal Plate", "replication", "100, 100"
    )  # fmt: skip


def test_a_threshold_by_other_good_images(tmp_path: Path) -> None:
    """Against every choice of two of five good images, one by one."""
    good, bad = [1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    folder = write(
        tmp_path, make_settings("replication", validation_fraction=0.2),
        data={"train": 10, "test_good": 5, "test_anomalous": 6}, threshold={"image": 4.0},
    )  # fmt: skip
    frame = pd.DataFrame({"anomalous": 5 * [0] + 6 * [1], "top1%": good + bad})
    frame.to_csv(folder / "scores.csv", index=False)
    found = [sum(score > max(pair) for score in bad) for pair in itertools.combinations(good, 2)]
    assert sorted(found) == [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    run = find_records(tmp_path)[0]
    assert thresholds.by_other_images(run) == [(1, 0), (2, 1), (4, 3)]
    (row,) = thresholds.beside_other_images(tmp_path).to_dict("records")
    assert row["bad images found"] == "2 of 6"
    assert row["good ones flagged"] == "1 of 5"
    assert (row["found, by other good images"], row["flagged then"]) == ("2 (1 to 4)", "1")
    many = pd.DataFrame({"anomalous": 67 * [0] + [1], "top1%": [*range(67), 66.5]})
    many.to_csv(folder / "scores.csv", index=False)  # C(67, 33) is more than 64 bits hold
    half = dataclasses.replace(run, content=run.content | {"data": {"train": 165}})
    assert thresholds.by_other_images(half) == [(1, 0), (1, 1), (1, 5)]


def test_without_a_run_there_is_nothing(tmp_path: Path) -> None:
    assert thresholds.found_at(tmp_path, "MPDD").empty
    assert thresholds.beside_other_images(tmp_path).empty
