"""Our method on one category: training, detection, metrics, and the files of its record."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from n2n import metrics
from n2n.data import Category
from n2n.detection import Detection, Expected, detect, expected_error, image_scores
from n2n.device import can_compile
from n2n.errors import N2NError, write_errors
from n2n.files import write_whole
from n2n.measurement import (
    MARGIN,
    Measured,
    aurocs,
    by_position,
    development_metrics,
    development_set,
    hidden_alike,
    hidden_defects,
    measure_test,
    negative_factors,
    passed_defects,
    peak_in_defect,
    point_metrics,
    reconstruction_errors,
    trivial_metrics,
    write_scores,
)
from n2n.plan import Run, run_of
from n2n.records import (
    CHECKPOINT,
    RECORD,
    TRACE,
    WEIGHTS,
    Record,
    read_record,
)
from n2n.settings import DETECTION, Settings
from n2n.training import Trained, build_network, split_validation, train
from n2n.weights import load_network, save_network


def measure(
    run: Run,
    settings: Settings,
    images: Category,
    results: Path,
    device: torch.device,
    precision: torch.dtype,
    *,
    compile_network: bool | None,
    progress: bool,
) -> Measured:
    """Train our method and measure it.

    Where a training is there already it is not repeated, and its trace is taken over if its maps
    are the same.

    Args:
        run: whose settings these are, with the precision that it has.
        settings: of the run.
        images: of its category.
        results: folder of the checkpoint, and of the runs that may have trained the same network.
        device: where to train and detect.
        precision: of the training.
        compile_network: use ``torch.compile``; None does so on a GPU where it can.
        progress: show progress bars on stderr.
    """
    if compile_network is None:
        compile_network = can_compile(device)
    began = time.monotonic()
    learned, held_out = split_validation(len(images.train), settings.validation_fraction, run.seed)
    normal, development = images.train[learned], development_set(images, held_out)
    prepared = time.monotonic() - began
    trained, traced = _trained_already(run, settings, images, results, device) or _train_and_trace(
        run, settings, images, normal, development, precision, results, device,
        compile_network=compile_network, progress=progress,
    )  # fmt: skip
    if run.trace and not traced and trained.origin:
        print(
            f"no {TRACE} is written: the network is that of {trained.origin['variant']}, whose "
            "training was not traced with these maps",
            file=sys.stderr,
        )
    resumed = time.monotonic()
    expected = _expected(trained.network, normal, settings, device)
    content, detected = _measure(
        run.seed, settings, images, normal, development, trained, expected, device, progress
    )
    content["training"] = {
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "seconds": round(trained.seconds, 1),
        "commits": trained.commits,
        "devices": trained.devices,
        "by": trained.origin,  # None: by this run
    }

    def write_files(folder: Path) -> None:
        _write_files(folder, images, detected, trained, expected, settings, content["threshold"])
        if run.trace and traced:
            _write_trace(folder / TRACE, traced)

    return Measured(
        content,
        # As if the training had not been interrupted
        seconds=prepared + trained.seconds + time.monotonic() - resumed,
        write_files=write_files,
        provenance={
            "scored_in": "float32",  # without this entry: in the precision of the training
            "compiled": trained.origin.get("compiled") if trained.origin else compile_network,
        },
    )


def _train_and_trace(
    run: Run,
    settings: Settings,
    images: Category,
    normal: Tensor,
    development: Category,
    precision: torch.dtype,
    results: Path,
    device: torch.device,
    *,
    compile_network: bool,
    progress: bool,
) -> tuple[Trained, dict[int, dict[str, float]]]:
    """The trained network, and what it detected along its training, by epoch."""
    key = run.key
    checkpoint = key.work(results) / CHECKPOINT
    # A trace without its checkpoint is of a training that was given up
    traced = _read_trace(key.work(results) / TRACE) if run.trace and checkpoint.exists() else {}
    if run.trace and checkpoint.exists() and not traced:
        print(f"{TRACE} will begin where {checkpoint} ends: no trace was kept", file=sys.stderr)

    def look(epoch: int, network: nn.Module) -> None:
        if epoch % run.trace and epoch not in (1, 2, settings.epochs):
            return
        expected = _expected(network, normal, settings, device)
        traced[epoch] = {}
        for name, part in {"test": images, "development": development}.items():
            found = detect(network, part.test, settings, device, expected=expected, progress=False)
            traced[epoch] |= {f"{name}_{level}": v for level, v in aurocs(part, found).items()}
        path = key.work(results) / TRACE
        with write_errors(path, "free some space or choose another --results folder"):
            _write_trace(path, traced)

    trained = train(
        images.train,
        settings,
        run.seed,
        device,
        precision,
        checkpoint=checkpoint,
        compile_network=compile_network,
        progress=progress,
        label=f"{run.dataset}/{run.category} {key.variant} seed {run.seed}",
        after_epoch=look if run.trace else None,
    )
    return trained, traced


def _measure(
    seed: int,
    settings: Settings,
    images: Category,
    normal: Tensor,
    development: Category,
    trained: Trained,
    expected: Expected | None,
    device: torch.device,
    progress: bool,
) -> tuple[dict[str, Any], Detection]:
    """What the record says of the trained network, and its detections in the test images."""
    # On held-out normal images, so no test label is used: what they reach at most is where a
    # prediction begins, and synthetic defects on them judge what the paper leaves open.
    held_out_seen = detect(
        trained.network, development.test, settings, device, expected=expected, progress=progress
    )
    good = ~development.labels
    detecting = time.monotonic()
    detected = detect(
        trained.network, images.test, settings, device, expected=expected, progress=progress
    )
    per_image = (time.monotonic() - detecting) / len(images.test)
    untrained_network = build_network(settings, seed, device)
    untrained = detect(
        untrained_network, images.test, settings, device, progress=False,
        expected=_expected(untrained_network, normal, settings, device),
    )  # fmt: skip
    every_score = image_scores(detected.scored)
    content = measure_test(images, detected.maps, every_score, settings.image_score) | {
        "untrained": point_metrics(
            images, untrained.maps, image_scores(untrained.scored)[settings.image_score]
        ),
        "trivial": trivial_metrics(images, settings, device),
        "reconstruction": reconstruction_errors(images, detected),
        "negative_factors": negative_factors(images, detected, settings),
        "peak_in_defect": {
            "maps": peak_in_defect(images, detected.maps),
            "scored": peak_in_defect(images, detected.scored),
        },
        "hidden_defects": hidden_defects(images, detected.scored),
        "hidden_alike": hidden_alike(images, detected.scored),
        "hidden_alike_farther": hidden_alike(images, detected.scored, 2 * MARGIN),
        "threshold": {
            "image": float(image_scores(held_out_seen.scored[good])[settings.image_score].max()),
            "pixel": float(held_out_seen.maps[good].max()),
        },
        "development": development_metrics(development, held_out_seen),
        "passed_defects": passed_defects(development, held_out_seen),
        "by_position": by_position(images, detected.maps, held_out_seen.maps[good]),
        "inference": {"seconds_per_image": round(per_image, 4)},
    }
    return content, detected


def _expected(
    network: nn.Module,
    normal: Tensor,
    settings: Settings,
    device: torch.device,
) -> Expected | None:
    """What error to expect where, from the images of the training; None without calibration."""
    if settings.calibration == "none":
        return None
    maps = detect(network, normal, settings, device, progress=False).maps
    return expected_error(maps)


def _trained_already(
    run: Run, settings: Settings, images: Category, results: Path, device: torch.device
) -> tuple[Trained, dict[int, dict[str, float]]] | None:
    """The network and the trace of a finished run that differs only in how its network is used.

    A damaged record is no hindrance, nor are damaged weights or a damaged trace: this run then
    trains a network of its own.
    """
    variants = run.key.folder(results).parents[1]
    for weights in sorted(variants.glob(f"*/seed{run.seed}/{WEIGHTS}")):
        if not (weights.parent / RECORD).exists():
            continue  # left over from a record that is gone: Git ignores the weights
        with contextlib.suppress(N2NError, KeyError, OSError, ValueError):
            record = read_record(weights.parent)
            same_images = record.content["data"]["fingerprint"] == images.fingerprint
            if same_images and run_of(record).training == run.training:
                return _load_trained(record, device), _trace_of(record, settings)
    return None


def _load_trained(record: Record, device: torch.device) -> Trained:
    """The network of a finished run, and how it came about."""
    training, provenance = record.content["training"], record.content["provenance"]
    history = record.table("history.csv")
    return Trained(
        network=load_network(record.folder, device)[0],
        history=[
            {str(name): float(value) for name, value in row.items()}
            for row in history.to_dict("records")
        ],
        best_epoch=training["best_epoch"],
        stopped=training["stopped"],
        seconds=training["seconds"],
        commits=training.get("commits", [provenance["commit"]]),
        devices=training.get("devices", [provenance["device"]]),
        origin=training.get("by")
        or {"variant": record.key.variant}
        | {name: provenance.get(name) for name in ("commit", "device", "compiled")},
    )


def _trace_of(record: Record, settings: Settings) -> dict[int, dict[str, float]]:
    """The trace of another use of the same network, where its maps are those of these settings."""
    there, here = record.settings.as_dict(), settings.as_dict()
    same = all(there[name] == here[name] for name in DETECTION - {"image_score"})
    return _read_trace(record.folder / TRACE) if same else {}


def _read_trace(path: Path) -> dict[int, dict[str, float]]:
    """The rows that an interrupted run has measured, by epoch.

    Raises:
        N2NError: where the file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        frame = pd.read_csv(path).set_index("epoch")
    except (OSError, ValueError, KeyError) as error:
        raise N2NError(
            f"{path} cannot be read; delete it to go on without what it held, or delete its folder "
            "to train again."
        ) from error
    return {int(epoch): row.to_dict() for epoch, row in frame.iterrows()}


def _write_trace(path: Path, rows: dict[int, dict[str, float]]) -> None:
    frame = pd.DataFrame([{"epoch": epoch, **row} for epoch, row in sorted(rows.items())])
    write_whole(path, lambda file: frame.to_csv(file, index=False, float_format="%.6g"))


def _write_files(
    folder: Path,
    images: Category,
    detected: Detection,
    trained: Trained,
    expected: Expected | None,
    settings: Settings,
    threshold: dict[str, float],
) -> None:
    history = pd.DataFrame(trained.history)
    history["epoch"] = history["epoch"].astype(int)
    history.to_csv(folder / "history.csv", index=False, float_format="%.7g")
    write_scores(folder, images, image_scores(detected.scored))
    fpr, tpr = metrics.roc_curve(
        detected.maps.numpy().ravel(), images.masks.numpy().ravel(), points=400
    )
    curve = pd.DataFrame({"fpr": fpr, "tpr": tpr})
    curve.to_csv(folder / "pixel_roc.csv", index=False, float_format="%.6g")
    save_network(folder / WEIGHTS, trained.network, settings, threshold, expected)
