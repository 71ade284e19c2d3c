"""Eq. (1): an image blended with Gaussian noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from n2n.settings import PRESETS, Settings


def normalise(images: Tensor, settings: Settings = PRESETS["replication"]) -> Tensor:
    """Images as uint8 0..255 to floats on [-1, 1], less 0.5 and over 0.5 (Section 3.1).

    Or, as the settings say, so that every channel of every image has mean 0.5 and deviation 0.5,
    those of the noise (decision D11), or all channels of an image together, or with all contrast
    raised by the same factor; some of it is then beyond [-1, 1].
    """
    x0 = images.float() / 127.5 - 1.0
    if settings.standardise:
        mean, deviation = _moments(x0, settings)
        return (x0 - mean) / deviation * 0.5 + 0.5
    return x0 * settings.contrast


def to_unit(images: Tensor) -> Tensor:
    """Normalised images on [-1, 1] back to [0, 1]."""
    return images * 0.5 + 0.5


def to_photograph(x: Tensor, images: Tensor, settings: Settings) -> Tensor:
    """Undo `normalise`, as it was done to ``images``, and cut to what a photograph has, [0, 1]."""
    if settings.standardise:
        mean, deviation = _moments(normalise(images), settings)
        x = (x - 0.5) / 0.5 * deviation + mean
    else:
        x = x / settings.contrast
    return to_unit(x).clamp(0, 1)


def _moments(x0: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Mean and deviation, of each channel (N, C, 1, 1) or of an image (N, 1, 1, 1).

    The latter is at least a grey value, as flat images have 0.
    """
    pixels = (1, 2, 3) if settings.channels_together else (2, 3)
    deviation, mean = torch.std_mean(x0, pixels, correction=0, keepdim=True)
    return mean, deviation.clamp_min(1 / 127.5)


def corrupt(x0: Tensor, epsilon: Tensor, noise: float) -> Tensor:
    """Eq. (1): ``x = (1 - lambda) x0 + lambda epsilon``.

    Args:
        x0: normalised images, (N, 3, H, W).
        epsilon: noise of a shape that broadcasts against ``x0``; see `draw_noise`.
        noise: the coefficient lambda, from 0 (the image) to 1 (only noise).
    """
    return (1.0 - noise) * x0 + noise * epsilon


def draw_noise(shape: tuple[int, ...], settings: Settings, generator: torch.Generator) -> Tensor:
    """The epsilon of Eq. (1), from N(0.5, 0.5) unless the settings say otherwise.

    The second parameter is read as a standard deviation, as in the normalisation of the same
    paragraph. It is drawn on the generator's device.

    With a ``noise_grain`` above 1, values are drawn so many pixels apart and blended in between,
    as Kascenas et al. (2022) do. Of several ``noise_octaves`` each has half the grain of the one
    before, and all count the same (Wyatt et al. 2022 let the finer ones count less). Each pixel
    keeps the mean and the deviation.
    """
    coarsest, *finer = settings.noise_grains
    epsilon = _standard_noise(shape, coarsest, generator)
    for grain in finer:
        epsilon += _standard_noise(shape, grain, generator)
    deviation = settings.noise_std / math.sqrt(settings.noise_octaves)
    return epsilon.mul_(deviation).add_(settings.noise_mean)


def _standard_noise(shape: tuple[int, ...], grain: int, generator: torch.Generator) -> Tensor:
    """Values from N(0, 1), independent of each other from one ``grain`` of pixels to the next."""
    device = generator.device
    if grain == 1:
        return torch.randn(shape, generator=generator, device=device)
    down, along = (_blend(size, grain, device) for size in shape[-2:])
    drawn = (*shape[:-2], down.shape[1], along.shape[1])
    return down @ torch.randn(drawn, generator=generator, device=device) @ along.T


def _blend(size: int, grain: int, device: torch.device) -> Tensor:
    """Linear interpolation along an axis of ``size`` pixels, (size, drawn values).

    Its rows have the norm 1, so that a sum of independent values keeps their deviation.
    """
    drawn = torch.eye(size // grain + 1, device=device)
    weights = interpolate(drawn[None], size, mode="linear", align_corners=True)[0].T
    blended: Tensor = weights / weights.norm(dim=1, keepdim=True)
    return blended


def fixed_noise(settings: Settings, draw: int = 0) -> Tensor:
    """The noise field that validation and detection put on every image, (1, 3, H, W).

    One field for all images makes their scores comparable and free of the order and the size of
    the batches; it is drawn on the CPU, so that every device sees the same.
    """
    generator = torch.Generator().manual_seed(1_000_003 + draw)
    side = settings.image_size
    return draw_noise((1, 3, side, side), settings, generator)


def detection_noise(settings: Settings, draw: int = 0) -> Tensor:
    """What detection puts on every image, (1, 3, H, W): `fixed_noise`, or its mean everywhere."""
    noise = fixed_noise(settings, draw)
    return torch.full_like(noise, settings.noise_mean) if settings.mean_at_test else noise
