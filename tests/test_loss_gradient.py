"""The hand-derived gradient of `total_loss` against automatic differentiation of `error_map`."""

import itertools

import pytest
import torch
from torch import Tensor

from n2n.loss import (
    GROUP,
    _by_convolutions,
    _ms_ssim_gradient,
    error_map,
    gaussian_filter,
    gaussian_matrix,
    ms_ssim,
    total_loss,
)
from n2n.settings import Settings
from tests.conftest import on_a_gpu
from tests.test_loss import ZHAO, noise, options

HEIGHT, WIDTH = 72, 75  # more than the widest window, and not a whole number of groups
assert WIDTH % GROUP


def pairs() -> tuple[Tensor, Tensor]:
    """A batch of image pairs on [-1, 1]: random, structured, nearly equal, equal, inverted."""
    grain, other = noise(3, HEIGHT, WIDTH), noise(3, HEIGHT, WIDTH, seed=1)
    row, column = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    step = torch.where(column < WIDTH // 2, -0.8, 0.8).double().expand(3, -1, -1)
    board = ((row + column) % 2 * 2.0 - 1).double().expand(3, -1, -1)
    flat = torch.full_like(grain, 0.3)
    x = [grain, step, step + 1e-3 * grain, flat, board, -board]
    y = [other, board, step, flat, flat, board]
    return torch.stack(x), torch.stack(y)


def value_and_gradient(loss: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def both(x: Tensor, y: Tensor, settings: Settings) -> tuple[tuple[Tensor, Tensor], ...]:
    """Value and gradient by hand, and as automatic differentiation gives them."""
    x = x.detach().requires_grad_()
    return (
        value_and_gradient(total_loss(x, y, settings), x),
        value_and_gradient(error_map(x, y, settings).mean(), x),
    )


@pytest.mark.parametrize(
    ("border", "loss_range", "sigmas"),
    list(
        itertools.product(
            ("reflect", "zero"), ("unit", "normalised"), (ZHAO, (1.5,), (2.0, 0.5), (0.1, 3.0))
        )
    ),
)
def test_value_and_gradient(border, loss_range, sigmas):
    settings = options(border=border, loss_range=loss_range, sigmas=sigmas)
    x, y = pairs()
    by_hand, automatic = both(x, y, settings)
    assert automatic[1].abs().max() > 0
    torch.testing.assert_close(by_hand[0], automatic[0], rtol=1e-12, atol=1e-14)
    scale = float(automatic[1].abs().max())
    torch.testing.assert_close(by_hand[1], automatic[1], rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("constants", [(0.01, 0.03), (1e-4, 9e-4), (0.5, 2.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.025, 0.84, 1.0])
def test_value_and_gradient_with_other_weights(constants, alpha):
    settings = options(alpha=alpha, c1=constants[0], c2=constants[1])
    by_hand, automatic = both(*pairs(), settings)
    torch.testing.assert_close(by_hand[0], automatic[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_hand[1], automatic[1], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("border", ["reflect", "zero"])
def test_finite_differences(border):
    settings = options(border=border, sigmas=(0.5, 1.5))
    x, y = noise(2, 3, 9, 11).requires_grad_(), noise(2, 3, 9, 11, seed=1)
    assert torch.autograd.gradcheck(lambda x: total_loss(x, y, settings), x)


@pytest.mark.parametrize("border", ["reflect", "zero"])
def test_finite_differences_of_structured_images(border):
    """A step against a board and a board against its inverse; every pixel is near a border."""
    settings = options(border=border, sigmas=(0.5, 1.5))
    row, column = torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij")
    step = torch.where(column < 5, -0.8, 0.7).double().expand(3, -1, -1)
    board = ((row + column) % 2 * 2.0 - 1).double().expand(3, -1, -1)
    x, y = torch.stack([step, board]).requires_grad_(), torch.stack([board, -board])
    assert torch.autograd.gradcheck(lambda x: total_loss(x, y, settings), x)


def test_a_vanishing_contrast_term_stops_no_gradient():
    """Where one cs is exactly 0, the product of the others is not found by division."""
    arguments = ((1.0, 2.0), 0.01, 0.0, "reflect")
    y = noise(1, 3, 24, 24)
    x = torch.zeros_like(y)
    x[..., 12:] = y[..., 12:]  # seen from column 6 by the window of sigma 2, not by that of 1
    _, by_hand = _ms_ssim_gradient(x, y, *arguments)
    assert by_hand[..., 6].abs().min() > 0
    x.requires_grad_()
    automatic = torch.autograd.grad(ms_ssim(x, y, *arguments).sum(), x)[0]
    torch.testing.assert_close(by_hand, automatic, rtol=1e-9, atol=1e-11)


def test_single_precision():
    """As exact as automatic differentiation, whose errors are the moments' rounding, too."""
    x, y = pairs()
    (exact, expected), _ = both(x.float().double(), y.float().double(), options())
    size = expected.flatten(1).norm(dim=1)
    by_hand, automatic = both(x.float(), y.float(), options())
    assert abs(float(by_hand[0]) - float(exact)) < 1e-6
    error, usual = ((g - expected).flatten(1).norm(dim=1) for g in (by_hand[1], automatic[1]))
    assert (error <= 2 * usual + 1e-7 * size.max()).all()
    different = (x - y).abs().flatten(1).mean(1) > 0.1
    assert different.sum() == 4
    assert (error[different] < 1e-5 * size[different]).all()
    assert error.max() < 0.01 * size.max()  # where the images nearly agree, the terms cancel


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reconstruction_of_half_precision(dtype):
    """As a network under autocast gives it: channels last, and with the loss inside it too."""
    y = noise(2, 3, HEIGHT, WIDTH, dtype=torch.float32)
    x = (0.5 * y + 0.1 * noise(2, 3, HEIGHT, WIDTH, seed=1).float()).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    value, gradient = value_and_gradient(total_loss(x, y, options()), x)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    fine = x.detach().float().requires_grad_()
    expected = value_and_gradient(total_loss(fine, y, options()), fine)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1].to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_gradient(total_loss(x, y, options()), x)
    assert torch.equal(inside[0], value)
    assert torch.equal(inside[1], gradient)


def test_scaled_and_accumulated():
    x, y = pairs()
    x.requires_grad_()
    (once,) = torch.autograd.grad(total_loss(x, y, options()), x)
    loss = 3 * total_loss(x, y, options()) + total_loss(x * 1, y, options())
    loss.backward()
    torch.testing.assert_close(x.grad, 4 * once)


def test_each_image_on_its_own():
    """The images of a batch do not mix, and count alike."""
    x, y = pairs()
    together, _ = both(x, y, options())
    alone = [both(x[i : i + 1], y[i : i + 1], options())[0] for i in range(len(x))]
    torch.testing.assert_close(together[0], torch.stack([v for v, _ in alone]).mean())
    torch.testing.assert_close(together[1], torch.cat([g for _, g in alone]) / len(x))


def test_inputs_stay_as_they_are():
    x, y = pairs()
    kept = x.clone(), y.clone()
    total_loss(x.requires_grad_(), y, options(loss_range="normalised")).backward()
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


def test_no_gradient_to_the_original():
    x, y = pairs()
    y.requires_grad_()
    total_loss(x.requires_grad_(), y, options()).backward()
    assert y.grad is None


@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (65, 96)])
def test_convolutions_are_the_matrices(border, sigma, size):
    """What a CPU does in single precision against the definition, also for the adjoint."""
    x = noise(2, 3, *size)
    vertical, horizontal = (
        gaussian_matrix(side, sigma, border, x.device, x.dtype) for side in size
    )
    expected = vertical @ x @ horizontal.T, vertical.T @ x @ horizontal
    for adjoint in (False, True):
        y = _by_convolutions(x.float(), sigma, border, adjoint)
        torch.testing.assert_close(y.double(), expected[adjoint], rtol=0, atol=1e-6)
    y = x.float().requires_grad_()
    found = gaussian_filter(y, sigma, border)
    torch.testing.assert_close(found.double(), expected[0], rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(found, y, x.float())  # automatic, through the corners too
    torch.testing.assert_close(gradient.double(), expected[1], rtol=0, atol=1e-6)


@on_a_gpu
def test_on_a_gpu():
    x, y = pairs()
    (value, gradient), _ = both(x, y, options())
    (other, theirs), _ = both(x.cuda(), y.cuda(), options())
    torch.testing.assert_close(other.cpu(), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(theirs.cpu(), gradient, rtol=1e-9, atol=1e-15)
