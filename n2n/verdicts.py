"""How far the verdicts of `n2n.tables` carry: what else their rule would pass, and what it misses.

All from run records. Nothing here chooses a setting, and nothing enters a table's verdict.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from n2n.baseline_settings import METHODS, BaselineSettings, row_label
from n2n.paper import label, printed_cells
from n2n.records import Record, find_records
from n2n.tables import compare, matching_records, mean_interval, own_measurements, verdict

Runs = dict[str, dict[tuple[str, str], list[Record]]]  # by method, then by data set and category


def crossed(results: Path) -> pd.DataFrame:
    """Each of our values of Table 4 judged against the printed value of *every* coefficient.

    A rule that tells noise levels apart would pass the diagonal alone. The first row of each
    category and level are the printed values; under-trained cells and columns are left out.
    """
    cells = compare(4, results)
    run = cells[cells["ours"].notna() & cells["category"].ne("average")]
    run = run[run["verdict"] != "under-trained"]
    rows = []
    for (category, level), group in run.groupby(["category", "level"], sort=False):
        columns = [label(column) for column in group["column"]]
        name = {"category": label(str(category)), "level": level}
        printed = dict(zip(columns, group["printed"], strict=True))
        rows.append(name | {"ours at": "", "ours": "printed"} | printed)
        for mine in group.itertuples():
            judged = [verdict(paper, mine.ours, mine.low, mine.high) for paper in group["paper"]]
            rows.append(
                name
                | {"ours at": label(str(mine.column)), "ours": f"{mine.ours:.2f}"}
                | dict(zip(columns, judged, strict=True))
            )
    return pd.DataFrame(rows).fillna("")


def other_methods(results: Path) -> pd.DataFrame:
    """Every method's AUROC (percent) judged against the cells that the paper prints for *N2N*."""
    runs = _runs(results)
    rows: dict[str, dict[str, str]] = {"printed for N2N": {}}
    cells = printed_cells()
    for cell in cells[cells["table"].isin([1, 2, 3]) & cells["column"].eq("Ours")].itertuples():
        column = f"{label(str(cell.category))}, {cell.level}"
        for method, parts in runs.items():
            if found := parts.get((str(cell.dataset), str(cell.category))):
                ours = 100 * float(np.mean([record.metric(str(cell.level)) for record in found]))
                interval = mean_interval(found, str(cell.level))
                passed = verdict(float(cell.value), ours, *interval) == "reproduced"
                rows["printed for N2N"][column] = str(cell.printed)
                rows.setdefault(method, {})[column] = f"{ours:.1f}" + " ✓" * passed
    frame = pd.DataFrame(rows).T.fillna("")
    frame.index.name = "method"
    return frame.reset_index()


def further_training(results: Path) -> pd.DataFrame:
    """Where the printed value lies in what one more training of ours would give.

    The tables' interval is over test images, of which the authors had the same; so what sets two
    runs apart is the training. Of n seeds with mean m and deviation s, the 95 % prediction interval
    of one more is ``m ± t(n - 1) s sqrt(1 + 1 / n)``, if seeds are normally distributed. Cells of
    three seeds at least.
    """
    printed = own_measurements({table: compare(table, results) for table in (1, 2, 3, 4, 5)})
    rows = []
    for cell in printed.itertuples():
        if cell.seeds < 3:
            continue
        reach = student.ppf(0.975, cell.seeds - 1) * cell.std * np.sqrt(1 + 1 / cell.seeds)
        low, high = cell.ours - reach, cell.ours + reach
        rows.append(
            {
                "category": label(str(cell.category)),
                "column": label(str(cell.column)),
                "level": cell.level,
                "paper": cell.printed,
                "ours": f"{cell.ours:.2f} ± {cell.std:.2f}",
                "a further training": f"{low:.1f} to {min(high, 100):.1f}",
                "holds the paper's": "yes" if low <= cell.paper <= high else "no",
                "verdict": cell.verdict,
                "seeds": cell.seeds,
            }
        )
    return pd.DataFrame(rows)


def above_every_good(results: Path) -> pd.DataFrame:
    """How many bad test images score above *every* good one, for each method, seed by seed.

    What a threshold without a false alarm finds at most: it is set on the test images themselves,
    so this is a diagnosis and no performance.
    """
    rows: dict[str, dict[str, str]] = {}
    for method, parts in _runs(results).items():
        for (_, category), found in parts.items():
            counts = []
            for record in found:
                scores = pd.read_csv(record.folder / "scores.csv")
                chosen = scores[record.content["settings"].get("image_score", "own")]
                bad = scores["anomalous"].eq(1)
                counts.append(int((chosen[bad] > chosen[~bad].max()).sum()))
            counted = ", ".join(map(str, counts)) if len(set(counts)) > 1 else str(counts[0])
            rows.setdefault(method, {})[label(category)] = f"{counted} of {bad.sum()}"
    frame = pd.DataFrame(rows).T.fillna("")
    frame.index.name = "method"
    return frame.reset_index()


def _runs(results: Path) -> Runs:
    """The tables' runs of N2N, and those of every other method with its own settings.

    Of several budgets of a method the largest.
    """
    records = find_records(results)
    parts = dict.fromkeys((record.key.dataset, record.key.category) for record in records)
    runs: Runs = {}
    for part in parts:
        if ours := matching_records(records, *part, "Ours", "replication"):
            runs.setdefault("N2N", {})[part] = ours
    for name in METHODS:
        for part in parts:
            found: dict[int, list[Record]] = {}
            for record in records:
                key, values = record.key, record.content["settings"]
                here = (key.dataset, key.category, key.method) == (*part, name)
                if here and BaselineSettings(**values).own:
                    found.setdefault(values.get("epochs") or 0, []).append(record)
            if found:
                largest = found[max(found)]
                shown = row_label(largest[0].content["settings"], budget=False)
                runs.setdefault(shown, {})[part] = largest
    return runs
