"""Shared by the tests: settings and images small enough for seconds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from n2n.settings import Settings, make_settings
from tests.records import small, study_run

torch.set_num_threads(1)  # faster for tensors this small, and unmoved by other loads


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def tiny() -> Settings:
    """The smallest network and images that the method allows."""
    return make_settings("demo", image_size=64, width=4, epochs=4, t_max=4)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the category parts/disc in MVTec AD layout: discs, some with a dark spot."""
    root = tmp_path_factory.mktemp("data")
    draw_parts(root / "parts" / "disc")
    return root


def smooth_images(count: int, seed: int = 0) -> torch.Tensor:
    """So many smooth patterns, uint8, (count, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return (torch.nn.functional.interpolate(coarse, 64, mode="bilinear") * 255).to(torch.uint8)


def draw_parts(folder: Path, train: int = 8, good: int = 4, spotted: int = 4) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for split, count in {"train/good": train, "test/good": good, "test/spot": spotted}.items():
        (folder / split).mkdir(parents=True)
        for index in range(count):
            y, x = rng.uniform(28, 36, 2)
            disc = np.hypot(rows - y, columns - x) < 20
            image = 60 + 120 * disc + rng.normal(0, 3, (64, 64))
            if split == "test/spot":
                spot = np.hypot(rows - y - 6, columns - x + 5) < 4
                image[spot] = 20
                masks = folder / "ground_truth/spot"
                masks.mkdir(parents=True, exist_ok=True)
                Image.fromarray((spot * 255).astype(np.uint8)).save(masks / f"{index:03d}_mask.png")
            grey = Image.fromarray(image.clip(0, 255).astype(np.uint8))
            grey.save(folder / split / f"{index:03d}.png")


@pytest.fixture
def real_data() -> Path:
    """The root of the real data sets, where N2N_DATA names it."""
    root = os.environ.get("N2N_DATA")
    if not root:
        pytest.skip("N2N_DATA does not name a folder with MPDD and VisA")
    return Path(root)


@pytest.fixture
def small_study(tmp_path: Path) -> Path:
    """Records of a base at two seeds and of two choices, AUROC of images from 10 to 99 %."""
    study_run(tmp_path, small(), 0.70)
    study_run(tmp_path, small(), 0.76, seed=1)
    study_run(tmp_path, small(noise=0.0), 0.60)
    study_run(tmp_path, small(noise=0.0), 0.70, seed=1)
    study_run(tmp_path, small(noise=0.0), 0.10, seed=2)  # no base of this seed to compare with
    study_run(tmp_path, small(width=8), 0.71)
    study_run(tmp_path, make_settings("replication"), 0.99)  # of another size: not in the study
    return tmp_path
