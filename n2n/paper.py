"""The numbers that the paper prints, and the arithmetic between them.

Deng, Sun, Zhuang and Gong, *Noise-to-Norm Reconstruction for Industrial Anomaly Detection and
Localization*, Applied Sciences 2023, 13, 12436. In the folder ``printed``:

- ``cells.csv``: every cell of Tables 1-5, as text, so that its decimals are kept;
- ``labels.csv``: the row labels of the tables by category;
- ``claims.csv``: what the text says about those cells and about the data. A cell is written
  ``table:category:column:level``, and ``*`` stands for each category (the average apart) or for
  each column. The column ``kind`` says how ``left`` and ``right`` yield the claimed value:

  - *difference*: the cell ``left`` minus the cell ``right``;
  - *higher*: the cell ``left`` exceeds the cell ``right``;
  - *best*: the column with the highest value in the row ``left``, without the column ``right``;
  - *lowest*: the category with the lowest value in the column ``left``;
  - *gain*: the category in which ``left`` exceeds the best of ``right`` most;
  - *count*: how many cells ``left`` means; *sum*: the sum of the numbers in ``left``;
  - *given*: not to be recomputed from the paper; no check.

Rule of `audit`: a number holds where it lies within half a unit of its last printed decimal of
the recomputed one, which is what rounding allows. The arithmetic is decimal, hence exact.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pandas as pd

from n2n.errors import N2NError

FOLDER = Path(__file__).with_name("printed")

# Two tables each that print the same network: the method at lambda = 0.3 with attention, on MPDD.
SAME = [
    (1, "Ours", 4, "lambda=0.3", "image"),
    (2, "Ours", 4, "lambda=0.3", "pixel"),
    (4, "lambda=0.3", 5, "with attention", "image"),
    (4, "lambda=0.3", 5, "with attention", "pixel"),
]


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / name, dtype=str, keep_default_na=False)


@lru_cache(maxsize=1)
def _cells() -> pd.DataFrame:
    cells = _read("cells.csv").astype({"table": int})
    cells["value"] = cells["printed"].astype(float)
    return cells


def printed_cells(*tables: int) -> pd.DataFrame:
    """Every cell of Tables 1-5, or of these alone, in the paper's order.

    Returns:
        Table, dataset, category (its folder's name, or 'average'), column, level ('image' or
        'pixel'), printed (text) and value (AUROC in percent).
    """
    cells = _cells()
    return (cells[cells["table"].isin(tables)] if tables else cells).copy()


def _cell(reference: str) -> Decimal:
    """The one cell that ``table:category:column:level`` means."""
    found = _select(reference)
    if len(found) != 1:
        raise N2NError(
            f"The paper prints no cell {reference}; `n2n.paper.printed_cells()` lists them all."
        )
    return Decimal(found["printed"].iloc[0])


def _select(reference: str) -> pd.DataFrame:
    """The cells that ``table:category:column:level`` means, with its stars."""
    table, category, column, level = reference.split(":")
    cells = _cells()
    chosen = (cells["table"] == int(table)) & (cells["level"] == level)
    if category == "*":
        chosen &= cells["category"] != "average"
    else:
        chosen &= cells["category"] == category
    if column != "*":
        chosen &= cells["column"] == column
    return cells[chosen]


PAPER_LABELS: dict[str, str] = {
    str(row.category): str(row.label) for row in _read("labels.csv").itertuples()
}
"""Category by its folder's name: the row label of Tables 1-5."""


def label(name: str) -> str:
    """A category or a column of the tables as a reader sees it: 'Metal Plate', 'λ = 0.2'."""
    if name == "average":
        return "Average"
    return PAPER_LABELS.get(name, name.replace("_", " ")).replace("lambda=", "λ = ")


def audit() -> pd.DataFrame:
    """Every average, claim and repeated cell of the paper, recomputed from its printed cells.

    Returns:
        A row per check: kind ('average', 'claim' or 'consistency'), what, printed (text),
        recomputed (text; where tables repeat a cell, the later table's), difference (printed
        minus recomputed, to four decimals; NaN where they are no numbers),
        holds (by the rule above) and remark.
    """
    return pd.DataFrame([*_averages(), *_claims(), *_consistency()])


def _averages() -> list[dict[str, object]]:
    rows = []
    averages = _cells()[_cells()["category"] == "average"]
    for cell in averages.itertuples():
        part = f"{cell.column}:{cell.level}"
        values = [Decimal(text) for text in _select(f"{cell.table}:*:{part}")["printed"]]
        mean = sum(values, Decimal(0)) / len(values)
        what = f"Table {cell.table}, average of {cell.column}, {cell.level} level"
        row = _number("average", what, str(cell.printed), mean)
        averaged = _select(f"{cell.table}:average:*:{cell.level}")
        others = averaged.loc[averaged["column"] != cell.column, "value"]
        ranks = [1 + int((others > value).sum()) for value in (float(cell.printed), float(mean))]
        if not row["holds"] and ranks[0] != ranks[1]:
            row["remark"] = f"Its rank in the row becomes {ranks[1]} instead of {ranks[0]}."
        rows.append(row)
    return rows


def _claims() -> list[dict[str, object]]:
    return [
        _claim(**{str(name): str(value) for name, value in claim.items()})
        for claim in _read("claims.csv").to_dict("records")
        if claim["kind"] != "given"
    ]


def _claim(
    section: str, quote: str, printed: str, kind: str, left: str, right: str, remark: str
) -> dict[str, object]:
    """One line of ``claims.csv`` checked; the module says what each kind means."""
    where = section if section[0].isalpha() else f"Section {section}"
    what = f"{where}, “{quote}”"
    if kind == "difference":
        return _number("claim", what, printed, _cell(left) - _cell(right), remark)
    if kind == "count":
        return _number("claim", what, printed, Decimal(len(_select(left))), remark)
    if kind == "sum":
        total = sum((Decimal(term) for term in left.split("+")), Decimal(0))
        return _number("claim", what, printed, total, remark)
    if kind == "higher":
        gap = _cell(left) - _cell(right)
        found = "higher" if gap > 0 else f"not higher: {_cell(left)} against {_cell(right)}"
    elif kind == "best":
        row = _select(left)
        found = row[row["column"] != right].set_index("column")["value"].idxmax()
    elif kind == "lowest":
        found = _select(left).set_index("category")["value"].idxmin()
    elif kind == "gain":
        ours, others = _select(left), _select(right)
        others = others[~others["column"].isin(ours["column"])]
        found = (
            ours.set_index("category")["value"] - others.groupby("category")["value"].max()
        ).idxmax()
    else:
        raise ValueError(f"unknown kind of claim: {kind}")
    return dict(
        kind="claim", what=what, printed=printed, recomputed=str(found),
        difference=float("nan"), holds=bool(found == printed), remark=remark,
    )  # fmt: skip


def _consistency() -> list[dict[str, object]]:
    rows = []
    for table, column, again, column_again, level in SAME:
        for category in [*_select(f"{table}:*:{column}:{level}")["category"], "average"]:
            what = (
                f"{PAPER_LABELS.get(category, 'Average')}, {level} level, in Table {table} "
                f"({column}) and Table {again} ({column_again})"
            )
            text = str(_cell(f"{table}:{category}:{column}:{level}"))
            other = _cell(f"{again}:{category}:{column_again}:{level}")
            row = _number("consistency", what, text, other)
            if not row["holds"]:
                row["remark"] = "One network, two values."
            rows.append(row)
    return rows


def _number(
    kind: str, what: str, printed: str, recomputed: Decimal, remark: str = ""
) -> dict[str, object]:
    """A check of a number: within half a unit of the last printed decimal."""
    value = Decimal(printed.replace(",", ""))
    decimals = len(printed.partition(".")[2])
    difference = value - recomputed
    holds = abs(difference) <= Decimal("0.5").scaleb(-decimals)
    # An average shows one decimal more than printed, which tells a tie from an error.
    shown = f"{recomputed:.{decimals + 1}f}" if kind == "average" else f"{recomputed:f}"
    return dict(
        kind=kind, what=what, printed=printed, recomputed=shown,
        difference=round(float(difference), 4), holds=holds, remark=remark,
    )  # fmt: skip
