"""Beyond the paper, from records written by hand."""

from __future__ import annotations

from pathlib import Path

from n2n.analysis import beyond
from n2n.settings import make_settings
from tests.records import study_run


def test_improved_stands_beside_the_largest_budget_of_replication(tmp_path: Path) -> None:
    for epochs, image in ((100, 0.9), (25, 0.3)):
        study_run(tmp_path, make_settings("replication", epochs=epochs, t_max=epochs), image)
    study_run(tmp_path, make_settings("replication", **beyond.OTHER_TRAINING), 0.92)
    study_run(tmp_path, make_settings("improved"), 0.93)
    study_run(tmp_path, make_settings("improved"), 0.97, seed=1)  # of no use: no base of this seed
    for name in ("replication", "improved"):
        study_run(tmp_path / "two", make_settings(name), 0.90)
        study_run(tmp_path / "two", make_settings(name), 0.96, seed=1)
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
    improved = make_settings("replication", calibration="scores")  # what `improved` comes to
    study_run(tmp_path, improved, 0.8)
    (row,) = beyond.ingredients(tmp_path).to_dict("records")
    assert (row["run"], row["images, test"]) == ("improved: the score calibrated", "80.00")


def test_other_variants_stand_beside_the_tables_settings_too(tmp_path: Path) -> None:
    study_run(tmp_path, make_settings("replication"), 0.6)
    assert beyond.ingredients(tmp_path, beyond.NORMALISED).empty
    study_run(tmp_path, make_settings("replication", contrast=1.6), 0.8)
    table = beyond.ingredients(tmp_path, beyond.NORMALISED).set_index("run")
    assert list(table.index) == ["[−1, 1], as in the tables", "more contrast"]
    assert list(table["images, test"]) == ["60.00", "80.00 (+20.0)"]
    assert list(table["by the mean"]) == ["60.00", "60.00 (+0.0)"]
