"""The loss, forward and backward, against the usual ways: ``python -m benchmarks.loss``.

All methods take turns in one process, so that what else the machine does meets each alike; the
peak memory of each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import cache
from statistics import median
from unittest.mock import patch

import pytorch_msssim
import torch
import torch.nn.functional as F
from kornia.losses import MS_SSIMLoss
from torch import Tensor

from benchmarks.common import (
    in_a_process,
    name_of,
    now,
    parse,
    peak_mib,
    provenance,
    write_table,
)
from n2n import loss
from n2n.corruption import to_unit
from n2n.device import exact_float32, keep_freed_memory
from n2n.settings import make_settings

SETTINGS = make_settings("replication")
SIGMAS, C1, C2, ALPHA = SETTINGS.sigmas, SETTINGS.c1, SETTINGS.c2, SETTINGS.alpha

Method = Callable[[Tensor, Tensor], Tensor]


def window(sigma: float, radius: int, like: Tensor) -> Tensor:
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (taps / sigma) ** 2)
    return (weights / weights.sum()).to(like)


def combined(x: Tensor, y: Tensor, blur: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Eq. (2)-(9) with five filters per sigma, as the public ports have them."""
    similarity = torch.ones_like(x)
    for sigma in SIGMAS:
        mu_x, mu_y = blur(x, sigma), blur(y, sigma)
        variance_x, variance_y = blur(x * x, sigma) - mu_x**2, blur(y * y, sigma) - mu_y**2
        covariance = blur(x * y, sigma) - mu_x * mu_y
        similarity = similarity * (2 * covariance + C2) / (variance_x + variance_y + C2)
    similarity = similarity * (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    absolute = blur((x - y).abs(), SIGMAS[-1])
    return (ALPHA * (1 - similarity) + (1 - ALPHA) * absolute).mean()


def dense_map(x: Tensor, y: Tensor) -> Tensor:
    """33x33 taps for every sigma, all sigmas of a channel in one grouped convolution."""
    x, y = to_unit(x), to_unit(y)
    masks = torch.stack([torch.outer(w, w) for w in (window(s, 16, x) for s in SIGMAS)])
    masks = masks[:, None].repeat(x.shape[1], 1, 1, 1)

    def blur(image: Tensor) -> Tensor:
        blurred = F.conv2d(image, masks, padding=16, groups=image.shape[1])
        return blurred.unflatten(1, (image.shape[1], len(SIGMAS)))

    mu_x, mu_y = blur(x), blur(y)
    variances = blur(x * x) - mu_x**2 + blur(y * y) - mu_y**2
    covariance = blur(x * y) - mu_x * mu_y
    cs = (2 * covariance + C2) / (variances + C2)
    mu_x, mu_y = mu_x[:, :, -1], mu_y[:, :, -1]
    similarity = cs.prod(2) * (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    return (ALPHA * (1 - similarity) + (1 - ALPHA) * blur((x - y).abs())[:, :, -1]).mean(1)


def dense(x: Tensor, y: Tensor) -> Tensor:
    return dense_map(x, y).mean()


def separable(x: Tensor, y: Tensor) -> Tensor:
    """Two depthwise convolutions per filter, each as long as n2n's."""

    def blur(image: Tensor, sigma: float) -> Tensor:
        radius, channels = loss.filter_radius(sigma), image.shape[1]
        taps = window(sigma, radius, image).repeat(channels, 1)
        image = F.pad(image, (radius,) * 4, mode="reflect")
        image = F.conv2d(image, taps[:, None, None, :], groups=channels)
        return F.conv2d(image, taps[:, None, :, None], groups=channels)

    return combined(to_unit(x), to_unit(y), blur)


@cache
def _kornia(device: torch.device) -> MS_SSIMLoss:
    module = MS_SSIMLoss(sigmas=list(SIGMAS), K=(C1**0.5, C2**0.5), alpha=ALPHA, compensation=1.0)
    return module.to(device)


def kornia(x: Tensor, y: Tensor) -> Tensor:
    return _kornia(x.device)(to_unit(x), to_unit(y))


def downsampling(x: Tensor, y: Tensor) -> Tensor:
    x, y = to_unit(x), to_unit(y)
    similarity = pytorch_msssim.ms_ssim(x, y, data_range=1.0)
    return ALPHA * (1 - similarity) + (1 - ALPHA) * (x - y).abs().mean()


def automatic(x: Tensor, y: Tensor) -> Tensor:
    return loss.error_map(x, y, SETTINGS).mean()


def by_matrices(x: Tensor, y: Tensor) -> Tensor:
    with patch.object(loss, "_by_convolutions", loss._by_matrices):
        return automatic(x, y)


def by_hand(x: Tensor, y: Tensor) -> Tensor:
    return loss.total_loss(x, y, SETTINGS)


def by_triton(x: Tensor, y: Tensor) -> Tensor:
    from benchmarks.triton_filter import gaussian_filter  # Triton comes with PyTorch for CUDA

    with patch.object(loss, "gaussian_filter", gaussian_filter):
        return by_hand(x, y)


OURS = "n2n, gradient by hand"
TRITON = "n2n, Triton kernel"
METHODS: dict[str, tuple[Method, str]] = {
    "dense convolution, 33x33": (dense, "33 taps, zero border"),
    "kornia MS_SSIMLoss": (kornia, "33 taps, zero border"),
    "separable convolutions": (separable, "the same"),
    "pytorch-msssim": (downsampling, "another: down-sampling"),
    "n2n, matrix products, autograd": (by_matrices, "the same"),
    "n2n, autograd": (automatic, "the same"),
    OURS: (by_hand, "the same"),
    TRITON: (by_triton, "the same"),
}


def pair(size: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Smooth images and their noisy copies."""
    torch.manual_seed(0)
    y = F.avg_pool2d(torch.rand(batch, 3, size, size) * 2 - 1, 9, 1, 4) * 3
    return (y + 0.1 * torch.randn_like(y)).to(device).requires_grad_(), y.to(device)


def run(method: Method, x: Tensor, y: Tensor) -> tuple[float, float, Tensor]:
    """Seconds, value and gradient of one forward and backward pass."""
    begin = now(x.device)
    value = method(x, y)
    (gradient,) = torch.autograd.grad(value, x)
    return now(x.device) - begin, float(value.detach()), gradient


def peak_of(name: str, size: int, batch: int, device: torch.device) -> float:
    """Memory that a first pass takes on top of the images; NaN where it cannot be told."""
    options = ("--device", device, "--size", size, "--batch", batch)
    return float(in_a_process("loss", "--peak", name, *options))


def _measure_peak(name: str, size: int, batch: int, device: torch.device) -> float:
    x, y = pair(size, batch, device)
    run(METHODS[name][0], *pair(max(size // 4, 176), 1, device))  # what is loaded only once
    return peak_mib(lambda: run(METHODS[name][0], x, y), device)


@exact_float32()  # or a GPU would not compute all methods in it
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options, device = parse(parser)
    if options.peak:
        print(_measure_peak(options.peak, options.size, options.batch, device))
        return

    if device.type == "cpu":
        keep_freed_memory()
    methods = {n: m for n, m in METHODS.items() if n != TRITON or device.type == "cuda"}
    x, y = pair(options.size, options.batch, device)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    values: dict[str, float] = {}
    gradients: dict[str, Tensor] = {}
    failed = []  # candidates; the others' numbers are not lost with them
    for repeat in range(options.repeats + 1):
        for name, (method, _) in list(methods.items()):
            try:
                taken, values[name], gradients[name] = run(method, x, y)
            except Exception as error:
                if name == OURS:
                    raise
                failed.append(f"{name} does not run here: {error}")
                del methods[name]
                continue
            if repeat > 0:  # the first warms up
                seconds[name].append(taken)

    ours = gradients[OURS]
    rows = []
    for name, (_, definition) in methods.items():
        if definition == "the same" and not (
            math.isclose(values[name], values[OURS], rel_tol=1e-5, abs_tol=1e-6)
            and (gradients[name] - ours).norm() < 1e-4 * ours.norm()
        ):
            definition = "WRONG: said to be the same"
            failed.append(f"{name} is not the same")
        ratios = [a / b for a, b in zip(seconds[name], seconds[OURS], strict=True)]
        rows.append(
            {
                "method": name,
                "definition": definition,
                "median ms": f"{1e3 * median(seconds[name]):.1f}",
                "least ms": f"{1e3 * min(seconds[name]):.1f}",
                "times ours (median)": f"{median(ratios):.1f}",
                "times ours (least)": f"{min(seconds[name]) / min(seconds[OURS]):.1f}",
                "peak MiB": f"{peak_of(name, options.size, options.batch, device):.0f}",
                "value": f"{values[name]:.5f}",
            }
        )
    write_table(
        f"loss_{name_of(device)}",
        "Loss, forward and backward",
        f"Batch {options.batch} at {options.size}x{options.size}, float32; {options.repeats} "
        "rounds after one to warm up. The median ratio is taken over the rounds; peak memory is "
        "that of one pass on top of the images. One thread is timed by its own processor time.",
        rows,
        provenance(device),
    )
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
