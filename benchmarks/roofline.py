"""How near a training step comes to what the machine allows: ``python -m benchmarks.roofline``.

The bound is that of the network alone. Its convolutions need so many operations, forward and
backward, and no fewer bytes than to read each input and weight and to write each output once; the
machine's rates are those of the largest matrix product and copy measured here. The bound is the
larger of the two times. The share of the convolutions is that of the operators' own time.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import name_of, now, provenance, write_table
from n2n.corruption import corrupt, draw_noise, normalise
from n2n.device import choose_device, choose_precision, keep_freed_memory, precision_context
from n2n.loss import total_loss
from n2n.settings import Settings, make_settings
from n2n.training import build_network

FORWARD_AND_BACKWARD = (
    3  # the backward pass has a convolution for the input and one for the weights
)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations per second of the product of two square matrices: the best of ten."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(_seconds(lambda: a @ b, device) for _ in range(10))


def bandwidth(device: torch.device, mebibytes: int = 512) -> float:
    """Bytes read and written per second by a copy: the best of ten."""
    source = torch.ones(mebibytes * 2**18, device=device)
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
            if isinstance(module, nn.Conv2d):
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
    network = build_network(settings, 0, device).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=device.type in ("cpu", "cuda"))
    generator = torch.Generator(device).manual_seed(0)
    shape = (settings.batch_size, 3, settings.image_size, settings.image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8, device=device)

    def step() -> None:
        x0 = normalise(images)
        noisy = corrupt(x0, draw_noise(shape, settings, generator), settings.noise)
        with precision_context(device, dtype):
            restored = network(noisy.contiguous(memory_format=torch.channels_last))
        loss = total_loss(restored, x0, settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    step()
    taken = [_seconds(step, device) for _ in range(repeats)]
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as profiler:
        step()
    times = {
        event.key: event.self_device_time_total if gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    inside = sum(time for name, time in times.items() if "conv" in name.lower())
    return median(taken), inside / sum(times.values())


def _seconds(work: object, device: torch.device) -> float:
    began = now(device)
    work()  # type: ignore[operator]
    return now(device) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--widths", default="16,32")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.set_float32_matmul_precision("high")
    copied = bandwidth(device)
    rows = []
    for precision in options.precisions.split(","):
        dtype = choose_precision(precision, device)
        rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 2048)
        for width in map(int, options.widths.split(",")):
            settings = make_settings("replication", image_size=options.size, width=width)
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
                    "bound ms": f"{1e3 * bound:.0f}",
                    "bound by": "operations" if operations / rate > moved / copied else "bytes",
                    "step ms": f"{1e3 * step:.0f}",
                    "bound / step": f"{100 * bound / step:.0f} %",
                    "in convolutions": f"{100 * share:.0f} %",
                }
            )
    write_table(
        f"roofline_{name_of(device)}",
        "A training step and its bound",
        f"Batch 4 at {options.size}x{options.size}, noise, loss and optimiser included; medians over "
        f"{options.repeats} steps after one to warm up. A multiplication and an addition are two "
        "operations. 'In convolutions' is their share of the operators' own time.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
