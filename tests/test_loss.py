"""Eq. (2)-(9) against their definitions in float64, SciPy, pytorch-msssim and kornia."""

import sys

import numpy as np
import pytest
import pytorch_msssim
import scipy.ndimage
import torch
from kornia.losses import MS_SSIMLoss
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from n2n import loss
from n2n.loss import (
    error_map,
    gaussian_filter,
    gaussian_matrix,
    luminance,
    ms_ssim,
    total_loss,
)
from n2n.settings import Settings, make_settings

# Its package has a function of the same name, which hides the module from an import statement.
pytorch_msssim_internals = sys.modules["pytorch_msssim.ssim"]

ZHAO = (0.5, 1.0, 2.0, 4.0, 8.0)
PRINTED = (0.01, 0.03)
SQUARED = (0.01**2, 0.03**2)
CPU = torch.device("cpu")
PADDING = {"reflect": "reflect", "zero": "constant"}  # in NumPy's words
MODE = {"reflect": "mirror", "zero": "constant"}  # in SciPy's words


def options(**changes) -> Settings:
    return make_settings(**{"image_size": 64, **changes})


def pictures(height: int = 44, width: int = 52) -> dict[str, np.ndarray]:
    """Structured and random images on [-1, 1], (3, H, W), float32 values in float64."""
    rng = np.random.default_rng(0)
    row, column = np.indices((height, width))
    step = np.where(column < width // 2, -1.0, 1.0)
    images = {
        "constant": np.full((height, width), 0.9),
        "black": np.full((height, width), -1.0),
        "step": step,
        "checkerboard": (row + column) % 2 * 2.0 - 1,
        "gradient": np.linspace(-1, 1, height)[:, None] + 0 * column,
        "random": rng.uniform(-1, 1, (3, height, width)),
        "spots": np.where(rng.uniform(size=(3, height, width)) < 0.02, 1.0, -0.2),
        "noisy step": np.clip(0.8 * step + 0.1 * rng.normal(size=(3, height, width)), -1, 1),
    }
    return {
        name: np.broadcast_to(image, (3, height, width)).astype(np.float32).astype(np.float64)
        for name, image in images.items()
    }


PAIRS = [
    ("random", "noisy step"),
    ("step", "noisy step"),
    ("checkerboard", "gradient"),
    ("constant", "step"),
    ("spots", "constant"),
    ("black", "constant"),
]


def batches(pairs=PAIRS, **size) -> tuple[Tensor, Tensor]:
    """The pairs as two batches in float64."""
    known = pictures(**size)
    return tuple(torch.tensor(np.stack([known[pair[i]] for pair in pairs])) for i in (0, 1))


def noise(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    """Uniform on [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1


# ---- Two references: the literal sums over windows, and SciPy's filters


def by_definition(x: np.ndarray, y: np.ndarray, settings: Settings) -> np.ndarray:
    """Eq. (2)-(7) and (9) on one channel: sums over every pixel's window, as printed."""
    if settings.loss_range == "unit":
        x, y = (x + 1) / 2, (y + 1) / 2
    similarity = 1.0
    for sigma in settings.sigmas:
        radius = int(4 * sigma + 0.5)
        offset = np.arange(-radius, radius + 1)
        omega = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * sigma**2))
        omega /= omega.sum()
        xi, yi = (
            sliding_window_view(np.pad(a, radius, PADDING[settings.border]), omega.shape)
            for a in (x, y)
        )
        mu_x = (omega * xi).sum((2, 3))  # Eq. (3)
        mu_y = (omega * yi).sum((2, 3))
        dx, dy = xi - mu_x[..., None, None], yi - mu_y[..., None, None]
        variance_x = (omega * dx**2).sum((2, 3))  # Eq. (5)
        variance_y = (omega * dy**2).sum((2, 3))
        covariance = (omega * dx * dy).sum((2, 3))  # Eq. (6)
        similarity = similarity * (
            (2 * covariance + settings.c2) / (variance_x + variance_y + settings.c2)  # Eq. (4)
        )
    similarity = similarity * (
        (2 * mu_x * mu_y + settings.c1) / (mu_x**2 + mu_y**2 + settings.c1)  # Eq. (2), (7)
    )
    blurred = (omega * abs(xi - yi)).sum((2, 3))
    return settings.alpha * (1 - similarity) + (1 - settings.alpha) * blurred


def by_scipy(x: np.ndarray, y: np.ndarray, settings: Settings) -> np.ndarray:
    """The same from the filtered moments, for whole batches (N, 3, H, W), to (N, H, W)."""

    def filtered(a: np.ndarray, sigma: float) -> np.ndarray:
        for axis in (2, 3):
            a = scipy.ndimage.gaussian_filter1d(
                a, sigma, axis, mode=MODE[settings.border], truncate=4.0
            )
        return a

    if settings.loss_range == "unit":
        x, y = (x + 1) / 2, (y + 1) / 2
    product = np.ones_like(x)
    for sigma in settings.sigmas:
        mu_x, mu_y = filtered(x, sigma), filtered(y, sigma)
        spread = filtered(x * x, sigma) - mu_x**2 + filtered(y * y, sigma) - mu_y**2
        covariance = filtered(x * y, sigma) - mu_x * mu_y
        product *= (2 * covariance + settings.c2) / (spread + settings.c2)
    product *= (2 * mu_x * mu_y + settings.c1) / (mu_x**2 + mu_y**2 + settings.c1)
    absolute = filtered(abs(x - y), settings.sigmas[-1])
    return (settings.alpha * (1 - product) + (1 - settings.alpha) * absolute).mean(1)


# ---- The Gaussian filter


@pytest.mark.parametrize(
    ("size", "sigma"), [(64, 8.0), (64, 0.5), (65, 2.0), (33, 8.0), (17, 4.0), (40, 0.1)]
)
def test_reflecting_rows_sum_to_one(size, sigma):
    """Near the limit too, where a window reaches over all of the image and its mirror image."""
    matrix = gaussian_matrix(size, sigma, "reflect", CPU, torch.float64)
    assert matrix.shape == (size, size)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(size, dtype=torch.float64))


def test_zero_rows_lose_what_lies_outside():
    inner = gaussian_matrix(96, 8.0, "zero", CPU, torch.float64)
    sums = inner.sum(1)
    torch.testing.assert_close(sums[32:-32], torch.ones(32, dtype=torch.float64))
    assert 0.5 < sums[0] < 0.55  # half, and half of the tap in the centre
    assert (sums[:31].diff() > 0).all()
    assert torch.equal(inner, inner.T)


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize(("size", "sigma"), [(64, 8.0), (64, 0.5), (48, 1.7), (33, 8.0)])
def test_matrix_is_scipys_filter_of_every_delta(size, sigma, border):
    expected = scipy.ndimage.gaussian_filter1d(
        np.eye(size), sigma, 0, mode=MODE[border], truncate=4.0
    )
    matrix = gaussian_matrix(size, sigma, border, CPU, torch.float64).numpy()
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("sigma", [0.5, 2.0, 8.0])
def test_filter_is_scipys(sigma, border):
    x = noise(2, 3, 64, 40)
    expected = scipy.ndimage.gaussian_filter(
        x.numpy(), (0, 0, sigma, sigma), mode=MODE[border], truncate=4.0
    )
    np.testing.assert_allclose(gaussian_filter(x, sigma, border), expected, atol=1e-14)


def test_matrix_made_in_inference_mode_serves_training():
    """It is cached: detecting before training must not spoil the gradients after it."""
    gaussian_matrix.cache_clear()
    x, settings = noise(1, 3, 64, 64), options()
    with torch.inference_mode():
        error_map(x, x, settings)
    reconstruction = noise(1, 3, 64, 64, seed=1).requires_grad_()
    total_loss(reconstruction, x, settings).backward()
    assert reconstruction.grad.abs().max() > 0


# ---- The map against its definition


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("loss_range", ["unit", "normalised"])
@pytest.mark.parametrize("constants", [PRINTED, SQUARED])
@pytest.mark.parametrize("sigmas", [(0.5, 1.0, 2.0), (3.0,), (2.0, 0.8)])
def test_map_is_the_printed_sums(border, loss_range, constants, sigmas):
    """At every pixel, corners included; the last sigma is the one of l and of the l1 term."""
    settings = options(
        border=border, loss_range=loss_range, c1=constants[0], c2=constants[1], sigmas=sigmas
    )
    for pair in PAIRS[:4]:
        x, y = batches([pair], height=20, width=26)
        channels = [by_definition(x[0, c].numpy(), y[0, c].numpy(), settings) for c in range(3)]
        actual = error_map(x, y, settings)
        assert actual.shape == (1, 20, 26)
        np.testing.assert_allclose(actual[0], np.mean(channels, 0), rtol=0, atol=1e-11)


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("loss_range", ["unit", "normalised"])
@pytest.mark.parametrize(
    ("constants", "sigmas", "alpha", "bound"),
    [
        (PRINTED, ZHAO, 0.84, 2e-4),
        (SQUARED, ZHAO, 0.84, 6e-3),
        (PRINTED, (1.5, 5.0), 0.025, 2e-4),
        ((0.2, 0.1), (8.0, 1.0), 1.0, 1e-4),
    ],
)
def test_map_is_scipys(border, loss_range, constants, sigmas, alpha, bound):
    """With float64 to 1e-11; with float32 to a bound that the smallness of c2 sets.

    Eq. (5) as a difference of moments loses about 1e-7 to rounding, of which the division by
    c2, where nothing varies, makes 4e-6 (c2 = 0.03) or 1e-4 (0.0009) for each of five factors.
    Largest differences seen: 7e-5 and 2.2e-3.
    """
    settings = options(
        border=border,
        loss_range=loss_range,
        c1=constants[0],
        c2=constants[1],
        sigmas=sigmas,
        alpha=alpha,
    )
    x, y = batches()
    expected = by_scipy(x.numpy(), y.numpy(), settings)
    np.testing.assert_allclose(error_map(x, y, settings), expected, rtol=0, atol=1e-11)
    single = error_map(x.float(), y.float(), settings)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=bound)


def test_luminance_of_greys_about_the_middle():
    """By hand: 45 % and 55 % grey are -0.1 and 0.1 on [-1, 1], where Eq. (2) turns negative."""
    grey = {
        "normalised": (-0.1, 0.1, (-0.02 + 0.01) / (0.02 + 0.01)),
        "unit": (0.45, 0.55, (0.495 + 0.01) / (0.505 + 0.01)),
    }
    for loss_range, (x, y, expected) in grey.items():
        actual = luminance(torch.tensor(x), torch.tensor(y), 0.01)
        assert float(actual) == pytest.approx(expected, rel=1e-5)
        settings = options(loss_range=loss_range)
        flat = error_map(
            torch.full((1, 3, 64, 64), -0.1), torch.full((1, 3, 64, 64), 0.1), settings
        )
        absolute = abs(x - y)
        value = 0.84 * (1 - expected) + 0.16 * absolute  # constant images: each cs is 1
        torch.testing.assert_close(flat, torch.full((1, 64, 64), value), atol=2e-5, rtol=0)


def test_luminance_counts_once_where_a_sigma_repeats():
    """Eq. (7) has one l and as many cs as there are filters."""
    settings = options(sigmas=(2.0, 1.0, 2.0))
    x, y = batches()
    expected = by_scipy(x.numpy(), y.numpy(), settings)
    np.testing.assert_allclose(error_map(x, y, settings), expected, rtol=0, atol=1e-11)


# ---- What follows from the definition


@pytest.mark.parametrize("loss_range", ["unit", "normalised"])
def test_loss_is_the_mean_of_the_map(loss_range):
    settings = options(loss_range=loss_range)
    x, y = batches()
    expected = by_scipy(x.numpy(), y.numpy(), settings).mean()
    assert float(total_loss(x, y, settings)) == pytest.approx(expected, abs=1e-12)
    assert total_loss(x, y, settings) == error_map(x, y, settings).mean()
    assert total_loss(x, y, settings).shape == ()


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("loss_range", ["unit", "normalised"])
def test_identical_images_have_no_error(border, loss_range):
    """Exactly none: numerator and denominator are then the same number, rounding included."""
    settings = options(border=border, loss_range=loss_range)
    for batch in batches():
        x = batch.float()
        assert torch.equal(error_map(x, x.clone(), settings), torch.zeros(6, 44, 52))
        assert total_loss(x, x.clone(), settings) == 0


@pytest.mark.parametrize("loss_range", ["unit", "normalised"])
def test_symmetric_and_bounded(loss_range):
    """MS-SSIM is within [-1, 1], the absolute error within the range."""
    settings = options(loss_range=loss_range)
    x, y = batches()
    forth, back = error_map(x, y, settings), error_map(y, x, settings)
    torch.testing.assert_close(forth, back, rtol=0, atol=1e-14)
    widest = {"unit": 1, "normalised": 2}[loss_range]
    for a, b in [(x, y), (x, -x), (x, x.roll(1, 3))]:
        values = error_map(a, b, settings)
        assert values.min() >= 0
        assert values.max() <= 0.84 * 2 + 0.16 * widest
    similarity = ms_ssim(x, -x, ZHAO, *PRINTED, "reflect")
    assert similarity.abs().max() <= 1 + 1e-12
    assert similarity.min() < -0.5


def test_error_stays_within_four_of_the_largest_sigma():
    settings = options(sigmas=(0.5, 1.0, 2.0, 4.0))
    x = noise(1, 3, 64, 64)
    y = x.clone()
    y[0, 1, 30, 20] += 0.5
    values = error_map(y, x, settings)[0]
    changed = (values > 1e-15).nonzero()
    assert changed.min(0).values.tolist() == [30 - 16, 20 - 16]
    assert changed.max(0).values.tolist() == [30 + 16, 20 + 16]
    assert divmod(int(values.argmax()), 64) == (30, 20)


def test_grows_with_the_error():
    x = noise(1, 3, 64, 64)
    other = noise(1, 3, 64, 64, seed=1)
    losses = [float(total_loss(x + s * other, x, options())) for s in (0, 0.05, 0.2, 0.5)]
    assert losses == sorted(set(losses))


def test_each_image_and_channel_stands_alone():
    settings = options()
    x, y = batches()
    together = error_map(x, y, settings)
    for i in range(len(x)):
        alone = error_map(x[i : i + 1], y[i : i + 1], settings)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-13)
    shuffled = error_map(x[:, [2, 0, 1]], y[:, [2, 0, 1]], settings)
    torch.testing.assert_close(together, shuffled, rtol=0, atol=1e-14)


@pytest.mark.parametrize("border", ["reflect", "zero"])
def test_turning_the_images_turns_the_map(border):
    settings = options(border=border)
    x, y = batches(height=40, width=64)
    turned = error_map(x.rot90(1, (2, 3)), y.rot90(1, (2, 3)), settings)
    expected = error_map(x, y, settings).rot90(1, (1, 2))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-13)


# ---- Precision


def test_bfloat16_reconstruction_is_computed_in_float32():
    x, y = (batch.float() for batch in batches())
    coarse = x.bfloat16()
    values = error_map(coarse, y, options())
    assert values.dtype == torch.float32
    assert torch.equal(values, error_map(coarse.float(), y, options()))
    assert total_loss(coarse, y, options()).dtype == torch.float32


def test_autocast_changes_nothing():
    x, y = (batch.float() for batch in batches())
    expected = error_map(x, y, options()), total_loss(x, y, options())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = error_map(x, y, options()), total_loss(x, y, options())
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_gradient_reaches_a_bfloat16_reconstruction():
    x, y = (batch.float() for batch in batches())
    coarse = x.bfloat16().requires_grad_()
    total_loss(coarse, y, options()).backward()
    fine = coarse.detach().float().requires_grad_()
    total_loss(fine, y, options()).backward()
    assert coarse.grad.dtype == torch.bfloat16
    assert torch.equal(coarse.grad, fine.grad.bfloat16())


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("loss_range", ["unit", "normalised"])
def test_gradient_is_the_finite_differences(border, loss_range):
    """Along random directions of the input and the map."""
    settings = options(sigmas=(0.5, 1.0, 2.0), border=border, loss_range=loss_range)
    x = noise(1, 3, 16, 18, seed=2).requires_grad_()
    y = noise(1, 3, 16, 18, seed=3)
    assert torch.autograd.gradcheck(lambda x: error_map(x, y, settings), x, fast_mode=True)


def test_gradient_vanishes_at_the_original():
    """MS-SSIM is at its maximum and ``abs`` has the subgradient zero."""
    y = noise(1, 3, 64, 64)
    x = y.clone().requires_grad_()
    total_loss(x, y, options()).backward()
    assert x.grad.abs().max() < 1e-12


# ---- pytorch-msssim


@pytest.mark.parametrize(("constants", "bound"), [(PRINTED, 2e-6), (SQUARED, 1e-4)])
def test_one_scale_is_pytorch_msssims_ssim(constants, bound):
    """l(p) cs(p) and cs(p) at every pixel more than five from the border.

    What differs, and how it is made to agree:
    - its window has 11 taps whatever its sigma: with sigma 1.25, four sigmas are 5 pixels;
    - it convolves without padding: our outermost five pixels are left out;
    - it takes C = (K L)**2: K is the root of our constant, the range L is 1;
    - it returns means over pixels: as each patch of 11 x 11 has one pixel, patches give the map;
    - its window is made in float32, whose rounding stays in float64 images too; c2 divides it.
    """
    c1, c2 = constants
    x, y = ((batch + 1) / 2 for batch in batches([PAIRS[0], PAIRS[1]], height=30, width=34))
    window = pytorch_msssim_internals._fspecial_gauss_1d(11, 1.25).repeat(3, 1, 1, 1)

    def patches(images: Tensor) -> Tensor:
        return images.unfold(2, 11, 1).unfold(3, 11, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)

    ssim, cs = pytorch_msssim_internals._ssim(
        patches(x), patches(y), data_range=1.0, win=window, K=(c1**0.5, c2**0.5)
    )
    ssim, cs = (a.unflatten(0, (2, 20, 24)).permute(0, 3, 1, 2) for a in (ssim, cs))

    ours = ms_ssim(x, y, (1.25,), c1, c2, "reflect")[..., 5:-5, 5:-5]
    torch.testing.assert_close(ours, ssim, rtol=0, atol=bound)
    mu_x, mu_y = (gaussian_filter(a, 1.25, "reflect")[..., 5:-5, 5:-5] for a in (x, y))
    torch.testing.assert_close(ours / luminance(mu_x, mu_y, c1), cs, rtol=0, atol=bound)

    mean = pytorch_msssim.ssim(
        x, y, data_range=1.0, win_size=11, win_sigma=1.25, K=(c1**0.5, c2**0.5)
    )
    assert float(mean) == pytest.approx(float(ours.mean()), abs=bound)


def test_alternative_loss():
    """The down-sampling MS-SSIM, from 161 pixels on; it goes from 0 to 1 and so does l1."""
    settings = make_settings(image_size=176, loss="pytorch-msssim")
    y = noise(2, 3, 176, 176, dtype=torch.float32)
    assert abs(float(total_loss(y, y.clone(), settings))) < 1e-6
    x = (0.7 * y).requires_grad_()
    value = total_loss(x, y, settings)
    assert value.shape == ()
    assert 0 < float(value.detach()) < 1
    value.backward()
    assert x.grad.isfinite().all()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    assert total_loss(y.roll(1, 3), y, settings) > value
    coarse = total_loss(x.detach().bfloat16(), y, settings)
    assert coarse.dtype == torch.float32
    assert float(coarse) == pytest.approx(float(value.detach()), abs=1e-3)


def test_alternative_loss_is_the_documented_mixture():
    settings = make_settings(image_size=176, loss="pytorch-msssim", alpha=0.3)
    x, y = (noise(1, 3, 176, 176, seed=seed, dtype=torch.float32) for seed in (0, 1))
    x = y + 0.3 * x
    similarity = pytorch_msssim.MS_SSIM(data_range=2.0, K=(0.01, 0.03))(x + 1, y + 1)
    expected = 0.3 * (1 - similarity) + 0.7 * (x - y).abs().mean() / 2
    torch.testing.assert_close(total_loss(x, y, settings), expected, rtol=0, atol=1e-5)


# ---- kornia


def kornias(sigmas: tuple[float, ...], constants: tuple[float, float], alpha: float) -> MS_SSIMLoss:
    """kornia's map with what differs in its parameters made equal.

    - C = (K L)**2: K is the root of our constant, L = 1 for images on [0, 1];
    - its mixture is multiplied by ``compensation``, 200 unless told: 1;
    - its alpha is 0.025 unless told: ours.

    What stays different:
    - it pads with zeros: ``border='zero'``;
    - all of its windows have ``2 int(2 max(sigma)) + 1`` taps, at least two sigmas; ours four
      sigmas of each filter: see the tests;
    - its masks are float32 whatever the images are: agreement ends there.
    """
    return MS_SSIMLoss(
        sigmas=sigmas,
        data_range=1.0,
        K=(constants[0] ** 0.5, constants[1] ** 0.5),
        alpha=alpha,
        compensation=1.0,
        reduction="none",
    )


@pytest.fixture
def kornias_window(monkeypatch):
    """Windows of 33 taps for every sigma, as kornia's are where the largest sigma is 8."""
    unpatched = gaussian_matrix.__wrapped__  # not the cache: it does not know the reach

    def matrix(size, sigma, *others):
        monkeypatch.setattr(loss, "TRUNCATE", 16 / sigma)
        return unpatched(size, sigma, *others)

    monkeypatch.setattr(loss, "gaussian_matrix", matrix)


@pytest.mark.parametrize(
    ("constants", "alpha", "bound"), [(PRINTED, 0.84, 2e-6), (SQUARED, 0.025, 1e-4)]
)
@pytest.mark.usefixtures("kornias_window")
def test_map_is_kornias(constants, alpha, bound):
    """Each pixel, borders included, once the windows are as long as kornia's."""
    settings = options(border="zero", alpha=alpha, c1=constants[0], c2=constants[1])
    x, y = batches(PAIRS[:4], height=40, width=44)
    expected = kornias(ZHAO, constants, alpha)((x + 1) / 2, (y + 1) / 2)
    actual = error_map(x, y, settings)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound)
    reflected = error_map(x, y, options(alpha=alpha, c1=constants[0], c2=constants[1]))
    inside = (slice(None), slice(16, -16), slice(16, -16))
    torch.testing.assert_close(reflected[inside], expected[inside], rtol=0, atol=bound)
    assert (reflected - expected).abs().max() > 0.01  # the border rule is not without effect


@pytest.mark.usefixtures("kornias_window")
def test_gradient_is_kornias():
    x, y = batches(PAIRS[:2], height=40, width=44)
    x.requires_grad_()
    expected = kornias(ZHAO, PRINTED, 0.84)((x + 1) / 2, (y + 1) / 2).mean()
    (theirs,) = torch.autograd.grad(expected, x)
    (ours,) = torch.autograd.grad(total_loss(x, y, options(border="zero")), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_kornias_shorter_windows_change_little():
    """Nothing patched: kornia ends at two of the largest sigma, which is all that differs.

    Beside a step it is up to 0.24; the paper gives no size for its windows.
    """
    x, y = batches(PAIRS[:4], height=40, width=44)
    theirs = kornias(ZHAO, PRINTED, 0.84)((x + 1) / 2, (y + 1) / 2)
    ours = error_map(x, y, options(border="zero"))
    difference = (ours - theirs).abs()
    assert difference.mean(dim=(1, 2)).min() > 1e-4
    assert difference.mean(dim=(1, 2)).max() < 0.015
    assert difference.max() < 0.3
