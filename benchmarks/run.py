"""All benchmarks of speed and precision, one after the other: ``python benchmarks/run.py``.

It hands on ``--device``, ``--size`` and ``--threads``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    failed = []
    for name in (
        "start",
        "loss",
        "step",
        "roofline",
        "evaluation",
        "inference",
        "precision",
        "cell",
        "scaling",
        "targets",
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]],
            cwd=Path(__file__).parent.parent,
        )
        if done.returncode != 0:  # the others' numbers are not lost with it
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
