"""The methods that the paper compares with, on the same images and under the same metrics.

Six are anomalib's models (`anomalib_models`, the extra ``baselines``), two are written here
(`gans`), and two learn nothing (`trivial`); all give raw anomaly maps and raw image scores: no
normalisation, no threshold, no resizing but ours. The paper's methods use backbones of torchvision,
which no package carries; the user may bring the file. Without it an EfficientNet-Lite0 stands in,
and the row bears its name.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from n2n.baselines.anomalib_models import fit_anomalib, see
from n2n.baselines.gans import fit_gan
from n2n.baselines.settings import METHODS, NOTHING, BaselineSettings, brought
from n2n.baselines.trivial import fit_trivial
from n2n.data import Category
from n2n.detection import BATCH, image_scores
from n2n.device import exact_float32, memory_errors
from n2n.errors import N2NError
from n2n.measurement import (
    MARGIN,
    Measured,
    hidden_alike,
    hidden_defects,
    measure_test,
    write_scores,
)
from n2n.plan import Run

ANOMALIB = ("anomalib", "timm", "torchvision")


def measure(
    run: Run,
    settings: BaselineSettings,
    images: Category,
    device: torch.device,
    precision: torch.dtype,
    progress: bool,
) -> Measured:
    """Fit one baseline and measure it.

    All normal training images are used: no method here stops early, none needs a validation set.

    Args:
        run: whose settings these are.
        settings: the method, its backbone and its parameters.
        images: of its category.
        device: where to fit and detect.
        precision: of the training.
        progress: show a bar on stderr.

    Raises:
        N2NError: where the extra is not installed, or the weights are missing or of another
            backbone.
    """
    weights = None if run.weights is None else Path(run.weights).expanduser()
    start = time.monotonic()
    # What PaDiM holds of all images does not depend on the batch, and it has no coreset
    smaller = "image size" if settings.method == "padim" else "batch size, coreset or image size"
    advice = f"use a smaller {smaller}"
    advice += ", or --device cpu" if device.type != "cpu" else ""
    with memory_errors(advice), exact_float32():
        model = fit(images.train, settings, run.seed, device, weights, precision, progress)
        fitted = time.monotonic()
        maps, scores = score(model, images.test, settings, device, progress)
        scored = time.monotonic()
        content = {
            **measure_test(images, maps, {"own": scores, **image_scores(maps)}, "own"),
            "hidden_defects": hidden_defects(images, maps),
            "hidden_alike": hidden_alike(images, maps),
            "hidden_alike_farther": hidden_alike(images, maps, 2 * MARGIN),
            "untrained": None,
            "training": {"seconds": round(fitted - start, 1)},
            "inference": {"seconds_per_image": round((scored - fitted) / len(images.test), 4)},
        }

    def write_files(folder: Path) -> None:
        write_scores(folder, images, {"own": scores})

    packages = ANOMALIB if METHODS[settings.method].by == "anomalib" else ()
    return Measured(content, time.monotonic() - start, write_files, {}, packages)


def fit(
    images: Tensor,
    settings: BaselineSettings,
    seed: int,
    device: torch.device,
    weights: Path | None = None,
    precision: torch.dtype = torch.float32,
    progress: bool = True,
) -> nn.Module:
    """A fitted model from normal images, uint8, (N, 3, S, S); the same for the same seed.

    Raises:
        N2NError: where the extra is not installed, the weights do not fit or are not needed, the
            method has no training to be of that precision or cannot be on that device, or a
            training fails.
    """
    if weights is not None and brought(settings.backbone) is None:
        own = settings.method if settings.backbone == NOTHING else settings.backbone
        raise N2NError(f"{own} needs no file beside the images; leave --weights out.")
    if settings.method == "cflow" and device.type == "mps":
        raise N2NError("cflow computes in float64, which Apple's GPUs lack; choose --device cpu.")
    if precision != torch.float32 and not METHODS[settings.method].epochs:
        raise N2NError(f"{settings.method} trains nothing; leave --precision out.")
    match METHODS[settings.method].by:
        case "anomalib":
            return fit_anomalib(images, settings, seed, device, weights, precision, progress)
        case "gan":
            return fit_gan(images, settings, seed, device, precision, progress)
        case "nothing":
            return fit_trivial(images, settings).to(device)


@torch.inference_mode()
def score(
    model: nn.Module,
    images: Tensor,
    settings: BaselineSettings,
    device: torch.device,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """Anomaly maps (N, S, S) and image scores (N,) of images, uint8, (N, 3, S, S).

    As the model gives them, higher means more anomalous; on the CPU.
    """
    maps, scores = [], []
    for batch in tqdm(torch.split(images, BATCH), desc="detecting", disable=not progress):
        found = model(see(batch, settings).to(device))
        maps.append(found.anomaly_map.reshape(len(batch), *batch.shape[2:]).float().cpu())
        scores.append(found.pred_score.flatten().float().cpu())
    return torch.cat(maps), torch.cat(scores)
