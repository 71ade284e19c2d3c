"""Pixel metrics of a category against the usual ways: ``python -m benchmarks.evaluation``.

Maps are smooth random fields that are brighter in the masks, rounded to float32. All methods take
turns in one process; the peak memory of each is measured in a process of its own, and ours also
for maps that are rounded to fewer distinct scores. Every exact method must agree with ours to
1e-9; anomalib's, where it is installed, sums in float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from benchmarks.common import in_a_process, name_of, now, provenance, resident_peak, write_table
from n2n import metrics
from n2n.baselines.anomalib_models import allow_torchvision

CPU = torch.device("cpu")
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
Method = Callable[[Maps, Masks], dict[str, float]]


@cache
def category(images: int, size: int) -> tuple[Maps, Masks]:
    """Maps and masks, (N, S, S); every second image has two round defects."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    maps = np.empty((images, size, size), np.float32)
    masks = np.zeros((images, size, size), np.bool_)
    for number in range(images):
        for _ in range(2 * (number % 2)):
            cy, cx = rng.uniform(0, size, 2)
            masks[number] |= np.hypot(y - cy, x - cx) < rng.uniform(0.02, 0.08) * size
        field = gaussian_filter(rng.standard_normal((size, size)), 2)
        maps[number] = field / field.std() + 2 * masks[number]
    return maps, masks


def ours(maps: Maps, masks: Masks) -> dict[str, float]:
    return metrics.pixel_metrics(maps, masks)


def sklearn_auroc(maps: Maps, masks: Masks) -> dict[str, float]:
    return {"auroc": float(roc_auc_score(masks.ravel(), maps.ravel()))}


def sklearn_all(maps: Maps, masks: Masks) -> dict[str, float]:
    flat, truth = maps.ravel(), masks.ravel()
    precision, recall, _ = precision_recall_curve(truth, flat)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return sklearn_auroc(maps, masks) | {
        "ap": float(average_precision_score(truth, flat)),
        "f1max": float(f1.max()),
    }


def textbook_aupro(maps: Maps, masks: Masks) -> dict[str, float]:
    """Every pixel a threshold: a weighted ROC curve in which each region counts the same."""
    weights = np.zeros(maps.shape)
    regions = 0
    for number, mask in enumerate(masks):
        labelled, count = label(mask, np.ones((3, 3)))
        regions += count
        sizes = np.bincount(labelled.ravel())
        weights[number] = np.where(mask, 1 / sizes[labelled], 1)
    truth = masks.ravel()
    fpr, overlap, _ = roc_curve(truth, maps.ravel(), sample_weight=weights.ravel())
    within = fpr <= metrics.FPR_LIMIT
    edge = np.interp(metrics.FPR_LIMIT, fpr, overlap)
    x = np.append(fpr[within], metrics.FPR_LIMIT)
    y = np.append(overlap[within], edge)
    return {"aupro": float(np.trapezoid(y, x) / metrics.FPR_LIMIT)}


def sampled_aupro(maps: Maps, masks: Masks) -> dict[str, float]:
    """200 thresholds, as many evaluation scripts do; not exact."""
    regions = []
    for number, mask in enumerate(masks):
        labelled, count = label(mask, np.ones((3, 3)))
        regions += [maps[number][labelled == region] for region in range(1, count + 1)]
    normal = maps[~masks]
    points = []
    for threshold in np.linspace(maps.max(), maps.min(), 200):
        fpr = float((normal >= threshold).mean())
        points.append((fpr, float(np.mean([(r >= threshold).mean() for r in regions]))))
        if fpr > metrics.FPR_LIMIT:
            break
    x, y = np.array(points).T
    grid = np.linspace(0, metrics.FPR_LIMIT, 1000)
    return {"aupro": float(np.trapezoid(np.interp(grid, x, y), grid) / metrics.FPR_LIMIT)}


def scaled(maps: Maps) -> torch.Tensor:
    """On [0, 1], or torchmetrics would put them through a sigmoid; the order stays."""
    return torch.from_numpy((maps - maps.min()) / (maps.max() - maps.min()))


def anomalib_auroc(maps: Maps, masks: Masks) -> dict[str, float]:
    allow_torchvision()
    from anomalib.metrics.auroc import _AUROC

    metric = _AUROC()
    metric.update(scaled(maps).flatten(), torch.from_numpy(masks).flatten().int())
    return {"auroc": float(metric.compute())}


def anomalib_aupro(maps: Maps, masks: Masks) -> dict[str, float]:
    allow_torchvision()
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=metrics.FPR_LIMIT)
    metric.update(scaled(maps), torch.from_numpy(masks).int())
    return {"aupro": float(metric.compute())}


METHODS: dict[str, tuple[Method, bool]] = {
    "ours: AUROC, AP, F1-max and AUPRO": (ours, True),
    "scikit-learn: AUROC": (sklearn_auroc, True),
    "scikit-learn: AUROC, AP, F1-max": (sklearn_all, True),
    "scikit-learn's weighted ROC: AUPRO": (textbook_aupro, True),
    "200 thresholds: AUPRO": (sampled_aupro, False),
}
if find_spec("anomalib"):
    METHODS |= {
        "anomalib: AUROC": (anomalib_auroc, False),
        "anomalib: AUPRO": (anomalib_aupro, False),
    }
else:
    print("Without its rows for anomalib: pip install -e '.[benchmarks]' brings it.")
OURS = next(iter(METHODS))
DECIMALS = (0, 1, 2, 3)


def peak(name: str, images: int, size: int, decimals: int | None = None) -> float:
    """MiB that a method takes on top of the maps and masks, in a process of its own."""
    options = ("--peak", name, "--images", images, "--size", size)
    rounded = () if decimals is None else ("--decimals", decimals)
    return float(in_a_process("evaluation", *options, *rounded))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="ignored: the metrics run on the CPU")
    parser.add_argument("--images", type=int, default=460)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--decimals", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    maps, masks = category(options.images, options.size)
    for name in [options.peak] if options.peak else METHODS:
        METHODS[name][0](*category(2, options.size))  # what is loaded only once
    if options.peak:
        if options.decimals is not None:
            maps = maps.round(options.decimals)
        print(resident_peak(lambda: METHODS[options.peak][0](maps, masks)))
        return
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    values: dict[str, dict[str, float]] = {}
    for _ in range(options.repeats):
        for name, (method, _) in METHODS.items():
            began = now(CPU)
            values[name] = method(maps, masks)
            seconds[name].append(now(CPU) - began)
    rows = []
    for name, (_, exact) in METHODS.items():
        if exact:
            for key, value in values[name].items():
                assert abs(value - values[OURS][key]) < 1e-9, (name, key)
        ratios = [a / b for a, b in zip(seconds[name], seconds[OURS], strict=True)]
        rows.append(
            {
                "method": name,
                "agrees to 1e-9": "yes" if exact else "no",
                "median s": f"{median(seconds[name]):.2f}",
                "times ours": f"{median(ratios):.1f}",
                "peak MiB": f"{peak(name, options.images, options.size):.0f}",
                "values": ", ".join(f"{k} {v:.5f}" for k, v in values[name].items()),
            }
        )
    write_table(
        f"evaluation_{name_of(CPU)}",
        "Pixel metrics of a category",
        f"{options.images} maps of {options.size}x{options.size}, {maps.size / 1e6:.1f} million "
        f"pixels, float32; medians over {options.repeats} rounds. Exact methods agree with ours "
        "to 1e-9. One thread is timed by its own processor time.",
        rows,
        provenance(CPU),
    )
    rows = []
    for decimals in (*DECIMALS, None):
        rounded = maps if decimals is None else maps.round(decimals)
        rows.append(
            {
                "scores": "as they are" if decimals is None else f"{decimals} decimals",
                "thresholds": str(len(np.unique(rounded))),
                "peak MiB": f"{peak(OURS, options.images, options.size, decimals):.0f}",
            }
        )
    write_table(
        f"evaluation_memory_{name_of(CPU)}",
        "Memory of our metrics by the number of thresholds",
        f"The same {maps.size / 1e6:.1f} million pixels, rounded; a threshold is a distinct score. "
        "The peak is on top of the maps and masks.",
        rows,
        provenance(CPU),
    )


if __name__ == "__main__":
    main()
