"""What half precision does to the numbers: ``python -m benchmarks.precision``.

Three tables. Scoring: every run of N2N whose weights are on this machine detects its test images in
float32, in float16 and in bfloat16 (``N2N_DATA`` names the images). Gradients: what those networks,
and untrained ones, would learn from a few batches in bfloat16 and in float32. Training: the runs of
``studies/precision.yaml``, made in float32, beside the same runs of ``studies/sensitivity.yaml``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy import stats

from benchmarks.common import name_of, now, parse, provenance, those_of, write_table
from n2n.analysis.panels import AtHand, at_hand
from n2n.analysis.sensitivity import BASE, variant_label
from n2n.detection import detect
from n2n.device import exact_float32
from n2n.measurement import aurocs
from n2n.records import Record, find_records
from n2n.settings import PRESETS, changes
from n2n.training import build_network, train_step

REPLICATION = PRESETS["replication"]
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
BATCHES = 5


def halves(device: torch.device) -> list[tuple[str, torch.dtype]]:
    """Those of `HALVES` that the device has, by name."""
    return [(name, HALVES[name]) for name in those_of(list(HALVES), device)]


def runs_at_hand(
    results: Path, root: Path, device: torch.device
) -> Iterator[tuple[str, Record, AtHand]]:
    """The runs of N2N whose weights and images are there, by name."""
    for record in find_records(results):
        if record.key.method != "n2n":
            continue
        run = at_hand(record, root, results, str(device))
        if isinstance(run, str):  # no weights, or other images
            continue
        changed = changes(run.settings, REPLICATION)
        name = (
            f"{record.key.category.replace('_', ' ')}, "
            f"{variant_label(changed) if changed else 'replication'}, seed {record.key.seed}"
        )
        yield name, record, run


def scoring(results: Path, root: Path, device: torch.device) -> Iterator[dict[str, str]]:
    """A row for each run and half precision: the change of each AUROC, and the seconds."""
    there = halves(device)
    for name_of_run, _, run in runs_at_hand(results, root, device):
        found, seconds = {}, {}
        for precision in (torch.float32, *(half for _, half in there)):
            in_it = partial(
                detect, run.network, settings=run.settings, device=device, precision=precision,
                expected=run.expected, progress=False,
            )  # fmt: skip
            in_it(images=run.images.test[:8])  # warms up
            began = now(device)
            detected = in_it(images=run.images.test)
            seconds[precision] = now(device) - began
            found[precision] = aurocs(run.images, detected)
        for name, half in there:
            change = {
                key: 100 * (found[half][key] - found[torch.float32][key]) for key in found[half]
            }
            pixel, own = change.pop("pixel"), change.pop(f"image_{run.settings.image_score}")
            yield {
                "run": name_of_run,
                "scored in": name,
                "image, change": f"{own:+.3f}",
                "pixel, change": f"{pixel:+.3f}",
                "by other image scores, at most": f"{max(map(abs, change.values())):.3f}",
                "float32's time / its time": f"{seconds[torch.float32] / seconds[half]:.1f}",
            }


def gradients(results: Path, root: Path, device: torch.device) -> Iterator[dict[str, str]]:
    """A row for each run, before and after its training: how far bfloat16 turns the gradient."""
    for name, record, run in runs_at_hand(results, root, device):
        batch = run.settings.batch_size
        batches = list(run.images.train.to(device).split(batch)[:BATCHES])
        networks = {
            "untrained": build_network(run.settings, record.key.seed, device),
            "trained": run.network,
        }
        for state, network in networks.items():
            network.train()
            still = torch.optim.SGD(network.parameters(), lr=0.0)  # its step changes nothing
            errors, cosines = [], []
            for seed, images in enumerate(batches):
                found = {}
                for precision in (torch.float32, torch.bfloat16):
                    noise = torch.Generator(device).manual_seed(seed)
                    with exact_float32():
                        train_step(network, still, images, noise, run.settings, precision)
                    parts = [w.grad.flatten() for w in network.parameters() if w.grad is not None]
                    found[precision] = torch.cat(parts).double()
                exact, coarse = found.values()
                errors.append(float((coarse - exact).norm() / exact.norm()))
                cosines.append(float(exact @ coarse / exact.norm() / coarse.norm()))
            yield {
                "run": name,
                "network": state,
                "relative error, median": f"{100 * median(errors):.1f} %",
                "largest": f"{100 * max(errors):.1f} %",
                "least cosine": f"{min(cosines):.3f}",
            }


def training(half: Path, full: Path) -> Iterator[dict[str, str]]:
    """A row for each category and size: mean change of the AUROCs over the seeds, 95 % interval."""
    others = {record.key: record.content for record in find_records(half)}
    small: dict[str, list[np.ndarray]] = {}
    large: dict[str, list[np.ndarray]] = {}
    for record in find_records(full):
        if record.key.method != "n2n" or record.settings not in (BASE, REPLICATION):
            continue
        if (other := others.get(record.key)) is None:
            continue
        if other["provenance"]["precision"] != "bfloat16":
            continue
        pairs = small if record.settings == BASE else large
        pairs.setdefault(record.key.category.replace("_", " "), []).append(
            np.array([[content["image_scores"][name]["auroc"] for name in ("max", "mean", "top1%")]
                      + [content["metrics"]["pixel"]["auroc"]]
                      for content in (record.content, other)])
        )  # fmt: skip
    names = ("image max", "image mean", "image top1%", "pixel")
    groups = small | {"all small ones": [pair for group in small.values() for pair in group]}
    groups |= {f"{name}, full size": group for name, group in large.items()}
    for category, group in groups.items():
        if len(group) < 2:
            continue
        values = 100 * np.stack(group)  # (runs, float32 and bfloat16, scores)
        change = values[:, 1] - values[:, 0]
        half_width = stats.t.ppf(0.975, len(group) - 1) * stats.sem(change, axis=0)
        yield {"category": category, "pairs": str(len(group))} | {
            f"{name}, change": f"{mean:+.2f} ± {half:.2f}"
            for name, mean, half in zip(names, change.mean(0), half_width, strict=True)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--float32", type=Path, default=Path("results/float32"))
    parser.add_argument("--size", type=int, help="ignored: the size is that of the run")
    options, device = parse(parser)
    root = os.environ.get("N2N_DATA")
    if rows := list(scoring(options.results, Path(root), device)) if root else []:
        write_table(
            f"precision_{name_of(device)}",
            "Scoring in half precision",
            "Change of AUROC in points from scoring in float32 to scoring in half precision, with "
            "the same weights and test images; the image score is the run's own.",
            rows,
            provenance(device),
        )
    else:
        print("No weights or no N2N_DATA here: scoring is not compared, nor are gradients.")
    bfloat16 = bool(those_of(["bfloat16"], device))
    if rows := list(gradients(options.results, Path(root), device)) if root and bfloat16 else []:
        write_table(
            f"precision_gradients_{name_of(device)}",
            "Gradients in half precision",
            "The gradient of Eq. (9) by all weights in bfloat16 less that in float32, as a share "
            f"of the latter, and the cosine of the two; {BATCHES} batches of the run's training "
            "images, under the same noise.",
            rows,
            provenance(device),
        )
    if rows := list(training(options.results, options.float32)):
        write_table(
            "precision_training",
            "Training in half precision",
            "Change of AUROC in points from training in float32 to training in bfloat16, the same "
            "seeds: mean and 95 % interval (t). The records name the machines.",
            rows,
            "",
        )
    else:
        print(f"No runs of {options.results} are in {options.float32}, too: see the study file.")


if __name__ == "__main__":
    main()
