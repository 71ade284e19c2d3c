"""What the benchmarks share: where a number comes from, and the tables."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import time
from pathlib import Path

import torch

from n2n.device import describe

RESULTS = Path(__file__).parent / "results"


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
    if device.type == "cuda":
        torch.cuda.synchronize()
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def write_table(name: str, title: str, notes: str, rows: list[dict[str, str]], origin: str) -> None:
    """Print a table and write it as results/name.md and results/name.csv."""
    header = list(rows[0])
    lines = [
        "| " + " | ".join(cells) + " |"
        for cells in [header, ["---"] * len(header), *(list(row.values()) for row in rows)]
    ]
    text = f"# {title}\n\n" + "\n".join(lines) + f"\n\n{notes}\n\n{origin}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {origin}\n")
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
