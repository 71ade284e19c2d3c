"""Run records, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from n2n.baselines.settings import BaselineSettings
from n2n.plan import Run
from n2n.records import write_record
from n2n.settings import Settings, make_settings

SYNTHETIC = {"image_max": 0.7, "image_mean": 0.8, "image_top1%": 0.8, "pixel": 0.9}


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
            "training": {"epochs": settings.epochs, "best_epoch": 1, "stopped": "early"},
            "development": {"all": SYNTHETIC},
        }
    key = Run(dataset, category, settings, seed).key
    return write_record(key, results, base | content, files).folder


def study_run(
    results: Path, settings: Settings, image: float, seed: int = 0, images: str = "some"
) -> None:
    """A finished run with all that the pages of the study read; ``images`` is its data."""
    error = {"defects": 0.04, "beside": 0.01, "normal": 0.02}
    write(
        results, settings, image, seed=seed, files=lambda folder: _write_scores(folder, image),
        intervals={"image": {"auroc": (image - 0.05, image)}, "pixel": {"auroc": (0.8, 0.95)}},
        image_scores={
            name: {"auroc": auroc}
            for name, auroc in (("max", image), ("mean", 0.6), ("top1%", image))
        },
        trivial={
            name: {"image": {"auroc": 0.3}, "pixel": {"auroc": 0.4}}
            for name in ("mean_image", "blurred_image")
        },
        reconstruction={"absolute": error, "anomaly_map": error},
        peak_in_defect={"maps": 0.25, "scored": 0.5},
        hidden_defects={"max": 0.1, "mean": 0.2, "top1%": 0.3},
        hidden_alike={"max": 0.4, "mean": 0.5, "top1%": 0.6},
        hidden_alike_farther={"max": 0.3, "mean": None, "top1%": 0.7},
        training={"epochs": settings.epochs, "best_epoch": 1, "stopped": "epochs"},
        threshold={"image": 0.25},
        data={"fingerprint": images, "test_anomalous": 100},
    )  # fmt: skip


def _write_scores(folder: Path, image: float) -> None:
    """Of one good and 100 bad images, of which so large a share is above the good one."""
    table = pd.DataFrame({"image": [f"{n:03d}.png" for n in range(101)]})
    table["anomalous"] = [0] + 100 * [1]
    table["top1%"] = [0.5] + [float(n < round(100 * image)) for n in range(100)]
    table["max"] = table["mean"] = table["top1%"]
    table.to_csv(folder / "scores.csv", index=False)


def small(**changes: object) -> Settings:
    """Those of the small study, `n2n.analysis.sensitivity.BASE`, but for ``changes``."""
    size = {"image_size": 128, "width": 16, "epochs": 40, "t_max": 40}
    return make_settings("replication", **(size | changes))  # type: ignore[arg-type]


def table_run(
    results: Path,
    category: str = "metal_plate",
    image: float = 0.99,
    seed: int = 0,
    dataset: str = "MPDD",
    stopped: str = "early",
    **changes: object,
) -> Path:
    """A run of a preset with these changes, as the tables read it."""
    settings = make_settings(str(changes.pop("preset", "replication")), **changes)
    training = {"epochs": settings.epochs, "stopped": stopped}
    return write(
        results, settings, image, dataset=dataset, category=category, seed=seed, training=training
    )


def with_scores(folder: Path, threshold: float, top: list[float], **content: object) -> None:
    """Give a record the scores of two good test images and three bad ones, and a threshold."""
    stored = json.loads((folder / "record.json").read_text())
    stored |= {"threshold": {"image": threshold}} | content
    (folder / "record.json").write_text(json.dumps(stored))
    scores = {"anomalous": [0, 0, 1, 1, 1], "top1%": top, "max": 9.0}
    pd.DataFrame(scores).to_csv(folder / "scores.csv", index=False)
