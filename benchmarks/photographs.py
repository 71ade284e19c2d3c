"""What a test says that hides the defects: how Metal Plate was photographed, and what leaks.

``N2N_DATA=data python -m benchmarks.photographs``. Three tables. The plates are found by their
colour: they are blue or brown, and hang before a grey wall. The first table has how large they are
and how bright the wall is. The second hides pixels as `n2n.measurement.hidden_alike` does, of bad
images, and of *good* ones under masks that are laid on their own plate: since a mask that follows
its plate leaves corners of other plates in sight, these need not come to one half. In the third the
defect is all that differs: it is drawn on held-out good images, so that what is left of the AUROC
with it hidden has leaked out of it, near or far. The last two take the runs of N2N at full size
whose weights are on this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from benchmarks.common import parse, provenance, write_table
from benchmarks.precision import runs_at_hand
from n2n.analysis.mechanism import SHOWN
from n2n.analysis.panels import AtHand
from n2n.baselines.trivial import MeanQuantity, NearestThumbnail
from n2n.corruption import normalise
from n2n.data import Category, load_category
from n2n.detection import detect, image_scores
from n2n.measurement import development_set, hidden_alike, of_kind
from n2n.metrics import auroc
from n2n.settings import PRESETS
from n2n.synthetic import KINDS
from n2n.training import split_validation

COLOURED = 0.08  # the largest less the smallest colour of a pixel of a plate, at least
FAR = 20  # pixels from the plate: there is only wall
LIES = 0.8  # of a borrowed mask on the plate, at least
TRIES = 200

Mask = NDArray[np.bool_]


def plates(images: Tensor) -> Mask:
    """Where the plate is: the largest coloured region without its holes; uint8 (N, 3, S, S)."""
    saturation = (images.amax(1).int() - images.amin(1).int()).numpy() / 255
    found = []
    for coloured in saturation > COLOURED:
        solid = ndimage.binary_fill_holes(ndimage.binary_opening(coloured, iterations=2))
        regions, _ = ndimage.label(solid)
        found.append(regions == 1 + np.bincount(regions.ravel())[1:].argmax())
    return np.stack(found)


def walls(found: Mask) -> Mask:
    """The pixels far from the plate, of masks as `plates` finds them."""
    return np.stack([~ndimage.binary_dilation(plate, iterations=FAR) for plate in found])


def photographed(images: Category) -> Iterator[dict[str, str]]:
    """A row for the training images and each kind of test images: the plates and the wall."""
    kinds = {"good, training": images.train} | {
        kind.replace("_", " "): images.test[[d == kind for d in images.defects]]
        for kind in dict.fromkeys(images.defects)
    }
    for kind, shown in kinds.items():
        found = plates(shown)
        area = 100 * found.mean((1, 2))
        grey = shown.float().mean(1).numpy() / 255
        bright = [float(one[wall].mean()) for one, wall in zip(grey, walls(found), strict=True)]
        yield {
            "images": kind,
            "number": str(len(shown)),
            "plate, % of the image": f"{area.mean():.0f} ({area.min():.0f} to {area.max():.0f})",
            "brightness of the wall, %": f"{100 * np.mean(bright):.0f} "
            f"({100 * min(bright):.0f} to {100 * max(bright):.0f})",
        }


def borrowed(masks: Mask, plate: Mask, chance: np.random.Generator) -> Mask:
    """One of the masks, (N, S, S), turned and moved until it lies on a plate, (S, S)."""
    for _ in range(TRIES):
        mask = masks[chance.integers(len(masks))].astype(float)
        turned = ndimage.rotate(mask, chance.uniform(0, 360), reshape=False, order=0) > 0.5
        moved = np.roll(turned, chance.integers(-30, 31, 2), (0, 1))
        if moved.any() and (moved & plate).sum() >= LIES * moved.sum():
            break
    return moved & plate


def remains(images: Category, maps: Tensor, score: str) -> float:
    """`hidden_alike` by one image score, in percent."""
    share = hidden_alike(images, maps)[score]
    assert share is not None  # there are good images, and no mask covers all
    return 100 * share


def masks_of_good_images(images: Category) -> dict[str, Mask]:
    """For each kind of defect a mask on the plate of each good test image.

    That of rust all over the plate is the plate itself.
    """
    own = plates(images.test[~images.labels])
    found = {}
    for kind in sorted(set(images.defects) - {"good"}):
        chance = np.random.default_rng(0)
        masks = images.masks[[defect == kind for defect in images.defects]].numpy()
        laid = [plate if kind == "total_rust" else borrowed(masks, plate, chance) for plate in own]
        found[kind] = np.stack(laid)
    return found


def of_good_images(images: Category, maps: Tensor, masks: Mask, score: str) -> float:
    """`hidden_alike` of each good test image in turn as if it were bad, each under its mask."""
    good = torch.nonzero(~images.labels).flatten()
    shares = []
    for index, mask in enumerate(masks):
        order = torch.cat([good[index : index + 1], good[:index], good[index + 1 :]])
        covers = torch.zeros((len(good), *mask.shape), dtype=torch.bool)
        covers[0] = torch.from_numpy(mask)
        alone = dataclasses.replace(
            images, test=images.test[order], masks=covers, labels=torch.arange(len(good)) < 1
        )
        shares.append(remains(alone, maps[order], score))
    return float(np.mean(shares))


def detectors(
    images: Category, root: Path, folders: list[Path], device: torch.device
) -> Iterator[tuple[str, Tensor, str]]:
    """Name, maps of the test images and image score: what learns nothing, and N2N."""
    x0 = normalise(images.test)
    yield "thumbnail 8×8", NearestThumbnail(images.train, 8)(x0)[0], "mean"
    for quantity in ("detail", "brightness"):
        yield quantity, MeanQuantity(images.train, quantity)(x0)[0], "mean"
    for name, run in full_size(root, folders, device):
        if run.record.key.category == "metal_plate":
            maps = detect(
                run.network, run.images.test, run.settings, device, expected=run.expected
            ).scored
            of = name.split(", ", 1)[1]  # without the part
            yield f"N2N, {of}", maps, run.settings.image_score


def hidden(
    images: Category, root: Path, folders: list[Path], device: torch.device
) -> Iterator[dict[str, str]]:
    """A row for each detector: what remains, and what would if nothing were the matter."""
    far, on_good = walls(plates(images.test)), masks_of_good_images(images)
    counts = [images.defects.count(kind) for kind in on_good]
    for name, maps, score in detectors(images, root, folders, device):
        row, both = {"map": name, "score": score}, []
        for kind, masks in on_good.items():
            part, chosen = of_kind(images, kind)
            bad = remains(part, maps[chosen], score)
            both.append((bad, of_good_images(images, maps, masks, score)))
            row[kind.replace("_", " ")] = "{:.0f} ({:.0f})".format(*both[-1])
        wall = [float(one[beside].mean()) for one, beside in zip(maps, far, strict=True)]
        yield row | {
            "all": "{:.0f} ({:.0f})".format(*np.average(both, axis=0, weights=counts)),
            "the wall alone": f"{100 * auroc(np.array(wall), images.labels.numpy()):.0f}",
        }


def leaks(root: Path, folders: list[Path], device: torch.device) -> Iterator[dict[str, str]]:
    """A row for each run: AUROC on synthetic defects, kind by kind, whole and with them hidden."""
    for name, run in full_size(root, folders, device):
        fraction, seed = run.settings.validation_fraction, run.record.key.seed
        _, held_out = split_validation(len(run.images.train), fraction, seed)
        drawn = development_set(run.images, held_out)
        maps = detect(run.network, drawn.test, run.settings, device, expected=run.expected).scored
        score = run.settings.image_score
        row = {"run": name, "score": score}
        for kind in KINDS:
            part, chosen = of_kind(drawn, kind)
            of_part = maps[chosen]
            whole = auroc(image_scores(of_part)[score].numpy(), part.labels.numpy())
            undamaged = of_part.clone()  # the same images, each under its own mask
            undamaged[part.labels] = of_part[~part.labels][: int(part.labels.sum())]
            left, without = (remains(part, found, score) for found in (of_part, undamaged))
            row[SHOWN[kind]] = f"{100 * whole:.0f} → {left:.1f} ({without:.1f})"
        yield row


def full_size(
    root: Path, folders: list[Path], device: torch.device
) -> Iterator[tuple[str, AtHand]]:
    """The runs of N2N at full size that are at hand, by name."""
    for folder in folders:
        for name, record, run in runs_at_hand(folder, root, device):
            full = run.settings.image_size == PRESETS["replication"].image_size
            if full and not record.content["training"].get("by"):  # each training once
                single = record.precision == "float32"
                yield name + ", float32" * single, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    folders = [Path("results"), Path("results/float32")]
    parser.add_argument("--results", type=Path, nargs="+", default=folders)
    options, device = parse(parser)
    root, origin = Path(os.environ["N2N_DATA"]), provenance(device)
    images = load_category(root, "MPDD", "metal_plate", 256, progress=False)
    write_table(
        "photographs",
        "How Metal Plate was photographed",
        "Means, and the smallest and the largest. The wall is what lies more than "
        f"{FAR} pixels beside the plate.",
        list(photographed(images)),
        origin,
    )
    write_table(
        "hidden_good",
        "With the defects hidden",
        "In brackets: of good test images under masks on their own plates. Of each pair both lose "
        "the same pixels; AUROC in per cent. *The wall alone*: by the mean of the map over what "
        f"lies more than {FAR} pixels beside the plate.",
        list(hidden(images, root, options.results, device)),
        origin,
    )
    write_table(
        "leaks",
        "Where the defect is all that differs",
        "AUROC of images in per cent, defects that a program drew on held-out good images against "
        "these: whole → with the defects hidden in both images of a pair (in brackets: what the "
        "same images come to without the defect).",
        list(leaks(root, options.results, device)),
        origin,
    )


if __name__ == "__main__":
    main()
