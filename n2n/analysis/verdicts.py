"""How far the verdicts of the tables carry: what else their rule would pass, and what it misses.

The rule is that of `n2n.analysis.tables`. All from run records. Nothing here chooses a setting,
and nothing enters a table's verdict.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from n2n.analysis.selection import category_names, runs_of_every_method
from n2n.analysis.tables import compare, compare_all, mean_interval, own_measurements, verdict
from n2n.paper import label, printed_cells
from n2n.records import find_records


def crossed(results: Path) -> pd.DataFrame:
    """Each of our values of Table 4 judged against the printed value of *every* coefficient.

    A rule that tells noise levels apart would pass the diagonal alone. The first row of each
    category and level are the printed values; runs of a smaller budget are left out.
    """
    cells = compare(4, results)
    rows = []
    for (category, level), group in cells.groupby(["category", "level"], sort=False):
        run = group[group["ours"].notna() & ~group["short"]]
        if category == "average" or run.empty:
            continue
        columns = [label(column) for column in group["column"]]
        name = {"category": label(str(category)), "level": level}
        printed = dict(zip(columns, group["printed"], strict=True))
        rows.append(name | {"ours at": "", "ours": "printed"} | printed)
        for mine in run.itertuples():
            judged = [verdict(paper, mine.ours, mine.low, mine.high) for paper in group["paper"]]
            rows.append(
                name
                | {"ours at": label(str(mine.column)), "ours": f"{mine.ours:.2f}"}
                | dict(zip(columns, judged, strict=True))
            )
    return pd.DataFrame(rows)


def other_methods(results: Path) -> pd.DataFrame:
    """Every method's AUROC (percent) judged against the cells that the paper prints for *N2N*."""
    runs = runs_of_every_method(find_records(results))
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
    return _by_method(rows) if len(rows) > 1 else pd.DataFrame()


def further_training(results: Path) -> pd.DataFrame:
    """Where the printed value lies in what one more training of ours would give.

    The tables' interval is over test images, of which the authors had the same; so what sets two
    runs apart is the training. Of n seeds with mean m and deviation s, the 95 % prediction interval
    of one more is ``m ± t(n - 1) s sqrt(1 + 1 / n)``, if seeds are normally distributed. Cells of
    three seeds at least and of a whole budget.
    """
    rows = []
    for cell in own_measurements(compare_all(results)).itertuples():
        if cell.seeds < 3 or cell.short:
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
    records = find_records(results)
    names = category_names(records)
    rows: dict[str, dict[str, str]] = {}
    for method, parts in runs_of_every_method(records).items():
        for part, found in parts.items():
            counts = []
            for record in found:
                scores = record.scores()
                bad = scores["anomalous"].eq(1)
                counts.append(int((scores["chosen"][bad] > scores["chosen"][~bad].max()).sum()))
            if bad.all() or not bad.any():
                continue  # nothing to rank
            counted = ", ".join(map(str, counts)) if len(set(counts)) > 1 else str(counts[0])
            rows.setdefault(method, {})[names[part]] = f"{counted} of {bad.sum()}"
    return _by_method(rows)


def _by_method(rows: dict[str, dict[str, str]]) -> pd.DataFrame:
    """A row for each method and a column for each of its entries, empty where it has none."""
    frame = pd.DataFrame(rows).T.fillna("")
    frame.index.name = "method"
    return frame.reset_index()
