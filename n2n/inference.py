"""Detection on a user's own images, written as pictures and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from PIL import Image

from n2n.data import decode_image
from n2n.detection import detect, image_scores
from n2n.device import choose_device, choose_precision, keep_freed_memory
from n2n.errors import N2NError, reason
from n2n.experiment import load_network
from n2n.figures import overlay


def detect_files(
    images: Sequence[Path],
    source: Path,
    out: Path,
    *,
    device: str = "auto",
    precision: str = "float32",
    progress: bool = True,
) -> pd.DataFrame:
    """Score images with the network of a run, and write what it sees.

    Args:
        images: files of any size and mode; resized as in the training.
        source: a run's folder, or its ``weights.pt``.
        out: folder for ``NAME_heat.png``, ``NAME_overlay.png`` and ``scores.csv``.
        device: 'auto', 'cpu', 'cuda', ...
        precision: 'float32', as the run's threshold was found; 'float16', 'bfloat16' or 'auto' may
            be faster.
        progress: show a bar on stderr.

    Returns:
        A row per image: image, score, threshold, anomalous (the score is above everything that
        held-out normal images reached).

    Raises:
        N2NError: where an image or the weights cannot be read, two images share a name, or the
            folder cannot be written; nothing is written before all images were read.
    """
    where = choose_device(device)
    dtype = choose_precision(precision, where, training=False)
    if where.type == "cpu":
        keep_freed_memory()
    network, settings, threshold, expected = load_network(source, where)
    names = [path.stem for path in images]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise N2NError(f"Two images are called {twice!r}; rename one, or detect them separately.")
    decoded = np.stack([decode_image(path, settings.image_size) for path in images])
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the time is spent
    except OSError as failed:
        raise _unwritable(out, failed) from failed
    pixels = torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous()
    found = detect(network, pixels, settings, where, dtype, expected=expected, progress=progress)
    scores = image_scores(found.scored)[settings.image_score].numpy()
    table = pd.DataFrame(
        {
            "image": [str(path) for path in images],
            "score": scores,
            "threshold": threshold["image"],
            "anomalous": scores > threshold["image"],
        }
    )
    colours = matplotlib.colormaps["magma"]
    try:
        for name, image, error in zip(names, decoded, found.maps.numpy(), strict=True):
            heat = colours(np.clip(error / (2 * threshold["pixel"]), 0, 1), bytes=True)[..., :3]
            Image.fromarray(np.ascontiguousarray(heat)).save(out / f"{name}_heat.png")
            tinted = overlay(image, error > threshold["pixel"])
            Image.fromarray(tinted).save(out / f"{name}_overlay.png")
        table.to_csv(out / "scores.csv", index=False, float_format="%.9g")
    except OSError as failed:
        raise _unwritable(out, failed) from failed
    return table


def _unwritable(out: Path, error: OSError) -> N2NError:
    return N2NError(f"{out} cannot be written ({reason(error)}); choose another --out.")
