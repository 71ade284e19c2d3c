"""Eq. (2)-(9): MS-SSIM + l1 of Zhao et al. (2017), a value for every pixel.

Unlike the MS-SSIM of Wang et al. (2003), no image is down-sampled: Gaussian filters of growing
sigma are all applied at full resolution, so that the loss is the mean of a map, and the same map
localises anomalies (Section 3.3, last sentence).

`ms_ssim` and `error_map` state the equations; the gradient that training needs of their mean is
derived by hand in `_ms_ssim_gradient`, which is faster than automatic differentiation and exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.backends import mkldnn
from torch.nn.functional import conv2d, pad

from n2n.corruption import to_unit
from n2n.settings import Settings

TRUNCATE = 4.0  # the filters end at so many sigmas, as SciPy's do; the rest weighs 6e-5
GROUP = 16  # columns that are channels of the convolutions on a CPU, as many as a register holds


def filter_radius(sigma: float) -> int:
    """How many taps a filter has on either side of its centre."""
    return int(TRUNCATE * sigma + 0.5)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a matrix first made in inference mode could not serve training
def gaussian_matrix(
    size: int, sigma: float, border: str, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The weights omega of Eq. (3) along one axis, as a banded matrix (size, size).

    The two-dimensional filter is ``A X B^T``. Two matrix products are an order of magnitude faster
    than a convolution with up to 65 x 65 taps, and just as exact.

    Args:
        size: pixels along the axis, more than ``4 * sigma``.
        sigma: standard deviation in pixels.
        border: 'reflect' mirrors the image about the centre of its outermost pixels; 'zero'
            surrounds it by zeros.
        device: where the matrix lives.
        dtype: its precision; it is computed in float64.
    """
    radius = filter_radius(sigma)
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


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _kernels(sigma: float) -> tuple[Tensor, Tensor]:
    """The filter as two convolutions of float32 images whose channels are `GROUP` columns.

    Down the columns every channel has the same taps, (GROUP, 1, taps, 1). Along the rows each
    column takes from all columns of its group and of the groups in reach, (GROUP, GROUP, 1,
    groups): the matrix of the filter again, in blocks.
    """
    radius = filter_radius(sigma)
    centre = gaussian_matrix(2 * radius + 1, sigma, "zero", torch.device("cpu"), torch.float32)
    taps = centre[radius].view(1, 1, -1, 1).repeat(GROUP, 1, 1, 1)
    aside = -(-radius // GROUP)
    groups = 2 * aside + 1
    matrix = gaussian_matrix(groups * GROUP, sigma, "zero", torch.device("cpu"), torch.float32)
    rows = matrix[aside * GROUP : (aside + 1) * GROUP]
    return taps, rows.view(GROUP, groups, 1, GROUP).permute(0, 3, 2, 1).contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _corners(size: int, sigma: float, border: str) -> list[tuple[slice, slice, Tensor]]:
    """What the border adds to a matrix that has zeros around the image: (rows, columns, block)."""
    cpu, radius = torch.device("cpu"), filter_radius(sigma)
    if border == "zero" or radius == 0:
        return []
    whole, inner = (gaussian_matrix(size, sigma, b, cpu, torch.float64) for b in (border, "zero"))
    ends = (
        (slice(0, radius), slice(0, radius + 1)),
        (slice(-radius, None), slice(-radius - 1, None)),
    )
    return [(*end, (whole - inner)[end].float()) for end in ends]


def gaussian_filter(x: Tensor, sigma: float, border: str, *, adjoint: bool = False) -> Tensor:
    """Eq. (3) at every pixel: the Gaussian-weighted mean of ``x``, (..., H, W) to (..., H, W).

    By its definition ``A X B^T`` with the matrices of `gaussian_matrix`; its adjoint ``A^T X B``
    carries gradients back through it.
    """
    onednn = mkldnn.is_available()  # type: ignore[no-untyped-call]
    inner = min(x.shape[-2:]) > 2 * filter_radius(sigma)  # opposite borders are apart
    if onednn and inner and x.device.type == "cpu" and x.dtype == torch.float32:
        return _by_convolutions(x, sigma, border, adjoint)
    return _by_matrices(x, sigma, border, adjoint)


def _by_matrices(x: Tensor, sigma: float, border: str, adjoint: bool) -> Tensor:
    """`gaussian_filter` as it is defined."""
    vertical, horizontal = (
        gaussian_matrix(size, sigma, border, x.device, x.dtype) for size in x.shape[-2:]
    )
    return vertical.T @ (x @ horizontal) if adjoint else vertical @ (x @ horizontal.T)


def _by_convolutions(x: Tensor, sigma: float, border: str, adjoint: bool) -> Tensor:
    """The same by oneDNN, which leaves out the zeros outside the band: three times as fast.

    An image in memory is also one of `GROUP` channels, channels last, with as many fewer columns;
    so nothing is copied. The convolutions have zeros around the image, which makes them their own
    adjoints; what a mirrored border adds are the small corners of the matrices.
    """
    height, width = x.shape[-2:]
    radius = filter_radius(sigma)
    down, along = _kernels(sigma)
    images = x.reshape(-1, height, width)
    if width % GROUP:
        images = pad(images, (0, -width % GROUP))
    filtered = conv2d(_in_groups(images), down, padding=(radius, 0), groups=GROUP)
    columns = _out_of_groups(filtered)
    for rows, near, block in _corners(height, sigma, border):
        if adjoint:
            rows, near, block = near, rows, block.T
        columns[:, rows] += block @ images[:, near]
    filtered = conv2d(_in_groups(columns), along, padding=(0, along.shape[-1] // 2))
    out, columns = (t[..., :width] for t in (_out_of_groups(filtered), columns))
    for rows, near, block in _corners(width, sigma, border):
        if adjoint:
            rows, near, block = near, rows, block.T
        out[..., rows] += columns[..., near] @ block.T
    return out.reshape(x.shape)


def _in_groups(images: Tensor) -> Tensor:
    """(N, H, W) as (N, GROUP, H, W / GROUP), channels last: a view."""
    count, height, width = images.shape
    return images.reshape(count, height, width // GROUP, GROUP).permute(0, 3, 1, 2)


def _out_of_groups(images: Tensor) -> Tensor:
    """The inverse of `_in_groups`."""
    return images.permute(0, 2, 3, 1).flatten(-2)


def luminance(mu_x: Tensor, mu_y: Tensor, c1: float) -> Tensor:
    """Eq. (2), the similarity of two local means, at each pixel."""
    return (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)


def contrast_structure(covariance: Tensor, variances: Tensor, c2: float) -> Tensor:
    """Eq. (4) at each pixel; ``variances`` is the sum of both images' variances."""
    return (2 * covariance + c2) / (variances + c2)


def ms_ssim(
    x: Tensor, y: Tensor, sigmas: tuple[float, ...], c1: float, c2: float, border: str
) -> Tensor:
    """Eq. (7): ``l_M(p)`` times the product of ``cs_j(p)``, (N, C, H, W), at most 1."""
    return reduce(torch.mul, similarity_factors(x, y, sigmas, c1, c2, border))


def similarity_factors(
    x: Tensor, y: Tensor, sigmas: tuple[float, ...], c1: float, c2: float, border: str
) -> Iterator[Tensor]:
    """The factors of Eq. (7), (N, C, H, W) each: every ``cs_j(p)``, then ``l_M(p)``."""
    moments = _moments(x, y)
    for sigma in sigmas:
        mu_x, mu_y, covariance, variances = _statistics(moments, sigma, border)
        yield contrast_structure(covariance, variances, c2)
    yield luminance(mu_x, mu_y, c1)  # once, at the last sigma


def _moments(x: Tensor, y: Tensor) -> Tensor:
    """What is filtered: since Eq. (4) needs only the sum of both variances, four suffice."""
    return torch.stack([x, y, x * x + y * y, x * y])


def _statistics(
    moments: Tensor, sigma: float, border: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both means, the covariance and the sum of the variances: Eq. (3), (6) and (5).

    The latter two are taken as differences of weighted means, ``E[xy] - E[x] E[y]``.
    """
    mu_x, mu_y, mean_squares, mean_product = gaussian_filter(moments, sigma, border)
    return mu_x, mu_y, mean_product - mu_x * mu_y, mean_squares - (mu_x * mu_x + mu_y * mu_y)


def _ms_ssim_gradient(
    x: Tensor, y: Tensor, sigmas: tuple[float, ...], c1: float, c2: float, border: str
) -> tuple[Tensor, Tensor]:
    """`ms_ssim`, and the gradient of its sum over all pixels with respect to ``x``.

    With F^T the adjoint of a sigma's filter, and ``g = d ms_ssim / d m`` for its moments
    ``m = (E[x], E[x^2 + y^2], E[xy])``, the chain rule gives

        ``sum over sigmas of  F^T g_1 + 2 x F^T g_2 + y F^T g_3``.

    A product has the derivative of each factor times all the others (Eq. (7)); with the
    denominator ``D = variances + c2`` of Eq. (4),

        ``d cs / d covariance = 2 / D``  and  ``d cs / d variances = - cs / D``.

    So if ``h`` is the product of all factors but this cs, divided by D, then by Eq. (5) and (6)

        ``g_3 = 2 h``,  ``g_2 = - cs h``  and  ``g_1 = 2 E[x] cs h - 2 E[y] h``;

    at the last sigma Eq. (2) adds to g_1 the product of the cs times
    ``d l / d E[x] = 2 (E[y] - l E[x]) / (E[x]^2 + E[y]^2 + c1)``.
    """
    moments = _moments(x, y)
    product = torch.ones_like(x)
    kept = []
    for sigma in sigmas:
        mu_x, mu_y, covariance, variances = _statistics(moments, sigma, border)
        cs = contrast_structure(covariance, variances, c2)
        kept.append((sigma, mu_x, mu_y, variances.add_(c2), cs, product))
        product = product * cs
    l_m = luminance(mu_x, mu_y, c1)

    g = torch.empty_like(moments[:3])  # g_1 / 2, - g_2 and g_3 / 2
    filtered = torch.zeros_like(g)  # F^T of them, summed over the sigmas
    torch.mul(product, (mu_y - l_m * mu_x) / (mu_x**2 + mu_y**2 + c1), out=g[0])
    after = l_m  # the factors of Eq. (7) behind this sigma's; `before` holds those ahead of it
    for sigma, mu_x, mu_y, denominator, cs, before in reversed(kept):
        torch.mul(before, after, out=g[2]).div_(denominator)
        torch.mul(cs, g[2], out=g[1])
        g[0].addcmul_(mu_x, g[1]).addcmul_(mu_y, g[2], value=-1)
        filtered += gaussian_filter(g, sigma, border, adjoint=True)
        g[0] = 0
        after = after * cs
    half = filtered[0].addcmul_(x, filtered[1], value=-1).addcmul_(y, filtered[2])
    return product * l_m, half.mul_(2)


def error_map(reconstruction: Tensor, original: Tensor, settings: Settings) -> Tensor:
    """The loss of Eq. (9) before the mean over the pixels, which is also the anomaly map.

    'The l1 loss multiplied by the Gaussian filter' is read as in Zhao et al.: the absolute error
    weighted by the Gaussian of sigma_M, the last, around each pixel. Channels are averaged.

    Args:
        reconstruction: normalised, (N, 3, H, W); any floating type.
        original: normalised, the same shape, of the type in which it is computed.
        settings: alpha, sigmas, c1, c2, border and loss_range.

    Returns:
        (N, H, W), zero where both agree.
    """
    with torch.autocast(original.device.type, enabled=False):
        x, y = on_loss_range(reconstruction, original, settings)
        dissimilarity = 1 - ms_ssim(
            x, y, settings.sigmas, settings.c1, settings.c2, settings.border
        )  # the summand of Eq. (8)
        absolute = gaussian_filter((x - y).abs(), settings.sigmas[-1], settings.border)
        return (settings.alpha * dissimilarity + (1 - settings.alpha) * absolute).mean(1)


def on_loss_range(
    reconstruction: Tensor, original: Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Both in the precision of the original and on the range that the settings name."""
    x, y = reconstruction.to(original.dtype), original
    return (to_unit(x), to_unit(y)) if settings.loss_range == "unit" else (x, y)


class _MeanError(torch.autograd.Function):
    """The mean of `error_map`, for images on the loss range; differentiable once, in `x`.

    The gradient is computed along with the value and is all that is kept until the backward pass.
    A CPU takes one image at a time, whose filtered moments then stay in its cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
        # The mean of a filtered image is a weighted mean of the image: no filter for the l1 term.
        down, along = (
            gaussian_matrix(size, settings.sigmas[-1], settings.border, x.device, x.dtype).sum(0)
            for size in x.shape[-2:]
        )
        weight = torch.outer(down, along)
        alpha, count = settings.alpha, x.numel()
        total = x.new_zeros(())
        gradient = torch.empty_like(x, memory_format=torch.contiguous_format)
        images = 1 if x.device.type == "cpu" else len(x)
        for xi, yi, out in zip(*(torch.split(t, images) for t in (x, y, gradient)), strict=True):
            similarity, change = _ms_ssim_gradient(
                xi, yi, settings.sigmas, settings.c1, settings.c2, settings.border
            )
            difference = xi - yi
            total += alpha * (1 - similarity).sum()
            total += (1 - alpha) * (difference.abs() * weight).sum()
            torch.mul(difference.sign(), weight, out=out).mul_(1 - alpha).sub_(change, alpha=alpha)
        ctx.save_for_backward(gradient.div_(count))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return scale * gradient, None, None


def total_loss(reconstruction: Tensor, original: Tensor, settings: Settings) -> Tensor:
    """Eq. (9), a scalar: the mean of `error_map` over pixels (Eq. (8)), channels and images.

    With ``settings.loss == "pytorch-msssim"``, the down-sampling MS-SSIM of Wang et al. and a
    plain l1 stand in their places: an alternative for comparison, not the paper's loss.
    """
    with torch.autocast(original.device.type, enabled=False):
        if settings.loss == "zhao":
            if not (torch.is_grad_enabled() and reconstruction.requires_grad):
                return error_map(reconstruction, original, settings).mean()
            x, y = on_loss_range(reconstruction, original, settings)
            loss: Tensor = _MeanError.apply(x, y, settings)  # type: ignore[no-untyped-call]
            return loss
        from pytorch_msssim import ms_ssim as scalar_ms_ssim

        x, y = to_unit(reconstruction.to(original.dtype)), to_unit(original)
        similarity: Tensor = scalar_ms_ssim(x, y, data_range=1.0)
        return settings.alpha * (1 - similarity) + (1 - settings.alpha) * (x - y).abs().mean()
