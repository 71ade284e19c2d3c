"""A GPU for each run, where a machine has several."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from n2n.errors import N2NError


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
