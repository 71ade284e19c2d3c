"""The Triton kernel of the benchmarks: in Triton's interpreter, which needs no GPU, and on one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import on_a_gpu

# `TRITON_INTERPRET` is read when a kernel is defined, so the check has a process of its own.
CHECK = """
import itertools
import sys
import torch
from benchmarks import triton_filter
from n2n.loss import gaussian_matrix

torch.manual_seed(0)
for (height, width), sigma, border, adjoint in itertools.product(
    ((40, 70), (33, 64)), (0.1, 0.5, 2.0, 8.0), ("reflect", "zero"), (False, True)
):
    if 4 * sigma >= min(height, width):
        continue
    x = torch.randn(2, 3, height, width, device=sys.argv[1])
    down, along = (
        gaussian_matrix(size, sigma, border, x.device, torch.float64) for size in (height, width)
    )
    if adjoint:
        down, along = down.T, along.T
    found = triton_filter.gaussian_filter(x, sigma, border, adjoint=adjoint)
    torch.testing.assert_close(found.double(), down @ x.double() @ along.T, atol=2e-6, rtol=0)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
def test_the_kernel_filters_as_the_matrices_do(device: str) -> None:
    interpreted = {"TRITON_INTERPRET": "1"} if device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, device], cwd=Path(__file__).parents[1],
        capture_output=True, text=True, env=os.environ | interpreted,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
