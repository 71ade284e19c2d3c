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
from n2n.measurement import development_set, hidden_alike
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


def walls(images: Tensor) -> Mask:
    """The pixels far from the plate."""
    far = [~ndimage.binary_dilation(plate, iterations=FAR) for plate in plates(images)]
    return np.stack(far)


def photographed(images: Category) -> Iterator[dict[str, str]]:
    """A row for the training images and each kind of test images: the plates and the wall."""
    kinds = {"good, training": images.train} | {
        kind.replace("_", " "): images.test[[d == kind for d in images.defects]]
        for kind in dict.fromkeys(images.defects)
    }
    for kind, shown in kinds.items():
        area = 100 * plates(shown).mean((1, 2))
        grey = shown.float().mean(1).numpy() / 255
        bright = [float(one[wall].mean()) for one, wall in zip(grey, walls(shown), strict=True)]
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


def of_good_images(images: Category, maps: Tensor, score: str) -> dict[str, float]:
    """`hidden_alike` of each good test image in turn as if it were bad, by the kind of its mask.

    The mask of rust all over the plate is the image's own plate.
    """
    good = torch.nonzero(~images.labels).flatten()
    own = plates(images.test[good])
    found = {}
    for kind in sorted(set(images.defects) - {"good"}):
        chance = np.random.default_rng(0)
        masks = images.masks[[defect == kind for defect in images.defects]].numpy()
        shares = []
        for index, plate in enumerate(own):
            mask = plate if kind == "total_rust" else borrowed(masks, plate, chance)
            order = torch.cat([good[index : index + 1], good[:index], good[index + 1 :]])
            covers = torch.zeros((len(good), *mask.shape), dtype=torch.bool)
            covers[0] = torch.from_numpy(mask)
            alone = dataclasses.replace(
                images, test=images.test[order], masks=covers, labels=torch.arange(len(good)) < 1
            )
            shares.append(remains(alone, maps[order], score))
        found[kind] = float(np.mean(shares))
    return found


def of_bad_images(images: Category, maps: Tensor, score: str) -> dict[str, float]:
    """`hidden_alike` of the bad test images, kind by kind."""
    found = {}
    for kind in sorted(set(images.defects) - {"good"}):
        found[kind] = remains(*only(images, maps, kind), score)
    return found


def detectors(
    root: Path, folders: list[Path], device: torch.device
) -> Iterator[tuple[str, Category, Tensor, str]]:
    """Name, images, maps and image score: what learns nothing, and N2N."""
    images = load_category(root, "MPDD", "metal_plate", 256, progress=False)
    x0 = normalise(images.test)
    yield "thumbnail 8×8", images, NearestThumbnail(images.train, 8)(x0)[0], "mean"
    for quantity in ("detail", "brightness"):
        yield quantity, images, MeanQuantity(images.train, quantity)(x0)[0], "mean"
    for name, run in full_size(root, folders, device):
        if run.record.key.category == "metal_plate":
            maps = detect(
                run.network, run.images.test, run.settings, device, expected=run.expected
            ).scored
            of = name.split(", ", 1)[1]  # without the part
            yield f"N2N, {of}", run.images, maps, run.settings.image_score


def hidden(root: Path, folders: list[Path], device: torch.device) -> Iterator[dict[str, str]]:
    """A row for each detector: what remains, and what would if nothing were the matter."""
    for name, images, maps, score in detectors(root, folders, device):
        bad, good = of_bad_images(images, maps, score), of_good_images(images, maps, score)
        counts = {kind: images.defects.count(kind) for kind in bad}
        row = {"map": name, "score": score}
        for kind in bad:
            row[kind.replace("_", " ")] = f"{bad[kind]:.0f} ({good[kind]:.0f})"
        means = [
            sum(found[kind] * counts[kind] for kind in counts) / sum(counts.values())
            for found in (bad, good)
        ]
        wall = [float(one[far].mean()) for one, far in zip(maps, walls(images.test), strict=True)]
        yield row | {
            "all": f"{means[0]:.0f} ({means[1]:.0f})",
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
            part, of_part = only(drawn, maps, kind)
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
                single = record.content["provenance"]["precision"] == "float32"
                yield name + ", float32" * single, run


def only(images: Category, maps: Tensor, kind: str) -> tuple[Category, Tensor]:
    """The good images and one kind of bad ones, and their maps."""
    chosen = torch.tensor([defect in ("good", kind) for defect in images.defects])
    part = dataclasses.replace(
        images, test=images.test[chosen], masks=images.masks[chosen], labels=images.labels[chosen]
    )
    return part, maps[chosen]


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
        list(hidden(root, options.results, device)),
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
