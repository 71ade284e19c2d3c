"""The notebooks run through papermill, on tiny images."""

from __future__ import annotations

import ast
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import papermill
import pytest
from filelock import FileLock

from n2n import book, study
from n2n.book import experiment_pages
from n2n.errors import BusyError, N2NError
from n2n.notebooks import STUDY_PAGES, execute_notebook
from n2n.plan import Run
from n2n.study import missing_runs
from tests.conftest import draw_parts
from tests.records import table_run

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def execute(name: str, output: Path, **parameters: object) -> str:
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", output, parameters=parameters, progress_bar=False
    )
    return output.read_text()


@pytest.fixture(scope="module")
def mpdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two small categories that bear the names of MPDD's."""
    root = tmp_path_factory.mktemp("mpdd")
    for category in ("metal_plate", "tubes"):
        draw_parts(root / "MPDD" / category)
    return root


def test_experiment_trains_and_draws(mpdd: Path, tmp_path: Path) -> None:
    parameters = {
        "data": str(mpdd), "dataset": "MPDD", "category": "tubes", "preset": "demo", "epochs": 1,
        "width": 4, "image_size": 64, "device": "cpu", "results": str(tmp_path / "results"),
    }  # fmt: skip
    execute("experiment", tmp_path / "out.ipynb", **parameters)
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 6  # losses, scores, ROC curves, Figure 4, noise, drawn defects
    # The second time, the record is there: nothing is trained, and images need not be at hand.
    text = execute("experiment", tmp_path / "again.ipynb", **(parameters | {"data": None}))
    assert "is complete: not run again" in text
    assert "are not shown" in text


def test_a_failing_notebook_says_why(tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match="There is no record"):
        execute("experiment", tmp_path / "out.ipynb", results=str(tmp_path))


def test_a_notebook_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(N2NError, match=r"out\.ipynb cannot be written .*another folder"):
        execute_notebook("verdicts", tmp_path / "file/out.ipynb", {})


def test_a_notebook_whose_kernel_dies_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = nbformat.v4.new_code_cell("import os; os._exit(137)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "killed.ipynb")
    monkeypatch.setattr("n2n.notebooks.NOTEBOOKS", tmp_path)
    with pytest.raises(N2NError, match="killed was ended from outside, most likely for want of"):
        execute_notebook("killed", tmp_path / "out.ipynb", {})


@pytest.mark.parametrize("name", [*STUDY_PAGES, *(f"table{number}" for number in range(1, 6))])
@pytest.mark.parametrize("filled", [False, True])
def test_a_page_of_records(
    name: str, filled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any record and with those of the project; in this process, which takes no kernel."""
    results = NOTEBOOKS.parent / "results" if filled else tmp_path
    if filled and not (results / "runs").is_dir():
        pytest.skip("no records are in results/")
    if filled and name == "lab":
        pytest.skip("the lab shows no records")
    monkeypatch.setattr(plt, "show", lambda: None)
    shown: list[object] = []
    scope: dict[str, object] = {"display": shown.append}
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for number, source in enumerate(code):
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, cell {number}", "exec"), scope)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), name, "eval"), scope))
        if number == 0:
            scope |= {"results": str(results), "epochs": 2}  # the latter is the lab's
    text = " ".join(getattr(one, "data", "") or "" for one in shown)
    if name.startswith("table"):
        assert "not run" in text
        assert filled is any(verdict in text for verdict in ("reproduced", "under-trained"))


def test_a_baseline_is_fitted_and_shown(mpdd: Path, tmp_path: Path) -> None:
    shared = {
        "dataset": "MPDD", "category": "tubes", "method": "dagan", "epochs": 1, "device": "cpu",
        "changes": {"image_size": 64}, "results": str(tmp_path / "results"),
    }  # fmt: skip
    text = execute("baseline", tmp_path / "out.ipynb", data=str(mpdd), **shared)
    assert "DAGAN (1 of 100 epochs, image size 64)" in text
    again = execute("baseline", tmp_path / "again.ipynb", data=None, **shared)
    assert "DAGAN (1 of 100 epochs, image size 64)" in again  # the record that is there


def test_a_table_asks_for_the_methods_that_it_shows(mpdd: Path, tmp_path: Path) -> None:
    def methods(table: int, *wanted: str) -> set[str]:
        runs = missing_runs(table, mpdd, tmp_path, methods=wanted, seeds=[0, 1], epochs=2)
        return {f"{run.key.method} {run.key.variant} {run.seed}" for run in runs}

    assert methods(1, "padim") == {"padim efficientnet-lite0 0", "padim efficientnet-lite0 1"}
    assert methods(2, "dagan", "draem") == {"dagan own_epochs-2 0", "dagan own_epochs-2 1"}
    assert methods(4, "padim") == set()  # Table 4 shows our method alone


def test_a_table_names_the_categories_that_it_lacks_or_that_are_not_there(
    mpdd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(N2NError, match=r"Table 1 has no category 'tube'; choose of .*tubes"):
        missing_runs(1, mpdd, tmp_path, categories=["tubes", "tube"])
    assert capsys.readouterr().out == ""
    (run,) = missing_runs(1, mpdd, tmp_path, categories=["connector", "tubes"])
    assert run.category == "tubes"
    assert capsys.readouterr().out == f"n2n: skipped, since not in {mpdd}: MPDD/connector\n"


@pytest.mark.parametrize("kind", [N2NError, RuntimeError])
def test_a_run_that_fails_stops_no_other(
    mpdd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    tried = []

    def make(run: Run, *arguments: object, **options: object) -> None:
        tried.append(run.category)
        if run.category == "metal_plate":
            raise kind("The image 000.png is damaged.")

    monkeypatch.setattr(study, "make_record", make)
    with pytest.raises(N2NError, match=r"metal_plate.*000\.png is damaged"):
        study.run_missing(1, mpdd, tmp_path)
    assert tried == ["metal_plate", "tubes"]


def test_a_table_asks_for_the_runs_it_lacks(mpdd: Path, tmp_path: Path) -> None:
    def wanted(table: int, **options: object) -> list[tuple[str, str, float, bool, int]]:
        runs = missing_runs(table, mpdd, tmp_path, **options)  # type: ignore[arg-type]
        return [
            (run.dataset, run.category, run.settings.noise, run.settings.attention, run.seed)
            for run in runs
        ]

    assert wanted(1) == [
        ("MPDD", "metal_plate", 0.3, True, 0),
        ("MPDD", "tubes", 0.3, True, 0),
    ]
    assert wanted(3) == []
    assert len(wanted(4, seeds=[0, 1], categories=["tubes"])) == 8
    assert [run[3] for run in wanted(5, categories=["tubes"])] == [True, False]
    table_run(tmp_path, "tubes", epochs=5, t_max=5, stopped="epochs")
    tubes: dict[str, object] = {"categories": ["tubes"], "seeds": [0, 1]}
    # The table shows the largest budget alone: a smaller one would be run in vain
    assert [len(wanted(1, epochs=epochs, **tubes)) for epochs in (4, 5, 6)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [
        (5, {"seed": 3, "epochs": 5}),  # the record that is there
        (4, {"seed": 3, "epochs": 5}),  # has a larger budget
        (6, {"seed": 1, "epochs": 6}),  # has a smaller one: the first of the seeds is run
        (None, {"seed": 1, "epochs": None}),
    ],
)
def test_a_page_shows_a_record_or_the_first_seed(
    epochs: int | None, shown: dict[str, int | None], mpdd: Path, tmp_path: Path
) -> None:
    table_run(tmp_path, "tubes", seed=3, epochs=5, t_max=5, stopped="epochs")
    pages = {
        category: (values["seed"], values["epochs"])
        for _, category, values in experiment_pages(mpdd, tmp_path, (1, 2), epochs)
    }
    assert pages == {"metal_plate": (1, epochs), "tubes": (shown["seed"], shown["epochs"])}


def test_a_replication_that_cannot_begin_leaves_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = book.EXECUTED / "table1.ipynb"
    page.parent.mkdir(parents=True)
    page.touch()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_config.yml").touch()
    with pytest.raises(N2NError, match="nowhere"):
        book.replicate(tmp_path / "nowhere")
    with FileLock(book.EXECUTED.with_suffix(".lock")), pytest.raises(BusyError):
        book.replicate(None)
    assert page.exists()
