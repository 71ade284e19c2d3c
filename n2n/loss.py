"""Eq. (2)-(9): MS-SSIM + l1 of Zhao et al. (2017), a value for every pixel.

Unlike the MS-SSIM of Wang et al. (2003), no image is down-sampled: Gaussian filters of growing
sigma are all applied at full resolution, so that the loss is the mean of a map, and the same map
localises anomalies (Section 3.3, last sentence).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from n2n.corruption import to_unit
from n2n.settings import Settings

TRUNCATE = 4.0  # the filters end at so many sigmas, as SciPy's do; the rest weighs 6e-5


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a matrix first made in inference mode could not serve training
def gaussian_matrix(
    size: int, sigma: float, border: str, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The weights omega of Eq. (3) along one axis, as a banded matrix (size, size).

    The two-dimensional filter is ``A X A^T``. On this scale two matrix products are an order of
    magnitude faster than a convolution with up to 65 x 65 taps, and just as exact.

    Args:
        size: pixels along the axis, more than ``4 * sigma``.
        sigma: standard deviation in pixels.
        border: 'reflect' mirrors the image about the centre of its outermost pixels; 'zero'
            surrounds it by zeros.
        device: where the matrix lives.
        dtype: its precision; it is computed in float64.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (taps / sigma) ** 2)
    weights /= weights.sum()
    rows = torch.arange(size)[:, None].expand(-1, len(taps))
    columns = rows + taps.long()
    if border == "reflect":
        columns = columns.abs()
        columns = torch.minimum(columns, 2 * (size - 1) - columns)
        inside = torch.ones_like(columns, dtype=torch.bool)
    else:
        inside = (columns >= 0) & (columns < size)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    values = weights.expand_as(columns)[inside]
    matrix.index_put_((rows[inside], columns[inside]), values, accumulate=True)
    return matrix.to(device=device, dtype=dtype)


def gaussian_filter(x: Tensor, sigma: float, border: str) -> Tensor:
    """Eq. (3) at every pixel: the Gaussian-weighted mean of ``x``, (..., H, W) to (..., H, W)."""
    height, width = x.shape[-2:]
    vertical = gaussian_matrix(height, sigma, border, x.device, x.dtype)
    horizontal = gaussian_matrix(width, sigma, border, x.device, x.dtype)
    return vertical @ (x @ horizontal.T)


def luminance(mu_x: Tensor, mu_y: Tensor, c1: float) -> Tensor:
    """Eq. (2), the similarity of two local means, at each pixel."""
    return (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)


def contrast_structure(covariance: Tensor, variances: Tensor, c2: float) -> Tensor:
    """Eq. (4) at each pixel; ``variances`` is the sum of both images' variances."""
    return (2 * covariance + c2) / (variances + c2)


def ms_ssim(
    x: Tensor, y: Tensor, sigmas: tuple[float, ...], c1: float, c2: float, border: str
) -> Tensor:
    """Eq. (7): ``l_M(p)`` times the product of ``cs_j(p)``, (N, C, H, W), each at most 1.

    The variances and the covariance of Eq. (5) and (6) are taken as differences of weighted
    means, ``E[xy] - E[x] E[y]``; since Eq. (4) needs only the sum of both variances, four
    filters per sigma suffice.
    """
    moments = torch.stack([x, y, x * x + y * y, x * y])
    similarity: Tensor | None = None
    for sigma in sigmas:
        mu_x, mu_y, mean_squares, mean_product = gaussian_filter(moments, sigma, border)
        cs = contrast_structure(
            covariance=mean_product - mu_x * mu_y,  # Eq. (6)
            variances=mean_squares - (mu_x**2 + mu_y**2),  # Eq. (5), of x and of y
            c2=c2,
        )
        similarity = cs if similarity is None else similarity * cs
    assert similarity is not None
    return similarity * luminance(mu_x, mu_y, c1)  # once, at the last sigma


def error_map(reconstruction: Tensor, original: Tensor, settings: Settings) -> Tensor:
    """The loss of Eq. (9) before the mean over the pixels, which is also the anomaly map.

    'The l1 loss multiplied by the Gaussian filter' is read as in Zhao et al.: the absolute error
    weighted by the Gaussian of the largest sigma around each pixel. Channels are averaged.

    Args:
        reconstruction: normalised, (N, 3, H, W); any floating type, computed in float32 at least.
        original: normalised, the same shape.
        settings: alpha, sigmas, c1, c2, border and loss_range.

    Returns:
        (N, H, W), zero where both agree.
    """
    with torch.autocast(original.device.type, enabled=False):
        x, y = reconstruction.to(original.dtype), original
        if settings.loss_range == "unit":
            x, y = to_unit(x), to_unit(y)
        dissimilarity = 1 - ms_ssim(
            x, y, settings.sigmas, settings.c1, settings.c2, settings.border
        )  # the summand of Eq. (8)
        absolute = gaussian_filter((x - y).abs(), settings.sigmas[-1], settings.border)
        return (settings.alpha * dissimilarity + (1 - settings.alpha) * absolute).mean(1)


def total_loss(reconstruction: Tensor, original: Tensor, settings: Settings) -> Tensor:
    """Eq. (9), a scalar: the mean of `error_map` over pixels (Eq. (8)), channels and images.

    With ``settings.loss == "pytorch-msssim"``, the down-sampling MS-SSIM of Wang et al. and a
    plain l1 stand in their places: an alternative for comparison, not the paper's loss.
    """
    if settings.loss == "zhao":
        return error_map(reconstruction, original, settings).mean()
    from pytorch_msssim import ms_ssim as scalar_ms_ssim

    x, y = to_unit(reconstruction.to(original.dtype)), to_unit(original)
    similarity: Tensor = scalar_ms_ssim(x, y, data_range=1.0)
    return settings.alpha * (1 - similarity) + (1 - settings.alpha) * (x - y).abs().mean()
