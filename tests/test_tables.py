"""The tables: which run fills which cell, and what the verdict says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from n2n.analysis import figures, markup
from n2n.analysis.baseline_tables import baselines_beside_paper, costs
from n2n.analysis.markup import escape_markdown, to_markdown
from n2n.analysis.tables import (
    at_threshold,
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
from n2n.baselines.settings import make_baseline_settings
from n2n.settings import make_settings
from tests.records import write


def record(
    results: Path,
    category: str = "metal_plate",
    image: float = 0.99,
    seed: int = 0,
    dataset: str = "MPDD",
    stopped: str = "early",
    **changes: object,
) -> Path:
    """A run of a preset with these changes."""
    settings = make_settings(str(changes.pop("preset", "replication")), **changes)
    training = {"epochs": settings.epochs, "stopped": stopped}
    return write(
        results, settings, image, dataset=dataset, category=category, seed=seed, training=training
    )


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
    record(tmp_path, image=0.99)
    record(tmp_path, image=0.95, seed=1)
    assert cell(tmp_path, 1, "Ours")["other_scores"] == "max 40.00, mean 87.00"
    assert cell(tmp_path, 2, "Ours", "pixel")["other_scores"] == ""


def test_every_score_beside_the_printed_cells(tmp_path: Path) -> None:
    record(tmp_path, image=0.95)  # printed: 99.57, in Table 1 and as 'with attention'
    record(tmp_path, image=0.90, attention=False)  # printed: 88.61
    record(tmp_path, image=0.5, epochs=5, t_max=5, stopped="epochs", noise=0.2)  # under-trained,
    record(tmp_path, image=0.993, epochs=5, t_max=5, stopped="epochs", noise=0.4)  # agrees or not
    record(tmp_path, image=0.7, alpha=0.5)
    found = scores_beside_paper(tmp_path)
    assert list(found["cell"]) == ["Ours", "without attention", ""]  # 'with' is the first again
    distances = found[["max", "mean", "top1%"]].iloc[-1]
    assert list(distances) == pytest.approx([54.09, 11.59, 2.98], abs=0.006)
    assert list(scores_beside_paper(tmp_path, alpha=0.5)["top1%"]) == [70, 29.57]
    assert scores_beside_paper(tmp_path / "none").empty


def test_one_run_fills_its_cells_in_every_table(tmp_path: Path) -> None:
    record(tmp_path)
    assert cell(tmp_path, 1, "Ours")["ours"] == pytest.approx(99.0)
    assert cell(tmp_path, 2, "Ours", "pixel")["ours"] == pytest.approx(90.0)
    assert cell(tmp_path, 4, "lambda=0.3")["ours"] == pytest.approx(99.0)
    assert cell(tmp_path, 5, "with attention")["ours"] == pytest.approx(99.0)
    assert cell(tmp_path, 4, "lambda=0.2")["verdict"] == "not run"
    assert cell(tmp_path, 1, "PatchCore")["verdict"] == "not run"


def test_variants_go_to_their_own_columns(tmp_path: Path) -> None:
    record(tmp_path, image=0.7, noise=0.0)
    record(tmp_path, image=0.6, attention=False)
    record(tmp_path, image=0.1, alpha=0.5)  # belongs to no column
    assert cell(tmp_path, 4, "lambda=0")["ours"] == pytest.approx(70.0)
    assert cell(tmp_path, 5, "without attention")["ours"] == pytest.approx(60.0)
    assert cell(tmp_path, 1, "Ours")["verdict"] == "not run"


def test_seeds_and_their_intervals_are_averaged(tmp_path: Path) -> None:
    record(tmp_path, image=0.98, seed=0)
    record(tmp_path, image=0.96, seed=1)
    row = cell(tmp_path, 1, "Ours")
    assert (row["ours"], row["seeds"]) == (pytest.approx(97.0), 2)
    assert row["std"] == pytest.approx(np.sqrt(2))
    assert (row["low"], row["high"]) == (pytest.approx(96.8), pytest.approx(97.2))


def test_the_planned_budget_stands_in_the_table_or_the_largest(tmp_path: Path) -> None:
    record(tmp_path, image=0.5, epochs=5, t_max=5, stopped="epochs")
    assert cell(tmp_path, 1, "Ours")["verdict"] == "under-trained"
    record(tmp_path, image=0.99)
    row = cell(tmp_path, 1, "Ours")
    assert (row["ours"], row["verdict"]) == (pytest.approx(99.0), "reproduced")
    record(tmp_path, image=0.99, seed=1)
    record(tmp_path, image=0.7, epochs=500, t_max=500)  # longer, and one seed alone
    row = cell(tmp_path, 1, "Ours")
    assert (row["ours"], row["seeds"]) == (pytest.approx(99.0), 2)


def test_demonstration_never_enters_a_table(tmp_path: Path) -> None:
    record(tmp_path, dataset="demo")
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
        record(tmp_path, category)
    cells = compare(1, tmp_path)
    average = (cells["category"] == "average") & (cells["column"] == "Ours")
    assert cells.loc[average, "verdict"].item() == "not run"
    record(tmp_path, "tubes", image=0.93)
    cells = compare(1, tmp_path)
    assert cells.loc[average, "ours"].item() == pytest.approx((5 * 99 + 93) / 6)
    assert cells.loc[average, "verdict"].item() == "not reproduced (higher)"  # than 94.94


def test_an_average_of_under_trained_cells_decides_nothing(tmp_path: Path) -> None:
    cells = compare(1, tmp_path)
    average = (cells["category"] == "average") & (cells["column"] == "Ours")
    for category in set(cells["category"]) - {"average"}:
        record(tmp_path, category, image=0.3, epochs=5, t_max=5, stopped="epochs")
    assert compare(1, tmp_path).loc[average, "verdict"].item() == "under-trained"


def test_an_average_with_one_short_run_decides_nothing(tmp_path: Path) -> None:
    """Also where that run's own cell happens to agree with the paper."""
    record(tmp_path, image=0.9957, epochs=5, t_max=5, stopped="epochs")
    cells = compare(1, tmp_path)
    assert cell(tmp_path, 1, "Ours")["verdict"] == "reproduced"
    average = (cells["category"] == "average") & (cells["column"] == "Ours")
    for category in set(cells["category"]) - {"average", "metal_plate"}:
        record(tmp_path, category, image=0.3)
    assert compare(1, tmp_path).loc[average, "verdict"].item() == "under-trained"


def test_one_seed_counts_once_and_another_schedule_is_another_run(tmp_path: Path) -> None:
    record(tmp_path, image=0.99)
    record(tmp_path, image=0.9, preset="improved", calibration="none")  # the same settings
    record(tmp_path, image=0.1, t_max=50)  # the rate would rise again
    row = cell(tmp_path, 1, "Ours")
    assert row["seeds"] == 1
    assert row["ours"] > 89


def test_undefined_metrics_leave_the_tables_whole(tmp_path: Path) -> None:
    """A category without a normal test image has no image-level AUROC."""
    with_scores(record(tmp_path, image=float("nan")), 0.5, [0.1, 0.6, 0.5, 0.7, 1.0])
    row = cell(tmp_path, 1, "Ours")
    assert (row["verdict"], row["seeds"]) == ("not run", 1)
    assert cell(tmp_path, 2, "Ours", "pixel")["ours"] == pytest.approx(90)
    write_tables(compare_all(tmp_path), tmp_path / "out")
    assert scores_beside_paper(tmp_path)["top1%"].isna().all()


def with_scores(folder: Path, threshold: float, top: list[float], **content: object) -> None:
    """Give a record the scores of two good test images and three bad ones, and a threshold."""
    stored = json.loads((folder / "record.json").read_text())
    stored |= {"threshold": {"image": threshold}} | content
    (folder / "record.json").write_text(json.dumps(stored))
    scores = {"anomalous": [0, 0, 1, 1, 1], "top1%": top, "max": 9.0}
    pd.DataFrame(scores).to_csv(folder / "scores.csv", index=False)


def test_files_and_summary(tmp_path: Path) -> None:
    with_scores(record(tmp_path / "results"), 0.5, [0.1, 0.6, 0.5, 0.7, 1.0])
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
    record(tmp_path)  # stands in Tables 1, 2, 4 and 5
    record(tmp_path, noise=0.2, image=0.5)
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
    record(mine, image=0.95)
    record(mine, noise=0.2, image=0.5)
    for seed, image in enumerate((0.96, 0.98)):
        record(theirs, seed=seed, image=image)
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
    record(tmp_path)
    record(tmp_path, seed=1, image=0.95)
    found = own_measurements(compare_all(tmp_path))
    images, _ = figures.paper_against_ours(found, "").axes
    assert images.get_title() == "images"
    assert [tick.get_text() for tick in images.get_xticklabels()] == ["Metal\nPlate"]


def test_what_the_threshold_of_detect_finds(tmp_path: Path) -> None:
    counts = {"data": {"test_good": 2, "test_anomalous": 3}}
    for seed, top in enumerate(([0.1, 0.6, 0.5, 0.7, 0.8], [0.0, 0.1, 0.5, 0.4, 0.5])):
        with_scores(record(tmp_path, seed=seed), 0.5, top, **counts)
    (row,) = at_threshold(tmp_path, "MPDD").to_dict("records")
    assert row["defective images found"] == "2, 0 of 3"  # above, not at the threshold
    assert row["good images flagged"] == "1, 0 of 2"
    assert (row["category"], row["preset"], row["epochs"]) == (
        "Metal Plate", "replication", "100, 100"
    )  # fmt: skip


def test_scores_are_drawn_in_units_of_the_threshold(tmp_path: Path) -> None:
    with_scores(record(tmp_path), 0.5, [0.1, 0.6, 0.5, 0.7, 1.0])
    found = own_measurements(compare_all(tmp_path))
    (axes,) = figures.thresholds(found["runs"].iloc[0]).axes
    good, bad = (sorted(map(float, line.get_xdata())) for line in axes.get_lines()[:2])
    assert (good, bad) == ([0.2, 1.2], [1.0, 1.4, 2.0])
    assert [text.get_text() for text in axes.texts] == ["2 of 3"]  # above, not at the threshold


def test_markdown_escapes_bars() -> None:
    assert to_markdown(pd.DataFrame({"a": ["x|y"]})) == "| a |\n| --- |\n| x\\|y |\n"


def test_a_baseline_with_another_backbone_is_not_judged(tmp_path: Path) -> None:
    def run(method: str, image: float, seed: int, own_peak: bool, **changes: object) -> None:
        provenance = {"peak_memory_mib": 900, "precision": "float32"}
        if own_peak:
            provenance = {
                "peak_memory_mib": 800, "peak_memory_of": "this run", "precision": "bfloat16"
            }  # fmt: skip
        write(
            tmp_path, make_baseline_settings(method, **changes), image, seed=seed,
            intervals={"image": {"auroc": (0.4, 0.6)}, "pixel": {"auroc": (0.8, 0.95)}},
            training={"seconds": 12.3}, inference={"seconds_per_image": 0.05},
            provenance=provenance,
        )  # fmt: skip

    wide = {"backbone": "wide-resnet50-2"}
    run("padim", 0.5, 0, False, backbone="efficientnet-lite0")
    run("padim", 0.5, 0, False, **wide)
    run("padim", 0.7, 1, False, **wide)
    # Of another precision and with its own peak of memory: a row of its own
    run("padim", 0.7, 2, True, **wide)
    run("patchcore", 0.7, 0, True, coreset=0.5, **wide)
    found = baselines_beside_paper(1, tmp_path)
    assert set(found["category"]) == {"Metal Plate"}  # no other was run
    other = found.set_index("method")
    assert list(other.loc[["DAGAN", "Skip-GANomaly", "CFLOW"], "verdict"]) == ["not run"] * 3
    half = other.loc["PatchCore (WideResNet-50-2, coreset 0.5, bfloat16)"]
    assert (half["verdict"], half["bring"]) == ("other settings", "")
    assert list(other["bring"][["DAGAN", "CFLOW"]]) == ["", "wide_resnet50_2-95faca4d.pth"]
    lite, wide_net = other.loc["PaDiM (EfficientNet-Lite0)"], other.loc["PaDiM (WideResNet-50-2)"]
    assert (lite["ours"], wide_net["ours"]) == ("50.00", "60.00 ± 14.14")  # mean and deviation
    assert (lite["difference"], wide_net["difference"]) == ("-6.30", "+3.70")
    assert (lite["verdict"], lite["bring"]) == ("another backbone", "wide_resnet50_2-95faca4d.pth")
    assert wide_net["verdict"] == "inconclusive"  # printed: 56.30, in an interval from 40 to 60
    assert wide_net["bring"] == ""
    half = other.loc["PaDiM (WideResNet-50-2, bfloat16)"]
    assert (half["ours"], half["peak, MiB"], wide_net["peak, MiB"]) == ("70.00", "800", "≤ 900")
    assert set(compare(1, tmp_path)["verdict"]) == {"not run"}  # never in the printed column
    assert baselines_beside_paper(4, tmp_path).empty


def test_costs_name_a_detector_without_its_budget(tmp_path: Path) -> None:
    for epochs, seed in ((4, 0), (4, 1), (200, 0)):
        write(
            tmp_path, make_baseline_settings("rd4ad", epochs=epochs), 0.5 + seed / 5,
            dataset="VisA", category="fryum", seed=seed, training={"seconds": 10.0 + seed},
            inference={"seconds_per_image": 0.25},
            provenance={"precision": "float32", "peak_memory_mib": 100 + seed},
        )  # fmt: skip
    found = costs(tmp_path)
    axes = figures.accuracy_against_cost(found).axes[0]
    drawn = [text.get_text() for text in axes.texts]
    assert drawn == ["RD4AD"] * 2  # the backbone is told by the colour
    assert [line.get_mfc() == "white" for line in axes.get_lines()] == [False, True]  # 4 of 200
    assert list(found["method"]) == [
        "RD4AD (EfficientNet-Lite0)", "RD4AD (EfficientNet-Lite0, 4 of 200 epochs)"
    ]  # fmt: skip
    assert set(found["detector"]) == {"RD4AD (EfficientNet-Lite0)"}
    assert list(found["auroc"]) == pytest.approx([50, 60])
    assert list(found["seconds"]) == [10.0, 10.5]
    assert list(found["seeds"]) == [1, 2]
    assert list(found["per_image"]) == [0.25, 0.25]
    assert list(found["peak"]) == ["≤ 100", "≤ 101"]


def test_html_in_names_is_shown_and_not_obeyed() -> None:
    name = "<script>alert(1)</script> a|b *c*"
    shown = escape_markdown(name)
    assert "<" not in shown
    assert "\\*c\\*" in shown
    assert "<script>" not in to_markdown(pd.DataFrame({"category": [name]}))
    assert "<script>" not in str(markup.html_table(pd.DataFrame({"category": [name]})).data)


def test_rows_are_folded_away_below_the_others() -> None:
    frame = pd.DataFrame({"cell": ["a", "b", "c"], "verdict": ["not run", "reproduced", "not run"]})
    above, below = str(markup.html_table(frame, fold="not run").data).split("<details>")
    assert (above.count("<td>"), "<td>b</td>" in above) == (2, True)
    assert "2 rows: not run" in below
    assert below.count("<td>") == 4
    assert "<details>" not in str(markup.html_table(frame[1:2], fold="not run").data)
    assert str(markup.html_table(frame[:1], fold="not run").data).startswith("<details>")


def test_coverage_has_a_row_for_each_column_of_each_category(tmp_path: Path) -> None:
    found = runs_by_cell(compare_all(tmp_path))
    assert found.groupby("table").size().to_dict() == {
        "Table 1": 6, "Table 2": 6, "Table 3": 12, "Table 4": 24, "Table 5": 12,
    }  # fmt: skip
    assert set(found["runs"]) == {"not run"}
