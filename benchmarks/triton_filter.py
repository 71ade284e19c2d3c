"""The filter of the loss as a Triton kernel: a candidate for GPUs, measured beside n2n's own.

A banded matrix product reads the zeros outside the band, too: at 256 pixels, of each row of the
widest filter three quarters. This kernel reads the band alone, in float32. It has not met a GPU
yet: its results are tested in Triton's interpreter (``tests/test_triton.py``), its speed is what
``python -m benchmarks.loss --device cuda`` will tell. If it is faster there, its place is in
`n2n.loss`.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from n2n.loss import _reach, gaussian_matrix

ROWS, COLUMNS = 16, 64  # of a program's tile


@triton.jit
def _along_axis(
    source, target, taps, height, width,
    REACH: tl.constexpr, HORIZONTAL: tl.constexpr, MIRROR: tl.constexpr, ADJOINT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One tile of one image, filtered along one axis."""
    image = source + tl.program_id(0).to(tl.int64) * height * width
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (y < height) & (x < width)
    if HORIZONTAL:
        place, size, step, other = x, width, 1, y * width
        first, last = tl.program_id(2) * COLUMNS, (tl.program_id(2) + 1) * COLUMNS - 1
    else:
        place, size, step, other = y, height, width, x
        first, last = tl.program_id(1) * ROWS, (tl.program_id(1) + 1) * ROWS - 1
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tap in range(-REACH, REACH + 1):
        weight = tl.load(taps + tap + REACH)
        near = place + tap
        if MIRROR and not ADJOINT:
            near = tl.abs(near)
            near = tl.minimum(near, 2 * (size - 1) - near)
        there = inside & (near >= 0) & (near < size)
        total += weight * tl.load(image + other + near * step, there, 0.0)
    if MIRROR and ADJOINT:  # what the mirror made of this pixel beyond either border
        if first <= REACH:
            for tap in range(-REACH, REACH + 1):
                near = tap - place
                there = inside & (place > 0) & (near >= 0) & (near < size)
                weight = tl.load(taps + tap + REACH)
                total += weight * tl.load(image + other + near * step, there, 0.0)
        if last >= size - 1 - REACH:
            for tap in range(-REACH, REACH + 1):
                near = 2 * (size - 1) - place + tap
                there = inside & (place < size - 1) & (near >= 0) & (near < size)
                weight = tl.load(taps + tap + REACH)
                total += weight * tl.load(image + other + near * step, there, 0.0)
    goal = target + tl.program_id(0).to(tl.int64) * height * width
    tl.store(goal + y * width + x, total, inside)


@lru_cache
@torch.inference_mode(False)
def _taps(sigma: float, device: torch.device) -> Tensor:
    """The weights of one axis, float32, (2 * reach + 1,)."""
    reach = _reach(sigma)
    return gaussian_matrix(2 * reach + 1, sigma, "zero", device, torch.float32)[reach].clone()


def gaussian_filter(x: Tensor, sigma: float, border: str, *, adjoint: bool = False) -> Tensor:
    """As `n2n.loss.gaussian_filter`: float32, (..., H, W), sides above the filter's reach."""
    height, width = x.shape[-2:]
    images = x.reshape(-1, height, width).contiguous()
    grid = (len(images), triton.cdiv(height, ROWS), triton.cdiv(width, COLUMNS))
    for horizontal in (True, False):
        filtered = torch.empty_like(images)
        _along_axis[grid](
            images, filtered, _taps(sigma, x.device), height, width,
            REACH=_reach(sigma), HORIZONTAL=horizontal, MIRROR=border == "reflect",
            ADJOINT=adjoint, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
        images = filtered
    return images.reshape(x.shape)
