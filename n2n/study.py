"""The whole study: the runs behind the tables, the notebooks, the book."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from n2n import demo_data
from n2n.baseline_settings import METHODS, BaselineSettings, make_baseline_settings
from n2n.baselines import run_baseline
from n2n.data import find_categories
from n2n.errors import BusyError, N2NError
from n2n.experiment import run_experiment
from n2n.notebooks import NOTEBOOKS, execute_notebook
from n2n.paper import printed_cells
from n2n.plan import Run, Study
from n2n.progress import work_of
from n2n.records import RECORD, Record, find_records
from n2n.settings import Settings, budget, make_settings
from n2n.tables import compare_all, matching_records, wanted_settings, write_tables

PAPER_DATASETS = ("MPDD", "VisA")
STUDY_PAGES = (
    "methods",
    "improved",
    "sensitivity",
    "mechanism",
)  # only read records
EXECUTED = Path("book/executed")
PAGE = Path("_build/html/index.html")


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
        epochs: a smaller or larger budget than the preset's, or a baseline's own. What has been
            run with a larger one is left alone: a table shows the largest.
    """
    cells = printed_cells()
    cells = cells[cells["table"] == table]
    found = set(find_categories(data))
    records = find_records(results)
    runs: list[Run] = []
    for dataset, category, column in dict.fromkeys(
        zip(cells["dataset"], cells["category"], cells["column"], strict=True)
    ):
        if (dataset, category) not in found:
            continue
        if categories is not None and category not in categories:
            continue
        for method in methods:
            settings = _of_column(column, method, preset, epochs)
            if settings is None:
                continue
            there = (
                matching_records(records, dataset, category, column, preset)
                if method == "n2n"
                else []
            )
            shown = max((record.content["settings"]["epochs"] for record in there), default=0)
            if shown > (settings.epochs or 0):
                continue
            done = {record.key.seed for record in there} if shown == settings.epochs else set()
            wanted = [Run(dataset, category, settings, seed) for seed in seeds]
            runs += [
                run
                for run in wanted
                if run.seed not in done and not (run.key.folder(results) / RECORD).exists()
            ]
    return runs


def _of_column(
    column: str, method: str, preset: str, epochs: int | None
) -> Settings | BaselineSettings | None:
    """The settings with which a method fills a column of a table; None where it does not."""
    if method == "n2n":
        changes = wanted_settings(column, preset)
        return None if changes is None else make_settings(preset, **changes, **budget(epochs))
    own = make_baseline_settings(method)
    if METHODS[method].label != column:
        return None
    return make_baseline_settings(method, epochs=epochs) if own.epochs else own


def run_missing(
    table: int,
    data: str | Path | None,
    results: str | Path,
    *,
    device: str = "auto",
    **options: Any,
) -> list[Record]:
    """Run what a table lacks, see `missing_runs`; without ``data``, nothing."""
    if data is None:
        return []
    runs = missing_runs(table, Path(data), Path(results), **options)
    bar = tqdm(runs, desc=f"Table {table}", unit="run", disable=len(runs) < 2)
    return [_make(run, Path(data), Path(results), device, True) for run in bar]


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
    _say(f"{study.title}: {done} of {len(study.runs)} runs are done, {len(runs)} can be run now")
    if absent := sorted(
        {f"{r.dataset}/{r.category}" for r in missing} - {"/".join(f) for f in found}
    ):
        _say(f"not in {data}: {', '.join(absent)}")
    failures = []
    work = [work_of(run) for run in runs]
    bar = tqdm(
        total=sum(work), desc="study", disable=not progress,
        bar_format="{l_bar}{bar}| {elapsed} gone, about {remaining} left",
    )  # fmt: skip
    with contextlib.closing(bar):
        for run, amount in zip(runs, work, strict=True):
            try:
                _make(run, data, results, device, progress)
            except BusyError as error:
                _say(f"left to the other process: {error}")
            except Exception as error:  # of one run, whatever it is: the others go on
                said = error if isinstance(error, N2NError) else repr(error)
                failures.append(f"{run.key.folder(results)}: {said}")
                _say(f"failed: {failures[-1]}")
            bar.update(amount)
    return failures


def _make(run: Run, data: Path, results: Path, device: str, progress: bool) -> Record:
    """Make the record of one run, of our method or of a baseline."""
    if isinstance(run.settings, BaselineSettings):
        return run_baseline(
            data, run.dataset, run.category, run.settings,
            weights=None if run.weights is None else Path(run.weights).expanduser(),
            seed=run.seed, results=results, device=device, precision=run.precision,
            progress=progress,
        )  # fmt: skip
    return run_experiment(
        data, run.dataset, run.category, run.settings, seed=run.seed, results=results,
        device=device, precision=run.precision, trace=run.trace, progress=progress,
    )  # fmt: skip


def replicate(
    data: Path | None,
    *,
    results: Path = Path("results"),
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    device: str = "auto",
) -> Path:
    """Run the notebooks through papermill and build the book; returns the page to open.

    Without data, the demonstration data are generated and trained on, and the tables show the
    records that are there. With data, every category of MPDD and VisA in it is run.

    Raises:
        N2NError: where a notebook or the build fails, naming it, or this is not the project's
            folder, or papermill or Jupyter Book is missing, or another process makes the book.
    """
    if not NOTEBOOKS.is_dir() or not Path("_config.yml").is_file():
        raise N2NError("There is no notebooks/ and _config.yml here; run this in the project.")
    try:
        lock = FileLock(EXECUTED.with_suffix(".lock")).acquire(timeout=0)
    except Timeout as error:
        raise BusyError("Another process makes the book here; wait for it first.") from error
    with lock:
        pages = experiment_pages(data, results, seeds, epochs)
        shutil.rmtree(EXECUTED, ignore_errors=True)  # no page of an earlier build stays
        _execute_pages(pages, data, results, seeds, epochs, device)
        return build_book(results)


def _execute_pages(
    pages: list[tuple[str, str, dict[str, Any]]],
    data: Path | None,
    results: Path,
    seeds: Sequence[int],
    epochs: int | None,
    device: str,
) -> None:
    shared = {"results": str(results), "device": device}
    for dataset, category, parameters in pages:
        output = EXECUTED / f"experiment-{dataset}-{category}.ipynb"
        nature = "demonstration" if dataset == "demo" else "replicated"
        title = f"{dataset} / {category} ({nature})"
        execute_notebook("experiment", output, shared | parameters, title)
    root = None if data is None else str(data)
    for table in range(1, 6):
        parameters = {"data": root, "seeds": list(seeds), "epochs": epochs}
        execute_notebook(f"table{table}", EXECUTED / f"table{table}.ipynb", shared | parameters)
    for name in STUDY_PAGES:
        execute_notebook(name, EXECUTED / f"{name}.ipynb", {"results": str(results)})


def build_book(results: Path) -> Path:
    """Bind the executed notebooks and the tables of the records; returns the page to open.

    Raises:
        N2NError: where the build fails.
    """
    write_tables(compare_all(results), EXECUTED)
    _say("building the book")
    command = [
        sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book",
        "--config", "_config.yml", "--path-output", ".", "-W", "--all", "-q",
    ]  # fmt: skip
    built = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"NO_COLOR": "1", "N2N_RESULTS": str(results.resolve())},
    )  # fmt: skip
    if built.returncode != 0:  # of a book without a warning there is nothing to say
        print(built.stdout)
        raise N2NError("The book could not be built; the messages above say which page is wrong.")
    return PAGE.resolve()


def experiment_pages(
    data: Path | None, results: Path, seeds: Sequence[int], epochs: int | None
) -> list[tuple[str, str, dict[str, Any]]]:
    """Data set, category and parameters of each experiment notebook of the book.

    A page shows the first of the seeds, or a record that is there and of no smaller budget.

    Raises:
        N2NError: where ``data`` has no category of MPDD or VisA.
    """
    asked = {"seed": seeds[0], "epochs": epochs}
    if data is not None:
        found = [pair for pair in find_categories(data) if pair[0] in PAPER_DATASETS]
        cells = printed_cells()
        known = dict.fromkeys(zip(cells["dataset"], cells["category"], strict=True))
        absent = [f"{d}/{c}" for d, c in known if c != "average" and (d, c) not in found]
        if not found:
            raise N2NError(f"There is no category of MPDD or VisA in {data}; see `n2n check`.")
        _say(f"found {', '.join(f'{d}/{c}' for d, c in found)}")
        if absent:
            _say(f"skipped, since not in {data}: {', '.join(absent)}")
        enough = make_settings("replication", **budget(epochs)).epochs
        records, pages = find_records(results), []
        for dataset, category in found:
            there = _shown(records, dataset, category)
            shown = there if there and there["epochs"] >= enough else asked
            page = {"data": str(data), "dataset": dataset, "category": category}
            pages.append((dataset, category, page | shown))
        return pages
    demonstration = results / "demo"
    _say("no data set at hand: using the demonstration data, and the records that are there")
    images = demonstration / "data"
    demo_data.generate(images)
    pages = [
        ("demo", category,
         {"data": str(images), "dataset": "demo", "category": category, "preset": "demo",
          "results": str(demonstration)} | asked)
        for category in demo_data.CATEGORIES
    ]  # fmt: skip
    records = find_records(results)
    for dataset, category in dict.fromkeys((r.key.dataset, r.key.category) for r in records):
        if there := _shown(records, dataset, category):
            page = {"dataset": dataset, "category": category}
            pages.append((dataset, category, page | there))
    return pages


def _shown(records: list[Record], dataset: str, category: str) -> dict[str, Any] | None:
    """Seed and epochs of the record that a category's page shows; None where there is none."""
    matched = matching_records(records, dataset, category, "Ours", "replication")
    if not matched:
        return None
    return {"seed": matched[0].key.seed, "epochs": matched[0].content["settings"]["epochs"]}


def _say(text: str) -> None:
    print(f"n2n: {text}", flush=True)
