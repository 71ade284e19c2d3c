"""How a training step grows, what memory it takes, and how many runs share a device.

``python -m benchmarks.scaling``. Resolution, width, batch and number of images are varied one at
a time, each configuration in a process of its own, since memory that was once taken is kept. The
exponent is the slope of log seconds over log size, by least squares: 2 for the side of the image
means that the time grows with its pixels. A figure shows what the table says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from benchmarks.common import (
    RESULTS,
    in_a_process,
    name_of,
    now,
    parse,
    peak_mib,
    provenance,
    training,
    write_table,
)
from n2n.analysis.figures import NORMAL, style
from n2n.device import keep_freed_memory
from n2n.settings import make_settings
from n2n.training import train, train_step

BASE = {"image_size": 256, "width": 32, "batch_size": 4}
SWEEPS = {
    "image_size": (64, 96, 128, 192, 256),
    "width": (8, 16, 24, 32, 48),
    "batch_size": (1, 2, 4, 8),
    "images": (10, 20, 40),  # a fifth of them only validates
}
RUNS = {"cpu": (1, 2), "cuda": (1, 2, 4, 8)}
ROOT = Path(__file__).parent.parent
PRECISION = torch.float32  # that of a training, where nothing else is asked for


def measure(changes: dict[str, int], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of a step of random images after two to warm up, and the peak of memory."""
    settings = make_settings("replication", **(BASE | changes))
    marks: list[float] = []

    def steps() -> None:
        parts = training(settings, device)
        for step in range(repeats + 2):
            if step == 1 and device.type == "cuda":  # what compilation took is given back
                torch.cuda.reset_peak_memory_stats(device)
            marks.append(now(device))
            train_step(*parts, settings, PRECISION)
        marks.append(now(device))

    peak = peak_mib(steps, device)
    return {"seconds": median(np.diff(marks)[2:]), "peak": peak}


def measure_epoch(images: int, device: torch.device) -> dict[str, float]:
    """Seconds of the second epoch, validation included, and the peak of memory."""
    settings = make_settings("replication", **BASE, epochs=2)
    marks: list[float] = []
    shape = (images, 3, settings.image_size, settings.image_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)

    def epochs() -> None:
        train(
            pixels, settings, 0, device, PRECISION,
            compile_network=device.type == "cuda", progress=False,
            after_epoch=lambda *_: marks.append(now(device)),
        )  # fmt: skip

    peak = peak_mib(epochs, device)
    return {"seconds": marks[1] - marks[0], "peak": peak}


def steps_within(seconds: float, device: torch.device) -> int:
    """Steps of one of several runs; it waits for a line on stdin before it begins to count."""
    settings = make_settings("replication", **BASE)
    parts = training(settings, device)
    for _ in range(2):
        train_step(*parts, settings, PRECISION)
    now(device)
    print("ready", flush=True)
    sys.stdin.readline()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        train_step(*parts, settings, PRECISION)
        now(device)  # waits, or steps would be counted before they are done
        steps += 1
    return steps


def draw(name: str) -> None:
    """The sweeps of a table as curves, log over log, next to it as an SVG."""
    table = pd.read_csv(RESULTS / f"{name}.csv", comment="#")
    style()
    plt.rcParams["svg.hashsalt"] = name  # the same file for the same numbers
    shown = {name: "s per step" for name in SWEEPS}
    shown |= {"images": "s per epoch", "runs at once": "images per s, of all runs"}
    figure, panels = plt.subplots(1, len(shown), figsize=(13, 3.2), layout="constrained")
    for panel, (varied, title) in zip(panels, shown.items(), strict=True):
        rows = table[table["varied"] == varied.replace("_", " ")]
        x, y = rows["value"], rows["images/s"] if "images" in title else rows["ms"] / 1e3
        slope, level = np.polyfit(np.log(x), np.log(y), 1)
        panel.plot(x, y, "o", color=NORMAL)
        exponent = f"exponent {rows['exponent'].iloc[0]:.2f}"
        panel.plot(x, np.exp(level) * x**slope, color=NORMAL, label=exponent)
        panel.set(xscale="log", yscale="log", xlabel=varied.replace("_", " "))
        panel.set_title(title, fontsize=10)
        panel.set_xticks(x, [str(value) for value in x])
        panel.minorticks_off()
        panel.yaxis.set_major_formatter("{x:g}")
        low, high = y.min() / 1.5, y.max() * 1.5
        panel.set_ylim(low, high)
        ticks = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]
        panel.set_yticks([tick for tick in ticks if low < tick < high])
        panel.legend(loc="lower right", handlelength=1)
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, help="ignored: sizes are swept")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="for runs side by side")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options, device = parse(parser)
    if device.type == "cpu":
        keep_freed_memory()
    if options.one:
        task = json.loads(options.one)
        if task == "run":
            print(steps_within(options.seconds, device))
        elif "images" in task:
            print(json.dumps(measure_epoch(task["images"], device)))
        else:
            print(json.dumps(measure(task, device, options.repeats)))
        return

    common = ["--device", str(device), "--repeats", str(options.repeats)]
    common += ["--seconds", str(options.seconds), "--one"]
    program = [sys.executable, "-m", "benchmarks.scaling", "--threads", str(options.threads)]
    program += common

    rows = []
    for name, values in SWEEPS.items():
        found = []
        for value in values:
            found.append(json.loads(in_a_process("scaling", *common, json.dumps({name: value}))))
        seconds = [one["seconds"] for one in found]
        exponent = np.polyfit(np.log(values), np.log(seconds), 1)[0]
        for value, one in zip(values, found, strict=True):
            count = {"batch_size": value, "images": value}.get(name, BASE["batch_size"])
            rows.append(
                {
                    "varied": name.replace("_", " "),
                    "value": str(value),
                    "ms": f"{1e3 * one['seconds']:.1f}",
                    "images/s": f"{count / one['seconds']:.3g}",
                    "peak MiB": f"{one['peak']:.0f}",
                    "exponent": f"{exponent:.2f}",
                }
            )
    rates = {}
    for runs in RUNS.get(device.type, (1, 2)):
        started = [
            subprocess.Popen(
                [*program, json.dumps("run")], cwd=ROOT, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
            )
            for _ in range(runs)
        ]  # fmt: skip
        if not all(run.stdout and run.stdout.readline() for run in started):
            print(f"{runs} runs at once do not fit; the series ends before.", file=sys.stderr)
            for run in started:
                run.kill()
                run.wait()
            break
        for run in started:
            assert run.stdin is not None
            run.stdin.write("\n")
            run.stdin.flush()
        steps = sum(int(run.communicate()[0]) for run in started)
        rates[runs] = steps * BASE["batch_size"] / options.seconds
    slope = np.polyfit(np.log(list(rates)), np.log(list(rates.values())), 1)[0]
    rows += [
        {
            "varied": "runs at once",
            "value": str(runs),
            "ms": f"{1e3 * runs * BASE['batch_size'] / rate:.1f}",
            "images/s": f"{rate:.3g}",
            "peak MiB": "",
            "exponent": f"{slope:.2f}",
        }
        for runs, rate in rates.items()
    ]
    write_table(
        f"scaling_{name_of(device)}",
        "Training at other sizes",
        "One is varied, the others stay at {image_size}x{image_size} pixels, width {width}, batch "
        "{batch_size}; ".format(**BASE)
        + f"float32; medians over {options.repeats} steps after two to warm up. 'images' is "
        "the number of training images, and its times are those of a whole epoch with its "
        "validation. The peak is on top of the loaded program: weights, optimiser, images and "
        "activations. One thread is timed by its own processor time, but runs at once share the "
        f"machine and are counted over {options.seconds:g} s of wall-clock time; their exponent is "
        "that of the images per second.",
        rows,
        provenance(device),
    )
    draw(f"scaling_{name_of(device)}")


if __name__ == "__main__":
    main()
