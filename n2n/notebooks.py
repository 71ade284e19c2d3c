"""Notebooks run through papermill."""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path
from typing import Any

from n2n.errors import N2NError, say, write_errors
from n2n.files import write_text

STUDY_PAGES = (  # made from records alone, but for the lab, which draws and trains a minute
    "verdicts", "methods", "improved", "sensitivity", "dynamics", "mechanism", "confounds", "lab",
    "exercises",
)  # fmt: skip
NOTEBOOKS = Path("notebooks")


def page_title(dataset: str, category: str) -> str:
    """The heading of an experiment's page, which tells drawn images from real ones."""
    nature = "demonstration" if dataset == "demo" else "replicated"
    return f"{dataset} / {category} ({nature})"


def execute_notebook(
    name: str, output: Path, parameters: dict[str, Any], title: str | None = None
) -> None:
    """Run a source notebook; its bars and messages go to this terminal.

    Args:
        name: of the notebook in ``notebooks/``, without its suffix.
        output: the executed notebook; after a failure, what it did so far.
        parameters: of the notebook; it must know each of them.
        title: replaces the heading of the executed notebook, so that the book's pages can be
            told apart.

    Raises:
        N2NError: where a cell fails, the kernel dies, a parameter is unknown, or papermill is
            missing.
    """
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError as error:
        raise N2NError(
            "papermill is missing; `pip install -e .[book]` or `make replicate` brings it."
        ) from error
    source = NOTEBOOKS / f"{name}.ipynb"
    if not source.is_file():
        raise N2NError(f"There is no notebook {source} here; run this in the project's folder.")
    # papermill only warns, and a run of other settings would be recorded.
    if unknown := sorted(parameters.keys() - papermill.inspect_notebook(str(source)).keys()):
        raise N2NError(f"The notebook {source} has no parameter {unknown[0]!r}.")
    say(f"running {source} -> {output}")
    try:
        with write_errors(f"The notebook {output}", "choose another folder"):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()  # before the time is spent
        papermill.execute_notebook(
            source, output, parameters=parameters, kernel_name="python3", progress_bar=False,
            stderr_file=sys.stderr,
            # Else each kernel warns of its open port, and some of the interruption that ends them.
            extra_arguments=["--log-level=CRITICAL"],
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise N2NError(
            f"The notebook {name} failed with {error.ename}: {error.evalue} "
            f"(what it did so far is in {output})."
        ) from error
    except DeadKernelError as error:
        raise N2NError(
            f"The notebook {name} was ended from outside, most likely for want of memory; end "
            f"other programs or choose a smaller --batch-size (what it did so far is in {output})."
        ) from error
    notebook = json.loads(output.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("remove-input")  # the run record tells them better
    if title is not None:
        heading = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        heading["source"] = f"# {html.escape(title, quote=False)}"
    write_text(output, json.dumps(notebook, indent=1))
