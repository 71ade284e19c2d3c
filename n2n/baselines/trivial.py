"""Detectors that see no small defect, measured on the same images.

What they reach, an image-level AUROC owes to how the photographs were taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.baselines.anomalib_models import Found
from n2n.baselines.settings import BaselineSettings, Quantity
from n2n.corruption import normalise, to_unit
from n2n.loss import gaussian_filter

FINE = 2.0  # pixels: detail is what a Gaussian filter of this width takes away


class NearestThumbnail(nn.Module):
    """How far an image, seen from afar, is from the nearest training image.

    Of an image of 256x256 pixels in 8x8 cells, each the mean of 32x32 pixels, hardly more is left
    than the pose, the light and the background: whoever is told apart by this, is so without a look
    at a small defect. Map and score are the squared difference from the nearest thumbnail.

    Args:
        images: the normal training images, uint8, (N, 3, S, S).
        side: cells along each side.
    """

    known: Tensor

    def __init__(self, images: Tensor, side: int) -> None:
        super().__init__()
        self.side = side
        parts = [self.thumbnails(normalise(part)) for part in torch.split(images, 64)]
        self.register_buffer("known", torch.cat(parts))

    def thumbnails(self, x0: Tensor) -> Tensor:
        """Normalised images, (N, 3, S, S), to (N, 3, side, side)."""
        return F.adaptive_avg_pool2d(x0, self.side)

    def forward(self, x0: Tensor) -> Found:
        """Normalised images, (N, 3, S, S), to maps, (N, S, S), and scores."""
        seen = self.thumbnails(x0)
        nearest = torch.cdist(seen.flatten(1), self.known.flatten(1)).argmin(1)
        apart = (seen - self.known[nearest]).square().mean(1)
        maps = F.interpolate(apart[:, None], size=x0.shape[-2:])[:, 0]
        return Found(maps, apart.mean((1, 2)))


class MeanQuantity(nn.Module):
    """How far one number of an image, the mean of a quantity, is from that of the training images.

    No defect can be found by it; whoever is told apart by it, is so by how the picture was taken.
    The map is the quantity itself, from 0 to 1; the score is the absolute difference of its mean
    from the mean over the training images.

    Args:
        images: the normal training images, uint8, (N, 3, S, S).
        quantity: 'brightness', the mean of the three colours; 'saturation', the largest less the
            smallest of them; 'detail', how far they are from their Gaussian-weighted mean nearby.
    """

    usual: Tensor

    def __init__(self, images: Tensor, quantity: Quantity) -> None:
        super().__init__()
        self.quantity = quantity
        parts = [self.measure(normalise(part)).mean((1, 2)) for part in torch.split(images, 64)]
        self.register_buffer("usual", torch.cat(parts).mean())

    def measure(self, x0: Tensor) -> Tensor:
        """The quantity at each pixel of normalised images, (N, 3, S, S) to (N, S, S)."""
        colours = to_unit(x0)
        match self.quantity:
            case "brightness":
                return colours.mean(1)
            case "saturation":
                return colours.amax(1) - colours.amin(1)
            case "detail":
                return (colours - gaussian_filter(colours, FINE, "reflect")).abs().mean(1)

    def forward(self, x0: Tensor) -> Found:
        """Normalised images, (N, 3, S, S), to maps, (N, S, S), and scores."""
        maps = self.measure(x0)
        return Found(maps, (maps.mean((1, 2)) - self.usual).abs())


def fit_trivial(images: Tensor, settings: BaselineSettings) -> nn.Module:
    """What 'thumbnail' or 'image-mean' knows of the normal images, uint8, (N, 3, S, S)."""
    if settings.method == "thumbnail":
        return NearestThumbnail(images, settings.side)
    return MeanQuantity(images, settings.quantity)
