"""How far the verdicts of the tables carry: what else their rule would pass, and what it misses.

The rule is that of `n2n.analysis.tables`. All from run records. Nothing here chooses a setting,
and nothing enters a table's verdict.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from n2n.analysis import figures, luck
from n2n.analysis.selection import (
    category_names,
    own_records,
    runs_of_every_method,
    wanted_settings,
)
from n2n.analysis.sensitivity import study_runs, variant_label
from n2n.analysis.tables import (
    WIDE,
    compare,
    compare_all,
    mean_auroc,
    mean_interval,
    own_measurements,
    verdict,
)
from n2n.metrics import bootstrap_image
from n2n.paper import label, printed_cells
from n2n.records import Record, find_records
from n2n.settings import IMAGE_SCORES, PRESETS

AGREES = {"yes": figures.OURS, "no": figures.ANOMALOUS, "too wide to tell": figures.NORMAL}


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
    for cell in cells[cells["column"].eq("Ours")].itertuples():
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
    of one more is ``m ± t s sqrt(1 + 1 / n)``, if seeds are normally distributed. Once with the
    deviation of the cell's own seeds, once with the pooled one of `n2n.analysis.luck.of_seeds`.
    Cells of three seeds at least and of a whole budget.
    """
    runs = study_runs(results, PRESETS["replication"]).groupby(["category", "level"])
    chance = {place: luck.of_seeds(data) for place, data in runs}
    names = category_names(own_records(results))
    rows = []
    for cell in own_measurements(compare_all(results)).itertuples():
        if cell.seeds < 3 or cell.short:
            continue
        place = (names[cell.dataset, cell.category], cell.level)
        row = {
            "category": place[0],
            "column": label(str(cell.column)),
            "level": cell.level,
            "paper": cell.printed,
            "ours": f"{cell.ours:.2f} ± {cell.std:.2f}",
        }
        spreads = {"its own seeds": (cell.std, cell.seeds - 1)}
        if chance.get(place, (0, 0))[1]:  # a degree of freedom
            spreads["all networks"] = chance[place]
        for of, (deviation, degrees) in spreads.items():
            reach = luck.half_width(deviation * math.sqrt(1 + 1 / cell.seeds), degrees)
            low, high = cell.ours - reach, cell.ours + reach
            holds = " ✓" if low <= cell.paper <= high else ""
            row[f"a further training, by {of}"] = f"{low:.1f} to {min(high, 100):.1f}{holds}"
        rows.append(row | {"verdict": cell.verdict})
    return pd.DataFrame(rows).fillna("")


def printed_effects(results: Path) -> pd.DataFrame:
    """What noise and attention change in print and in ours, of Tables 4 and 5, in points of AUROC.

    A shift that all networks share, as of reduced images, leaves an effect as it is. Ours is that
    of `n2n.analysis.luck.fit`, of n and m seeds, with luck s: that of the networks of these tables,
    so that no other network has a say. A further pair of trainings of one seed, which the paper's
    may be, would lie 95 times of 100 within ``t s sqrt(1 / n + 1 / m + 2)``, here from 'low' to
    'high'. As in the tables, one of more than ten points agrees with too much to tell. 'no change'
    judges an effect of zero by the same rule: what it agrees with, too, says little.
    """
    cells, rows = printed_cells(4, 5), []
    cells = cells[cells["category"].ne("average")]
    changed_here = [wanted_settings(str(of), "replication") for of in cells["column"].unique()]
    named = [variant_label(changed) for changed in changed_here if changed is not None]
    runs = study_runs(results, PRESETS["replication"])
    runs = runs[runs["variant"].isin(named)]
    fits = {place: luck.fit(data) for place, data in runs.groupby(["category", "level"])}
    names = category_names(own_records(results))
    by = ["table", "dataset", "category", "level"]
    for (table, dataset, category, level), group in cells.groupby(by):
        found = fits.get((names.get((dataset, category)), level))
        changes = [wanted_settings(str(column), "replication") for column in group["column"]]
        base = float(group["value"].iloc[changes.index({})])
        for cell, changed in zip(group.itertuples(), changes, strict=True):
            name = variant_label(changed or {})
            if found is None or name not in found.effects:
                continue
            effect, error = found.effects[name], found.errors[name]
            further = math.hypot(error, math.sqrt(2) * found.deviation)
            reach = luck.half_width(further, found.degrees)
            low, high = effect - reach, effect + reach
            printed = round(float(cell.value) - base, 2)
            inside = "too wide to tell" if high - low > WIDE else "yes"
            rows.append(
                {
                    "table": f"Table {table}",
                    "category": label(str(category)),
                    "level": level,
                    "change": name,
                    "printed": printed,
                    "ours": effect,
                    "low": low,
                    "high": high,
                    "agrees": inside if low <= printed <= high else "no",
                    "no change": inside if low <= 0 <= high else "no",
                }
            )
    order = ["table", "change", "level"]
    return pd.DataFrame(rows).sort_values(order, ignore_index=True) if rows else pd.DataFrame()


def printed_effects_table(found: pd.DataFrame) -> pd.DataFrame:
    """What `printed_effects` found, as text."""
    if found.empty:
        return found
    reach = zip(found["low"], found["high"], strict=True)
    texts = {
        "printed": found["printed"].map("{:+.2f}".format),
        "ours": (found["ours"].round(1) + 0.0).map("{:+.1f}".format),  # no -0.0
        "a further pair": [f"{low:+.1f} to {high:+.1f}" for low, high in reach],
    }
    names = ["table", "category", "level", "change"]
    judged = {"agrees": found["agrees"], "would no change": found["no change"]}
    return found[names].assign(**texts, **judged)


def printed_effects_figure(found: pd.DataFrame) -> Figure:
    """What `printed_effects` found: a panel per category and level, each with its own axis."""
    if found.empty:
        return figures.nothing("No change of Tables 4 and 5 has been run yet.")
    places = list(found.groupby(["category", "level"]))
    categories, levels = found["category"].nunique(), found["level"].nunique()
    figure, grid = figures.new_figure(categories, levels, (9, 1.9 * categories + 0.5), sharey=True)
    changes = sorted(found["change"].unique(), reverse=True)
    for axes, ((category, level), part) in zip(grid.flat, places, strict=True):
        at = part["change"].map(changes.index)
        colours = part["agrees"].map(AGREES)
        axes.hlines(at, part["low"], part["high"], color=colours, lw=6, alpha=0.3)
        axes.scatter(part["ours"], at, color=colours, zorder=3)
        axes.plot(part["printed"], at, "D", color="black", mfc="none", zorder=4)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(changes)), changes)
        axes.set(title=f"{category}, {level}s", ylim=(-0.6, len(changes) - 0.4))
    figure.supxlabel("change of AUROC, points", fontsize=10)
    marks = [
        Line2D([], [], marker="o", ls="", color=colour, label=f"ours; agrees: {name}")
        for name, colour in AGREES.items()
        if (found["agrees"] == name).any()
    ]
    marks.append(Line2D([], [], marker="D", ls="", color="black", mfc="none", label="printed"))
    figure.legend(handles=marks, loc="outside upper center", ncols=4, fontsize=8)
    return figure


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


def by_score(results: Path) -> pd.DataFrame:
    """Each image-level cell of ours, judged by every image score.

    The paper names none. Values in percent; the last row counts the cells that are reproduced.
    """
    cells = own_measurements(compare_all(results))
    cells = cells[cells["level"].eq("image")]
    rows, passed = [], dict.fromkeys(IMAGE_SCORES, 0)
    for cell in cells.itertuples():
        row = {
            "category": label(str(cell.category)),
            "cell": label(str(cell.column)),
            "printed": cell.printed,
            "epochs": cell.epochs,
        }
        for score in IMAGE_SCORES:
            ours = mean_auroc(cell.runs, score)
            low, high = 100 * np.mean([_interval(run, score) for run in cell.runs], axis=0)
            judged = verdict(cell.paper, ours, low, high, cell.short)
            passed[score] += judged == "reproduced"
            row[score] = f"{ours:.1f} ({low:.1f} to {high:.1f}), {judged}"
        rows.append(row)
    last = {name: f"{count} of {len(rows)} reproduced" for name, count in passed.items()}
    first = dict.fromkeys(("category", "cell", "printed", "epochs"), "")
    return pd.DataFrame([*rows, first | last])


def _interval(record: Record, score: str) -> tuple[float, float]:
    scores = record.scores()
    labels = scores["anomalous"].eq(1).to_numpy()
    return bootstrap_image(scores[score].to_numpy(), labels)["auroc"]


def _by_method(rows: dict[str, dict[str, str]]) -> pd.DataFrame:
    """A row for each method and a column for each of its entries, empty where it has none."""
    frame = pd.DataFrame(rows).T.fillna("")
    frame.index.name = "method"
    return frame.reset_index()
