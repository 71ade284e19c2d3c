"""How near a training step comes to what the machine allows: ``python -m benchmarks.roofline``.

The bound is that of the network alone. Its convolutions need so many operations, forward and
backward, and no fewer bytes than to read each input and weight and to write each output once; the
machine's rates are those of a large matrix product or convolution, whichever is faster, and of a
copy. The bound is the larger of the two times. The share of the convolutions is that of the
network's in the operators' own time; the loss does its filters by convolutions, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import name_of, now, parse, provenance, those_of, training, write_table
from n2n.device import choose_precision, exact_float32, keep_freed_memory
from n2n.network import Down
from n2n.settings import Settings, make_settings
from n2n.training import build_network, train_step

FORWARD_AND_BACKWARD = 3  # backward: a convolution for the input and one for the weights


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations per second of two square matrices' product, or of a convolution: the best of ten.

    The convolution, 3x3 with 256 channels, has as many operations. Both are tried because a CPU's
    libraries differ: MKL's products on an AMD reach less than half of oneDNN's convolutions.
    Float32 is float32 on a GPU, too, as in `n2n run`.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    channels, taps = 256, 9
    pixels = side**3 // (channels**2 * taps)
    x = torch.randn(1, channels, pixels // 64, 64, device=device, dtype=dtype)
    kernels = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    x, kernels = (t.to(memory_format=torch.channels_last) for t in (x, kernels))
    with torch.inference_mode(), exact_float32():
        fastest = min(_seconds(lambda: a @ b, device) for _ in range(10))
        convolved = min(_seconds(lambda: conv2d(x, kernels, padding=1), device) for _ in range(10))
    operations = 2 * channels**2 * taps * x[0, 0].numel()
    return max(2 * side**3 / fastest, operations / convolved)


def bandwidth(device: torch.device) -> float:
    """Bytes read and written per second by a copy: the best of ten."""
    source = torch.ones(512 * 2**18, device=device)  # 512 MiB
    target = torch.empty_like(source)
    return (
        2 * source.nbytes / min(_seconds(lambda: target.copy_(source), device) for _ in range(10))
    )


def operations_and_bytes(settings: Settings, dtype: torch.dtype) -> tuple[float, float]:
    """Of one step's convolutions, forward and backward; nothing is computed."""
    moved = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += inputs[0].numel() + output.numel() + sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        network = build_network(settings, 0, torch.device("meta"))
        for module in network.modules():
            if isinstance(module, nn.Conv2d | Down):  # whose own convolution is not called
                module.register_forward_hook(count)
        images = torch.empty(settings.batch_size, 3, settings.image_size, settings.image_size)
        with FlopCounterMode(display=False) as counter:
            network(images)
    return (
        FORWARD_AND_BACKWARD * counter.get_total_flops(),
        FORWARD_AND_BACKWARD * moved * dtype.itemsize,
    )


def step_seconds_and_share(
    settings: Settings, dtype: torch.dtype, device: torch.device, repeats: int
) -> tuple[float, float]:
    """Median seconds of a whole training step, and the convolutions' share of the operators."""
    parts = training(settings, device)

    def step() -> None:
        train_step(*parts, settings, dtype)

    # A GPU is asked to wait only once in so many steps, as in `n2n run` once in an epoch.
    block = 20 if device.type == "cuda" else 1

    def steps() -> None:
        for _ in range(block):
            step()

    steps()
    taken = [_seconds(steps, device) / block for _ in range(repeats)]
    if device.type == "cpu":
        # Leaves a freed GiB for what the profiler notes: if that took the pages that a step leaves
        # to the next one, the operators would wait for fresh ones, a third of the step longer.
        torch.ones(2**28)
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(repeats):
            step()
        now(device)
    events = profiler.events()
    operators = [event for event in events if event.device_type.name == "CPU"]
    # Compiled kernels are named after what they are fused with, and a bias is no convolution
    inside = [
        event
        for event in operators
        if event.name.startswith("aten::")
        and "conv" in event.name
        and not _within(event, "_MeanError")
    ]
    if gpu:  # an operator's time there is that of its kernels, which are events of their own
        kernels = [e for e in events if e.device_type.name != "CPU" and not e.is_user_annotation]
        share = _total(inside, "self_device_time_total") / _total(kernels, "self_device_time_total")
    else:
        share = _total(inside, "self_cpu_time_total") / _total(operators, "self_cpu_time_total")
    return median(taken), share


def _within(event: Any, name: str) -> bool:
    """Whether an operator was called by that function or one below it."""
    while event is not None and event.name != name:
        event = event.cpu_parent
    return event is not None


def _total(events: list[Any], field: str) -> float:
    return sum(getattr(event, field) for event in events)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = now(device)
    work()
    return now(device) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--widths", default="16,32")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    options, device = parse(parser)
    if device.type == "cpu":
        keep_freed_memory()
    copied = bandwidth(device)
    rows = []
    for precision in those_of(options.precisions.split(","), device):
        dtype = choose_precision(precision, device)
        rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 2048)
        for width in map(int, options.widths.split(",")):
            settings = make_settings(
                "replication", image_size=options.size, width=width, batch_size=options.batch
            )
            operations, moved = operations_and_bytes(settings, dtype)
            bound = max(operations / rate, moved / copied)
            step, share = step_seconds_and_share(settings, dtype, device, options.repeats)
            rows.append(
                {
                    "width": str(width),
                    "precision": precision,
                    "GFLOP per step": f"{operations / 1e9:.0f}",
                    "GB per step": f"{moved / 1e9:.2f}",
                    "matrix rate, GFLOP/s": f"{rate / 1e9:.0f}",
                    "copy, GB/s": f"{copied / 1e9:.1f}",
                    "bound ms": f"{1e3 * bound:.1f}",
                    "bound by": "operations" if operations / rate > moved / copied else "bytes",
                    "step ms": f"{1e3 * step:.1f}",
                    "bound / step": f"{100 * bound / step:.0f} %",
                    "in convolutions": f"{100 * share:.0f} %",
                }
            )
    write_table(
        f"roofline_{name_of(device)}",
        "A training step and its bound",
        f"Batch {options.batch} at {options.size}x{options.size}, noise, loss and optimiser "
        f"included; medians over {options.repeats} steps after one to warm up (on a GPU, blocks of "
        "20). A multiplication and an addition are two operations. "
        "'In convolutions' is their share of the operators' own time.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
