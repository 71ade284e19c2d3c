"""Run records, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from n2n.baselines.settings import BaselineSettings
from n2n.plan import Run
from n2n.records import write_record
from n2n.settings import Settings


def write(
    results: Path,
    settings: Settings | BaselineSettings,
    image: float = 0.99,
    *,
    dataset: str = "MPDD",
    category: str = "metal_plate",
    seed: int = 0,
    files: Callable[[Path], None] = lambda _: None,
    **content: Any,
) -> Path:
    """A finished run with this image-level AUROC; ``content`` replaces parts of its record."""
    pixel = {"auroc": 0.9, "ap": 0.1, "f1max": 0.2, "aupro": 0.8}
    base: dict[str, Any] = {
        "metrics": {"image": {"auroc": image, "ap": 0.5, "f1max": 0.6}, "pixel": pixel},
        "intervals": {
            "image": {"auroc": (image - 0.002, image + 0.002)},
            "pixel": {"auroc": (0.89, 0.91)},
        },
        "image_scores": {
            "max": {"auroc": 0.4},
            "mean": {"auroc": image - 0.1},
            "top1%": {"auroc": image},
        },
        "settings": asdict(settings),
        "provenance": {"precision": "bfloat16"},
    }
    if isinstance(settings, Settings):
        base |= {
            "untrained": {"image": {"auroc": 0.5}, "pixel": {"auroc": 0.8}},
            "training": {"epochs": settings.epochs, "stopped": "early"},
        }
    key = Run(dataset, category, settings, seed).key
    return write_record(key, results, base | content, files).folder
