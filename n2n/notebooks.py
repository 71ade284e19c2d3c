"""Notebooks run through papermill, each on a GPU of its own."""

from __future__ import annotations

import contextlib
import getpass
import html
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

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


@contextlib.contextmanager
def gpu_slot(runs_per_gpu: int = 1) -> Iterator[str | None]:
    """Hold a place on a GPU of this machine, and show this process and its children only that one.

    Waits until a place is free; a process that dies gives its place back. Without a GPU, or in a
    Slurm job with one, which Slurm has already given to it alone, nothing is held.

    Args:
        runs_per_gpu: how many runs may share a GPU.

    Yields:
        The GPU as ``CUDA_VISIBLE_DEVICES`` names it, or None.
    """
    several = "," in os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = _gpus() if several or "SLURM_JOB_ID" not in os.environ else []
    if not gpus:
        yield None
        return
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # Windows has no numbers
    folder = Path(tempfile.gettempdir(), f"n2n-gpus-{user}")
    folder.mkdir(exist_ok=True)
    places = [(gpu, folder / f"{gpu}.{place}") for place in range(runs_per_gpu) for gpu in gpus]
    while True:
        for gpu, path in places:
            try:
                held = FileLock(path).acquire(timeout=0)
            except Timeout:
                continue
            with held:
                before = os.environ.get("CUDA_VISIBLE_DEVICES")
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                try:
                    yield gpu
                finally:
                    os.environ.pop("CUDA_VISIBLE_DEVICES")
                    if before is not None:
                        os.environ["CUDA_VISIBLE_DEVICES"] = before
                return
        time.sleep(0.5)


def _gpus() -> list[str]:
    """The GPUs that this process may use, without asking PyTorch, which would take hold of one."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        listed = []
    identifiers = [line.split(",")[0] for line in listed]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return identifiers
    # Others may see the same GPU under its identifier, and the lock must have one name
    known = {str(index): identifier for index, identifier in enumerate(identifiers)}
    names = [name.strip() for name in visible.split(",")]
    models = {line.split(",")[1] for line in listed}
    by_bus = len(models) < 2 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_bus and not known.keys().isdisjoint(names):
        raise N2NError(
            "The GPUs of this machine differ, and CUDA counts the fastest first, nvidia-smi does "
            "not; set CUDA_DEVICE_ORDER=PCI_BUS_ID."
        )
    return [known.get(name, name) for name in names if name not in ("", "-1")]
