"""Synthetic defects: where they are, what they change, and that they repeat."""

from __future__ import annotations

import pytest
import torch

from n2n.errors import N2NError
from n2n.synthetic import KINDS, synthetic_defects


@pytest.fixture(scope="module")
def normal() -> torch.Tensor:
    """Four smooth images with a little texture."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(60, 180, 96).expand(4, 3, 96, 96)
    shift = torch.tensor([-20.0, 0.0, 20.0, 40.0])[:, None, None, None]
    texture = 4 * torch.randn(4, 3, 96, 96, generator=generator)
    return (ramp + shift + texture).clamp(0, 255).to(torch.uint8)


def test_every_image_has_every_kind_once(normal: torch.Tensor) -> None:
    images, masks, kinds = synthetic_defects(normal)
    assert images.shape == (12, 3, 96, 96)
    assert images.dtype == torch.uint8
    assert masks.shape == (12, 96, 96)
    assert masks.dtype == torch.bool
    assert kinds == list(KINDS) * 4


def test_only_the_defect_changes(normal: torch.Tensor) -> None:
    """Far from its mask an image is as it was; inside, most pixels differ."""
    images, masks, _ = synthetic_defects(normal)
    original = normal.repeat_interleave(3, 0)
    differs = (images != original).any(1)
    reach = torch.nn.functional.max_pool2d(masks[:, None].float(), 13, 1, 6)[:, 0] > 0
    assert masks.flatten(1).any(1).all()
    assert not differs[~reach].any()
    assert (differs & masks).sum() > 0.9 * masks.sum()


def test_defects_are_small_and_inside(normal: torch.Tensor) -> None:
    _, masks, _ = synthetic_defects(normal)
    assert (masks.flatten(1).float().mean(1) < 0.1).all()


def test_a_seed_repeats_and_another_differs(normal: torch.Tensor) -> None:
    first, again, other = (synthetic_defects(normal, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_image_is_too_few(normal: torch.Tensor) -> None:
    with pytest.raises(N2NError, match="two held-out normal images"):
        synthetic_defects(normal[:1])
