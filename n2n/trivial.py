"""Detectors that learn nothing or next to nothing, measured on the same images.

A pixel AUROC near 99 says little where a detector that was never trained reaches 97: defects often
differ from their surroundings in ways that any contrast shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from n2n import metrics
from n2n.corruption import normalise
from n2n.data import Category
from n2n.detection import anomaly_map, image_scores
from n2n.loss import gaussian_filter
from n2n.settings import Settings

BLUR = 4.0  # pixels, of the blurred image


@torch.inference_mode()
def trivial_metrics(images: Category, settings: Settings) -> dict[str, Any]:
    """Metrics of two anomaly maps without a network, at both levels.

    The map is that of the settings, without a calibration, with a stand-in for the reconstruction:

    - ``mean_image``: the mean of the training images;
    - ``blurred_image``: the test image itself under a Gaussian filter of 4 pixels.
    """
    mean = normalise(images.train.float().mean(0, keepdim=True))
    stand_ins: dict[str, Callable[[Tensor], Tensor]] = {
        "mean_image": lambda x0: mean.expand_as(x0),
        "blurred_image": lambda x0: gaussian_filter(x0, BLUR, "reflect"),
    }
    found = {}
    for name, stand_in in stand_ins.items():
        maps = torch.cat(
            [
                anomaly_map(stand_in(x0), x0, settings)
                for x0 in map(normalise, torch.split(images.test, 8))
            ]
        )
        scores = image_scores(maps)[settings.image_score].numpy()
        found[name] = {
            "image": metrics.image_metrics(scores, images.labels.numpy()),
            "pixel": metrics.pixel_metrics(maps.numpy(), images.masks.numpy()),
        }
    return found
