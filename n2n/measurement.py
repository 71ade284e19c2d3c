"""What a run record says of a detection: metrics, intervals, and where the errors lie."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from n2n import metrics
from n2n.corruption import normalise
from n2n.data import Category
from n2n.detection import BATCH, Detection, anomaly_map, image_scores
from n2n.device import describe, exact_float32, memory_errors, peak_memory_mib
from n2n.loss import gaussian_filter, on_loss_range, similarity_factors
from n2n.plan import Run
from n2n.records import commit
from n2n.settings import IMAGE_SCORES, Settings
from n2n.synthetic import KINDS, synthetic_defects

MARGIN = 1 / 16  # of the side, hidden around a defect, as the loss's filters reach far
BLUR = 4.0  # pixels, of the blurred image
MOST_SYNTHETIC = 30  # held-out images that get synthetic defects; three each


class Measured(NamedTuple):
    """What a method was found to do on a category, for its record.

    Attributes:
        content: of the record, but for its settings, its data and its provenance.
        seconds: that fitting and measuring took.
        write_files: writes the other files of the record into a folder.
        provenance: what the method alone says of its making.
        packages: whose versions matter beside PyTorch's.
    """

    content: dict[str, Any]
    seconds: float
    write_files: Callable[[Path], None]
    provenance: dict[str, Any]
    packages: tuple[str, ...] = ()


def about_data(images: Category) -> dict[str, Any]:
    """What a record says of its images: which, how many, and how large their masks are.

    Of the masks: the share of the image in the median anomalous image, the same when grown as in
    `hidden_defects`, and what share of all defective pixels the fifth of the anomalous images with
    the largest masks holds. Where that is much, a pixel-level AUROC is about these images. None
    where there are no masks.
    """
    masks = dict.fromkeys(("median", "grown_median", "largest_fifth"))
    if images.masks.any():
        areas = images.masks[images.labels].flatten(1).float().mean(1).sort(descending=True).values
        grown = (~_beside_defects(images))[images.labels].flatten(1).float().mean(1)
        masks = {
            "median": float(areas.quantile(0.5)),
            "grown_median": float(grown.quantile(0.5)),
            "largest_fifth": float(areas[: max(round(len(areas) / 5), 1)].sum() / areas.sum()),
        }
    return {
        "fingerprint": images.fingerprint,
        "train": len(images.train),
        "test_good": int((~images.labels).sum()),
        "test_anomalous": int(images.labels.sum()),
        "masks": masks,
    }


def about_run(
    run: Run, device: torch.device, seconds: float, own_peak: bool, *packages: str
) -> dict[str, Any]:
    """What a record says of how it was made: program, machine, command, time and memory.

    Args:
        run: with the precision that its training had.
        device: that it ran on.
        seconds: that all of it took.
        own_peak: whether the count of memory began with it; see `n2n.device.reset_peak_memory`.
        packages: whose versions matter beside PyTorch's, NumPy's and Pillow's.
    """
    return {
        "n2n": version("n2n"),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in ("torch", "numpy", "pillow", *packages)},
        "device": describe(device),
        "precision": run.precision,
        "command": run.command,
        "wall_seconds": round(seconds, 1),
        "peak_memory_mib": round(peak_memory_mib(device)),
        "peak_memory_of": "this run" if own_peak else "its process",  # the latter is a bound
    }


def development_set(images: Category, held_out: torch.Tensor) -> Category:
    """Held-out normal images, and synthetic defects on the first of them, as if to be tested.

    Args:
        images: of the category.
        held_out: the indices of the training images that are held out, (M,).

    Raises:
        N2NError: where fewer than two are.
    """
    normal = images.train[held_out]
    defective, masks, kinds = synthetic_defects(normal[:MOST_SYNTHETIC])
    labels = torch.cat([torch.zeros(len(normal)), torch.ones(len(defective))]).bool()
    return dataclasses.replace(
        images,
        test=torch.cat([normal, defective]),
        masks=torch.cat([torch.zeros_like(masks[:1]).repeat(len(normal), 1, 1), masks]),
        labels=labels,
        names=tuple(str(number) for number in range(len(labels))),
        defects=("good",) * len(normal) + tuple(kinds),
    )


def reconstruction_errors(images: Category, detected: Detection) -> dict[str, dict[str, float]]:
    """Mean error where images are defective, elsewhere in them, and in normal images.

    Eq. (9), and the absolute error of a reconstruction on [0, 1]. If the noise kept defects from
    being copied, the error would be far larger inside the masks than elsewhere.
    """
    absolute = (detected.reconstructions.float() - images.test.float()).abs().mean(1) / 255
    beside = images.labels[:, None, None] & ~images.masks
    found = {}
    for name, error in (("anomaly_map", detected.maps), ("absolute", absolute)):
        found[name] = {
            "defects": float(error[images.masks].mean()),
            "beside": float(error[beside].mean()),
            "normal": float(error[~images.labels].mean()),
        }
    return found


def negative_factors(
    images: Category, detected: Detection, settings: Settings
) -> dict[str, dict[str, float]]:
    """Where test images and their reconstructions vary against each other: Eq. (4) is negative.

    A product of two such factors in Eq. (7) counts as alike (decision D48). Of photographs and
    reconstructions of 8 bits; with ``standardise`` or ``contrast`` the loss has them on another
    scale.

    Returns:
        For normal and anomalous images the share of the pixels, of all channels, with one negative
        factor or more, 'any', and that with two or another even number of them, 'even'.
    """
    shares = []
    for reconstruction, original in zip(detected.reconstructions, images.test, strict=True):
        x, y = on_loss_range(normalise(reconstruction), normalise(original), settings)
        *factors, _ = similarity_factors(  # the last one is Eq. (2)
            x, y, settings.sigmas, settings.c1, settings.c2, settings.border
        )
        count = torch.stack([factor < 0 for factor in factors]).sum(0)
        some = count > 0
        shares.append([some.float().mean(), (some & (count % 2 == 0)).float().mean()])
    means = {"normal": ~images.labels, "anomalous": images.labels}
    return {
        name: dict(zip(("any", "even"), torch.tensor(shares)[of].mean(0).tolist(), strict=True))
        for name, of in means.items()
    }


def peak_in_defect(images: Category, maps: torch.Tensor) -> float:
    """In what share of the anomalous images the largest value of the map, (S, S), is in the mask.

    Where it does not, the maximum as an image score measures something else than the defect.
    """
    peaks = maps[images.labels].flatten(1).argmax(1, keepdim=True)
    return float(images.masks[images.labels].flatten(1).gather(1, peaks).float().mean())


def hidden_defects(images: Category, maps: torch.Tensor) -> dict[str, float | None]:
    """AUROC of each image score where the pixels in and around the defects do not count.

    A detector of defects falls to 0.5 or below, since there is less left to look at in anomalous
    images. One that stays as good tells the photographs apart by something else: the pose, the
    light, the background. None where the masks leave nothing of the normal or anomalous images.

    Args:
        images: with the masks, (N, S, S); they are grown by a sixteenth of the side.
        maps: that the image scores are taken from, (N, S, S).
    """
    rest = _beside_defects(images)
    some = rest.flatten(1).any(1)
    found = [
        image_scores(one[left][None]) for one, left in zip(maps[some], rest[some], strict=True)
    ]
    labels = images.labels[some].numpy()
    if not (labels.any() and (~labels).any()):
        return dict.fromkeys(IMAGE_SCORES)
    return {
        name: metrics.auroc(torch.cat([scores[name] for scores in found]).numpy(), labels)
        for name in IMAGE_SCORES
    }


def hidden_alike(
    images: Category, maps: torch.Tensor, margin: float = MARGIN
) -> dict[str, float | None]:
    """`hidden_defects`, but what is hidden in a bad image is hidden in the good ones, too.

    The AUROC is the share of the pairs of a normal and an anomalous image in which the anomalous
    one has the larger score (half of the ties). Here the two scores of a pair come from the same
    pixels, those outside the anomalous one's grown mask, so that 0.5 is what a detector reaches
    that sees nothing but the defects. What sees edges, too, may come to less: a mask that follows
    its part covers this part's edges, and leaves some of parts that hang otherwise. None as in
    `hidden_defects`; so are the arguments, but that masks may be grown by another part of the side
    than a sixteenth.
    """
    normal = maps[~images.labels]
    shares: dict[str, list[float]] = {name: [] for name in IMAGE_SCORES}
    rest = _beside_defects(images, margin)
    for one, left in zip(maps[images.labels], rest[images.labels], strict=True):
        if len(normal) and left.any():
            others, own = image_scores(normal[:, left]), image_scores(one[left][None])
            for name, found in shares.items():
                larger = torch.sign(own[name] - others[name]).double()
                found.append(float((larger + 1).mean() / 2))
    return {name: sum(found) / len(found) if found else None for name, found in shares.items()}


def _beside_defects(images: Category, margin: float = MARGIN) -> torch.Tensor:
    """All pixels but those in and around the defects, (N, S, S)."""
    grow = int(images.masks.shape[-1] * margin)
    side = 2 * grow + 1
    # The maximum over a square is that over its columns' maxima; this is eight times as fast.
    grown = F.max_pool2d(images.masks[:, None].float(), (side, 1), 1, (grow, 0))
    grown = F.max_pool2d(grown, (1, side), 1, (0, grow))[:, 0].bool()
    return ~(grown & images.labels[:, None, None])


def aurocs(images: Category, detected: Detection) -> dict[str, float]:
    """AUROC of the pixels, and of the images by each image score."""
    labels = images.labels.numpy()
    values = {
        f"image_{name}": metrics.auroc(scores.numpy(), labels)
        for name, scores in image_scores(detected.scored).items()
    }
    return values | {"pixel": metrics.auroc(detected.maps.numpy(), images.masks.numpy())}


def of_kind(images: Category, kind: str) -> tuple[Category, Tensor]:
    """The good test images with the bad ones of one kind, and which of all these are, bool (N,)."""
    chosen = torch.tensor([defect in ("good", kind) for defect in images.defects])
    left = chosen.nonzero().flatten().tolist()
    part = dataclasses.replace(
        images, test=images.test[chosen], masks=images.masks[chosen], labels=images.labels[chosen],
        names=tuple(images.names[index] for index in left),
        defects=tuple(images.defects[index] for index in left),
    )  # fmt: skip
    return part, chosen


def development_metrics(development: Category, detected: Detection) -> dict[str, Any]:
    """AUROC on the synthetic defects, of all of them and of each kind."""
    kinds = sorted(set(development.defects) - {"good"})
    found = {"all": aurocs(development, detected)}
    for kind in kinds:
        part, chosen = of_kind(development, kind)
        found[kind] = aurocs(
            part,
            dataclasses.replace(
                detected, maps=detected.maps[chosen], scored=detected.scored[chosen]
            ),
        )
    return found


def passed_defects(development: Category, detected: Detection) -> dict[str, float]:
    """How much of each kind of synthetic defect the reconstruction shows: 1 is all of it, 0 none.

    With a defect d on a normal image x, the reconstruction r(x + d) differs from r(x) by what of d
    passes the network. Its share is the least-squares one, ``sum(d (r(x + d) - r(x))) / sum(d^2)``
    over all pixels of all defects of the kind. A network that puts normal surface in the place of
    a defect lets none of it pass, and so does one that reconstructs nothing at all; one that copies
    its input lets all of it pass. It may be below 0 or above 1. NaN where a kind's defects change
    no pixel. With ``standardise`` the light of the image with the defect is
    put back, of which the defect has a part: that passes in any case.

    Args:
        development: of `development_set`, which draws each kind on each of the first images.
        detected: in it, with the same noise on every image.
    """
    shares = {}
    for kind in KINDS:
        chosen = torch.tensor([defect == kind for defect in development.defects])
        drawn, shown = (
            images[chosen].double() - images[~development.labels][: int(chosen.sum())].double()
            for images in (development.test, detected.reconstructions)
        )
        size = float((drawn**2).sum())
        shares[kind] = float((drawn * shown).sum()) / size if size else float("nan")
    return shares


def by_position(images: Category, maps: Tensor, normal: Tensor) -> dict[str, float]:
    """Pixel-level AUROC of what is the same in every map, and of what an image adds to it.

    A network reconstructs some places worse than others in every image, and the defects of a part
    lie on the part. ``alone``: every test image gets the mean map of held-out normal images, which
    knows nothing of it. ``beyond``: that mean is subtracted from the image's own map.

    Args:
        images: with the masks, (N, S, S).
        maps: of their anomalies, (N, S, S).
        normal: maps of held-out normal images, (M, S, S).
    """
    masks, mean = images.masks.numpy(), normal.mean(0)
    return {
        "alone": metrics.auroc(mean.expand_as(maps).contiguous().numpy(), masks),
        "beyond": metrics.auroc((maps - mean).numpy(), masks),
    }


def point_metrics(images: Category, maps: Tensor, scores: Tensor) -> dict[str, Any]:
    """The metrics of the test images, by their scores (N,), and of the pixels; from 0 to 1."""
    return {
        "image": metrics.image_metrics(scores.numpy(), images.labels.numpy()),
        "pixel": metrics.pixel_metrics(maps.numpy(), images.masks.numpy()),
    }


def measure_test(
    images: Category, maps: Tensor, every_score: dict[str, Tensor], chosen: str
) -> dict[str, Any]:
    """The metrics by the chosen score with their bootstrap intervals, and those of every score.

    Args:
        images: with labels and masks.
        maps: of their anomalies, (N, S, S).
        every_score: image scores, (N,) each, by name.
        chosen: one of these names.
    """
    labels = images.labels.numpy()
    return {
        "metrics": point_metrics(images, maps, every_score[chosen]),
        "intervals": {
            "image": metrics.bootstrap_image(every_score[chosen].numpy(), labels),
            "pixel": metrics.bootstrap_pixel(maps.numpy(), images.masks.numpy()),
        },
        "image_scores": {
            name: metrics.image_metrics(scores.numpy(), labels)
            for name, scores in every_score.items()
        },
    }


def write_scores(folder: Path, images: Category, scores: dict[str, Tensor]) -> None:
    """Write ``scores.csv``: a row per test image, and each of its scores, (N,), by its name."""
    table = pd.DataFrame({"image": images.names, "defect": images.defects})
    table["anomalous"] = images.labels.int().numpy()
    for name, values in scores.items():
        table[name] = values.numpy()
    table.to_csv(folder / "scores.csv", index=False, float_format="%.9g")


@torch.inference_mode()
def trivial_metrics(images: Category, settings: Settings, device: torch.device) -> dict[str, Any]:
    """Metrics of three anomaly maps without a network, at both levels.

    A pixel AUROC near 99 says little where one of them reaches 97: defects often differ from their
    surroundings in ways that any contrast shows. The map is that of the settings, without a
    calibration, with a stand-in for the reconstruction:

    - ``mean_image``: the mean of the training images;
    - ``blurred_image``: the test image itself under a Gaussian filter of 4 pixels;
    - ``grey_image``: mid-grey everywhere, near to what an untrained network gives. Its map says how
      bright or dark each pixel is.

    Raises:
        N2NError: where the memory is too small.
    """
    with memory_errors("close other programs"):
        good = torch.split(images.train, BATCH)
        sums = torch.stack([normalise(part, settings).double().sum(0) for part in good])
        mean = (sums.sum(0) / len(images.train)).float()[None].to(device)
    stand_ins: dict[str, Callable[[Tensor], Tensor]] = {
        "mean_image": lambda x0: mean.expand_as(x0),
        "blurred_image": lambda x0: gaussian_filter(x0, BLUR, "reflect"),
        "grey_image": torch.zeros_like,
    }
    found = {}
    for name, stand_in in stand_ins.items():
        with memory_errors("close other programs"), exact_float32():
            parts = (
                normalise(part.to(device), settings) for part in torch.split(images.test, BATCH)
            )
            maps = torch.cat([anomaly_map(stand_in(x0), x0, settings).cpu() for x0 in parts])
        found[name] = point_metrics(images, maps, image_scores(maps)[settings.image_score])
    return found
