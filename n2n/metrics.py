"""Exact detection and localisation metrics, without a grid of thresholds.

Where each positive stands among the negatives determines every metric here. So the negatives above
each distinct score of a positive and those that tie with it are counted once; all metrics follow in
closed form. Each lies between 0 and 1, and is NaN where it is
not defined: without a positive, without a negative, or without anything.

Every function raises `N2NError` where a score is not finite or the shapes do not fit.

Sources: Fawcett, "An introduction to ROC analysis", 2006 (AUROC, ties); scikit-learn's
`average_precision_score` (average precision); Bergmann et al., "The MVTec Anomaly Detection
Dataset", IJCV 2021, and its published evaluation code (AUPRO); Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from n2n.errors import N2NError

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]

NAMES = {"auroc": "AUROC", "ap": "average precision", "f1max": "F1-max", "aupro": "AUPRO"}
PIXEL_KEYS = tuple(NAMES)
IMAGE_KEYS = PIXEL_KEYS[:3]
FPR_LIMIT = 0.3  # of AUPRO; Bergmann et al. 2021
TAILS = (0.025, 0.975)  # between which 95 % of the draws of a bootstrap lie


def auroc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative; ties count half.

    Args:
        scores: any shape, larger is more anomalous.
        labels: the same shape, True is anomalous.
    """
    return image_metrics(scores, labels)["auroc"]


def image_metrics(scores: Scores, labels: Labels) -> dict[str, float]:
    """AUROC, average precision and F1-max of one score per image.

    Average precision is the step-wise area under the precision-recall curve, as scikit-learn
    defines it. F1-max is the largest F1 over all thresholds; an optimistic figure, since it sees
    the labels.

    Args:
        scores: (N,), larger is more anomalous.
        labels: (N,), True is anomalous.

    Returns:
        The values of `IMAGE_KEYS`.
    """
    scores, labels = _checked(scores, labels)
    if not _defined(labels):
        return dict.fromkeys(IMAGE_KEYS, math.nan)
    above, reached, gained, _ = _steps(scores, labels)
    values = _measure(above, reached, gained, int((~labels).sum()))
    return {key: float(value) for key, value in values.items()}


def pixel_metrics(maps: Scores, masks: Labels, *, fpr_limit: float = FPR_LIMIT) -> dict[str, float]:
    """AUROC, average precision and F1-max of all pixels together, and AUPRO, from one count.

    AUPRO is the area under the per-region overlap against the false-positive rate, divided by its
    limit. The overlap is the found share of a region, averaged over the regions of all images,
    which are connected along edges and corners. The rate is that of all normal pixels of all
    images.

    Args:
        maps: (N, H, W), larger is more anomalous.
        masks: (N, H, W), True is anomalous.
        fpr_limit: the rate up to which the area of AUPRO is taken, above 0 and at most 1.

    Returns:
        The values of `PIXEL_KEYS`.
    """
    maps, masks = _checked(maps, masks, fpr_limit)
    if not _defined(masks):
        return dict.fromkeys(PIXEL_KEYS, math.nan)
    above, reached, gained, step = _steps(maps, masks)
    shares = np.concatenate([_region_shares(mask) for mask in masks if mask.any()])
    overlap: Floats = np.bincount(step, shares).astype(np.float64)
    values = _measure(above, reached, gained, int((~masks).sum()), overlap, fpr_limit)
    return {key: float(value) for key, value in values.items()}


def roc_curve(scores: Scores, labels: Labels, points: int | None = None) -> tuple[Floats, Floats]:
    """False- and true-positive rates, from (0, 0) to (1, 1); straight between neighbours.

    Args:
        scores: any shape, larger is more anomalous.
        labels: the same shape, True is anomalous.
        points: at most so many, at least 2. A longer curve is read at even steps of the sum of
            both rates, so the area under it moves by at most 0.5 / (points - 1).

    Returns:
        Two arrays of one length; the true-positive rate is NaN where the curve is not defined.
    """
    scores, labels = _checked(scores, labels)
    if not _defined(labels):
        return np.array([0.0, 1.0]), np.array([np.nan, np.nan])
    above, reached, gained, _ = _steps(scores, labels)
    # A corner before and after each distinct score of a positive.
    found, negatives = gained.cumsum(), (~labels).sum()
    fpr = np.stack([above, reached], 1).ravel() / negatives
    tpr = np.stack([found - gained, found], 1).ravel() / found[-1]
    fpr, tpr = np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], tpr, [1.0]])
    moved = np.append(True, (np.diff(fpr) > 0) | (np.diff(tpr) > 0))
    fpr, tpr = fpr[moved], tpr[moved]
    if points is not None and len(fpr) > points:
        along, steps = fpr + tpr, np.linspace(0, 2, points)
        fpr, tpr = np.interp(steps, along, fpr), np.interp(steps, along, tpr)
    return fpr, tpr


def bootstrap_image(
    scores: Scores,
    labels: Labels,
    *,
    repeats: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of `image_metrics` over images drawn with replacement.

    Normal and anomalous images are drawn apart: a data set fixes their numbers, on which average
    precision and F1 depend, and no draw can lack a class.

    Args:
        scores: (N,), larger is more anomalous.
        labels: (N,), True is anomalous.
        repeats: number of draws.
        seed: of the draws.

    Returns:
        The lower and upper end for each of `IMAGE_KEYS`.
    """
    scores, labels = _checked(scores, labels)
    if not _defined(labels):
        return dict.fromkeys(IMAGE_KEYS, (math.nan, math.nan))
    order = np.argsort(-scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # a score's first image

    def drawn(weights: Floats) -> list[Floats]:
        kinds = (weights * ~labels, weights * labels)
        return [np.add.reduceat(kind[:, order], ties, axis=1) for kind in kinds]

    return _intervals(drawn, labels, repeats, seed)


def bootstrap_pixel(
    maps: Scores,
    masks: Labels,
    *,
    repeats: int = 500,
    bins: int = 4096,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of `pixel_metrics` over whole images drawn with replacement.

    Images with and without a defect are drawn apart. Pixels of one image are not independent, so
    an image is drawn or left as a whole: its pixels are counted once in bins of scores, and a draw
    is a weighted sum of these counts. Only the interval is binned, never the metric itself.

    Args:
        maps: (N, H, W), larger is more anomalous.
        masks: (N, H, W), True is anomalous.
        repeats: number of draws.
        bins: half of them at even shares of the positives, half at even shares of the negatives.
        seed: of the draws.

    Returns:
        The lower and upper end for each of `PIXEL_KEYS`.
    """
    maps, masks = _checked(maps, masks, FPR_LIMIT)
    if not _defined(masks):
        return dict.fromkeys(PIXEL_KEYS, (math.nan, math.nan))
    edges = np.union1d(*(_quantiles(part, bins // 2) for part in (maps[masks], maps[~masks])))
    length = len(edges) + 1
    counts = np.zeros((3, len(maps), length))
    for index, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        place = len(edges) - np.searchsorted(edges, scores, "right")  # falling, like thresholds
        counts[0, index] = np.bincount(place[~mask], minlength=length)
        counts[1, index] = np.bincount(place[mask], minlength=length)
        counts[2, index] = np.bincount(place[mask], _region_shares(mask), length)
    anomalous: Labels = np.any(masks, axis=(1, 2))
    return _intervals(lambda weights: weights @ counts, anomalous, repeats, seed)


def _checked(
    scores: Scores, labels: Labels, fpr_limit: float | None = None
) -> tuple[Scores, Labels]:
    """Both as arrays of floats and of booleans; with ``fpr_limit``, both must be stacks of maps."""
    scores, labels = np.asarray(scores), np.asarray(labels, dtype=bool)
    scores = scores.astype(np.result_type(scores, np.float32), copy=False)
    if scores.shape != labels.shape:
        raise N2NError(
            f"The scores have the shape {scores.shape}, but their labels {labels.shape}; "
            "give one label for each score."
        )
    # NaN and infinity reach an end of the range; no array of booleans is formed.
    if scores.size and not np.isfinite([scores.min(), scores.max()]).all():
        raise N2NError("A score is not a finite number; repeat the run that made it.")
    if fpr_limit is not None:
        if scores.ndim != 3:
            raise N2NError(f"Give maps of the shape (N, H, W), not {scores.shape}.")
        if not 0 < fpr_limit <= 1:
            raise N2NError(f"Give a false-positive rate above 0 and at most 1, not {fpr_limit}.")
    return scores, labels


def _defined(labels: Labels) -> bool:
    return bool(labels.any() and not labels.all())


def _steps(
    scores: Scores, labels: Labels
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Counts at each distinct score of a positive, from the largest score to the smallest.

    Returns:
        The negatives with a larger score, the negatives with at least this score, and the
        positives with this score; then, for each positive in reading order, the number of its step.
    """
    distinct, step, gained = np.unique(-scores[labels], return_inverse=True, return_counts=True)
    above, reached = _negatives(scores[~labels], -distinct[::-1])
    return above[::-1], reached[::-1], gained, step


def _negatives(negative: Scores, distinct: Scores) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How many negatives lie above each of the distinct scores, and how many at or above it.

    Nothing is sorted. The range of the distinct scores, which rise, is cut into cells; where a
    cell holds one of them at most, a comparison tells how many lie below a negative, and only
    elsewhere it is searched for. A cell's number never falls as the score rises, so that rounding
    in it does no harm.
    """
    cells = min(2**20, 4 * (len(negative) + len(distinct)))
    span = float(distinct[-1]) - float(distinct[0])
    scale = cells / span if span > cells / np.finfo(np.float64).max else 0.0

    def cell(values: Scores) -> NDArray[np.intp]:
        if scale == 0:  # of one score, or of a range beyond the numbers: a single cell
            return np.zeros(len(values), np.intp)
        with np.errstate(over="ignore"):  # far outside is outside
            place = (values - distinct[0]).astype(np.float64) * scale
        found: NDArray[np.intp] = place.clip(0, cells - 1).astype(np.intp)
        return found

    first = np.searchsorted(cell(distinct), np.arange(cells + 1))
    crowded = np.diff(first) > 1
    ends = np.append(distinct, np.inf).astype(distinct.dtype)
    below, ties = np.zeros((2, len(ends)), np.intp)
    for part in np.array_split(negative, -(-len(negative) // 2**20)):  # fits the cache
        at = cell(part)
        rank = first[at]  # distinct scores below
        rank += ends[rank] < part
        many = crowded[at]
        rank[many] = np.searchsorted(distinct, part[many])
        below += np.bincount(rank, minlength=len(ends))
        ties += np.bincount(rank[ends[rank] == part], minlength=len(ends))
    above = below[::-1].cumsum()[::-1][1:]
    return above, above + ties[:-1]


def _measure(
    above: NDArray[Any],
    reached: NDArray[Any],
    gained: NDArray[Any],
    negatives: int | Floats,
    overlap: Floats | None = None,
    fpr_limit: float = FPR_LIMIT,
) -> dict[str, Floats]:
    """All metrics from counts at falling scores along the last axis.

    Args:
        above: (..., K), negatives with a larger score.
        reached: (..., K), negatives with at least this score.
        gained: (..., K), positives with this score.
        negatives: all of them, a number or (..., 1).
        overlap: (..., K), the positives again, each divided by the size of its region.
        fpr_limit: up to which false-positive rate AUPRO is taken.
    """
    found = gained.cumsum(-1)
    positives = found[..., -1:]
    first, last = above / negatives, reached / negatives
    values = {
        "auroc": (gained * (1 - (first + last) / 2)).sum(-1) / positives[..., 0],
        "ap": (gained * (found / np.maximum(found + reached, 1))).sum(-1) / positives[..., 0],
        "f1max": (2 * found / (positives + found + reached)).max(-1),
    }
    if overlap is not None:
        # A pixel counts from the rate on at which the threshold passes its score: not before
        # `first`, fully after `last`, and where negatives tie with it, in proportion between.
        width = last - first
        ramp = np.clip(fpr_limit - first, 0, width)
        tiny = np.finfo(np.float64).tiny
        area = ramp**2 / np.maximum(2 * width, tiny) + np.clip(fpr_limit - last, 0, None)
        values["aupro"] = (overlap * (area / fpr_limit)).sum(-1) / overlap.sum(-1)
    return values


def _region_shares(mask: Labels) -> Floats:
    """For each anomalous pixel of a mask (H, W), in reading order, 1 / size of its region."""
    regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    inside = regions[mask]
    shares: Floats = 1.0 / np.bincount(inside)[inside]
    return shares


def _quantiles(scores: Scores, count: int) -> Scores:
    ranks = ((np.arange(count) + 0.5) / count * len(scores)).astype(int)
    quantiles: Scores = np.sort(scores)[ranks]
    return quantiles


def _intervals(
    counts: Callable[[Floats], Iterable[Floats]], anomalous: Labels, repeats: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of `_measure` over draws of images, each class apart.

    Args:
        counts: of draws, how often each has which image, (R, N), the numbers in bins of falling
            score, (R, K) each: negatives, positives and, for AUPRO, positives divided by the size
            of their region.
        anomalous: (N,), the class of each image.
        repeats: number of draws.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    classes = [part for part in map(np.flatnonzero, (anomalous, ~anomalous)) if len(part)]
    drawn = [
        np.concatenate([rng.choice(part, len(part)) for part in classes]) for _ in range(repeats)
    ]
    weights = np.array([np.bincount(images, minlength=len(anomalous)) for images in drawn], float)
    parts: list[dict[str, Floats]] = []
    for some in np.array_split(weights, -(-repeats // 64)):  # bounds the memory
        negative, positive, *overlap = counts(some)
        reached = negative.cumsum(-1)
        with np.errstate(invalid="ignore"):  # NaN for a draw without a normal pixel
            parts.append(
                _measure(
                    reached - negative,
                    reached,
                    positive,
                    reached[:, -1:],
                    overlap[0] if overlap else None,
                )
            )
    intervals = {}
    for key in parts[0]:
        low, high = np.quantile(np.concatenate([part[key] for part in parts]), TAILS)
        intervals[key] = float(low), float(high)
    return intervals
