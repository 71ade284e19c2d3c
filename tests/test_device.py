"""What is said of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

PEAK = """
import numpy as np, torch
from n2n.device import keep_freed_memory, peak_memory_mib, reset_peak_memory
cpu = torch.device("cpu")
keep_freed_memory()  # as a training does
earlier = [np.ones(2**17) for _ in range(600)]  # 600 MiB
whole = peak_memory_mib(cpu)
del earlier
reset_peak_memory(cpu)
print(whole, peak_memory_mib(cpu))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can start again to count")
def test_the_peak_of_a_run_is_without_the_runs_before_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True
    ).stdout.split()
    whole, own = map(float, done)
    assert whole > 600
    assert own < whole - 500
