"""Eq. (1), the noise and the normalisation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from n2n.corruption import corrupt, draw_noise, fixed_noise, normalise, to_photograph, to_unit
from n2n.settings import make_settings

SETTINGS = make_settings(image_size=64)
GREYS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Each by hand: (1 - lambda) x0 + lambda epsilon.
@pytest.mark.parametrize(
    ("x0", "epsilon", "noise", "expected"),
    [
        (1.0, 0.5, 0.3, 0.85),
        (-1.0, 0.5, 0.3, -0.55),
        (-1.0, -1.0, 0.3, -1.0),
        (0.2, 1.5, 0.3, 0.59),
        (0.6, -0.4, 0.2, 0.4),
        (0.6, -0.4, 0.4, 0.2),
        (0.0, 2.0, 0.5, 1.0),
    ],
)
def test_blends_as_equation_1(x0, epsilon, noise, expected):
    x = corrupt(torch.full((2, 3, 4, 5), x0), torch.full((2, 3, 4, 5), epsilon), noise)
    assert x.shape == (2, 3, 4, 5)
    torch.testing.assert_close(x, torch.full((2, 3, 4, 5), expected))


def test_limits_are_the_image_and_the_noise():
    x0 = normalise(GREYS)
    epsilon = draw_noise(tuple(x0.shape), SETTINGS, generator(0))
    assert torch.equal(corrupt(x0, epsilon, 0.0), x0)
    assert torch.equal(corrupt(x0, epsilon, 1.0), epsilon)


def test_each_channel_of_each_image_is_standardised():
    generator = np.random.default_rng(0)
    images = generator.integers(40, 200, (2, 3, 16, 16)).astype(np.uint8)
    images[1, 2] = 77  # flat: it stays finite
    x0 = normalise(torch.from_numpy(images), make_settings(standardise=True))
    rest = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    for image, channel in rest:
        values = images[image, channel].astype(np.float64)
        expected = 0.5 + 0.5 * (values - values.mean()) / values.std()
        np.testing.assert_allclose(x0[image, channel], expected, rtol=0, atol=1e-5)
    assert x0[1, 2].sub(0.5).abs().max() < 1e-4
    back = to_photograph(x0, torch.from_numpy(images), make_settings(standardise=True))
    np.testing.assert_allclose(255 * back, images, rtol=0, atol=1e-3)


def test_an_image_is_standardised_with_its_colours():
    images = np.random.default_rng(0).integers(40, 200, (2, 3, 16, 16)).astype(np.uint8)
    images[:, 1] //= 2
    settings = make_settings(standardise=True, channels_together=True)
    x0 = normalise(torch.from_numpy(images), settings)
    for values, found in zip(images.astype(np.float64), x0, strict=True):
        expected = 0.5 + 0.5 * (values - values.mean()) / values.std()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    back = to_photograph(x0, torch.from_numpy(images), settings)
    np.testing.assert_allclose(255 * back, images, rtol=0, atol=1e-3)


def test_a_photograph_ends_at_black_and_white():
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5])
    assert to_photograph(x, x, SETTINGS).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_contrast_is_raised_about_mid_grey():
    settings = make_settings(contrast=1.6)
    x0 = normalise(GREYS, settings).numpy()
    expected = 1.6 * (GREYS.numpy() - 127.5) / 127.5
    np.testing.assert_allclose(x0, expected, rtol=0, atol=1e-6)
    back = 255 * to_photograph(torch.from_numpy(x0), GREYS, settings)
    np.testing.assert_allclose(back, GREYS, rtol=0, atol=1e-4)


def test_leaves_its_inputs_alone():
    greys, x0 = GREYS.clone(), normalise(GREYS)
    epsilon = fixed_noise(make_settings(image_size=64))[..., :16, :16]
    copies = x0.clone(), epsilon.clone()
    corrupt(x0, epsilon, 0.3)
    to_unit(x0)
    assert torch.equal(greys, GREYS)
    assert torch.equal(x0, copies[0])
    assert torch.equal(epsilon, copies[1])


def test_noise_has_mean_and_deviation_one_half():
    """Section 3.1's N(0.5, 0.5); five standard errors of a sample of 196 608 values."""
    epsilon = draw_noise((16, 3, 64, 64), SETTINGS, generator(1)).double().numpy()
    n = epsilon.size
    assert epsilon.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(n))
    assert epsilon.std() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2 * n))
    assert stats.kstest(epsilon.ravel(), "norm", args=(0.5, 0.5)).pvalue > 1e-3


def test_noise_is_independent_between_pixels_channels_and_images():
    epsilon = draw_noise((16, 3, 64, 64), SETTINGS, generator(2)).double().numpy()
    pairs = [
        (epsilon[:-1], epsilon[1:]),
        (epsilon[:, :-1], epsilon[:, 1:]),
        (epsilon[:, :, :-1], epsilon[:, :, 1:]),
        (epsilon[..., :-1], epsilon[..., 1:]),
    ]
    for one, other in pairs:
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(one.size)


def test_noise_follows_the_settings():
    settings = make_settings(image_size=64, noise_mean=-0.25, noise_std=1.5)
    epsilon = draw_noise((4, 3, 64, 64), settings, generator(3))
    assert float(epsilon.mean()) == pytest.approx(-0.25, abs=0.04)
    assert float(epsilon.std()) == pytest.approx(1.5, abs=0.03)
    flat = draw_noise((1, 3, 8, 8), make_settings(noise_std=0.0), generator(3))
    assert torch.equal(flat, torch.full((1, 3, 8, 8), 0.5))


def test_noise_is_its_seed_and_goes_on():
    first, second = generator(4), generator(4)
    once = draw_noise((1, 3, 8, 8), SETTINGS, first)
    assert torch.equal(once, draw_noise((1, 3, 8, 8), SETTINGS, second))
    assert not torch.equal(once, draw_noise((1, 3, 8, 8), SETTINGS, first))
    assert not torch.equal(once, draw_noise((1, 3, 8, 8), SETTINGS, generator(5)))


@pytest.mark.parametrize("size", [64, 96])
def test_fixed_noise_is_fixed(size):
    settings = make_settings(image_size=size)
    state = torch.get_rng_state()
    field = fixed_noise(settings)
    assert field.shape == (1, 3, size, size)
    assert field.dtype == torch.float32
    torch.manual_seed(99)  # nothing that the caller seeds may reach it
    assert torch.equal(field, fixed_noise(settings))
    assert torch.equal(field, fixed_noise(settings, draw=0))
    torch.set_rng_state(state)
    fixed_noise(settings, draw=1)
    assert torch.equal(state, torch.get_rng_state())


def test_fixed_noise_differs_by_draw():
    draws = torch.stack([fixed_noise(SETTINGS, draw).flatten() for draw in range(4)])
    correlations = torch.corrcoef(draws) - torch.eye(4)
    assert float(correlations.abs().max()) < 5 / draws.shape[1] ** 0.5
    assert draws.mean(1).tolist() == pytest.approx([0.5] * 4, abs=5 * 0.5 / 12288**0.5)


def test_fixed_noise_is_the_same_on_every_image():
    images = torch.rand(5, 3, 64, 64)
    field = fixed_noise(SETTINGS)
    together = corrupt(images, field, 0.3)
    for image, x in zip(images, together, strict=True):
        assert torch.equal(corrupt(image[None], field, 0.3)[0], x)
        torch.testing.assert_close((x - 0.7 * image) / 0.3, field[0], atol=1e-6, rtol=1e-5)


def test_normalise_is_mean_and_deviation_one_half():
    """Against (x / 255 - 0.5) / 0.5 in float64."""
    x = normalise(GREYS)
    assert x.dtype == torch.float32
    expected = (GREYS.double() / 255 - 0.5) / 0.5
    torch.testing.assert_close(x.double(), expected, atol=1.2e-7, rtol=0)
    assert x.min() == -1
    assert x.max() == 1


def test_every_grey_value_survives_the_round_trip():
    unit = to_unit(normalise(GREYS))
    assert torch.equal((unit * 255).round().to(torch.uint8), GREYS)
    torch.testing.assert_close(unit, GREYS / 255, atol=1.2e-7, rtol=0)
    assert unit.min() == 0
    assert unit.max() == 1


@given(
    noise=st.floats(0, 1, allow_subnormal=False),
    seed=st.integers(0, 2**31),
    side=st.integers(1, 9),
)
def test_eq_1_is_a_mean_of_image_and_noise(noise: float, seed: int, side: int) -> None:
    """For any coefficient: between the two at every value, and as NumPy computes it."""
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(2, 3, side, side, generator=generator) * 2 - 1
    epsilon = torch.randn(1, 3, side, side, generator=generator)
    x = corrupt(x0, epsilon, noise)
    low, high = torch.minimum(x0, epsilon), torch.maximum(x0, epsilon)
    assert ((low - 1e-5 <= x) & (x <= high + 1e-5)).all()
    wanted = (1 - noise) * x0.numpy().astype(np.float64) + noise * epsilon.numpy()
    np.testing.assert_allclose(x.numpy(), wanted, atol=1e-5)


def test_coarse_noise_by_hand():
    """Of five pixels, two apart, the first, third and fifth are drawn and the others blended."""
    settings = make_settings(noise_grain=2, noise_mean=0.5, noise_std=2.0)
    drawn = torch.randn((1, 3, 3), generator=generator(6))[0]
    between = (drawn[:, :2] + drawn[:, 1:]) / 2**0.5
    rows = torch.stack([drawn[:, 0], between[:, 0], drawn[:, 1], between[:, 1], drawn[:, 2]], 1)
    between = (rows[:2] + rows[1:]) / 2**0.5
    expected = torch.stack([rows[0], between[0], rows[1], between[1], rows[2]])
    found = draw_noise((1, 5, 5), settings, generator(6))[0]
    torch.testing.assert_close(found, 0.5 + 2 * expected)


@pytest.mark.parametrize("octaves", [1, 4])
def test_coarse_noise_has_the_deviation_of_fine_noise_at_every_pixel(octaves: int) -> None:
    settings = make_settings(image_size=64, noise_grain=8, noise_octaves=octaves)
    epsilon = draw_noise((4000, 1, 24, 40), settings, generator(7)).double()
    assert epsilon.mean(0).sub(0.5).abs().max() < 5 * 0.5 / 4000**0.5
    assert epsilon.std(0).sub(0.5).abs().max() < 5 * 0.5 / 8000**0.5  # five standard errors
    beside = torch.corrcoef(epsilon[:, 0, 3, 3:5].T)[0, 1]
    assert beside > {1: 0.9, 4: 0.5}[octaves]


def test_octaves_are_independent_noises_of_half_the_grain_each():
    """Spelled out: grains of four, two and one pixels, added, at the deviation of one of them."""
    drawn = generator(8)
    single = [
        draw_noise((2, 3, 24, 40), make_settings(noise_grain=grain, noise_mean=0.0), drawn)
        for grain in (4, 2, 1)
    ]
    settings = make_settings(noise_grain=4, noise_octaves=3)
    found = draw_noise((2, 3, 24, 40), settings, generator(8))
    torch.testing.assert_close(found, 0.5 + (single[0] + single[1] + single[2]) / 3**0.5)
