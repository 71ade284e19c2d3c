"""Which run records stand for what: the rules that tables, figures and pages share."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from n2n.baselines.settings import METHODS, BaselineSettings, make_baseline_settings, row_label
from n2n.paper import label, printed_cells
from n2n.plan import Run
from n2n.records import Part, Record, check_same_images, find_records
from n2n.settings import PRESETS, Settings, budget, changes, fills, make_settings


def own_records(results: Path) -> list[Record]:
    """The records of our method; of equal settings under two presets the first."""
    found: dict[tuple[str, str, int, Settings], Record] = {}
    for record in find_records(results):
        key = record.key
        if key.method == "n2n":
            plain = dataclasses.replace(record.settings, preset="replication")
            found.setdefault((key.dataset, key.category, key.seed, plain), record)
    return list(found.values())


def runs_of(records: list[Record], dataset: str, category: str, settings: Settings) -> list[Record]:
    """The runs of these settings, whatever preset they were named after, one per seed.

    Their number of epochs may be another, as `n2n.settings.budget` makes it: where there are none
    with that of the settings, those of the largest are taken.
    """
    found: dict[int, dict[int, Record]] = {}
    for record in records:
        key = record.key
        if (key.dataset, key.category, key.method) != (dataset, category, "n2n"):
            continue
        if fills(record.settings, settings):
            found.setdefault(record.settings.epochs, {}).setdefault(key.seed, record)
    epochs = settings.epochs if settings.epochs in found else max(found, default=0)
    runs = list(found.get(epochs, {}).values())
    check_same_images(runs)
    return runs


def wanted_settings(column: str, preset: str) -> dict[str, Any] | None:
    """What a column of Tables 1-5 changes in a preset; None for a method other than N2N."""
    if column == "Ours":
        return {}
    if column.startswith("lambda="):
        wanted: dict[str, Any] = {"noise": float(column.removeprefix("lambda="))}
    elif column in ("with attention", "without attention"):
        wanted = {"attention": column == "with attention"}
    else:
        return None
    base = PRESETS[preset].as_dict()
    return {name: value for name, value in wanted.items() if base[name] != value}


@functools.cache
def settings_of(
    column: str, method: str, preset: str = "replication", epochs: int | None = None
) -> Settings | BaselineSettings | None:
    """The settings with which a method fills a column of a table; None where it does not.

    Of so many epochs, or of the preset's or the method's own number.
    """
    if method == "n2n":
        changed = wanted_settings(column, preset)
        return None if changed is None else make_settings(preset, **changed, **budget(epochs))
    own = make_baseline_settings(method)
    if METHODS[method].label != column:
        return None
    return make_baseline_settings(method, epochs=epochs) if own.epochs else own


def runs_in_table(table: int, runs: Iterable[Run]) -> list[Run]:
    """Those that Table 1-5 shows: ours of its settings and any `budget`, other methods by name."""
    cells = printed_cells(table)
    columns = cells.groupby(["dataset", "category"])["column"].unique().to_dict()

    def shows(run: Run, column: str) -> bool:
        own = settings_of(column, run.key.method)
        if isinstance(own, Settings) and isinstance(run.settings, Settings):
            return fills(run.settings, own)
        return own is not None

    return [run for run in runs if any(shows(run, c) for c in columns.get(run.key.part, ()))]


def matching_records(
    records: list[Record], dataset: str, category: str, column: str, preset: str
) -> list[Record]:
    """The runs behind a cell, one per seed; see `runs_of`."""
    wanted = wanted_settings(column, preset)
    if wanted is None:
        return []
    return runs_of(records, dataset, category, make_settings(preset, **wanted))


def varied_runs(
    results: Path, base: Settings, *varied: str, category: str | None = None
) -> list[tuple[str, Record]]:
    """Our runs that differ from ``base`` in these settings alone, with their part's name.

    They are sorted by the part and by these settings, in their order.
    """
    records = own_records(results)
    names = category_names(records)
    found = [
        record
        for record in records
        if changes(record.settings, base).keys() <= set(varied)
        and category in (None, record.key.category)
    ]
    if varied:
        values = operator.attrgetter(*varied)
        found.sort(key=lambda record: (record.key.part, values(record.settings)))
    return [(names[record.key.part], record) for record in found]


def with_float32(
    table: Callable[[Path, Settings], pd.DataFrame], results: Path, base: Settings
) -> pd.DataFrame:
    """A table of the runs around ``base``, with those of ``results/float32`` below, named so.

    It is one of `mechanism` or `confounds`, whose second column names the run.
    """
    single = table(results / "float32", base)
    single[single.columns[1]] += ", float32"
    return pd.concat([table(results, base), single], ignore_index=True)


def means_over_seeds(frame: pd.DataFrame, digits: int | None = 1) -> pd.DataFrame:
    """The means over the seeds, which are named: of what stands behind 'seed', by what precedes.

    They are rounded to so many digits, or not at all.
    """
    place = frame.columns.get_loc("seed")
    groups = frame.groupby(list(frame.columns[:place]), sort=False)
    means = groups[list(frame.columns[place + 1 :])].agg(lambda values: values.mean(skipna=False))
    means = means if digits is None else means.round(digits)
    means.insert(0, "which seeds", groups["seed"].agg(_named))
    return means.reset_index()


def _named(seeds: pd.Series) -> str:
    """Seeds as text: '0, 1' or '0–3'."""
    every = sorted(seeds)
    if len(every) > 2 and every == list(range(every[0], every[-1] + 1)):
        return f"{every[0]}–{every[-1]}"
    return ", ".join(map(str, every))


def runs_of_every_method(records: list[Record]) -> dict[str, dict[Part, list[Record]]]:
    """The tables' runs of N2N and those of the other methods, by row and by part, one per seed.

    Of the others those with the method's own settings: of several budgets and batch sizes the
    largest; each backbone, and each quantity of `n2n.baselines.trivial.MeanQuantity`, has a row of
    its own.
    """
    runs: dict[str, dict[Part, list[Record]]] = {}
    for part in parts_of(records):
        if ours := runs_of(records, *part, PRESETS["replication"]):
            runs.setdefault("N2N", {})[part] = ours
    rows: dict[tuple[str, Part], dict[tuple[int, int], list[Record]]] = {}
    for method, record in itertools.product(METHODS, records):
        if record.key.method != method:
            continue
        settings = record.baseline
        if settings.changed().keys() <= {"epochs", "batch_size", "quantity"}:
            row = rows.setdefault((row_label(settings, budget=False), record.key.part), {})
            row.setdefault((settings.epochs, settings.batch_size), []).append(record)
    for (name, part), budgets in rows.items():
        check_same_images([record for found in budgets.values() for record in found])
        runs.setdefault(name, {})[part] = budgets[max(budgets)]
    return runs


def of_the_same_seeds(runs: list[list[Record]]) -> list[list[Record]]:
    """Of each list of runs that is not empty those whose seeds all such lists have."""
    seeds = [{record.key.seed for record in found} for found in runs if found]
    shared = set.intersection(*seeds) if seeds else set()
    return [[record for record in found if record.key.seed in shared] for found in runs]


def parts_of(records: Iterable[Record]) -> list[Part]:
    """Every data set's category of which there is a record, in their order."""
    return list(dict.fromkeys(record.key.part for record in records))


def category_names(records: Iterable[Record]) -> dict[Part, str]:
    """A reader's name for each part, with its data set where two data sets share a category."""
    parts = parts_of(records)
    named = [category for _, category in parts]
    return {
        (dataset, category): (category if dataset == "demo" else label(category))
        + f" ({dataset})" * (named.count(category) > 1)
        for dataset, category in parts
    }
