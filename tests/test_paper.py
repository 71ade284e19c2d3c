"""The printed cells and the paper's arithmetic, against values read and worked out by hand."""

from __future__ import annotations

import math

import pytest

from n2n.errors import N2NError
from n2n.paper import PAPER_LABELS, _cell, audit, printed_cells


@pytest.mark.parametrize(
    ("table", "category", "column", "level", "text"),
    [
        (1, "bracket_black", "DAGAN", "image", "68.55"),
        (1, "tubes", "CFLOW", "image", "73.14"),
        (1, "connector", "Ours", "image", "100.00"),
        (1, "average", "Skip-GANomaly", "image", "64.84"),
        (2, "bracket_white", "PaDiM", "pixel", "98.11"),
        (2, "metal_plate", "PatchCore", "pixel", "96.57"),
        (2, "average", "Ours", "pixel", "97.80"),
        (3, "candle", "DRAEM", "image", "94.4"),
        (3, "chewinggum", "RD4AD", "image", "99.7"),
        (3, "pcb2", "FastFlow", "image", "61.9"),
        (3, "pipe_fryum", "Ours", "image", "92.6"),
        (4, "bracket_black", "lambda=0", "image", "47.61"),
        (4, "tubes", "lambda=0.4", "pixel", "99.44"),
        (4, "metal_plate", "lambda=0.2", "pixel", "98.96"),
        (4, "bracket_white", "lambda=0.3", "image", "89.33"),
        (5, "bracket_white", "with attention", "pixel", "96.75"),
        (5, "connector", "without attention", "image", "62.38"),
        (5, "average", "without attention", "pixel", "88.68"),
    ],
)
def test_cells_as_in_the_paper(
    table: int, category: str, column: str, level: str, text: str
) -> None:
    cells = printed_cells().set_index(["table", "category", "column", "level"])
    cell = cells.loc[(table, category, column, level)]
    assert cell["printed"] == text
    assert cell["value"] == float(text)


def test_every_cell_once() -> None:
    cells = printed_cells()
    assert not cells.duplicated(["table", "category", "column", "level"]).any()
    assert cells["table"].value_counts().to_dict() == {1: 42, 2: 42, 3: 91, 4: 56, 5: 28}
    assert cells["value"].between(0, 100).all()
    assert set(cells["category"]) == {*PAPER_LABELS, "average"}
    assert (cells["dataset"] == "VisA").tolist() == (cells["table"] == 3).tolist()


def test_changing_the_cells_changes_no_later_answer() -> None:
    cells = printed_cells()
    cells["printed"] = ""
    assert "94.16" in set(printed_cells()["printed"])


def test_labels_and_columns() -> None:
    assert len(PAPER_LABELS) == 6 + 12
    assert PAPER_LABELS["bracket_black"] == "Bracket Black"
    assert PAPER_LABELS["chewinggum"] == "Chewing gum"
    assert PAPER_LABELS["pcb1"] == "PCB1"
    mpdd = ["DAGAN", "Skip-GANomaly", "PaDiM", "CFLOW", "PatchCore", "Ours"]
    visa = ["DRAEM", "RD4AD", "PaDiM", "CFLOW", "FastFlow", "PatchCore", "Ours"]
    noises = ["lambda=0", "lambda=0.2", "lambda=0.3", "lambda=0.4"]
    columns = printed_cells().groupby("table")["column"].unique().map(list)
    assert list(columns) == [mpdd, mpdd, visa, noises, ["with attention", "without attention"]]


def test_an_unknown_cell_is_named() -> None:
    with pytest.raises(N2NError, match="no cell 1:tubes:Ours:pixel"):
        _cell("1:tubes:Ours:pixel")


def failing(kind: str) -> dict[str, tuple[str, str, float]]:
    checks = audit()
    checks = checks[(checks["kind"] == kind) & ~checks["holds"]]
    return {row.what: (row.printed, row.recomputed, row.difference) for row in checks.itertuples()}


def test_averages_that_do_not_come_out() -> None:
    """The sums by hand: 390.05 / 6, 493.06 / 6 and 569.54 / 6."""
    assert failing("average") == {
        "Table 1, average of Skip-GANomaly, image level": ("64.84", "65.008", -0.1683),
        "Table 2, average of Skip-GANomaly, pixel level": ("82.19", "82.177", 0.0133),
        "Table 2, average of PaDiM, pixel level": ("96.74", "94.923", 1.8167),
    }


def test_an_average_just_between_two_decimals_holds() -> None:
    """DAGAN in Table 1: 434.85 / 6 = 72.475, printed 72.48."""
    row = audit().set_index("what").loc["Table 1, average of DAGAN, image level"]
    assert row["holds"]
    assert (row["printed"], row["recomputed"], row["difference"]) == ("72.48", "72.475", 0.005)


def test_a_wrong_average_tells_its_rank() -> None:
    """Without PaDiM's: CFLOW 97.72, Ours 97.80; PatchCore's 95.66 is above 94.92."""
    row = audit().set_index("what").loc["Table 2, average of PaDiM, pixel level"]
    assert row["remark"] == "Its rank in the row becomes 4 instead of 3."


def test_claims_that_do_not_come_out() -> None:
    """94.94 - 73.16 = 21.78 and 97.80 - 88.07 = 9.73; the other two compare averages."""
    fails = list(failing("claim").values())
    assert [fail[:2] for fail in fails] == [
        ("higher", "not higher: 97.62 against 97.72"),
        ("Ours", "RD4AD"),
        ("22.28", "21.78"),
        ("9.55", "9.73"),
    ]
    assert math.isnan(fails[0][2])
    assert [fail[2] for fail in fails[2:]] == [0.5, -0.18]


def test_claims_that_come_out() -> None:
    checks = audit()
    held = checks[(checks["kind"] == "claim") & checks["holds"]]
    assert held["printed"].tolist() == [
        *("8.82", "CFLOW", "tubes", "tubes"),  # 94.94 - 86.12; 94.16 - 73.14 is the largest
        *("Ours", "Ours", "Ours", "bracket_brown", "Ours", "Ours"),
        *("lambda=0.3", "lambda=0.3"),
        *("22.28", "9.55"),  # with Table 5's averages: 95.44 - 73.16 and 97.62 - 88.07
        *("28.68", "8.94"),  # 95.44 - 66.76 and 97.62 - 88.68
        *("6", "10,821", "12"),
    ]


def test_cells_that_differ_between_tables() -> None:
    where = "level, in Table 4 (lambda=0.3) and Table 5 (with attention)"
    assert failing("consistency") == {
        f"Bracket White, image {where}": ("89.33", "92.33", -3.0),
        f"Average, image {where}": ("94.94", "95.44", -0.5),
        f"Bracket White, pixel {where}": ("97.82", "96.75", 1.07),
        f"Average, pixel {where}": ("97.80", "97.62", 0.18),
    }


def test_how_many_checks() -> None:
    """6 + 6 + 7 + 8 + 4 averages; four pairs of columns with seven cells each."""
    assert audit()["kind"].value_counts().to_dict() == {
        "average": 31,
        "consistency": 28,
        "claim": 23,
    }
