"""How long it takes until work begins: ``python -m benchmarks.start``.

The start of the program without work, and the decoding of a category: all files of ``N2N_DATA``'s
first category, or demonstration images where it is not set.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.common import provenance, write_table
from n2n.data import Category, find_categories, load_category
from n2n.demo_data import generate


def find_images(folder: Path) -> tuple[Path, str, str]:
    """A root, a data set and a category that is there."""
    root = Path(os.environ.get("N2N_DATA") or folder)
    if root == folder:
        generate(folder)
    return root, *find_categories(root)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="ignored: nothing here uses one")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, help="ignored: decoding takes all cores")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    def timed(work: Callable[[], object]) -> tuple[float, float]:
        """Medians of the seconds on the wall, and of those that processors worked, children too."""
        taken = []
        for _ in range(options.repeats):
            began, before = time.perf_counter(), os.times()
            work()
            taken.append((time.perf_counter() - began, sum(os.times()[:4]) - sum(before[:4])))
        wall, worked = zip(*taken, strict=True)
        return median(wall), median(worked)

    rows = []
    for what, code in (
        ("`n2n --help`", "import sys; sys.argv[1:] = ['--help']; from n2n.cli import main; main()"),
        ("`import torch`", "import torch"),
    ):
        command = [sys.executable, "-c", code]
        seconds, worked = timed(partial(subprocess.run, command, check=True, capture_output=True))
        rows.append(
            {
                "what": what,
                "cores": "",
                "seconds": f"{seconds:.2f}",
                "processor s": f"{worked:.2f}",
                "images per second": "",
            }
        )

    with tempfile.TemporaryDirectory() as folder:
        root, dataset, category = find_images(Path(folder) / "demo-images")

        def decode(cache: Path | None = None) -> Category:
            return load_category(root, dataset, category, options.size, cache=cache, progress=False)

        decoded = decode()
        count = len(decoded.train) + len(decoded.test)
        ways: list[tuple[str, Callable[[], object], set[int]]] = []
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        if len(cores) > 1:
            ways.append(("decoded", decode, {max(cores)}))
        cache = Path(folder) / "cache"
        decode(cache)
        ways += [
            ("decoded", decode, cores),
            ("from the cache", lambda: decode(cache), cores),
        ]
        for what, work, allowed in ways:
            if allowed:
                os.sched_setaffinity(0, allowed)
            seconds, worked = timed(work)
            rows.append(
                {
                    "what": f"{dataset}/{category}, {what}",
                    "cores": str(len(allowed) or os.cpu_count()),
                    "seconds": f"{seconds:.2f}",
                    "processor s": f"{worked:.2f}",
                    "images per second": f"{count / seconds:.0f}",
                }
            )
    write_table(
        "start",
        "Until work begins",
        f"Medians over {options.repeats} runs, the files in the system's cache. On a busy machine "
        "the wall-clock time is more than that which its processors worked, by threads together. "
        f"Decoding is to {options.size}x{options.size} and includes the fingerprint of all files; "
        f"so does the reading of the cache. {count} images with their masks.",
        rows,
        provenance(torch.device("cpu")),
    )


if __name__ == "__main__":
    main()
