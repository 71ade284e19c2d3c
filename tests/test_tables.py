"""The tables: which run fills which cell, and what the verdict says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from n2n.analysis import figures
from n2n.analysis.tables import (
    beside,
    compare,
    compare_all,
    ours_beside_paper,
    own_measurements,
    runs_by_cell,
    scores_beside_paper,
    summary,
    verdict,
    write_tables,
)
from tests.records import table_run, with_scores


def cell(results: Path, table: int, column: str, level: str = "image") -> dict[str, object]:
    cells = compare(table, results)
    rows = cells[
        (cells["category"] == "metal_plate")
        & (cells["column"] == column)
        & (cells["level"] == level)
    ]
    assert len(rows) == 1
    return dict(rows.iloc[0])


@pytest.mark.parametrize(
    ("paper", "ours", "low", "high", "short", "expected"),
    [
        (90.0, 95.0, 89.0, 97.0, False, "reproduced"),  # inside the interval
        (90.0, 95.0, 89.0, 99.5, False, "inconclusive"),  # inside, but it is wide
        (90.0, 95.0, 89.0, 99.5, True, "inconclusive"),
        (90.0, 90.9, 80.0, 99.5, False, "inconclusive"),  # within a point, but it is wide
        (90.0, 90.9, 90.5, 91.0, False, "reproduced"),  # within a point
        (90.0, 92.0, 91.0, 93.0, False, "not reproduced (higher)"),
        (90.0, 80.0, 78.0, 82.0, False, "not reproduced (lower)"),
        (90.0, 80.0, 78.0, 82.0, True, "under-trained"),
        (90.0, 90.0, 89.0, 91.0, True, "reproduced"),
        (90.0, np.nan, np.nan, np.nan, False, "not run"),
    ],
)
def test_verdict(
    paper: float, ours: float, low: float, high: float, short: bool, expected: str
) -> None:
    assert verdict(paper, ours, low, high, short) == expected


def test_without_records_every_cell_is_not_run(tmp_path: Path) -> None:
    for table in range(1, 6):
        assert set(compare(table, tmp_path)["verdict"]) == {"not run"}


def test_other_image_scores_stand_beside_the_chosen_one(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.99)
    table_run(tmp_path, image=0.95, seed=1)
    assert cell(tmp_path, 1, "Ours")["other_scores"] == "max 40.00, mean 87.00"
    assert cell(tmp_path, 2, "Ours", "pixel")["other_scores"] == ""


def test_every_score_beside_the_printed_cells(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.95)  # printed: 99.57, in Table 1 and as 'with attention'
    table_run(tmp_path, image=0.90, attention=False)  # printed: 88.61
    for noise, image in ((0.2, 0.5), (0.4, 0.993)):  # under-trained, whether it agrees or not
        table_run(tmp_path, image=image, epochs=5, t_max=5, stopped="epochs", noise=noise)
    table_run(tmp_path, image=0.7, alpha=0.5)
    found = scores_beside_paper(tmp_path)
    assert list(found["cell"]) == ["Ours", "without attention", ""]  # 'with' is the first again
    distances = found[["max", "mean", "top1%"]].iloc[-1]
    assert list(distances) == pytest.approx([54.09, 11.59, 2.98], abs=0.006)
    assert list(scores_beside_paper(tmp_path, alpha=0.5)["top1%"]) == [70, 29.57]
    assert scores_beside_paper(tmp_path / "none").empty


def test_one_run_fills_its_cells_in_every_table(tmp_path: Path) -> None:
    table_run(tmp_path)
    assert cell(tmp_path, 1, "Ours")["ours"] == pytest.approx(99.0)
    assert cell(tmp_path, 2, "Ours", "pixel")["ours"] == pytest.approx(90.0)
    assert cell(tmp_path, 4, "lambda=0.3")["ours"] == pytest.approx(99.0)
    assert cell(tmp_path, 5, "with attention")["ours"] == pytest.approx(99.0)
    assert cell(tmp_path, 4, "lambda=0.2")["verdict"] == "not run"
    assert cell(tmp_path, 1, "PatchCore")["verdict"] == "not run"


def test_variants_go_to_their_own_columns(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.7, noise=0.0)
    table_run(tmp_path, image=0.6, attention=False)
    table_run(tmp_path, image=0.1, alpha=0.5)  # belongs to no column
    assert cell(tmp_path, 4, "lambda=0")["ours"] == pytest.approx(70.0)
    assert cell(tmp_path, 5, "without attention")["ours"] == pytest.approx(60.0)
    assert cell(tmp_path, 1, "Ours")["verdict"] == "not run"


def test_seeds_and_their_intervals_are_averaged(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.98, seed=0)
    table_run(tmp_path, image=0.96, seed=1)
    row = cell(tmp_path, 1, "Ours")
    assert (row["ours"], row["seeds"]) == (pytest.approx(97.0), 2)
    assert row["std"] == pytest.approx(np.sqrt(2))
    assert (row["low"], row["high"]) == (pytest.approx(96.8), pytest.approx(97.2))


def test_the_planned_budget_stands_in_the_table_or_the_largest(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.5, epochs=5, t_max=5, stopped="epochs")
    assert cell(tmp_path, 1, "Ours")["verdict"] == "under-trained"
    table_run(tmp_path, image=0.99)
    row = cell(tmp_path, 1, "Ours")
    assert (row["ours"], row["verdict"]) == (pytest.approx(99.0), "reproduced")
    table_run(tmp_path, image=0.99, seed=1)
    table_run(tmp_path, image=0.7, epochs=500, t_max=500)  # longer, and one seed alone
    row = cell(tmp_path, 1, "Ours")
    assert (row["ours"], row["seeds"]) == (pytest.approx(99.0), 2)


def test_demonstration_never_enters_a_table(tmp_path: Path) -> None:
    table_run(tmp_path, dataset="demo")
    for table in range(1, 6):
        assert compare(table, tmp_path)["ours"].isna().all()


def test_average_only_of_a_whole_column(tmp_path: Path) -> None:
    categories = [
        "bracket_black",
        "bracket_brown",
        "bracket_white",
        "connector",
        "metal_plate",
        "tubes",
    ]
    for category in categories[:-1]:
        table_run(tmp_path, category)
    cells = compare(1, tmp_path)
    average = (cells["category"] == "average") & (cells["column"] == "Ours")
    assert cells.loc[average, "verdict"].item() == "not run"
    table_run(tmp_path, "tubes", image=0.93)
    cells = compare(1, tmp_path)
    assert cells.loc[average, "ours"].item() == pytest.approx((5 * 99 + 93) / 6)
    assert cells.loc[average, "verdict"].item() == "not reproduced (higher)"  # than 94.94


def test_an_average_of_under_trained_cells_decides_nothing(tmp_path: Path) -> None:
    cells = compare(1, tmp_path)
    average = (cells["category"] == "average") & (cells["column"] == "Ours")
    for category in set(cells["category"]) - {"average"}:
        table_run(tmp_path, category, image=0.3, epochs=5, t_max=5, stopped="epochs")
    assert compare(1, tmp_path).loc[average, "verdict"].item() == "under-trained"


def test_an_average_with_one_short_run_decides_nothing(tmp_path: Path) -> None:
    """Also where that run's own cell happens to agree with the paper."""
    table_run(tmp_path, image=0.9957, epochs=5, t_max=5, stopped="epochs")
    cells = compare(1, tmp_path)
    assert cell(tmp_path, 1, "Ours")["verdict"] == "reproduced"
    average = (cells["category"] == "average") & (cells["column"] == "Ours")
    for category in set(cells["category"]) - {"average", "metal_plate"}:
        table_run(tmp_path, category, image=0.3)
    assert compare(1, tmp_path).loc[average, "verdict"].item() == "under-trained"


def test_one_seed_counts_once_and_another_schedule_is_another_run(tmp_path: Path) -> None:
    table_run(tmp_path, image=0.99)
    table_run(tmp_path, image=0.9, preset="improved", calibration="none")  # the same settings
    table_run(tmp_path, image=0.1, t_max=50)  # the rate would rise again
    row = cell(tmp_path, 1, "Ours")
    assert row["seeds"] == 1
    assert row["ours"] > 89


def test_undefined_metrics_leave_the_tables_whole(tmp_path: Path) -> None:
    """A category without a normal test image has no image-level AUROC."""
    with_scores(table_run(tmp_path, image=float("nan")), 0.5, [0.1, 0.6, 0.5, 0.7, 1.0])
    row = cell(tmp_path, 1, "Ours")
    assert (row["verdict"], row["seeds"]) == ("not run", 1)
    assert cell(tmp_path, 2, "Ours", "pixel")["ours"] == pytest.approx(90)
    write_tables(compare_all(tmp_path), tmp_path / "out")
    assert scores_beside_paper(tmp_path)["top1%"].isna().all()


def test_files_and_summary(tmp_path: Path) -> None:
    with_scores(table_run(tmp_path / "results"), 0.5, [0.1, 0.6, 0.5, 0.7, 1.0])
    tables = compare_all(tmp_path / "results")
    written = write_tables(tables, tmp_path / "out")
    assert {path.name for path in written} >= {
        "table1.csv", "table5.md", "summary.md", "audit.md", "overview.svg", "thresholds.svg"
    }  # fmt: skip
    assert "99.57" in (tmp_path / "out/table1.md").read_text()
    counts = summary(tables).set_index("table")
    assert counts.loc["Table 1", "reproduced"] == 1
    assert counts.loc["Table 1", "not run"] == 5
    shown = ours_beside_paper(tables[1])
    assert (shown["paper"].iloc[0], shown["epochs of each seed"].iloc[0]) == ("99.57", "100")
    assert set(shown["verdict"].iloc[1:]) == {"not run"}  # what was run comes first


def test_each_measurement_is_drawn_once(tmp_path: Path) -> None:
    table_run(tmp_path)  # stands in Tables 1, 2, 4 and 5
    table_run(tmp_path, noise=0.2, image=0.5)
    found = own_measurements(compare_all(tmp_path))
    assert list(found["column"]) == ["lambda=0.2", "lambda=0.3"] * 2
    assert list(found["level"]) == ["image", "image", "pixel", "pixel"]
    assert list(found["paper"]) == [98.92, 99.57, 98.96, 98.78]
    images, pixels = figures.paper_against_ours(found, "").axes
    assert (images.get_title(), pixels.get_title()) == (
        "Metal Plate, images",
        "Metal Plate, pixels",
    )
    assert [tick.get_text() for tick in images.get_xticklabels()] == ["λ = 0.2", "λ = 0.3"]
    drawn = [
        (line.get_label(), list(line.get_ydata()))
        for line in (*images.get_lines(), *pixels.get_lines())
        if str(line.get_label()).startswith(("ours", "paper"))
    ]
    assert drawn == [
        ("ours, each seed: not reproduced", [50.0]), ("ours, each seed: reproduced", [99.0]),
        ("paper", [98.92, 99.57]),
        ("ours, each seed: not reproduced", [90.0]), ("ours, each seed: not reproduced", [90.0]),
        ("paper", [98.96, 98.78]),
    ]  # fmt: skip


def test_two_results_folders_side_by_side(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    table_run(mine, image=0.95)
    table_run(mine, noise=0.2, image=0.5)
    for seed, image in enumerate((0.96, 0.98)):
        table_run(theirs, seed=seed, image=image)
    both = {str(folder): compare_all(folder) for folder in (mine, theirs)}
    found = beside(both).set_index(["network", "level"])
    one = found.loc[("λ = 0.3", "image")]
    assert one[["paper", str(mine), str(theirs), "its seeds", "difference"]].tolist() == [
        "99.57", "95.00 (epochs 100)", "97.00 (epochs 100, 100)", "96.00 to 98.00", "-2.00"
    ]  # fmt: skip
    alone = found.loc[("λ = 0.2", "image")]
    assert alone[[str(theirs), "its seeds", "difference"]].tolist() == ["", "", ""]
    assert beside({"nothing": compare_all(tmp_path / "nothing"), "theirs": both[str(theirs)]}).empty


def test_parts_with_one_network_share_a_panel(tmp_path: Path) -> None:
    table_run(tmp_path)
    table_run(tmp_path, seed=1, image=0.95)
    found = own_measurements(compare_all(tmp_path))
    images, _ = figures.paper_against_ours(found, "").axes
    assert images.get_title() == "images"
    assert [tick.get_text() for tick in images.get_xticklabels()] == ["Metal\nPlate"]


def test_scores_are_drawn_in_units_of_the_threshold(tmp_path: Path) -> None:
    with_scores(table_run(tmp_path), 0.5, [0.1, 0.6, 0.5, 0.7, 1.0])
    found = own_measurements(compare_all(tmp_path))
    (axes,) = figures.thresholds(found["runs"].iloc[0]).axes
    good, bad = (sorted(map(float, line.get_xdata())) for line in axes.get_lines()[:2])
    assert (good, bad) == ([0.2, 1.2], [1.0, 1.4, 2.0])
    assert [text.get_text() for text in axes.texts] == ["2 of 3"]  # above, not at the threshold


def test_coverage_has_a_row_for_each_column_of_each_category(tmp_path: Path) -> None:
    found = runs_by_cell(compare_all(tmp_path))
    assert found.groupby("table").size().to_dict() == {
        "Table 1": 6, "Table 2": 6, "Table 3": 12, "Table 4": 24, "Table 5": 12,
    }  # fmt: skip
    assert set(found["runs"]) == {"not run"}
