"""What was asked of the speed, beside what was measured: ``python -m benchmarks.targets``.

Reads the tables of `benchmarks/results` that the other benchmarks left for the device, and says of
each target whether it is met. What has no table on this device says so.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.common import RESULTS, name_of, write_table
from n2n.device import choose_device

Rows = dict[str, dict[str, str]]
UNMEASURED = "not measured"


def read(name: str, *keys: str) -> Rows:
    """The rows of a table by what stands in some of its columns; FileNotFoundError without it."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        lines = (line for line in file if not line.startswith("#"))
        return {", ".join(row[key] for key in keys): row for row in csv.DictReader(lines)}


def number(text: str) -> float:
    """'9 %' and '2.5' alike."""
    return float(text.removesuffix(" %"))


def targets(device: torch.device) -> Iterator[tuple[str, str, Callable[[], tuple[str, bool]]]]:
    """What, the target, and how to read what was measured and whether it is enough."""
    here, gpu = name_of(device), device.type == "cuda"
    host = name_of(torch.device("cpu"))  # metrics are always the processor's

    def at_least(value: float, least: float, form: str = "{:.1f} times") -> tuple[str, bool]:
        return form.format(value), value >= least

    def at_most(value: float, most: float, form: str = "{:.0f} %") -> tuple[str, bool]:
        return form.format(value), value <= most

    def loss(column: str, method: str) -> float:
        return number(read(f"loss_{here}", "method")[method][column])

    def step(column: str) -> float:
        rows = read(f"step_{here}", "width", "precision", "network" if gpu else "freed memory")
        return number(rows["32, bfloat16, " + ("compiled" if gpu else "kept")][column])

    def roofline(precision: str, column: str) -> float:
        return number(read(f"roofline_{here}", "width", "precision")[f"32, {precision}"][column])

    def evaluation(*names: str) -> float:
        """Seconds of what gives AUROC and AUPRO together, against ours."""
        rows = read(f"evaluation_{host}", "method")
        ours = number(rows["ours: AUROC, AP, F1-max and AUPRO"]["median s"])
        return sum(number(rows[name]["median s"]) for name in names) / ours

    def thresholds() -> tuple[str, bool]:
        rows = read(f"evaluation_memory_{host}", "thresholds")
        peaks = [number(row["peak MiB"]) for row in rows.values()]
        fewest, most = min(map(int, rows)), max(map(int, rows))
        grown = max(peaks) / min(peaks)
        return f"{grown:.2f} times from {fewest} to {most}", grown < 1.05

    ours, dense = "n2n, gradient by hand", "dense convolution, 33x33"
    yield (
        "loss against the dense port",
        "at least 40 times as fast",
        lambda: at_least(loss("times ours (median)", dense), 40),
    )
    yield (
        "loss against kornia's",
        "at least 10 times as fast",
        lambda: at_least(loss("times ours (median)", "kornia MS_SSIMLoss"), 10),
    )
    yield (
        "memory of the loss, of the dense port's",
        "at most 50 %",
        lambda: at_most(100 * loss("peak MiB", ours) / loss("peak MiB", dense), 50),
    )
    yield (
        "share of the loss in a step, width 32, bfloat16",
        "at most 10 %",
        lambda: at_most(step("loss share"), 10),
    )
    if gpu:
        yield (
            "step, of its roofline's bound, bfloat16",
            "at least 60 %",
            lambda: at_least(roofline("bfloat16", "bound / step"), 60, "{:.0f} %"),
        )
        yield (
            "memory of a training at 256x256",
            "at most 8192 MiB",
            lambda: at_most(
                max(
                    number(r["peak MiB"])
                    for k, r in read(f"scaling_{here}", "varied", "value").items()
                    if k.startswith("batch")
                ),
                8192,
                "{:.0f} MiB",
            ),
        )
    else:

        def in_convolutions(precision: str) -> tuple[str, bool]:
            return at_least(roofline(precision, "in convolutions"), 80, "{:.0f} %")

        for precision in ("float32", "bfloat16"):
            yield (
                f"convolutions' share of a step, width 32, {precision}",
                "at least 80 %",
                partial(in_convolutions, precision),
            )
    yield (
        "a whole cell against the usual way",
        "at least 5 times as fast",
        lambda: at_least(number(read(f"cell_{here}", "way")["usual"]["times ours"]), 5),
    )
    yield (
        "pixel AUROC and AUPRO against scikit-learn's",
        "at least 10 times as fast",
        lambda: at_least(
            evaluation("scikit-learn: AUROC", "scikit-learn's weighted ROC: AUPRO"), 10
        ),
    )
    yield (
        "pixel AUROC and AUPRO against anomalib's",
        "at least 10 times as fast",
        lambda: at_least(evaluation("anomalib: AUROC", "anomalib: AUPRO"), 10),
    )
    yield "memory of the metrics with the number of thresholds", "does not grow", thresholds

    def decoding() -> tuple[str, bool]:
        rates = {
            int(row["cores"]): number(row["images per second"])
            for row in read("start", "what", "cores").values()
            if row["what"].endswith("decoded")
        }
        cores = max(rates)
        times = rates[cores] / rates[1]
        return f"{times:.2f} times one core's with {cores}", times >= 0.9 * cores

    yield "decoding by all cores", "at least 90 % of their number", decoding
    yield (
        "`n2n --help`",
        "below 0.3 s",
        lambda: at_most(number(read("start", "what")["`n2n --help`"]["seconds"]), 0.3, "{:.2f} s"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_known_args()[0]
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    rows = []
    for what, target, measure in targets(device):
        try:
            measured, met = measure()
            verdict = "yes" if met else "no"
        except (FileNotFoundError, KeyError):
            measured, verdict = UNMEASURED, ""
        rows.append({"what": what, "target": target, "measured": measured, "met": verdict})
    write_table(
        f"targets_{name_of(device)}",
        "Targets",
        "Read from the tables below, which name their machine and day.",
        rows,
        "",
    )


if __name__ == "__main__":
    main()
