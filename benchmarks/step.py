"""Where the time of a training step goes: ``python -m benchmarks.step``.

On a CPU with and without keeping freed memory, on a GPU eager, compiled, and compiled with CUDA
graphs. Each configuration runs in processes of its own, since the allocator's settings hold for a
whole process; the configurations take turns, so that what else the machine does meets each alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import (
    in_a_process,
    name_of,
    now,
    parse,
    provenance,
    those_of,
    training,
    write_table,
)
from n2n.device import choose_precision, keep_freed_memory
from n2n.settings import make_settings
from n2n.training import train_step

# What is varied on a device, and its values; the gain is over the first.
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpu": ("freed memory", ("", "kept")),
    "cuda": ("network", ("eager", "compiled", "compiled, CUDA graphs")),
}
MODES = {"eager": None, "compiled, CUDA graphs": "reduce-overhead"}  # of torch.compile
PARTS = ("data", "network forward", "loss", "network backward", "optimiser")


def measure(
    width: int, precision: str, way: str, size: int, steps: int, device: torch.device
) -> list[list[float]]:
    """Seconds of each part for so many steps, and for those to warm up before them."""
    if way == "kept":
        keep_freed_memory()
    settings = make_settings("replication", image_size=size, width=width)
    dtype = choose_precision(precision, device)
    network, optimiser, images, noise = training(settings, device, MODES.get(way, "default"))
    marks: list[list[Any]] = []  # of each step

    def mark(*_: object) -> None:
        marks[-1].append(_stamp(device))

    def watched(x: Tensor) -> Tensor:
        mark()
        reconstruction = network(x)
        mark()
        reconstruction.register_hook(mark)  # where the loss has its gradient
        return reconstruction

    optimiser.register_step_pre_hook(mark)
    for _ in range(steps + warm_up(device)):
        marks.append([])
        mark()
        train_step(watched, optimiser, images, noise, settings, dtype)
        mark()
    now(device)  # until all of it has happened
    return [[_between(*ends) for ends in itertools.pairwise(step)] for step in marks]


def warm_up(device: torch.device) -> int:
    """Steps before those that count; on a GPU also to compile, and to record a graph."""
    return 3 if device.type == "cuda" else 1


def _stamp(device: torch.device) -> Any:
    """A point of time. A GPU notes it when it gets there: to wait for it would slow what follows.

    In `n2n run` the host is ahead of it, too.
    """
    if device.type != "cuda":
        return now(device)
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    """Seconds from one `_stamp` to the next."""
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--widths", default="16,32")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=3, help="processes per configuration")
    parser.add_argument("--steps", type=int, default=5, help="steps per process")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options, device = parse(parser)
    if options.one:
        width, precision, way = json.loads(options.one)
        print(json.dumps(measure(width, precision, way, options.size, options.steps, device)))
        return

    widths = [int(width) for width in options.widths.split(",")]
    varied, ways = WAYS.get(device.type, ("network", ("eager",)))
    precisions = those_of(options.precisions.split(","), device)
    configurations = list(itertools.product(widths, precisions, ways))
    steps: dict[tuple[int, str, str], list[list[float]]] = {c: [] for c in configurations}
    first: dict[tuple[int, str, str], list[float]] = {c: [] for c in configurations}
    common = ("--device", device, "--size", options.size, "--steps", options.steps)
    for _ in range(options.rounds):
        for configuration in configurations:
            done = json.loads(in_a_process("step", "--one", json.dumps(configuration), *common))
            first[configuration].append(sum(done[0]))
            steps[configuration] += done[warm_up(device) :]

    rows = []
    for (width, precision, way), times in steps.items():
        whole = median(sum(step) for step in times)
        row = {"width": str(width), "precision": precision, varied: way}
        row["step ms"] = f"{1e3 * whole:.1f}"
        row["least ms"] = f"{1e3 * min(sum(step) for step in times):.1f}"
        for index, part in enumerate(PARTS):
            row[f"{part} ms"] = f"{1e3 * median(step[index] for step in times):.1f}"
        row["loss share"] = f"{100 * median(step[2] / sum(step) for step in times):.0f} %"
        without = median(sum(step) for step in steps[width, precision, ways[0]])
        row["gain"] = "" if way == ways[0] else f"{without / whole:.2f}"
        if device.type == "cuda":
            row["first step s"] = f"{median(first[width, precision, way]):.1f}"
        rows.append(row)
    write_table(
        f"step_{name_of(device)}",
        "One training step",
        f"Batch 4 at {options.size}x{options.size}; medians over {options.rounds} processes of "
        f"{options.steps} steps each, after one to warm up (on a GPU three). 'Kept' is "
        "`n2n.device.keep_freed_memory`; the loss includes its backward pass; the gain is that of "
        f"{varied!r} over the first line. "
        + ("The first step is with the compilation. " if device.type == "cuda" else "")
        + "One thread is timed by its own processor time.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
