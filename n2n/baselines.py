"""The methods that the paper compares with, on the same images and under the same metrics.

Six are anomalib's models (`n2n.anomalib_models`, the extra ``baselines``), two are written here
(`n2n.gans`), and two learn nothing (`n2n.trivial`); all give raw anomaly maps and raw image scores:
no normalisation, no threshold, no resizing but ours. The paper's methods use backbones of
torchvision, which no package carries; the user may bring the file. Without it an EfficientNet-Lite0
stands in, and the row bears its name.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from n2n.anomalib_models import fit_anomalib, see
from n2n.baseline_settings import METHODS, NOTHING, BaselineSettings, brought
from n2n.data import Category, load_category
from n2n.detection import image_scores
from n2n.device import (
    choose_device,
    choose_precision,
    memory_errors,
    reset_peak_memory,
)
from n2n.errors import N2NError
from n2n.gans import fit_gan
from n2n.measurement import about_data, about_run, hidden_alike, hidden_defects, measure_test
from n2n.plan import Run
from n2n.records import (
    Record,
    finished,
    no_record,
    only_one,
    refuse_other_images,
    write_record,
)
from n2n.trivial import fit_trivial

BATCH = 8
ANOMALIB = ("anomalib", "timm", "torchvision")


def run_baseline(
    run: Run,
    data: str | Path | None,
    *,
    results: Path = Path("results"),
    device: str = "auto",
    progress: bool = True,
) -> Record:
    """Fit and measure one baseline on one category, or return the record that is there already.

    All normal training images are used: no method here stops early, none needs a validation set.
    Scores are always float32.

    Args:
        run: what to run.
        data: root of the data sets; the images are in ``data/dataset/category``. None only takes
            the record that is there.
        results: folder of the records.
        device: 'auto', 'cpu', 'cuda', ...
        progress: show a bar on stderr.

    Raises:
        N2NError: where the extra is not installed, the weights are missing or of another
            backbone, or the images cannot be read.
        TypeError: where the run is of our method.
    """
    began = time.monotonic()
    key, settings = run.key, run.settings
    if not isinstance(settings, BaselineSettings):
        raise TypeError("our method is run by n2n.experiment.run_experiment")
    if record := finished(key, results, run.precision, progress):
        return record
    if data is None:
        raise no_record(key, results)
    where = choose_device(device)
    dtype = choose_precision("float32" if run.precision == "auto" else run.precision, where)
    weights = None if run.weights is None else Path(run.weights).expanduser()
    with only_one(key, results), memory_errors("use a smaller batch size, coreset or image size"):
        if record := finished(key, results):  # by another process, just now
            return record
        own_peak = reset_peak_memory(where)
        images = load_category(
            Path(data), run.dataset, run.category, settings.image_size,
            cache=results / "work" / "images", progress=progress,
        )  # fmt: skip
        refuse_other_images(key, results, images.fingerprint)
        start = time.monotonic()
        model = fit(images.train, settings, run.seed, where, weights, dtype, progress)
        fitted = time.monotonic()
        maps, scores = score(model, images.test, settings, where, progress)
        scored = time.monotonic()
        content = _measure(images, maps, scores) | {
            "untrained": None,
            "settings": asdict(settings),
            "training": {"seconds": round(fitted - start, 1)},
            "inference": {"seconds_per_image": round((scored - fitted) / len(images.test), 4)},
            "data": about_data(images),
            "provenance": about_run(
                replace(run, precision=str(dtype).removeprefix("torch.")),
                where,
                time.monotonic() - began,
                own_peak,
                *(ANOMALIB if METHODS[settings.method].by == "anomalib" else ()),
            ),
        }

        def write_files(folder: Path) -> None:
            table = pd.DataFrame({"image": images.names, "defect": images.defects})
            table["anomalous"], table["own"] = images.labels.int().numpy(), scores.numpy()
            table.to_csv(folder / "scores.csv", index=False, float_format="%.9g")

        return write_record(key, results, content, write_files)


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
            method has no training to be of that precision, or a training fails.
    """
    if weights is not None and brought(settings.source) is None:
        own = settings.method if settings.source == NOTHING else settings.source
        raise N2NError(f"{own} needs no file beside the images; leave --weights out.")
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
    """Anomaly maps (N, S, S) and image scores (N,), as the model gives them, on the CPU."""
    maps, scores = [], []
    for batch in tqdm(torch.split(images, BATCH), desc="detecting", disable=not progress):
        found = model(see(batch, settings).to(device))
        maps.append(found.anomaly_map.reshape(len(batch), *batch.shape[2:]).float().cpu())
        scores.append(found.pred_score.flatten().float().cpu())
    return torch.cat(maps), torch.cat(scores)


def _measure(images: Category, maps: Tensor, scores: Tensor) -> dict[str, Any]:
    every = {"own": scores, **image_scores(maps)}
    return {
        **measure_test(images, maps, every, "own"),
        "hidden_defects": hidden_defects(images, maps),
        "hidden_alike": hidden_alike(images, maps),
    }
