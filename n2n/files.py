"""Files that are either whole or not there, and the cores that read and write them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there when it is whole, on the disk too.

    Args:
        path: where it belongs; the file that is there stays until the new one is whole.
        write: writes the file that it is given.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have a file on the disk before what comes next, so that a power failure takes neither."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def cores() -> int:
    """How many processor cores this process may use, of which a Slurm job has only some."""
    allowed = psutil.Process().cpu_affinity() if sys.platform == "linux" else None
    return len(allowed) if allowed else psutil.cpu_count() or 1
