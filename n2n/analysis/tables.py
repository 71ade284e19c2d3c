"""The paper's tables beside the replication's, cell by cell, with a verdict for each.

The verdict's rule: a cell is *reproduced* where the printed value lies within one point of our
mean or in our interval, and this is at most ten points wide; with a wider interval it is
*inconclusive*. Otherwise it is *not reproduced*, and whether ours is higher or lower. Our interval
has the mean limits of the seeds' 95 % bootstrap intervals (over test images): it stays around our
mean, and no further seed makes it wider. Where the value is not reproduced by a run that ended at
fewer epochs than its preset allows, before its loss had stopped falling, the cell is
*under-trained* and decides nothing. Cells without a run are *not run*.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from n2n.analysis import figures
from n2n.analysis.markup import to_markdown
from n2n.analysis.selection import matching_records, runs_of, wanted_settings
from n2n.errors import write_errors
from n2n.files import write_text
from n2n.paper import audit, label, printed_cells
from n2n.records import Record, find_records
from n2n.settings import (
    IMAGE_SCORES,
    PRESETS,
    make_settings,
)

TOLERANCE = 1.0  # points of AUROC; the paper gives no interval of its own
WIDE = 10.0  # points of AUROC; the paper's best and second-best average of Table 1 are 8.82 apart
VERDICTS = ("reproduced", "not reproduced", "inconclusive", "under-trained", "not run")
TITLES = {
    1: "Image-level AUROC (%) on MPDD",
    2: "Pixel-level AUROC (%) on MPDD",
    3: "Image-level AUROC (%) on VisA",
    4: "AUROC (%) by noise coefficient on MPDD, image level and pixel level",
    5: "AUROC (%) with and without residual attention on MPDD, image level and pixel level",
}


def compare(table: int, results: Path, preset: str = "replication") -> pd.DataFrame:
    """Every cell of a printed table beside ours.

    Args:
        table: 1 to 5.
        results: folder of the run records.
        preset: whose runs stand in the column 'ours'.

    Returns:
        A row per cell: dataset, category, column, level, printed (text), paper (percent), ours
        (percent, mean of the seeds), std, low, high, difference, untrained (percent),
        other_scores (text), seeds, epochs, verdict, short (whether a run used up a smaller
        budget) and runs, the records.
    """
    return _compare(table, find_records(results), preset)


def compare_all(results: Path, preset: str = "replication") -> dict[int, pd.DataFrame]:
    """`compare` of every table, by its number; the records are read once."""
    records = find_records(results)
    return {table: _compare(table, records, preset) for table in TITLES}


def _compare(table: int, records: list[Record], preset: str) -> pd.DataFrame:
    rows = []
    for cell in printed_cells(table).itertuples():
        matched = matching_records(records, cell.dataset, cell.category, cell.column, preset)
        rows.append(_row(cell, matched, PRESETS[preset].epochs))
    return _with_averages(pd.DataFrame(rows))


def _row(cell: Any, records: list[Record], epochs: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": cell.dataset,
        "category": cell.category,
        "column": cell.column,
        "level": cell.level,
        "printed": cell.printed,
        "paper": cell.value,
        "ours": np.nan,
        "std": np.nan,
        "low": np.nan,
        "high": np.nan,
        "difference": np.nan,
        "untrained": np.nan,
        "other_scores": "",
        "seeds": len(records),
        "epochs": "",
        "verdict": "not run",
        "short": bool(records) and _short(records, epochs),
        "runs": records,
    }
    if not records:
        return row
    values = [100 * record.metric(cell.level) for record in records]
    untrained = [record.content["untrained"][cell.level]["auroc"] for record in records]
    row["ours"] = float(np.mean(values))
    row["std"] = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    row["low"], row["high"] = mean_interval(records, cell.level)
    row["untrained"] = 100 * float(np.mean(untrained))
    row["difference"] = row["ours"] - row["paper"]
    if cell.level == "image":
        row["other_scores"] = _other_scores(records)
    row["epochs"] = ", ".join(str(record.content["training"]["epochs"]) for record in records)
    row["verdict"] = verdict(row["paper"], row["ours"], row["low"], row["high"], row["short"])
    return row


def _short(records: list[Record], epochs: int) -> bool:
    """Whether a run used up a budget of fewer epochs than these."""
    return any(
        record.content["settings"]["epochs"] < epochs
        and record.content["training"]["stopped"] == "epochs"
        for record in records
    )


def mean_interval(records: list[Record], level: str) -> tuple[float, float]:
    """The mean limits, in percent, of the 95 % intervals of runs that differ in their seed.

    The seeds share their test images, so that their errors do not average out.
    """
    low, high = np.mean([record.interval(level) for record in records], axis=0)
    return 100 * float(low), 100 * float(high)


def mean_auroc(records: list[Record], score: str) -> float:
    """Image-level AUROC (percent) by one of the image scores, mean over the seeds."""
    return 100 * float(np.mean([run.content["image_scores"][score]["auroc"] for run in records]))


def _other_scores(records: list[Record]) -> str:
    """What the image scores that were not chosen would have given, mean over the seeds."""
    chosen = records[0].content["settings"]["image_score"]
    values = {
        name: mean_auroc(records, name)
        for name in records[0].content["image_scores"]
        if name != chosen
    }
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def verdict(paper: float, ours: float, low: float, high: float, short: bool = False) -> str:
    """The verdict on one cell, all values in percent; see the module for the rule."""
    if np.isnan(ours):
        return "not run"
    if abs(ours - paper) <= TOLERANCE or low <= paper <= high:
        return "inconclusive" if high - low > WIDE else "reproduced"
    if short:
        return "under-trained"
    return f"not reproduced ({'higher' if ours > paper else 'lower'})"


def _with_averages(cells: pd.DataFrame) -> pd.DataFrame:
    """Fill our averages where every category of a column was run."""
    for (_, _), group in cells.groupby(["column", "level"]):
        average = group.index[group["category"] == "average"]
        ours = group.loc[group["category"] != "average", "ours"]
        if len(average) == 1 and ours.notna().all():
            index = average[0]
            cells.loc[index, "ours"] = ours.mean()
            cells.loc[index, "difference"] = ours.mean() - cells.loc[index, "paper"]
            paper = float(cells.loc[index, "paper"])
            short = bool(group["short"].any())
            cells.loc[index, "verdict"] = verdict(paper, ours.mean(), np.nan, np.nan, short)
    return cells


def own_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Only the columns of the paper's own method, not those of its baselines."""
    own = [wanted_settings(column, "replication") is not None for column in cells["column"]]
    return cells[own]


def measured_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of our method that were run, without the averages of the paper."""
    own = own_cells(cells)
    return own[own["ours"].notna() & own["category"].ne("average")]


def own_measurements(tables: dict[int, pd.DataFrame], preset: str = "replication") -> pd.DataFrame:
    """The cells of our method that were run, rows of `compare_all`, each measurement once.

    Several tables print the same network; the row is that of the first of them, and its column
    is named by the noise coefficient.
    """
    cells = measured_cells(pd.concat(tables.values()))
    changed = [bool(wanted_settings(column, preset)) for column in cells["column"]]
    cells["column"] = cells["column"].where(changed, f"lambda={PRESETS[preset].noise:g}")
    by = ["category", "level", "column"]
    return cells.drop_duplicates(by).sort_values(by, ignore_index=True)


def beside(tables: dict[str, dict[int, pd.DataFrame]], preset: str = "replication") -> pd.DataFrame:
    """The measurements of two results folders side by side, AUROC in percent, as text.

    A row per measurement of our method that the first has: mean and deviation of its seeds, and
    what the other has, with its lowest and highest seed.

    Args:
        tables: `compare_all` of each folder, by its name.
        preset: whose runs these are.
    """
    mine, theirs = (own_measurements(found, preset) for found in tables.values())
    name, other = tables
    on = ["dataset", "category", "column", "level"]
    both = mine.merge(theirs, how="left", on=on, suffixes=("", "_other"))
    rows = []
    for row in both.itertuples():
        there = not np.isnan(row.ours_other)
        values = [100 * run.metric(str(row.level)) for run in row.runs_other] if there else []
        rows.append(
            {
                "category": label(str(row.category)),
                "network": label(str(row.column)),
                "level": row.level,
                "paper": row.printed,
                name: f"{_mean_text(row)} (epochs {row.epochs})",
                other: f"{row.ours_other:.2f} (epochs {row.epochs_other})" if there else "",
                "its seeds": f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else "",
                "difference": f"{row.ours - row.ours_other:+.2f}" if there else "",
            }
        )
    return pd.DataFrame(rows)


def scores_beside_paper(results: Path, **changes: Any) -> pd.DataFrame:
    """Each printed image-level cell of our method beside what every image score gives, percent.

    The paper does not say which score it used. The last row is the mean distance from its cells;
    they were measured on test images, so nothing is chosen by it. Under-trained runs are left out.

    Args:
        results: folder of the run records.
        changes: of the settings of `replication`; of the runs that are shown.
    """
    records, rows = find_records(results), []
    printed = printed_cells()
    printed = printed[printed["level"].eq("image")]
    seen = set()  # what stands in Table 1 is printed in Tables 4 and 5, too
    for cell in printed.itertuples():
        wanted = wanted_settings(str(cell.column), "replication")
        once = (cell.dataset, cell.category, str(wanted), cell.value)
        if wanted is None or once in seen:
            continue
        seen.add(once)
        settings = make_settings("replication", **(wanted | changes))
        matched = runs_of(records, str(cell.dataset), str(cell.category), settings)
        if not matched or _short(matched, settings.epochs):
            continue
        rows.append(
            {
                "category": label(str(cell.category)),
                "cell": label(str(cell.column)),
                "paper": cell.value,
            }
            | {name: mean_auroc(matched, name) for name in IMAGE_SCORES}
        )
    frame = pd.DataFrame(rows, columns=["category", "cell", "paper", *IMAGE_SCORES])
    if frame.empty:
        return frame
    apart = frame[list(IMAGE_SCORES)].sub(frame["paper"], axis=0).abs().mean()
    last = {"category": "mean distance", "cell": "", "paper": ""} | apart.to_dict()
    return pd.concat([frame, pd.DataFrame([last])], ignore_index=True).round(2)


def ours_beside_paper(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of our own method as text, for a reader; those that were run come first."""
    own = own_cells(cells).sort_values("verdict", key=lambda v: v == "not run", kind="stable")
    table = pd.DataFrame(
        {
            "category": own["category"].map(label),
            "column": own["column"].map(label),
            "level": own["level"],
            "paper": own["printed"],
            "ours": [_mean_text(row) for row in own.itertuples()],
            "95 % interval": [
                "" if np.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
                for row in own.itertuples()
            ],
            "verdict": own["verdict"],
            "difference": [
                "" if np.isnan(value) else f"{value:+.2f}" for value in own["difference"]
            ],
            "untrained": ["" if np.isnan(value) else f"{value:.2f}" for value in own["untrained"]],
            "epochs of each seed": own["epochs"],
            "by other image scores": own["other_scores"],
        }
    )
    if (own["level"] == "pixel").all():
        table = table.drop(columns="by other image scores")
    return table.drop(columns=[c for c in ("column", "level") if table[c].nunique() == 1])


def printed_table(table: int) -> pd.DataFrame:
    """A table as the paper prints it, a column per method (and level)."""
    cells = printed_cells(table)
    cells["label"] = cells["category"].map(label)
    wide = cells.pivot(index="label", columns=["column", "level"], values="printed")
    wide = wide.reindex(index=cells["label"].unique())
    wide = wide[list(dict.fromkeys(zip(cells["column"], cells["level"], strict=True)))]
    if cells["level"].nunique() == 1:
        wide.columns = wide.columns.droplevel("level")
    else:
        wide.columns = pd.Index([f"{label(column)}, {level}" for column, level in wide.columns])
    wide.index.name = "category"
    return wide.reset_index()


def summary(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """How many cells of our method in each table of `compare_all` have which verdict."""
    counts = []
    for table, cells in tables.items():
        own = own_cells(cells)
        own = own[own["category"] != "average"]
        kinds = own["verdict"].str.replace(r" \(.*\)", "", regex=True)
        counts.append(
            {"table": f"Table {table}", "shows": TITLES[table]}
            | {kind: int((kinds == kind).sum()) for kind in VERDICTS}
        )
    return pd.DataFrame(counts)


def runs_by_cell(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Every cell of our method's columns of `compare_all`: seeds and epochs, or 'not run'."""
    rows = []
    for table, cells in tables.items():
        own = own_cells(cells)
        own = own[own["category"] != "average"]
        for (category, column), both in own.groupby(["category", "column"], sort=False):
            cell = both.iloc[0]  # both levels come from the same runs
            seeds = f"{cell['seeds']} seed{'s' if cell['seeds'] > 1 else ''}"
            done = f"{seeds}, {cell['epochs']} epochs" if cell["seeds"] else "not run"
            rows.append((f"Table {table}", label(category), label(column), done))
    return pd.DataFrame(rows, columns=["table", "category", "column", "runs"])


def write_tables(
    tables: dict[int, pd.DataFrame], out: Path, preset: str = "replication"
) -> list[Path]:
    """Write `compare_all` as CSV and Markdown, a summary and two figures of the runs, the audit.

    Raises:
        N2NError: where the folder cannot be written.
    """
    with write_errors(out, "choose another folder"):
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for table, cells in tables.items():
            csv = out / f"table{table}.csv"
            folders = [" ".join(run.folder.as_posix() for run in runs) for runs in cells["runs"]]
            frame = cells.drop(columns=["short", "runs"]).assign(records=folders)
            write_text(csv, frame.to_csv(index=False, float_format="%.4f"))
            text = f"**Table {table}. {TITLES[table]}.** Paper against preset `{preset}`.\n\n"
            markdown = out / f"table{table}.md"
            write_text(markdown, text + to_markdown(ours_beside_paper(cells)))
            written += [csv, markdown]
        checks = audit()
        fails = checks[~checks["holds"]].drop(columns="holds")
        figures.style()
        runs = [run for found in own_cells(tables[1])["runs"] for run in found]
        drawn = {
            "overview": figures.paper_against_ours(own_measurements(tables, preset), ""),
            "thresholds": figures.thresholds(runs),
        }
        written += figures.write(drawn, out)
        parts = {"summary": summary(tables), "audit": fails, "coverage": runs_by_cell(tables)}
        for name, frame in parts.items():
            path = out / f"{name}.md"
            write_text(path, to_markdown(frame))
            written.append(path)
    return written


def _mean_text(row: Any) -> str:
    if np.isnan(row.ours):
        return ""
    return f"{row.ours:.2f}" + ("" if np.isnan(row.std) else f" ± {row.std:.2f}")
