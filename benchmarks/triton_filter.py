"""The filter of the loss as a Triton kernel: a candidate for GPUs, measured beside n2n's own.

A banded matrix product reads the zeros outside the band, too: at 256 pixels, of each row of the
widest filter three quarters. This kernel reads the band alone, in float32. It has not met a GPU
yet: its results are tested in Triton's interpreter (``tests/test_triton.py``), its speed is what
``python -m benchmarks.loss --device cuda`` will tell. If it is faster there, its place is in
`n2n.loss`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from n2n.loss import filter_radius, gaussian_matrix

ROWS, COLUMNS = 16, 64  # of a program's tile


@triton.jit
def _window(
    line, taps, centre, wanted, size, step, REACH: tl.constexpr, MIRROR: tl.constexpr
):  # fmt: skip
    """The weighted sum around each centre along its axis; what lies beyond the border is zero."""
    total = tl.zeros(wanted.shape, tl.float32)
    for tap in range(-REACH, REACH + 1):
        near = centre + tap
        if MIRROR:
            near = tl.abs(near)
            near = tl.minimum(near, 2 * (size - 1) - near)
        there = wanted & (near >= 0) & (near < size)
        total += tl.load(taps + tap + REACH) * tl.load(line + near * step, there, 0.0)
    return total


@triton.jit
def _along_axis(
    source, target, taps, height, width,
    REACH: tl.constexpr, HORIZONTAL: tl.constexpr, MIRROR: tl.constexpr, UNFOLD: tl.constexpr,
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
    total = _window(image + other, taps, place, inside, size, step, REACH, MIRROR)
    if UNFOLD:  # what the mirror made of this pixel beyond either border
        if first <= REACH:
            wanted = inside & (place > 0)
            total += _window(image + other, taps, -place, wanted, size, step, REACH, False)
        if last >= size - 1 - REACH:
            wanted, mirrored = inside & (place < size - 1), 2 * (size - 1) - place
            total += _window(image + other, taps, mirrored, wanted, size, step, REACH, False)
    goal = target + tl.program_id(0).to(tl.int64) * height * width
    tl.store(goal + y * width + x, total, inside)


def gaussian_filter(x: Tensor, sigma: float, border: str, *, adjoint: bool = False) -> Tensor:
    """As `n2n.loss.gaussian_filter`: float32, (..., H, W), sides above the filter's reach."""
    height, width = x.shape[-2:]
    reach = filter_radius(sigma)
    taps = gaussian_matrix(2 * reach + 1, sigma, "zero", x.device, torch.float32)[reach]
    mirrored = border == "reflect"
    images = x.reshape(-1, height, width).contiguous()
    grid = (len(images), triton.cdiv(height, ROWS), triton.cdiv(width, COLUMNS))
    for horizontal in (True, False):
        filtered = torch.empty_like(images)
        # Triton runs on the current device, whichever the tensors' is
        with torch.cuda.device_of(images):
            _along_axis[grid](
                images, filtered, taps, height, width, REACH=reach, HORIZONTAL=horizontal,
                MIRROR=mirrored and not adjoint, UNFOLD=mirrored and adjoint,
                ROWS=ROWS, COLUMNS=COLUMNS,
            )  # fmt: skip
        images = filtered
    return images.reshape(x.shape)
