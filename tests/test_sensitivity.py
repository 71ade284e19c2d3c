"""The small study: its runs and their names, from records written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2n.analysis import sensitivity
from n2n.settings import changes, make_settings
from tests.records import small, study_run, write


def test_another_precision_is_named(tmp_path: Path) -> None:
    study_run(tmp_path, small(), 0.7)
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


def test_the_base_by_image_score(small_study: Path) -> None:
    scores = sensitivity.development_table(small_study, make_settings("replication"))
    assert list(scores["test images"]) == ["99.0", "60.0", "99.0"]  # of the one run at full size
    assert list(scores["seeds"]) == [1, 1, 1]
    base = sensitivity.base_table(small_study).iloc[0]
    assert (base["AUROC, %"], base["lowest to highest seed"]) == ("73.0", "70.0 to 76.0")


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
        ({"c1": 1e-4}, "c1 0.0001"),
        ({"sigmas": (0.5, 1.0)}, "sigmas 0.5, 1"),
        ({"sigmas": (0.5, 1.0, 2.0, 4.0)}, "without the widest filter"),
    ],
)
def test_labels(changed: dict[str, object], expected: str) -> None:
    assert sensitivity.variant_label(changes(small(**changed), sensitivity.BASE)) == expected


def test_the_literal_paper_has_a_name(tmp_path: Path) -> None:
    study_run(tmp_path, make_settings("paper", image_size=128, width=16, epochs=40, t_max=40), 0.5)
    study_run(tmp_path, make_settings("paper", epochs=100), 0.5)  # at full size
    for base in (small(), make_settings("replication")):
        assert set(sensitivity.study_runs(tmp_path, base)["variant"]) == {"preset paper"}
    assert sensitivity.variant_label(changes(make_settings("paper"), make_settings())) == (
        "preset paper; 500 epochs on the same schedule"
    )
