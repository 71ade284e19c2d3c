"""Synthetic defects on held-out normal images: a development set without test labels.

A setting that the paper leaves open can be judged on it before the real test images are looked at.
The three defects are drawn by rules that know nothing of the real ones:

- *transplant*: a patch of another image at another place, as in CutPaste (Li et al. 2021);
- *stain*: a soft-edged blob whose colour is shifted and whose surface is mottled;
- *scratch*: a thin bent line, lighter or darker than what lies under it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from n2n.data import LEAST_TRAINING
from n2n.errors import N2NError

Image = NDArray[np.float64]  # (3, S, S), 0 to 255
Weight = NDArray[np.float64]  # (S, S), 0 to 1: how much of the defect covers a pixel


def synthetic_defects(images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Each image with each of the three kinds of defect.

    Args:
        images: normal images, uint8, (N, 3, S, S), N at least 2.
        seed: of the place, the size and the strength of the defects.

    Returns:
        The images, uint8, (3 N, 3, S, S), their masks, bool, (3 N, S, S), where the defect covers
        more than half of a pixel, and the kind of each.

    Raises:
        N2NError: where there are fewer than two images.
    """
    if len(images) < 2:
        raise N2NError(
            f"Synthetic defects need two held-out normal images at least, not {len(images)}; "
            f"add to train/good, until there are {LEAST_TRAINING}."
        )
    pictures = images.numpy().astype(np.float64)
    made, masks, kinds = [], [], []
    for index, picture in enumerate(pictures):
        for number, (kind, draw) in enumerate(KINDS.items()):
            rng = default_rng([seed, index, number])
            other = pictures[(index + 1 + int(rng.integers(len(pictures) - 1))) % len(pictures)]
            defect, weight = draw(picture, other, rng)
            blended = picture + weight * (defect - picture)
            made.append(torch.from_numpy(blended.clip(0, 255).round().astype(np.uint8)))
            masks.append(torch.from_numpy(weight > 0.5))
            kinds.append(kind)
    return torch.stack(made), torch.stack(masks), kinds


def _transplant(picture: Image, other: Image, rng: Generator) -> tuple[Image, Weight]:
    side = picture.shape[-1]
    rows, columns = (int(n) for n in rng.uniform(0.04, 0.16, 2) * side)
    top, left, from_top, from_left = (
        int(rng.integers(round(0.1 * side), round(0.9 * side) - extent))
        for extent in (rows, columns, rows, columns)
    )
    defect, weight = picture.copy(), np.zeros((side, side))
    patch = other[:, from_top : from_top + rows, from_left : from_left + columns]
    defect[:, top : top + rows, left : left + columns] = patch
    weight[top : top + rows, left : left + columns] = 1
    return defect, weight


def _stain(picture: Image, other: Image, rng: Generator) -> tuple[Image, Weight]:
    side = picture.shape[-1]
    y, x, cy, cx = _place(side, rng)
    radius = rng.uniform(0.02, 0.08) * side
    wobble = gaussian_filter(rng.standard_normal((side, side)), side / 40)
    distance = np.hypot(y - cy, x - cx) / radius + 0.3 * wobble / wobble.std()
    weight = 1 / (1 + np.exp(8 * (distance - 1)))
    colour = rng.choice([-1.0, 1.0]) * rng.uniform(25, 70) + rng.normal(0, 15, 3)
    mottle = gaussian_filter(rng.standard_normal((side, side)), 1)
    return picture + colour[:, None, None] + 12 * mottle / mottle.std(), weight


def _scratch(picture: Image, other: Image, rng: Generator) -> tuple[Image, Weight]:
    side = picture.shape[-1]
    y, x, cy, cx = _place(side, rng)
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.08, 0.3) * side
    bend = rng.uniform(-1, 1) / side
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle) - bend * along**2
    width = rng.uniform(0.5, 1.5) * side / 256
    inside = np.maximum(np.abs(across) - width, np.abs(along) - length / 2)
    weight = np.clip(0.5 - inside, 0, 1)
    return picture + rng.choice([-1.0, 1.0]) * rng.uniform(30, 90), weight


def _place(side: int, rng: Generator) -> tuple[Weight, Weight, float, float]:
    """Rows and columns of all pixels, (S, S) each, and a point in the middle 80 % of the image."""
    y, x = np.mgrid[:side, :side].astype(np.float64)
    cy, cx = rng.uniform(0.1, 0.9, 2) * side
    return y, x, cy, cx


KINDS: dict[str, Callable[[Image, Image, Generator], tuple[Image, Weight]]] = {
    "transplant": _transplant,
    "stain": _stain,
    "scratch": _scratch,
}
