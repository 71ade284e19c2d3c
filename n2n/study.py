"""The runs behind the tables: those that a table or a study lacks, made in its order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from n2n.analysis.selection import matching_records, settings_of
from n2n.data import find_categories
from n2n.device import out_of_memory
from n2n.errors import BusyError, N2NError, say
from n2n.paper import printed_cells
from n2n.plan import Run, Study
from n2n.progress import work_of
from n2n.records import find_records, finished, is_running
from n2n.runs import make_record

POLL = 5.0  # seconds between two looks at what another process does


def missing_runs(
    table: int,
    data: Path,
    results: Path,
    *,
    methods: Sequence[str] = ("n2n",),
    categories: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    preset: str = "replication",
    epochs: int | None = None,
) -> list[Run]:
    """The runs that a table lacks and whose images are there.

    Args:
        table: 1 to 5.
        data: root of the data sets.
        results: folder of the records.
        methods: 'n2n' and names of baselines; those that the table does not show are left out.
        categories: only these; None is all that are found.
        seeds: one run each.
        preset: which settings of our method.
        epochs: a smaller or larger budget than the preset's, or a baseline's own. What our method
            has run with a larger one is left alone; see `n2n.analysis.selection.runs_of`.

    Raises:
        N2NError: where the table has no such category.
    """
    cells = printed_cells(table)
    found = set(find_categories(data))
    if categories is not None:
        known = dict.fromkeys(cells["category"][cells["category"] != "average"])
        if unknown := set(categories) - known.keys():
            raise N2NError(
                f"Table {table} has no category {min(unknown)!r}; choose of {', '.join(known)}."
            )
        cells = cells[cells["category"].isin(categories)]
        asked = dict.fromkeys(zip(cells["dataset"], cells["category"], strict=True))
        if absent := [f"{d}/{c}" for d, c in asked if (d, c) not in found]:
            say(f"skipped, since not in {data}: {', '.join(absent)}")
    records = find_records(results)
    runs: list[Run] = []
    for dataset, category, column in dict.fromkeys(
        zip(cells["dataset"], cells["category"], cells["column"], strict=True)
    ):
        if (dataset, category) not in found:
            continue
        for method in methods:
            settings = settings_of(column, method, preset, epochs)
            if settings is None:
                continue
            there = (
                matching_records(records, dataset, category, column, preset)
                if method == "n2n"
                else []
            )
            shown = max((record.content["settings"]["epochs"] for record in there), default=0)
            if shown > settings.epochs:
                continue
            done = {record.key.seed for record in there} if shown == settings.epochs else set()
            wanted = [Run(dataset, category, settings, seed) for seed in seeds]
            runs += [
                run for run in wanted if run.seed not in done and not run.key.is_finished(results)
            ]
    return runs


def run_missing(
    table: int,
    data: str | Path | None,
    results: str | Path,
    *,
    device: str = "auto",
    **options: Any,
) -> None:
    """Run what a table lacks, see `missing_runs`; without ``data``, nothing.

    Raises:
        N2NError: where runs failed, when all others have been made; names each.
    """
    if data is None:
        return
    runs = missing_runs(table, Path(data), Path(results), **options)
    if failures := _make_each(f"Table {table}", runs, Path(data), Path(results), device, True):
        raise N2NError("; ".join(failures))


def run_study(
    study: Study,
    data: Path,
    results: Path,
    *,
    device: str = "auto",
    progress: bool = True,
) -> list[str]:
    """Make the records that a study lacks, in its order; a run that fails stops no other.

    Several processes may work on one study at once: each leaves the others' runs alone. Runs whose
    images are not below ``data`` are left out and named.

    Returns:
        A sentence for each run that failed.
    """
    found = set(find_categories(data))
    missing = study.missing(results)
    runs = [run for run in missing if (run.dataset, run.category) in found]
    done = len(study.runs) - len(missing)
    say(f"{study.title}: {done} of {len(study.runs)} runs are done, {len(runs)} can be run now")
    failures = []
    for run in study.runs:
        try:
            finished(run.key, results, run.precision)  # says where the record is of another
        except N2NError as error:  # a damaged one hinders no other run
            failures.append(str(error))
            say(f"failed: {error}")
    if absent := sorted(
        {f"{r.dataset}/{r.category}" for r in missing} - {"/".join(f) for f in found}
    ):
        say(f"not in {data}: {', '.join(absent)}")
    return failures + _make_each("study", runs, data, results, device, progress)


def _make_each(
    title: str, runs: list[Run], data: Path, results: Path, device: str, progress: bool
) -> list[str]:
    """Make the records of runs, under a bar; a sentence for each that failed, which stops none.

    A run whose network another process trains just now waits for it, to take it over, while
    others go first.
    """
    failures = []
    bar = tqdm(
        total=sum(map(work_of, runs)), desc=title, disable=not progress or len(runs) < 2,
        bar_format="{l_bar}{bar}| {elapsed} gone, about {remaining} left",
    )  # fmt: skip
    with bar:
        waiting = list(runs)
        told = False
        while waiting:
            free = (run for run in waiting if not _trained_elsewhere(run, runs, results))
            run = next(free, None)
            if run is None:
                if not told:
                    say(
                        f"waiting for another process, whose network {waiting[0].key.variant} takes"
                    )
                told = True
                time.sleep(POLL)
                continue
            waiting.remove(run)
            try:
                make_record(run, data, results=results, device=device, progress=progress)
            except BusyError as error:
                say(f"left to the other process: {error}")
            except Exception as error:  # of one run, whatever it is: the others go on
                said = error if isinstance(error, N2NError) else repr(error)
                failures.append(f"{run.key.folder(results)}: {said}")
                say(f"failed: {failures[-1]}")
                if _breaks_the_gpu(error):
                    say("this process can use its GPU no more; start the study again")
                    break
            bar.update(work_of(run))
    return failures


def _breaks_the_gpu(error: Exception) -> bool:
    """Whether it is, or stems from, a GPU's own error, which outlives the run."""
    first = (error.__cause__ or error) if isinstance(error, N2NError) else error
    broken = type(first).__name__ == "AcceleratorError"
    return broken and isinstance(first, Exception) and not out_of_memory(first)


def _trained_elsewhere(run: Run, runs: list[Run], results: Path) -> bool:
    """Whether a process is at work on another run that shares this one's network."""
    return any(
        other.training == run.training and other != run and is_running(other.key, results)
        for other in runs
    )
