"""One cell of a table: data, training, detection, metrics, record."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from n2n import metrics
from n2n.data import Category, load_category
from n2n.detection import Detection, Expected, detect, expected_error, image_scores
from n2n.device import choose_device, choose_precision, reset_peak_memory
from n2n.errors import N2NError, reason
from n2n.files import write_whole
from n2n.measurement import (
    about_data,
    about_run,
    aurocs,
    development_metrics,
    development_set,
    hidden_alike,
    hidden_defects,
    measure_test,
    peak_in_defect,
    point_metrics,
    reconstruction_errors,
)
from n2n.plan import Run, run_of
from n2n.records import (
    CHECKPOINT,
    RECORD,
    TRACE,
    WEIGHTS,
    Record,
    finished,
    no_record,
    only_one,
    read_record,
    refuse_other_images,
    write_record,
)
from n2n.settings import DETECTION, Settings, settings_from_dict
from n2n.training import Trained, build_network, split_validation, train
from n2n.trivial import trivial_metrics


def run_experiment(
    run: Run,
    data: str | Path | None,
    *,
    results: Path = Path("results"),
    device: str = "auto",
    compile_network: bool | None = None,
    progress: bool = True,
) -> Record:
    """Train and measure our method on one category, or return the record that is there already.

    Scores are always float32, whatever the training's precision: in half precision a pair of images
    that are nearly alike can change places. Where a training is there already it is not repeated,
    and its trace is taken over if its maps are the same.

    Args:
        run: what to run.
        data: root of the data sets; the images are in ``data/dataset/category``. None only takes
            the record that is there.
        results: folder of the records; see `n2n.records`.
        device: 'auto', 'cpu', 'cuda', ...
        compile_network: use ``torch.compile``; None does so on a GPU.
        progress: show progress bars on stderr.

    Raises:
        N2NError: where something outside the program is wrong; a run that was interrupted
            continues from its checkpoint when it is started again.
        TypeError: where the run is a baseline's.
    """
    key, settings = run.key, _own_settings(run)
    if record := finished(key, results, run.precision, progress):
        return record
    if data is None:
        raise no_record(key, results)
    where = choose_device(device)
    dtype = choose_precision(run.precision, where)
    run = dataclasses.replace(run, precision=str(dtype).removeprefix("torch."))
    if compile_network is None:
        compile_network = where.type == "cuda"
    with only_one(key, results):
        if record := finished(key, results):  # by another process, just now
            return record
        began = time.monotonic()
        own_peak = reset_peak_memory(where)
        images = load_category(
            Path(data), run.dataset, run.category, settings.image_size,
            cache=results / "work" / "images", progress=progress,
        )  # fmt: skip
        refuse_other_images(key, results, images.fingerprint)
        learned, held_out = split_validation(
            len(images.train), settings.validation_fraction, run.seed
        )
        normal, development = images.train[learned], development_set(images, held_out)
        prepared = time.monotonic() - began
        trained, traced = _trained_already(run, images, results, where) or _train_and_trace(
            run, images, normal, development, dtype, results, where,
            compile_network=compile_network, progress=progress,
        )  # fmt: skip
        resumed = time.monotonic()
        expected = _expected(trained.network, normal, settings, where)
        content, detected = _measure(
            run, images, normal, development, trained, expected, where, progress
        )
        measured = time.monotonic() - resumed
        content["training"] = {
            "epochs": len(trained.history),
            "best_epoch": trained.best_epoch,
            "stopped": trained.stopped,
            "seconds": round(trained.seconds, 1),
            "commits": trained.commits,
            "by": trained.origin,  # None: by this run
        }
        content["provenance"] = about_run(
            run,
            where,
            prepared + trained.seconds + measured,  # as if the training had not been interrupted
            own_peak,
        ) | {
            "scored_in": "float32",  # without this entry: in the precision of the training
            "compiled": trained.origin["compiled"] if trained.origin else compile_network,
        }

        def write_files(folder: Path) -> None:
            _write_files(folder, images, detected, trained, expected, content)
            if run.trace and traced:
                _write_trace(folder / TRACE, traced)

        return write_record(key, results, content, write_files)


def _own_settings(run: Run) -> Settings:
    """The settings of a run of our method.

    Raises:
        TypeError: where it is a baseline's.
    """
    if not isinstance(run.settings, Settings):
        raise TypeError(f"{run.key.method} is run by n2n.baselines.run_baseline")
    return run.settings


def _train_and_trace(
    run: Run,
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
    key, settings = run.key, _own_settings(run)
    checkpoint = key.work(results) / CHECKPOINT
    # A trace without its checkpoint is of a training that was given up
    traced = _read_trace(key.work(results) / TRACE) if run.trace and checkpoint.exists() else {}

    def look(epoch: int, network: nn.Module) -> None:
        if epoch % run.trace and epoch not in (1, 2, settings.epochs):
            return
        expected = _expected(network, normal, settings, device)
        traced[epoch] = {}
        for name, part in {"test": images, "development": development}.items():
            found = detect(network, part.test, settings, device, expected=expected, progress=False)
            traced[epoch] |= {f"{name}_{level}": v for level, v in aurocs(part, found).items()}
        _write_trace(key.work(results) / TRACE, traced)

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
    run: Run,
    images: Category,
    normal: Tensor,
    development: Category,
    trained: Trained,
    expected: Expected | None,
    device: torch.device,
    progress: bool,
) -> tuple[dict[str, Any], Detection]:
    """What the record says of the trained network, and its detections in the test images."""
    settings = _own_settings(run)
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
    untrained_network = build_network(settings, run.seed, device)
    untrained = detect(
        untrained_network, images.test, settings, device, progress=False,
        expected=_expected(untrained_network, normal, settings, device),
    )  # fmt: skip
    every_score = image_scores(detected.scored)
    content = measure_test(images, detected.maps, every_score, settings.image_score) | {
        "untrained": point_metrics(
            images, untrained.maps, image_scores(untrained.scored)[settings.image_score]
        ),
        "trivial": trivial_metrics(images, settings),
        "reconstruction": reconstruction_errors(images, detected),
        "peak_in_defect": {
            "maps": peak_in_defect(images, detected.maps),
            "scored": peak_in_defect(images, detected.scored),
        },
        "hidden_defects": hidden_defects(images, detected.scored),
        "hidden_alike": hidden_alike(images, detected.scored),
        "threshold": {
            "image": float(image_scores(held_out_seen.scored[good])[settings.image_score].max()),
            "pixel": float(held_out_seen.maps[good].max()),
        },
        "development": development_metrics(development, held_out_seen),
        "settings": settings.as_dict(),
        "inference": {"seconds_per_image": round(per_image, 4)},
        "data": about_data(images),
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
    run: Run, images: Category, results: Path, device: torch.device
) -> tuple[Trained, dict[int, dict[str, float]]] | None:
    """The network and the trace of a finished run that differs only in how its network is used.

    A damaged record or damaged weights are no hindrance: this run then trains a network of its own.
    """
    variants = run.key.folder(results).parents[1]
    for weights in sorted(variants.glob(f"*/seed{run.seed}/{WEIGHTS}")):
        if not (weights.parent / RECORD).exists():
            continue  # left over from a record that is gone: Git ignores the weights
        trained = None
        with contextlib.suppress(N2NError, KeyError, OSError, ValueError):
            record = read_record(weights.parent)
            same_images = record.content["data"]["fingerprint"] == images.fingerprint
            if same_images and run_of(record).training == run.training:
                trained = _load_trained(record, device)
        if trained is not None:
            return trained, _trace_of(record, _own_settings(run))
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
        origin=training.get("by")
        or {"variant": record.key.variant}
        | {name: provenance.get(name) for name in ("commit", "device", "compiled")},
    )


def _trace_of(record: Record, settings: Settings) -> dict[int, dict[str, float]]:
    """The trace of another use of the same network, where its maps are those of these settings."""
    there, here = record.settings.as_dict(), settings.as_dict()
    same = all(there[name] == here[name] for name in DETECTION - {"image_score"})
    return _read_trace(record.folder / TRACE) if same else {}


def load_network(
    path: Path, device: torch.device
) -> tuple[nn.Module, Settings, dict[str, float], Expected | None]:
    """The network, settings, thresholds and expected error of a run's folder or ``weights.pt``.

    Raises:
        N2NError: where the file is missing or not such a file.
    """
    file = path / WEIGHTS if path.is_dir() else path
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)  # where maps are calibrated
        settings = settings_from_dict(saved["settings"])
        network = build_network(settings, 0, device)
        network.load_state_dict(saved["network"])
        threshold = {name: float(value) for name, value in saved["threshold"].items()}
        expected = Expected(**saved["expected"]) if saved.get("expected") else None
    except FileNotFoundError as error:
        raise _no_weights(file) from error
    except PermissionError as error:
        raise N2NError(f"{file} cannot be read ({reason(error)}); give the right to.") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a foreign file can fail in many ways
        raise N2NError(
            f"{file} is not a file of weights that `n2n run` wrote; name a run's folder."
        ) from error
    network.eval()
    return network, settings, threshold, expected


def _no_weights(file: Path) -> N2NError:
    """What to say of weights that are missing; `n2n run` makes none where a record is complete."""
    folder = file.parent
    if not (folder / RECORD).exists():
        return N2NError(f"There are no weights {file}; name a run's folder, or train by `n2n run`.")
    method = read_record(folder).key.method
    if method != "n2n":
        return N2NError(f"{folder} has no weights: {method} keeps none; name a run of n2n.")
    return N2NError(
        f"There are no weights {file} (they are not committed); run it again into another "
        f"--results folder, or delete {folder} first."
    )


def _read_trace(path: Path) -> dict[int, dict[str, float]]:
    """The rows that an interrupted run has measured, by epoch."""
    if not path.exists():
        return {}
    frame = pd.read_csv(path).set_index("epoch")
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
    content: dict[str, Any],
) -> None:
    history = pd.DataFrame(trained.history)
    history["epoch"] = history["epoch"].astype(int)
    history.to_csv(folder / "history.csv", index=False, float_format="%.7g")
    scores = {name: s.numpy() for name, s in image_scores(detected.scored).items()}
    pd.DataFrame(
        {
            "image": images.names,
            "defect": images.defects,
            "anomalous": images.labels.int(),
            **scores,
        }
    ).to_csv(folder / "scores.csv", index=False, float_format="%.9g")
    fpr, tpr = metrics.roc_curve(
        detected.maps.numpy().ravel(), images.masks.numpy().ravel(), points=400
    )
    pd.DataFrame({"fpr": np.asarray(fpr), "tpr": np.asarray(tpr)}).to_csv(
        folder / "pixel_roc.csv", index=False, float_format="%.6g"
    )
    torch.save(
        {
            "settings": content["settings"],
            "threshold": content["threshold"],
            "network": trained.network.state_dict(),
            "expected": None if expected is None else dataclasses.asdict(expected),
        },
        folder / WEIGHTS,
    )
