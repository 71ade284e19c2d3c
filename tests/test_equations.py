"""Each equation by itself: its value against the printed sums, its gradient by differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from n2n import loss
from n2n.corruption import corrupt
from n2n.loss import (
    contrast_structure,
    error_map,
    gaussian_filter,
    gaussian_matrix,
    luminance,
    ms_ssim,
)
from n2n.settings import make_settings
from tests.test_loss import PADDING, ZHAO, by_scipy, options, pictures

SIGMAS = (0.5, 1.5)
C1, C2 = 0.01, 0.03
CASES = list(
    itertools.product(
        [("random", "noisy step"), ("step", "checkerboard"), ("checkerboard", "gradient")],
        ["reflect", "zero"],
    )
)


def pair(names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """One channel of two pictures of 9 x 11 pixels, all of them near a border, (1, 1, 9, 11)."""
    known = pictures(height=9, width=11)
    first, second = (torch.tensor(known[name][None, :1]) for name in names)
    return 0.9 * first, 0.9 * second + 0.03  # apart everywhere: |x - y| has a slope


def printed(x: Tensor, y: Tensor, sigma: float, border: str) -> dict[str, np.ndarray]:
    """Eq. (2)-(6) of one sigma, each pixel's window summed as printed."""
    radius = int(4 * sigma + 0.5)
    offset = np.arange(-radius, radius + 1)
    omega = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * sigma**2))
    omega /= omega.sum()
    xi, yi = (
        np.lib.stride_tricks.sliding_window_view(
            np.pad(image[0, 0].numpy(), radius, PADDING[border]), omega.shape
        )
        for image in (x, y)
    )
    mu_x, mu_y = (omega * xi).sum((2, 3)), (omega * yi).sum((2, 3))
    dx, dy = xi - mu_x[..., None, None], yi - mu_y[..., None, None]
    variances = (omega * dx**2).sum((2, 3)) + (omega * dy**2).sum((2, 3))
    covariance = (omega * dx * dy).sum((2, 3))
    return {
        "mu_x": mu_x,
        "mu_y": mu_y,
        "covariance": covariance,
        "variances": variances,
        "l": (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1),
        "cs": (2 * covariance + C2) / (variances + C2),
    }


@pytest.mark.parametrize(("names", "border"), CASES)
def test_values(names: tuple[str, str], border: str) -> None:
    x, y = pair(names)
    similarity = np.ones((9, 11))
    for sigma in SIGMAS:
        expected = printed(x, y, sigma, border)
        statistics = loss._statistics(loss._moments(x, y), sigma, border)
        mu_x, mu_y, covariance, variances = statistics
        found = {
            "mu_x": gaussian_filter(x, sigma, border),  # Eq. (3)
            "mu_y": mu_y,
            "covariance": covariance,  # Eq. (6)
            "variances": variances,  # Eq. (5), of both images together
            "l": luminance(mu_x, mu_y, C1),  # Eq. (2)
            "cs": contrast_structure(covariance, variances, C2),  # Eq. (4)
        }
        for name, value in found.items():
            np.testing.assert_allclose(value[0, 0], expected[name], rtol=0, atol=1e-12)
        similarity *= expected["cs"]
    similarity *= expected["l"]  # Eq. (7): once, at the last sigma
    found = ms_ssim(x, y, SIGMAS, C1, C2, border)
    np.testing.assert_allclose(found[0, 0], similarity, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("names", "border"), CASES)
def test_gradients(names: tuple[str, str], border: str) -> None:
    """In both arguments, at every pixel, of each equation that has images or means in it."""
    x, y = (image.requires_grad_() for image in pair(names))
    settings = options(border=border, sigmas=SIGMAS)
    assert gradcheck(lambda x, y: corrupt(x, y, 0.3), (x, y))  # Eq. (1)
    assert gradcheck(lambda x, y: luminance(x, y, C1), (x, y))  # Eq. (2)
    for sigma in SIGMAS:
        assert gradcheck(lambda x, s=sigma: gaussian_filter(x, s, border), (x,))  # Eq. (3)
        assert gradcheck(  # Eq. (5) and (6)
            lambda x, y, s=sigma: loss._statistics(loss._moments(x, y), s, border), (x, y)
        )
    assert gradcheck(lambda a, b: contrast_structure(a, b**2, C2), (x, y))  # Eq. (4)
    assert gradcheck(lambda x, y: ms_ssim(x, y, SIGMAS, C1, C2, border), (x, y))  # Eq. (7)
    coloured = [image.detach().expand(1, 3, 9, 11).clone().requires_grad_() for image in (x, y)]
    assert gradcheck(lambda x, y: error_map(x, y, settings).mean(), coloured)  # Eq. (8) and (9)


@pytest.mark.parametrize("sigma", ZHAO)
def test_what_the_filters_leave_out(sigma: float) -> None:
    """A bound on the truncation: weights of mass m are left out and given to the others.

    So the weights along one axis differ by 2 m in sum, and since rows sum to one, those of the
    two-dimensional filter by 4 m: no filtered value moves by more than 4 m of the largest.
    """
    taps = np.arange(-200, 201)
    weights = np.exp(-0.5 * (taps / sigma) ** 2)
    weights /= weights.sum()
    radius = int(loss.TRUNCATE * sigma + 0.5)
    mass = weights[abs(taps) > radius].sum()
    assert mass < 6.4e-5
    image = pictures(height=72, width=80)["random"]
    whole = np.pad(image, ((0, 0), (200, 200), (200, 200)))
    for axis in (1, 2):
        whole = np.apply_along_axis(np.convolve, axis, whole, weights, "same")
    found = gaussian_filter(torch.tensor(image), sigma, "zero").numpy()
    difference = abs(found - whole[:, 200:-200, 200:-200]).max()
    assert difference <= 4 * mass * abs(image).max() + 1e-12


def test_what_truncation_does_to_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the book says: below a thousandth at a pixel, below 3e-5 in the mean."""
    known = pictures(height=72, width=80)
    x, y = (torch.tensor(known[name][None]) for name in ("random", "noisy step"))
    settings = make_settings()
    usual = error_map(x, y, settings)
    np.testing.assert_allclose(usual, by_scipy(x.numpy(), y.numpy(), settings), atol=1e-11)
    monkeypatch.setattr(loss, "TRUNCATE", 8.0)
    gaussian_matrix.cache_clear()
    exact = error_map(x, y, settings)
    gaussian_matrix.cache_clear()
    assert 0 < float((usual - exact).abs().max()) < 1e-3
    assert float((usual.mean() - exact.mean()).abs()) < 3e-5
