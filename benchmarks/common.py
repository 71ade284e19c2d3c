"""What the benchmarks share: where a number comes from, and the tables."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import torch
from torch import Tensor, nn

from n2n.analysis.markup import to_markdown
from n2n.device import (
    choose_device,
    describe,
    has_bfloat16,
    peak_memory_mib,
    reset_peak_memory,
)
from n2n.settings import Settings
from n2n.training import Reconstruct, build_network, build_optimiser

RESULTS = Path(__file__).parent / "results"


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, torch.device]:
    """A benchmark's options, with those that all have, and its device; sets the threads."""
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options, choose_device(options.device)


def those_of(precisions: list[str], device: torch.device) -> list[str]:
    """Of these precisions those that the device has; says what is left out."""
    if device.type == "cuda" and "bfloat16" in precisions and not has_bfloat16(device):
        print("Without bfloat16, which this GPU cannot compute in.")
        return [name for name in precisions if name != "bfloat16"]
    return precisions


def in_a_process(name: str, *arguments: object) -> str:
    """The last line that a benchmark prints, with the threads of this one, in one of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(
        command, cwd=RESULTS.parents[1], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()[-1]


def provenance(device: torch.device) -> str:
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{datetime.date.today()} · {describe(device)} · torch {torch.__version__} · "
        f"Python {platform.python_version()} · {platform.system()}{load}"
    )


def name_of(device: torch.device) -> str:
    """Part of a file's name: 'cuda', or 'cpu2' with two threads."""
    return f"cpu{torch.get_num_threads()}" if device.type == "cpu" else device.type


def now(device: torch.device) -> float:
    """Seconds; those of the process alone where one thread does the work of a CPU.

    They do not count the time that other processes take, and so can be measured beside them.
    """
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def resident_peak(work: Callable[[], object]) -> float:
    """By how many MiB the process grows at most while it works; NaN where Linux does not tell."""
    if sys.platform != "linux":
        return float("nan")
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = psutil.Process().memory_info().rss / 2**20
    work()
    return peak_memory_mib(cpu) - before


def peak_mib(work: Callable[[], object], device: torch.device) -> float:
    """By how many MiB the memory grows at most while it works: the GPU's, or the process's own."""
    if device.type != "cuda":
        return resident_peak(work)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def training(
    settings: Settings, device: torch.device, compilation: str | None = "default"
) -> tuple[Reconstruct, torch.optim.Optimizer, Tensor, torch.Generator]:
    """What `n2n.training.train_step` takes, as `n2n run` has it; the images are random.

    ``compilation`` is a mode of ``torch.compile`` and of no effect on a CPU; None is eager.
    """
    network: nn.Module = build_network(settings, 0, device).train()
    optimiser = build_optimiser(network, settings, device)
    noise = torch.Generator(device).manual_seed(0)
    shape = (settings.batch_size, 3, settings.image_size, settings.image_size)
    images = torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8, device=device)
    torch.set_float32_matmul_precision("highest")  # as `n2n.device.exact_float32`, here for good
    torch.backends.cudnn.allow_tf32 = False
    compiled = device.type == "cuda" and compilation is not None
    step: Reconstruct = torch.compile(network, mode=compilation) if compiled else network
    return step, optimiser, images, noise


def write_table(name: str, title: str, notes: str, rows: list[dict[str, str]], origin: str) -> None:
    """Print a table and write it as results/name.md and results/name.csv."""
    frame = pd.DataFrame(rows)
    text = f"# {title}\n\n{to_markdown(frame)}\n{notes}\n\n{origin}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    table = f"# {origin}\n{frame.to_csv(index=False)}"
    (RESULTS / f"{name}.csv").write_text(table, encoding="utf-8")
