"""What a test comes to that hides defects, on drawn plates; ``benchmarks/photographs.py``."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import photographs
from n2n.data import Category

SIDE = 64
CORNERS = [(8, 10), (12, 20), (20, 8), (24, 26), (16, 14)]


def pictures() -> tuple[torch.Tensor, np.ndarray]:
    """A blue square of 24 pixels with a hole before a grey wall, at several places."""
    images = torch.full((len(CORNERS), 3, SIDE, SIDE), 180, dtype=torch.uint8)
    squares = np.zeros((len(CORNERS), SIDE, SIDE), bool)
    for image, square, (top, left) in zip(images, squares, CORNERS, strict=True):
        square[top : top + 24, left : left + 24] = True
        image[:, torch.from_numpy(square)] = torch.tensor([[20], [40], [200]], dtype=torch.uint8)
        image[:, top + 10 : top + 14, left + 10 : left + 14] = 180
    return images, squares


def test_a_plate_is_found_by_its_colour_and_the_hole_belongs_to_it() -> None:
    images, squares = pictures()
    found = photographs.plates(images)
    assert (found ^ squares).sum((1, 2)).max() <= 12  # corners are rounded
    assert found[0, 8 + 12, 10 + 12]
    assert not (photographs.walls(found) & squares).any()


def test_a_borrowed_mask_lies_on_the_plate() -> None:
    _, squares = pictures()
    bar = np.zeros((1, SIDE, SIDE), bool)
    bar[0, 30:34, 24:44] = True
    mask = photographs.borrowed(bar, squares[0], np.random.default_rng(0))
    assert mask.any()
    assert not (mask & ~squares[0]).any()


def test_good_images_under_masks_of_their_own_plates_come_to_less_than_half() -> None:
    """Each square hides its own outline and leaves some of the others', in a map of edges."""
    images, squares = pictures()
    maps = torch.zeros(len(images), SIDE, SIDE)
    for one, (top, left) in zip(maps, CORNERS, strict=True):
        one[top : top + 24, [left, left + 23]] = 1.0
        one[[top, top + 23], left : left + 24] = 1.0
    rusty = torch.from_numpy(squares[:1])
    category = Category(
        fingerprint="", train=images, test=torch.cat([images, images[:1]]),
        labels=torch.tensor([False] * len(images) + [True]),
        masks=torch.cat([torch.zeros(len(images), SIDE, SIDE, dtype=torch.bool), rusty]),
        defects=("good",) * len(images) + ("total_rust",),
        names=tuple(map(str, range(len(images) + 1))),
    )  # fmt: skip
    masks = photographs.masks_of_good_images(category)
    found = {
        kind: photographs.of_good_images(category, torch.cat([maps, maps[:1]]), laid, "mean")
        for kind, laid in masks.items()
    }
    assert found["total_rust"] < 25
