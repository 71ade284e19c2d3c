"""Exact detection and localisation metrics, without a grid of thresholds.

Every metric here changes only where a threshold passes the score of a positive. So the negatives
are sorted once, and for each positive two binary searches count the negatives above it and those
that tie with it; nothing else is needed. A metric that is not defined (no positive or no negative)
is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from n2n.errors import N2NError

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]

FPR_LIMIT = 0.3  # of AUPRO; Bergmann et al. 2021


@dataclass(frozen=True)
class _Ranking:
    """Where each positive stands among the negatives; positives in falling order of score."""

    order: NDArray[np.intp]  # of the positives
    scores: Scores  # of the positives, falling
    above: NDArray[np.intp]  # negatives with a larger score
    above_or_tied: NDArray[np.intp]  # negatives with a score at least as large
    negatives: int


def _rank(scores: Scores, labels: Labels) -> _Ranking:
    scores, labels = np.asarray(scores), np.asarray(labels, dtype=bool)
    if scores.shape != labels.shape:
        raise N2NError(f"There are scores of shape {scores.shape}, but labels of {labels.shape}.")
    if not np.isfinite(scores).all():
        raise N2NError("A score is not a finite number; the run that made it has diverged.")
    negative, positive = np.sort(scores[~labels]), scores[labels]
    order = np.argsort(-positive, kind="stable")
    positive = positive[order]
    return _Ranking(
        order,
        positive,
        len(negative) - np.searchsorted(negative, positive, "right"),
        len(negative) - np.searchsorted(negative, positive, "left"),
        len(negative),
    )


def _defined(ranking: _Ranking) -> bool:
    return len(ranking.scores) > 0 and ranking.negatives > 0


def _auroc(ranking: _Ranking) -> float:
    if not _defined(ranking):
        return float("nan")
    mean = (ranking.above.mean() + ranking.above_or_tied.mean()) / 2
    return 1 - float(mean) / ranking.negatives


def _precision_recall(ranking: _Ranking) -> tuple[Floats, Floats]:
    """Precision and recall at the score of each positive; among ties, after the last of them."""
    found = np.searchsorted(-ranking.scores, -ranking.scores, "right")
    precision = found / (found + ranking.above_or_tied)
    return precision, found / len(ranking.scores)


def _average_precision(ranking: _Ranking) -> float:
    # Each positive raises the recall by the same step, at the precision of its threshold.
    return float(_precision_recall(ranking)[0].mean()) if _defined(ranking) else float("nan")


def _f1_max(ranking: _Ranking) -> float:
    if not _defined(ranking):
        return float("nan")
    precision, recall = _precision_recall(ranking)
    return float((2 * precision * recall / (precision + recall)).max())


def _aupro(ranking: _Ranking, weights: Floats, limit: float) -> float:
    """The area under the curve of region overlap against false-positive rate, up to ``limit``.

    A positive pixel adds its weight to the overlap once the threshold passes its score, that is
    from a certain false-positive rate on; where negatives tie with it, in proportion.
    """
    if not _defined(ranking):
        return float("nan")
    first = ranking.above / ranking.negatives
    last = ranking.above_or_tied / ranking.negatives
    width = np.maximum(last - first, np.finfo(np.float64).tiny)
    ramp = np.clip(limit - first, 0, last - first)
    area = ramp**2 / (2 * width) + np.clip(limit - last, 0, None)
    return float((weights[ranking.order] * area).sum() / limit)


def region_weights(masks: Labels) -> Floats:
    """For each positive pixel in reading order, 1 / (number of regions x size of its region).

    Regions are connected along edges and corners, within one image.
    """
    parts, regions = [], 0
    for mask in masks:
        numbered, count = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(numbered.ravel())
        parts.append(1.0 / sizes[numbered[mask]])
        regions += count
    return np.concatenate(parts) / max(regions, 1) if parts else np.empty(0)


def auroc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve; ties count one half.

    Args:
        scores: any shape, larger is more anomalous.
        labels: the same shape, True is anomalous.

    Raises:
        N2NError: where the shapes differ or a score is not finite, as in all functions here.
    """
    return _auroc(_rank(scores, labels))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Step-wise area under the precision-recall curve, as scikit-learn defines it."""
    return _average_precision(_rank(scores, labels))


def f1_max(scores: Scores, labels: Labels) -> float:
    """The largest F1 over all thresholds; an optimistic figure, since it sees the labels."""
    return _f1_max(_rank(scores, labels))


def aupro(maps: Scores, masks: Labels, *, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region overlap (Bergmann et al. 2021), normalised by its limit.

    Args:
        maps: (N, H, W).
        masks: (N, H, W); each connected region counts the same, whatever its size.
        fpr_limit: false-positive rate, over all normal pixels, up to which the area is taken.
    """
    return _aupro(_rank(maps, masks), region_weights(masks), fpr_limit)


def image_metrics(scores: Scores, labels: Labels) -> dict[str, float]:
    """AUROC, average precision and F1-max of image scores, (N,) each, from 0 to 1."""
    ranking = _rank(scores, labels)
    return {
        "auroc": _auroc(ranking),
        "ap": _average_precision(ranking),
        "f1max": _f1_max(ranking),
    }


def pixel_metrics(maps: Scores, masks: Labels, *, fpr_limit: float = FPR_LIMIT) -> dict[str, float]:
    """AUROC, average precision, F1-max and AUPRO of all pixels, (N, H, W) each, from 0 to 1."""
    ranking = _rank(maps, masks)
    return {
        "auroc": _auroc(ranking),
        "ap": _average_precision(ranking),
        "f1max": _f1_max(ranking),
        "aupro": _aupro(ranking, region_weights(masks), fpr_limit),
    }


def roc_curve(scores: Scores, labels: Labels, points: int | None = None) -> tuple[Floats, Floats]:
    """False- and true-positive rates at every threshold, from (0, 0) to (1, 1).

    Args:
        scores: any shape.
        labels: the same shape.
        points: thin the curve to about so many points, evenly along it.
    """
    ranking = _rank(scores, labels)
    if not _defined(ranking):
        return np.array([0.0, 1.0]), np.array([np.nan, np.nan])
    # A corner before and after each distinct score of a positive.
    _, distinct, tied = np.unique(-ranking.scores, return_index=True, return_counts=True)
    above, above_or_tied = ranking.above[distinct], ranking.above_or_tied[distinct]
    fpr = np.stack([above, above_or_tied], 1).ravel() / ranking.negatives
    tpr = np.stack([distinct, distinct + tied], 1).ravel() / len(ranking.scores)
    fpr = np.concatenate([[0.0], fpr, [1.0]])
    tpr = np.concatenate([[0.0], tpr, [1.0]])
    if points is not None and len(fpr) > points:
        along = fpr + tpr
        kept = np.searchsorted(along, np.linspace(0, 2, points)).clip(0, len(fpr) - 1)
        kept = np.unique(np.concatenate([[0], kept, [len(fpr) - 1]]))
        fpr, tpr = fpr[kept], tpr[kept]
    return fpr, tpr


def bootstrap_image(
    scores: Scores,
    labels: Labels,
    *,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `image_metrics` over images drawn with replacement.

    Normal and anomalous images are drawn apart, since a data set fixes their numbers.
    """
    scores, labels = np.asarray(scores), np.asarray(labels, dtype=bool)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(repeats):
        drawn = _draw(labels, rng)
        rows.append(list(image_metrics(scores[drawn], labels[drawn]).values()))
    return _percentiles(("auroc", "ap", "f1max"), np.array(rows), confidence)


def bootstrap_pixel(
    maps: Scores,
    masks: Labels,
    *,
    repeats: int = 500,
    bins: int = 4096,
    confidence: float = 0.95,
    seed: int = 0,
    fpr_limit: float = FPR_LIMIT,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of `pixel_metrics` over whole images drawn with replacement.

    The pixels of each image are counted once in bins of equal shares of the scores; a draw is a
    weighted sum of these counts. So only the interval is binned, never the metric itself.
    """
    masks = np.asarray(masks, dtype=bool)
    anomalous: Labels = np.asarray(masks.any((1, 2)))
    edges = _quantile_edges(np.asarray(maps), masks, bins)
    counts = np.zeros((3, len(maps), len(edges) + 1))
    regions = np.zeros(len(maps))
    for index, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        # Bins in falling order of score, like the thresholds of a curve.
        place = len(edges) - np.searchsorted(edges, scores, "right")
        numbered, regions[index] = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(numbered.ravel())
        length = len(edges) + 1
        counts[0, index] = np.bincount(place[~mask], minlength=length)
        counts[1, index] = np.bincount(place[mask], minlength=length)
        counts[2, index] = np.bincount(place[mask], 1 / sizes[numbered[mask]], minlength=length)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(repeats):
        weights = np.bincount(_draw(anomalous, rng), minlength=len(maps)).astype(np.float64)
        negative, positive, overlap = weights @ counts
        rows.append(_binned(negative, positive, overlap / max(weights @ regions, 1), fpr_limit))
    return _percentiles(("auroc", "ap", "f1max", "aupro"), np.array(rows), confidence)


def _draw(labels: Labels, rng: np.random.Generator) -> NDArray[np.intp]:
    groups = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    return np.concatenate([rng.choice(group, len(group)) for group in groups if len(group)])


def _quantile_edges(maps: Scores, masks: Labels, bins: int) -> Scores:
    """Bin edges at equal shares of the positives and of the negatives."""
    parts = [part for part in (maps[masks], maps[~masks]) if len(part)]
    shares = (np.arange(bins // 2) + 0.5) / (bins // 2)
    ranks = [(np.sort(part), (shares * len(part)).astype(int)) for part in parts]
    return np.unique(np.concatenate([part[rank] for part, rank in ranks]))


def _binned(negative: Floats, positive: Floats, overlap: Floats, limit: float) -> list[float]:
    """The metrics of `pixel_metrics` from counts in bins of falling score."""
    if negative.sum() == 0 or positive.sum() == 0:
        return [float("nan")] * 4
    false, true = negative.cumsum(), positive.cumsum()
    fpr = np.concatenate([[0.0], false / false[-1]])
    tpr = np.concatenate([[0.0], true / true[-1]])
    precision = true / np.maximum(true + false, 1)
    recall = tpr[1:]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    pro = np.concatenate([[0.0], overlap.cumsum()])
    inside = np.concatenate([fpr[fpr < limit], [limit]])
    return [
        float(np.trapezoid(tpr, fpr)),
        float((np.diff(tpr) * precision).sum()),
        float(f1.max()),
        float(np.trapezoid(np.interp(inside, fpr, pro), inside)) / limit,
    ]


def _percentiles(
    names: tuple[str, ...], rows: Floats, confidence: float
) -> dict[str, tuple[float, float]]:
    shares = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(rows, shares, axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}
