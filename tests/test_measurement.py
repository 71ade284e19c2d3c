"""What a run record says beyond the metrics, against hand-made maps and NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from n2n.data import Category
from n2n.detection import Detection
from n2n.loss import error_map
from n2n.measurement import (
    about_data,
    aurocs,
    by_position,
    development_set,
    hidden_alike,
    hidden_defects,
    measure_test,
    negative_factors,
    passed_defects,
    peak_in_defect,
    reconstruction_errors,
    trivial_metrics,
)
from n2n.metrics import bootstrap_image
from n2n.settings import IMAGE_SCORES, Settings, make_settings


@pytest.fixture
def category() -> Category:
    """Six noisy training images; four test images, of which the last two have a bright square."""
    generator = torch.Generator().manual_seed(0)

    def pictures(count: int) -> torch.Tensor:
        return torch.randint(90, 120, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)

    train, test = pictures(6), pictures(4)
    masks = torch.zeros(4, 64, 64, dtype=torch.bool)
    masks[2:, 20:28, 30:38] = True
    test[2:, :, 20:28, 30:38] += 100
    return Category(
        train=train, test=test, masks=masks,
        labels=torch.tensor([False, False, True, True]), names=("a", "b", "c", "d"),
        defects=("good", "good", "square", "square"), fingerprint="none",
    )  # fmt: skip


def detection(category: Category, maps: torch.Tensor) -> Detection:
    return Detection(maps, maps, category.test)


def test_peaks_in_the_masks(category: Category) -> None:
    maps = torch.zeros(4, 64, 64)
    maps[0, 5, 5] = 9  # a normal image does not count
    maps[2, 21, 31] = 1  # inside
    maps[3, 60, 60] = 1  # outside
    assert peak_in_defect(category, maps) == 0.5


def test_hidden_defects(category: Category) -> None:
    """Masks of 8x8 grow by 4 on each side; only what is farther off can tell the images apart."""
    maps = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(1))
    maps[:2] += 0.5
    maps[2:, 16:32, 26:42] = 9  # up to 4 pixels from the masks
    assert hidden_defects(category, maps) == {"max": 0.0, "mean": 0.0, "top1%": 0.0}
    maps[2, 15, 30] = 9  # 5 pixels off
    assert hidden_defects(category, maps) == {"max": 0.5, "mean": 0.0, "top1%": 0.0}
    everywhere = replace(category, masks=category.labels[:, None, None].expand(4, 64, 64))
    assert hidden_defects(everywhere, maps) == {"max": None, "mean": None, "top1%": None}


def test_hidden_alike_compares_the_same_pixels(category: Category) -> None:
    """Every pair by hand, in NumPy: the masks of 8x8 grow by 4 on each side."""
    maps = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(2))
    maps[1] += 0.001  # closer to the anomalous ones than the other
    maps[2:] += 0.002
    maps[:2, 16:32, 26:42] = 9  # would beat every anomalous image if it were not hidden
    values = maps.numpy()
    wins = []
    for anomalous in (2, 3):
        rest = np.ones((64, 64), bool)
        rest[16:32, 26:42] = False
        for normal in (0, 1):
            one, other = (np.sort(values[at][rest]) for at in (anomalous, normal))
            top = len(one) // 100
            wins.append(
                [one[-1] > other[-1], one.mean() > other.mean(),
                 one[-top:].mean() > other[-top:].mean()]
            )  # fmt: skip
    assert list(hidden_alike(category, maps).values()) == np.mean(wins, 0).tolist()
    assert hidden_defects(category, maps)["max"] == 0.0
    maps[:2, 12:36, 22:46] = 9  # up to 8 pixels from the masks: an eighth of the side
    assert hidden_alike(category, maps)["max"] == 0.0
    assert hidden_alike(category, maps, 1 / 8)["max"] > 0
    alike = torch.ones(4, 64, 64)
    assert hidden_alike(category, alike) == {"max": 0.5, "mean": 0.5, "top1%": 0.5}
    everywhere = replace(category, masks=category.labels[:, None, None].expand(4, 64, 64))
    assert hidden_alike(everywhere, maps) == {"max": None, "mean": None, "top1%": None}


def test_reconstruction_errors(category: Category) -> None:
    """A map of 1 in the masks, 2 beside them and 4 in normal images."""
    maps = torch.full((4, 64, 64), 2.0)
    maps[:2] = 4.0
    maps[category.masks] = 1.0
    shifted = (category.test.int() - 51).clamp(0, 255).to(torch.uint8)
    found = reconstruction_errors(category, Detection(maps, maps, shifted))
    assert found["anomaly_map"] == {"defects": 1.0, "beside": 2.0, "normal": 4.0}
    assert found["absolute"] == pytest.approx({"defects": 0.2, "beside": 0.2, "normal": 0.2})


def test_where_factors_of_the_similarity_are_negative(category: Category) -> None:
    """Of a checkerboard and its negative every filter finds a negative covariance."""
    board = torch.arange(64).div(2, rounding_mode="floor") % 2
    board = (board[:, None] ^ board) * 255
    images = replace(category, test=board.to(torch.uint8).expand(4, 3, 64, 64))
    same, negative = images.test, 255 - images.test
    found = Detection(torch.zeros(4), torch.zeros(4), torch.cat([same[:2], negative[2:]]))
    for sigmas, even in (((4.0,), 0.0), ((4.0, 4.0), 1.0), ((4.0, 4.0, 4.0), 0.0)):
        shares = negative_factors(images, found, make_settings("replication", sigmas=sigmas))
        assert shares == {
            "normal": {"any": 0.0, "even": 0.0}, "anomalous": {"any": 1.0, "even": even}
        }  # fmt: skip
    dark = torch.full_like(same, 100)  # flat and on either side of grey: Eq. (2) alone is negative
    found = Detection(torch.zeros(4), torch.zeros(4), 255 - dark)
    settings = make_settings("replication", loss_range="normalised")
    shares = negative_factors(replace(images, test=dark), found, settings)
    assert shares["anomalous"] == {"any": 0.0, "even": 0.0}


def test_aurocs_agree_with_scikit_learn(category: Category) -> None:
    maps = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(1))
    scored = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(2))
    found = aurocs(category, Detection(maps, scored, category.test))
    labels = category.labels.numpy()
    flat = scored.flatten(1).numpy()
    assert found["image_max"] == pytest.approx(roc_auc_score(labels, flat.max(1)))
    assert found["image_mean"] == pytest.approx(roc_auc_score(labels, flat.mean(1)))
    pixels = roc_auc_score(category.masks.numpy().ravel(), maps.numpy().ravel())
    assert found["pixel"] == pytest.approx(pixels)


def test_the_development_set_is_held_out_and_never_tested(category: Category) -> None:
    held_out = torch.tensor([1, 4, 5])
    development = development_set(category, held_out)
    assert torch.equal(development.test[:3], category.train[held_out])
    assert development.labels.tolist() == [False] * 3 + [True] * 9
    assert not development.masks[:3].any()
    assert development.masks[3:].flatten(1).any(1).all()
    assert set(development.defects[3:]) == {"scratch", "stain", "transplant"}


def test_what_of_a_defect_passes(category: Category) -> None:
    """Copies pass whole, normal surface in their place not at all, half the contrast by half."""
    development = development_set(category, torch.arange(6))
    normal = development.test[:6].repeat_interleave(3, 0)

    def passed(good: torch.Tensor, bad: torch.Tensor) -> dict[str, float]:
        seen = Detection(torch.empty(0), torch.empty(0), torch.cat([good, bad]))
        return passed_defects(development, seen)

    whole, none = ({"transplant": v, "stain": v, "scratch": v} for v in (1.0, 0.0))
    assert passed(development.test[:6], development.test[6:]) == whole
    assert passed(development.test[:6], normal) == none
    half = (development.test.float() / 2).round().to(torch.uint8)
    assert passed(half[:6], half[6:]) == pytest.approx(dict.fromkeys(whole, 0.5), abs=0.01)

    restored = normal.clone()  # of the first kind only; of the third a fifth, by scikit-learn
    restored[::3] = development.test[6::3]
    fifth = (normal[2::3] + 0.2 * (development.test[8::3].float() - normal[2::3])).round()
    restored[2::3] = fifth.to(torch.uint8)
    found = passed(development.test[:6], restored)
    drawn = (development.test[8::3].float() - normal[2::3]).flatten().numpy()
    shown = (restored[2::3].float() - normal[2::3]).flatten().numpy()
    slope = LinearRegression(fit_intercept=False).fit(drawn[:, None], shown).coef_[0]
    assert found == pytest.approx({"transplant": 1, "stain": 0, "scratch": slope}, abs=1e-6)

    flat = replace(category, train=torch.full_like(category.train, 100))
    alike = development_set(flat, torch.arange(6))
    seen = Detection(torch.empty(0), torch.empty(0), alike.test)
    found = passed_defects(alike, seen)
    assert np.isnan(found.pop("transplant"))
    assert found == {"stain": 1.0, "scratch": 1.0}


def test_what_is_the_same_in_every_map(category: Category) -> None:
    draw = torch.Generator().manual_seed(3)
    maps = torch.rand(4, 64, 64, generator=draw)
    normal = torch.rand(3, 64, 64, generator=draw)
    found = by_position(category, maps, normal)
    masks, mean = category.masks.numpy().ravel(), normal.double().numpy().mean(0)
    alone = roc_auc_score(masks, np.tile(mean, (4, 1, 1)).ravel())
    beyond = roc_auc_score(masks, (maps.double().numpy() - mean).ravel())
    assert found == pytest.approx({"alone": alone, "beyond": beyond}, abs=1e-4)


def test_how_large_the_masks_are(category: Category) -> None:
    """Of three: 64, 128 and 4 of 4096 pixels, grown by 4 on each side, at a corner by less."""
    masks = torch.zeros(4, 64, 64, dtype=torch.bool)
    masks[1, 20:28, 30:38] = True  # grown: 16 x 16
    masks[2, 0:8, 0:16] = True  # grown: 12 x 20
    masks[3, 62:64, 62:64] = True  # grown: 6 x 6
    labels = torch.tensor([False, True, True, True])
    found = about_data(replace(category, masks=masks, labels=labels))
    assert (found["train"], found["test_good"], found["test_anomalous"]) == (6, 1, 3)
    assert found["masks"] == pytest.approx(
        {"median": 64 / 4096, "grown_median": 240 / 4096, "largest_fifth": 128 / 196}
    )
    two = about_data(replace(category, masks=masks, labels=torch.tensor([0, 1, 1, 0]).bool()))
    assert two["masks"]["largest_fifth"] == pytest.approx(128 / 192)  # of two images, the larger
    none = about_data(replace(category, masks=torch.zeros_like(masks)))["masks"]
    assert none == {"median": None, "grown_median": None, "largest_fifth": None}


@pytest.mark.parametrize("standardise", [False, True])
def test_trivial_detectors(category: Category, tiny: Settings, standardise: bool) -> None:
    """The mean image in NumPy; a bright square on noise is easy to find with it."""

    def normalised(images: torch.Tensor) -> np.ndarray:
        x = images.numpy().astype(np.float64) / 127.5 - 1
        shift, scale = x.mean((2, 3), keepdims=True), x.std((2, 3), keepdims=True)
        return 0.5 + 0.5 * (x - shift) / scale if standardise else x

    mean = torch.from_numpy(normalised(category.train).mean(0, keepdims=True)).float()
    test = torch.from_numpy(normalised(category.test)).float()
    maps = error_map(mean.expand(4, -1, -1, -1), test, tiny)
    settings = replace(tiny, standardise=standardise)
    found = trivial_metrics(category, settings, torch.device("cpu"))["mean_image"]
    wanted = roc_auc_score(category.masks.numpy().ravel(), maps.numpy().ravel())
    assert found["pixel"]["auroc"] == pytest.approx(wanted, abs=1e-6)
    assert found["pixel"]["auroc"] > 0.95
    assert found["image"]["auroc"] == 1.0


def test_the_grey_image_tells_how_far_a_pixel_is_from_grey(category: Category) -> None:
    """With the absolute error alone its map is |x - 0.5|, x from 0 to 1."""
    absolute = make_settings("demo", image_size=64, anomaly_map="l1", image_score="mean")
    found = trivial_metrics(category, absolute, torch.device("cpu"))["grey_image"]
    far = np.abs(category.test.numpy() / 255 - 0.5).mean(1)
    labels, masks = category.labels.numpy(), category.masks.numpy()
    assert found["pixel"]["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), far.ravel()))
    assert found["image"]["auroc"] == pytest.approx(roc_auc_score(labels, far.mean((1, 2))))


def test_the_blurred_image_is_that_of_scipy(category: Category) -> None:
    faint = category.test.clone()
    faint[2:, :, 20:28, 30:38] -= 90
    absolute = make_settings("demo", image_size=64, anomaly_map="l1", image_score="mean")
    faint_category = replace(category, test=faint)
    found = trivial_metrics(faint_category, absolute, torch.device("cpu"))["blurred_image"]
    x = faint.double().numpy() / 255
    far = np.abs(x - gaussian_filter(x, (0, 0, 4, 4), mode="mirror")).mean(1)
    wanted = roc_auc_score(category.masks.ravel(), far.ravel())
    assert found["pixel"]["auroc"] == pytest.approx(wanted, abs=1e-4)
    assert wanted < 0.7  # another width would give another value


def test_the_score_of_the_run_is_the_one_that_is_judged(category: Category) -> None:
    draw = torch.Generator().manual_seed(4)
    labels = torch.arange(40) % 2 == 0
    masks = (torch.rand(40, 8, 8, generator=draw) < 0.2) & labels[:, None, None]
    every = {name: torch.rand(40, generator=draw) for name in IMAGE_SCORES}
    maps = torch.rand(40, 8, 8, generator=draw)
    found = measure_test(replace(category, labels=labels, masks=masks), maps, every, "mean")
    by = {name: roc_auc_score(labels, scores) for name, scores in every.items()}
    assert len(set(by.values())) == 3
    assert found["metrics"]["image"]["auroc"] == pytest.approx(by["mean"])
    assert {n: s["auroc"] for n, s in found["image_scores"].items()} == pytest.approx(by)
    pixels = roc_auc_score(masks.ravel(), maps.ravel())
    assert found["metrics"]["pixel"]["auroc"] == pytest.approx(pixels)
    assert found["intervals"]["image"] == bootstrap_image(every["mean"].numpy(), labels.numpy())
