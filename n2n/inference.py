"""Detection on a user's own images, written as pictures and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os.path import realpath  # unlike Path.resolve, bears links in a circle
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from n2n.data import in_parallel, unreadable_name
from n2n.decoding import decode_image
from n2n.detection import detect, image_scores
from n2n.device import choose_device, choose_precision, keep_freed_memory
from n2n.errors import N2NError, write_errors
from n2n.files import write_whole
from n2n.records import RECORD
from n2n.weights import load_network


def detect_files(
    images: Sequence[Path],
    source: Path,
    out: Path,
    *,
    device: str = "auto",
    precision: str = "float32",
    threshold: float | None = None,
) -> pd.DataFrame:
    """Score images with the network of a run, and write what it sees.

    Args:
        images: files of any size and mode; resized as in the training.
        source: a run's folder, or its ``weights.pt``.
        out: folder for ``NAME_heat.png`` and ``NAME_overlay.png``, squares of the network's size,
            and ``scores.csv``.
        device: 'auto', 'cpu', 'cuda', ...
        precision: 'float32', as the run's threshold was found; 'float16', 'bfloat16' or 'auto' may
            be faster.
        threshold: an image whose score is above it is called anomalous; None takes the run's, what
            held-out normal images reached at most. That of the pixels stays the run's.

    Returns:
        A row per image: image, score, threshold, anomalous (the score is above it).

    Raises:
        N2NError: where the threshold is not finite, an image or the weights cannot be read, a name
            is not UTF-8, two images share one, an image or a run record would be overwritten, or
            the folder cannot be written; nothing is written before all images were read.
    """
    where = choose_device(device)
    dtype = choose_precision(precision, where, training=False)
    if where.type == "cpu":
        keep_freed_memory()
    _check_images(images)
    network, settings, found_at, expected = load_network(source, where)
    limit = found_at["image"] if threshold is None else threshold
    if not math.isfinite(limit):
        raise N2NError(f"The threshold {limit} is not finite; give a number.")
    pictures = _pictures(images, out)
    decoded = np.stack(
        in_parallel(
            lambda path: decode_image(path, settings.image_size, settings.resize),
            images, "reading images", True,
        )
    )  # fmt: skip
    with write_errors(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)  # before the time is spent
    pixels = torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous()
    found = detect(network, pixels, settings, where, dtype, expected=expected)
    scores = image_scores(found.scored)[settings.image_score].numpy()
    table = pd.DataFrame(
        {
            "image": [str(path) for path in images],
            "score": scores,
            "threshold": limit,
            "anomalous": scores > limit,
        }
    )
    colours = matplotlib.colormaps["magma"]
    with write_errors(out, "choose another --out"):
        each = zip(pictures, decoded, found.maps.numpy(), strict=True)
        for (heat, marked), image, error in tqdm(
            each, "writing pictures", len(pictures), leave=False
        ):
            _save(colours(np.clip(error / (2 * found_at["pixel"]), 0, 1), bytes=True), heat)
            _save(overlay(image, error > found_at["pixel"]), marked)
        write_whole(
            out / "scores.csv", lambda file: table.to_csv(file, index=False, float_format="%.9g")
        )
    return table


def _check_images(images: Sequence[Path]) -> None:
    """Refuse what is no file, or cannot be named in a table."""
    for path in images:
        if path.is_dir():
            raise N2NError(f"{path} is a folder; name the images in it, as in {path / '*.png'}.")
        if not path.exists():
            raise N2NError(f"There is no file {path}; check its name.")
        for part in (path, *path.parents):
            if said := unreadable_name(part):
                raise N2NError(said)


def _pictures(images: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Where the heat map and the overlay of each image belong, if nothing is lost by them."""
    names = [path.stem for path in images]
    folded = [name.casefold() for name in names]  # as some file systems do
    if len(set(folded)) < len(names):
        twice = next(name for name in names if folded.count(name.casefold()) > 1)
        raise N2NError(f"Two images are called {twice!r}; rename one, or detect them separately.")
    pictures = [(out / f"{name}_heat.png", out / f"{name}_overlay.png") for name in names]
    given = {realpath(path) for path in images}
    if lost := [path for pair in pictures for path in pair if realpath(path) in given]:
        raise N2NError(f"The image {lost[0]} would be overwritten; choose another --out.")
    if (out / RECORD).exists():
        raise N2NError(
            f"{out} holds a run record, whose scores.csv would be lost; choose another --out."
        )
    return pictures


def overlay(image: NDArray[np.uint8], predicted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image (H, W, 3) with the predicted pixels (H, W) tinted red."""
    tinted = image.astype(np.float32)
    tinted[predicted] = 0.45 * tinted[predicted] + 0.55 * np.array([255.0, 30.0, 30.0])
    return tinted.astype(np.uint8)


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    colours = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    write_whole(path, lambda file: colours.save(file, "PNG"))
