"""The book: its notebooks executed, its tables written, its pages built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from n2n import demo_data
from n2n.analysis import confounds, figures, mechanism, panels, verdicts
from n2n.analysis.selection import matching_records
from n2n.analysis.tables import compare_all, write_tables
from n2n.data import find_categories
from n2n.errors import BusyError, N2NError, say
from n2n.notebooks import NOTEBOOKS, STUDY_PAGES, execute_notebook, page_title
from n2n.paper import printed_cells
from n2n.records import Record, find_records
from n2n.settings import budget, changes, make_settings

PAPER_DATASETS = ("MPDD", "VisA")
EXECUTED = Path("book/executed")
PAGE = Path("_build/html/index.html")


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

    A run that fails stops no other: the book then shows what is there.

    Raises:
        N2NError: where runs failed, when the book is made, or the build fails, or this is not the
            project's folder, or papermill or Jupyter Book is missing, or another process makes
            the book.
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
        failures = _execute_pages(pages, data, results, seeds, epochs, device)
        page = build_book(results)
    if failures:
        raise N2NError(f"The book {page} lacks what failed: " + "; ".join(failures))
    return page


def _execute_pages(
    pages: list[tuple[str, str, dict[str, Any]]],
    data: Path | None,
    results: Path,
    seeds: Sequence[int],
    epochs: int | None,
    device: str,
) -> list[str]:
    """Make the pages, and say which runs failed; their notebooks stay in ``results/notebooks``."""
    failures = []
    shared = {"results": str(results), "device": device}
    for dataset, category, parameters in pages:
        name = f"experiment-{dataset}-{category}.ipynb"
        tried, title = results / "notebooks" / name, page_title(dataset, category)
        try:
            execute_notebook("experiment", tried, shared | parameters, title)
        except N2NError as error:
            failures.append(f"{dataset}/{category}: {error}")
            say(f"failed: {failures[-1]}")
        else:
            _move(tried, EXECUTED / name)
    root = None if data is None else str(data)
    for table in range(1, 6):
        parameters = {"data": root, "seeds": list(seeds), "epochs": epochs}
        tried = results / "notebooks" / f"table{table}.ipynb"
        output = EXECUTED / tried.name
        try:
            execute_notebook(f"table{table}", tried, shared | parameters)
        except N2NError as error:
            if data is None:
                raise
            failures.append(f"Table {table}: {error}")
            say(f"failed: {failures[-1]}")
            execute_notebook(f"table{table}", output, shared | {"data": None})  # what is there
        else:
            _move(tried, output)
    for name in STUDY_PAGES:
        try:
            execute_notebook(name, EXECUTED / f"{name}.ipynb", {"results": str(results)})
        except N2NError as error:  # the page is there and shows how far it came
            failures.append(f"the page {name}: {error}")
            say(f"failed: {failures[-1]}")
    return failures


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(file, to)


def build_book(results: Path) -> Path:
    """Bind the executed notebooks and the tables of the records; returns the page to open.

    Raises:
        N2NError: where the build fails.
    """
    write_tables(compare_all(results), EXECUTED)
    figures.style()
    drawn = {  # for pages that are no notebooks
        "differences": verdicts.printed_effects_figure(verdicts.printed_effects(results)),
        "shortcuts": confounds.slopes_figure(confounds.hidden_defects(results)),
        "shrinkage": mechanism.shrinkage_figure(),
        "example": figures.worked_example(),
        "parts": panels.drawn_parts(),
    }
    figures.write(drawn, EXECUTED)
    say("building the book")
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
        say(f"found {', '.join(f'{d}/{c}' for d, c in found)}")
        if absent:
            say(f"skipped, since not in {data}: {', '.join(absent)}")
        enough = make_settings("replication", **budget(epochs)).epochs
        records, pages = find_records(results), []
        for dataset, category in found:
            there = _shown(records, dataset, category)
            shown = there if there and there["epochs"] >= enough else asked
            page = {"data": str(data), "dataset": dataset, "category": category}
            pages.append((dataset, category, page | shown))
        return pages
    demonstration = results / "demo"
    say("no data set at hand: using the demonstration data, and the records that are there")
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
    """The parameters of the record that a category's page shows; None where there is none."""
    matched = matching_records(records, dataset, category, "Ours", "replication")
    if not matched:
        return None
    settings = matched[0].settings
    named = {"preset": settings.preset, "changes": changes(settings)}
    return named | {"seed": matched[0].key.seed, "epochs": settings.epochs}
