"""What a score may see beside the defects, from records written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from n2n.analysis import confounds
from n2n.analysis.selection import with_float32
from n2n.baselines.settings import make_baseline_settings
from n2n.settings import make_settings
from tests.records import small, study_run, write


def test_detectors_that_learn_nothing(small_study: Path) -> None:
    trivial = confounds.trivial_table(small_study).set_index("detector")
    assert trivial.loc["distance to the mean image", "Metal Plate, image"] == 30.0
    assert trivial.loc["trained network", "Metal Plate, image"] == 73.0


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


def test_hidden_defects_of_full_size_runs(small_study: Path) -> None:
    study_run(small_study, make_settings("replication"), 0.97, seed=1)
    study_run(small_study, make_settings("replication", epochs=5, t_max=5), 0.1)  # a smaller budget
    study_run(small_study, make_settings("improved"), 0.88)
    study_run(small_study, make_settings("replication", noise=0.2, image_score="mean"), 0.5)
    study_run(small_study / "float32", make_settings("replication"), 0.42)
    study_run(small_study / "float32", small(), 0.1)  # of another size
    found = confounds.hidden_defects(small_study).set_index("detector")
    assert found.loc["N2N, as in the tables, float32", "whole"] == pytest.approx(42)
    found = found.drop(index="N2N, as in the tables, float32")
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
    margins = confounds.margins_table(small_study)
    assert list(margins["detector"].unique()) == [
        "N2N, improved: the score calibrated", "N2N, as in the tables", "N2N, λ = 0.2",
        "N2N, as in the tables, float32",
    ]  # fmt: skip
    second = margins[(margins["detector"] == "N2N, as in the tables") & (margins["seed"] == 1)]
    assert second.iloc[:, 3:].to_numpy().tolist() == [
        ["max", "97.0", "40.0", "30.0"], ["mean", "60.0", "50.0", "–"],
        ["top1%", "97.0", "60.0", "70.0"],
    ]  # fmt: skip
    older = next(small_study.glob("runs/*/*/n2n/replication/seed1/record.json"))
    content = json.loads(older.read_text())
    del content["hidden_alike"]
    older.write_text(json.dumps(content))
    again = confounds.hidden_defects(small_study).set_index("detector")
    assert np.isnan(again.loc["N2N, as in the tables", "alike"])  # not that of the other seed
    assert again.loc["N2N, as in the tables", "hidden"] == pytest.approx(30)
    axes = confounds.hidden_figure(found.reset_index()).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "N2N, λ = 0.2; mean score", "N2N, improved: the score calibrated", "N2N, as in the tables"
    ]  # fmt: skip


def test_slopes_of_what_ranks_the_images_at_all() -> None:
    found = pd.DataFrame(
        [
            ("Plate", "N2N, as in the tables", 95.0, 30.0), ("Plate", "PaDiM (x)", 60.0, 58.0),
            ("Plate", "RD4AD", 99.0, np.nan), ("Bracket", "Thumbnail", 86.0, 85.0),
        ],
        columns=["category", "detector", "whole", "alike"],
    )  # fmt: skip
    bracket, plate = confounds.slopes_figure(found).axes
    assert (bracket.get_title(), plate.get_title()) == ("Bracket", "Plate")
    # Not what ranks nothing, nor what was not asked; the last line is that of a guess
    assert [list(map(float, line.get_ydata())) for line in plate.get_lines()] == [
        [95, 30],
        [50, 50],
    ]
    assert [text.get_text() for text in plate.texts] == ["N2N, as in the tables"]
    assert [text.get_text() for text in bracket.texts] == ["Thumbnail"]


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
    write(tmp_path / "float32", settings, seed=2, by_position={"alone": 0.125, "beyond": 0.875})
    both = with_float32(confounds.position_table, tmp_path, settings).to_numpy().tolist()
    assert both[3:] == [["Metal Plate", "λ = 0.3, float32", "the noise", "2", 90.0, 12.5, 87.5]]
