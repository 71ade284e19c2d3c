from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics as reference

from n2n.errors import N2NError
from n2n.metrics import (
    IMAGE_KEYS,
    PIXEL_KEYS,
    auroc,
    bootstrap_image,
    bootstrap_pixel,
    image_metrics,
    pixel_metrics,
    roc_curve,
)

RNG = np.random.default_rng


def normal_scores(seed: int, size: int = 200, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(size) < size * 0.4
    return RNG(seed).normal(size=size) + shift * labels, labels


def blobs(seed: int, count: int = 6, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks; most images have several regions, some touch by a corner, the last none."""
    rng = RNG(seed)
    masks = rng.random((count, side, side)) < 0.08
    masks[0, 2:6, 3:9] = True
    masks[1, 8:10, 8:10] = masks[1, 10:12, 10:12] = True
    masks[-1] = False
    return rng.normal(size=masks.shape) + masks, masks


def slow_f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-300)).max())


def delong(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """AUROC without ties and its variance, by the placement of each score among the other class.

    DeLong, DeLong and Clarke-Pearson, *Biometrics* 44 (1988).
    """
    assert len(set(scores)) == len(scores)
    wins = (scores[labels][:, None] > scores[~labels]).astype(float)
    return wins.mean(), sum(wins.mean(a).var(ddof=1) / wins.shape[1 - a] for a in (0, 1))


def slow_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """From the definition: one threshold after another, region by region."""
    numbered = [ndimage.label(mask, structure=np.ones((3, 3))) for mask in masks]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rates.append(float(found[~masks].mean()))
        overlaps.append(
            float(
                np.mean(
                    [
                        found[index][regions == region].mean()
                        for index, (regions, count) in enumerate(numbered)
                        for region in range(1, count + 1)
                    ]
                )
            )
        )
    area = 0.0
    for x0, x1, y0, y1 in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def aupro(maps: np.ndarray, masks: np.ndarray, **options: float) -> float:
    return pixel_metrics(maps, masks, **options)["aupro"]


@pytest.mark.parametrize("decimals", [16, 1, 0])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift", [-1.0, 0.0, 2.0])
def test_agrees_with_scikit_learn(decimals: int, seed: int, shift: float) -> None:
    scores, labels = normal_scores(seed, shift=shift)
    scores = scores.round(decimals)
    ours = image_metrics(scores, labels)
    assert tuple(ours) == IMAGE_KEYS
    assert ours["auroc"] == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-9)
    expected = reference.average_precision_score(labels, scores)
    assert ours["ap"] == pytest.approx(expected, abs=1e-9)
    assert ours["f1max"] == pytest.approx(slow_f1_max(scores, labels), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "stretch",
    [
        lambda x: np.exp(20 * x),  # nearly all scores close together, a few far away
        lambda x: np.where(x > 1, np.sign(x) * 3e38, x),  # a range beyond float32
        lambda x: np.round(x) * 1e-44,  # below the normal numbers
        lambda x: np.minimum(x, -1),  # one score for most
        lambda x: x + 1e6,  # few distinct in float32
    ],
)
def test_scores_of_any_range(stretch: Callable[..., np.ndarray], dtype: type) -> None:
    rng = np.random.default_rng(5)
    scores = stretch(rng.standard_normal(4000)).astype(dtype)
    labels = rng.random(4000) < 0.3
    found = image_metrics(scores, labels)
    _, ranks = np.unique(scores, return_inverse=True)  # in the same order, of any size
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, ranks), abs=1e-12)
    expected = reference.average_precision_score(labels, ranks)
    assert found["ap"] == pytest.approx(expected, abs=1e-12)


def test_pixels_are_images_of_one_pixel() -> None:
    maps, masks = blobs(0)
    pixels = pixel_metrics(maps, masks)
    assert tuple(pixels) == PIXEL_KEYS
    assert image_metrics(maps.ravel(), masks.ravel()) == {k: pixels[k] for k in IMAGE_KEYS}


def test_constant_scores() -> None:
    labels = np.arange(10) < 3
    values = image_metrics(np.ones(10), labels)
    assert values == pytest.approx({"auroc": 0.5, "ap": 0.3, "f1max": 0.6 / 1.3})
    maps, masks = np.ones((2, 4, 4)), np.zeros((2, 4, 4), bool)
    masks[0, :2] = True
    # The curve is the diagonal, so its mean height up to the limit is half the limit.
    assert aupro(maps, masks) == pytest.approx(0.15)


def test_perfect_and_inverted_scores() -> None:
    masks = blobs(0)[1]
    maps = masks.astype(np.float32)
    assert set(pixel_metrics(maps, masks).values()) == {1.0}
    inverted = pixel_metrics(-maps, masks)
    assert (inverted["auroc"], inverted["aupro"]) == (0.0, 0.0)


@pytest.mark.parametrize("labels", [np.zeros(5, bool), np.ones(5, bool), np.zeros(0, bool)])
@pytest.mark.filterwarnings("error")
def test_nan_without_both_classes(labels: np.ndarray) -> None:
    scores = np.arange(len(labels), dtype=float)
    assert all(math.isnan(value) for value in image_metrics(scores, labels).values())
    intervals = bootstrap_image(scores, labels, repeats=3)
    assert tuple(intervals) == IMAGE_KEYS
    assert all(math.isnan(end) for ends in intervals.values() for end in ends)
    fpr, tpr = roc_curve(scores, labels)
    assert len(fpr) == len(tpr)
    assert np.isnan(tpr).all()

    maps, masks = scores.reshape(-1, 1, 1), labels.reshape(-1, 1, 1)
    assert all(math.isnan(value) for value in pixel_metrics(maps, masks).values())
    intervals = bootstrap_pixel(maps, masks, repeats=3)
    assert tuple(intervals) == PIXEL_KEYS
    assert all(math.isnan(end) for ends in intervals.values() for end in ends)


@pytest.mark.parametrize("function", [image_metrics, bootstrap_image, roc_curve, auroc])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rejects_scores_that_are_not_finite(function: Callable[..., object], bad: float) -> None:
    with pytest.raises(N2NError, match="not a finite number"):
        function(np.array([0.0, bad, 1.0]), np.array([False, False, True]))


@pytest.mark.parametrize("limit", [0.0, 1.5])
def test_rejects_a_rate_out_of_range(limit: float) -> None:
    with pytest.raises(N2NError, match="false-positive rate"):
        pixel_metrics(*blobs(0), fpr_limit=limit)


@pytest.mark.parametrize("function", [pixel_metrics, bootstrap_pixel])
def test_rejects_maps_that_do_not_fit(function: Callable[..., object]) -> None:
    maps, masks = blobs(0)
    with pytest.raises(N2NError, match="one label for each score"):
        function(maps, masks[:, 1:])
    with pytest.raises(N2NError, match=r"\(N, H, W\)"):
        function(maps[0], masks[0])
    maps[0, 0, 0] = np.nan
    with pytest.raises(N2NError, match="not a finite number"):
        function(maps, masks)
    with pytest.raises(N2NError, match="one label for each score"):
        image_metrics(np.zeros(3), np.zeros(2, bool))


def test_any_kind_of_number_will_do() -> None:
    scores, labels = np.array([200, 3, 90, 250]), np.array([1, 0, 0, 1])
    expected = image_metrics(scores.astype(float), labels.astype(bool))
    assert image_metrics(scores.astype(np.uint8), labels) == expected
    maps, masks = blobs(1)
    assert pixel_metrics(maps, masks.astype(np.uint8)) == pixel_metrics(maps, masks)


@pytest.mark.parametrize("limit", [0.003, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("decimals", [16, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_agrees_with_its_definition(limit: float, decimals: int, seed: int) -> None:
    maps, masks = blobs(seed)
    maps = maps.round(decimals)
    expected = slow_aupro(maps, masks, limit)
    assert aupro(maps, masks, fpr_limit=limit) == pytest.approx(expected, abs=1e-9)


def test_aupro_of_one_region_up_to_one_is_auroc() -> None:
    maps, masks = blobs(3)
    masks[:] = False
    masks[0, 2:6, 3:9] = True
    for scores in (maps, maps.round(0)):
        expected = auroc(scores, masks)
        assert aupro(scores, masks, fpr_limit=1.0) == pytest.approx(expected, abs=1e-12)


def test_aupro_counts_regions_not_pixels() -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :10] = True
    masks[0, 15, 15] = True
    maps = np.zeros(masks.shape)
    maps[0, :10] = 2.0
    maps[0, 15, 15] = -1.0  # the small region is never found
    assert aupro(maps, masks) == pytest.approx(0.5)
    masks[0, 15, 15] = masks[0, 14, 14] = masks[0, 13, 13] = True
    maps[0, 14, 14] = maps[0, 13, 13] = 2.0  # one region, along corners
    assert aupro(maps, masks) == pytest.approx((1 + 2 / 3) / 2)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=2, max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_only_the_order_matters(pairs: list[tuple[int, bool]], seed: int) -> None:
    scores, labels = (np.array(part) for part in zip(*pairs, strict=True))
    shuffled = RNG(seed).permutation(len(scores))
    transformed = np.exp(scores[shuffled] / 7.0) + 5
    changed = image_metrics(transformed, labels[shuffled])
    assert changed == pytest.approx(image_metrics(scores, labels), abs=1e-12, nan_ok=True)
    shape = (1, 1, -1)
    changed = pixel_metrics(np.arctan(scores / 9).reshape(shape), labels.reshape(shape))
    expected = pixel_metrics(scores.reshape(shape), labels.reshape(shape))
    assert changed == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("decimals", [16, 1, 0])
def test_roc_curve(decimals: int) -> None:
    scores, labels = normal_scores(0, size=1000)
    scores = scores.round(decimals)
    fpr, tpr = roc_curve(scores, labels)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr + tpr) > 0).all()
    area = auroc(scores, labels)
    assert reference.auc(fpr, tpr) == pytest.approx(area, abs=1e-9)
    false, true, _ = reference.roc_curve(labels, scores)  # its corners lie on our curve
    along = np.interp(false + true, fpr + tpr, fpr)
    np.testing.assert_allclose(along, false, atol=1e-12)

    for points in (2, 7, 50):
        thin_fpr, thin_tpr = roc_curve(scores, labels, points=points)
        assert len(thin_fpr) <= points
        assert (thin_fpr[0], thin_tpr[0], thin_fpr[-1], thin_tpr[-1]) == (0, 0, 1, 1)
        assert abs(reference.auc(thin_fpr, thin_tpr) - area) <= 0.5 / (points - 1)
    assert len(roc_curve(scores, labels, points=10**6)[0]) == len(fpr)


def test_image_intervals() -> None:
    scores, labels = normal_scores(0)
    intervals = bootstrap_image(scores, labels)
    for key, value in image_metrics(scores, labels).items():
        low, high = intervals[key]
        assert 0 <= low < value < high <= 1
    assert bootstrap_image(scores, labels) == intervals
    assert bootstrap_image(scores, labels, seed=1) != intervals


def test_image_intervals_are_those_of_single_draws() -> None:
    scores, labels = normal_scores(0, size=30)
    scores = scores.round(1)
    rng, rows = RNG(5), []
    for _ in range(100):
        drawn = np.concatenate(
            [rng.choice(part, len(part)) for part in map(np.flatnonzero, (labels, ~labels))]
        )
        rows.append(list(image_metrics(scores[drawn], labels[drawn]).values()))
    ends = bootstrap_image(scores, labels, repeats=100, seed=5).values()
    np.testing.assert_allclose(list(ends), np.quantile(rows, [0.025, 0.975], axis=0).T, atol=1e-12)


def test_image_intervals_have_the_width_and_coverage_of_normal_scores() -> None:
    truth = 0.5 * (1 + math.erf(1 / 2))  # Phi(1 / sqrt(2)), of a shift by one
    covered = 0
    for seed in range(60):
        scores, labels = normal_scores(seed)
        low, high = bootstrap_image(scores, labels, repeats=300)["auroc"]
        covered += low <= truth <= high
        _, variance = delong(scores, labels)
        assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.25)
    assert covered >= 51  # of 60; 57 are expected


def test_pixel_intervals() -> None:
    parts = [blobs(seed) for seed in range(5)]
    maps, masks = (np.concatenate(part) for part in zip(*parts, strict=True))
    intervals = bootstrap_pixel(maps, masks, repeats=200)
    for key, value in pixel_metrics(maps, masks).items():
        low, high = intervals[key]
        assert 0 <= low < value < high <= 1
    assert bootstrap_pixel(maps, masks, repeats=200) == intervals
    assert bootstrap_pixel(maps, masks, repeats=200, seed=1) != intervals


def test_pixel_intervals_of_equal_images_are_the_value() -> None:
    maps, masks = (np.repeat(part[:1], 8, axis=0) for part in blobs(0, side=64))
    intervals = bootstrap_pixel(maps, masks, repeats=10)
    for key, value in pixel_metrics(maps, masks).items():
        assert intervals[key] == pytest.approx((value, value), abs=1e-3)


def test_pixel_intervals_are_those_of_single_draws() -> None:
    # Fewer distinct scores than bins: nothing is lost, so the draws agree exactly.
    maps, masks = blobs(0)
    maps = maps.round(1)
    anomalous, rng, rows = masks.any((1, 2)), RNG(5), []
    for _ in range(40):
        groups = map(np.flatnonzero, (anomalous, ~anomalous))
        drawn = np.concatenate([rng.choice(part, len(part)) for part in groups])
        rows.append(list(pixel_metrics(maps[drawn], masks[drawn]).values()))
    ends = bootstrap_pixel(maps, masks, repeats=40, seed=5, bins=2**14).values()
    np.testing.assert_allclose(list(ends), np.quantile(rows, [0.025, 0.975], axis=0).T, atol=1e-9)
