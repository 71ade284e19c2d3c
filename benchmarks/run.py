"""All benchmarks, one after the other: ``python benchmarks/run.py``.

It hands on ``--device``, ``--size`` and ``--threads``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
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
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]],
            cwd=Path(__file__).parent.parent,
            check=True,
        )
