"""What a run's network makes of its images, drawn; where images and weights are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from n2n.analysis.figures import new_figure
from n2n.analysis.mechanism import SHOWN
from n2n.corruption import corrupt, detection_noise, fixed_noise, normalise, to_photograph
from n2n.data import Category, load_category
from n2n.demo_data import CATEGORIES, DEFECTS, draw
from n2n.detection import Expected, detect
from n2n.device import choose_device
from n2n.inference import overlay
from n2n.measurement import development_set
from n2n.records import WEIGHTS, Record
from n2n.settings import Settings
from n2n.synthetic import KINDS
from n2n.training import split_validation
from n2n.weights import load_network

NOISES = (0.0, 0.2, 0.3, 0.4, 0.6)
AMPLIFIED = 3  # the differences of `passed_panels`, which are faint


class AtHand(NamedTuple):
    """A run whose images and weights are there."""

    record: Record
    images: Category
    network: nn.Module
    settings: Settings
    threshold: float  # of a pixel's error
    expected: Expected | None  # of a calibrated score
    device: torch.device


def at_hand(
    record: Record, data: str | Path | None, results: str | Path, device: str = "auto"
) -> AtHand | str:
    """What the panels of a run are drawn from, or a sentence on what is missing.

    Args:
        record: of our method.
        data: root of the data sets.
        results: folder of the decoded images.
        device: 'auto', 'cpu', 'cuda', ...
    """
    key = record.key
    if data is None:
        return (
            f"*The images of {key.dataset} are not shown: none were at hand when this page was "
            "made, and no image of the data sets is part of the repository. With the data set, "
            "`make replicate N2N_DATA=/path/to/data` draws them.*"
        )
    if not (record.folder / WEIGHTS).exists():
        return (
            f"*The images are not shown: the weights of this record are not committed. Delete "
            f"{record.folder.as_posix()} and run it again to draw them.*"
        )
    where = choose_device(device)
    network, settings, threshold, expected = load_network(record.folder, where)
    images = load_category(
        Path(data), key.dataset, key.category, settings.image_size, resize=settings.resize,
        mask_rule=settings.mask_rule, cache=Path(results) / "work" / "images", progress=False,
    )  # fmt: skip
    if images.fingerprint != record.content["data"]["fingerprint"]:
        return f"*The images in {data} are not shown: this record was made with others.*"
    return AtHand(record, images, network, settings, threshold["pixel"], expected, where)


def detection_panels(run: AtHand) -> Figure:
    """The six columns of the paper's Figure 4 for the first test image of each kind.

    So no example is picked by hand. Pixels above the threshold are predicted as anomalous.
    """
    indices = _first_of_each(run.images.defects)
    found = detect(
        run.network, run.images.test[indices], run.settings, run.device, progress=False
    )  # fmt: skip
    titles = ("original", "ground truth", "reconstruction", "anomaly map", "prediction", "overlay")
    figure, grid = _grid([run.images.defects[index] for index in indices], titles, 1.67)
    for row, index in enumerate(indices):
        original = _hwc(run.images.test[index])
        predicted = found.maps[row].numpy() > run.threshold
        shown = (
            original, run.images.masks[index].numpy(), _hwc(found.reconstructions[row]),
            found.maps[row].numpy(), predicted, overlay(original, predicted),
        )  # fmt: skip
        for column, picture in enumerate(shown):
            top = {"vmin": 0, "vmax": max(2 * run.threshold, 1e-9)} if column == 3 else {}
            grid[row, column].imshow(picture, cmap="magma" if column == 3 else "gray", **top)
    return figure


def input_panels(
    records: Mapping[str, Record],
    data: str | Path | None,
    results: str | Path,
    defects: Sequence[str] | None = None,
) -> Figure | str:
    """The input, the reconstruction and the map of some runs, or why they are missing.

    Masks are outlined, and the maps of a run have one scale.

    Args:
        records: of one category, by their titles; at least one.
        data: root of the data sets.
        results: folder of the decoded images.
        defects: one row each, the first test image of the kind; None shows all.
    """
    runs: list[AtHand] = []
    for record in records.values():
        run = at_hand(record, data, results)
        if isinstance(run, str):
            return run
        runs.append(run)
    images = runs[0].images
    indices = _first_of_each(images.defects, defects)
    titles = ["original"]
    for name in records:
        titles += [f"{name}: what\nthe network gets", "what it paints", "the difference"]
    names = [images.defects[index].replace("_", " ") for index in indices]
    figure, grid = _grid(names, titles, 1.5)
    for row, index in enumerate(indices):
        grid[row, 0].imshow(_hwc(images.test[index]))
        if images.masks[index].any():
            grid[row, 0].contour(images.masks[index].numpy(), [0.5], colors="white", linewidths=0.8)
    for column, run in zip(range(1, len(titles), 3), runs, strict=True):
        shown = run.images.test[indices]
        noisy = _corrupted(shown, run)
        found = detect(run.network, shown, run.settings, run.device, progress=False)
        for row in range(len(indices)):
            grid[row, column].imshow(_hwc(noisy[row]))
            grid[row, column + 1].imshow(_hwc(found.reconstructions[row]))
            grid[row, column + 2].imshow(
                found.maps[row].numpy(), cmap="magma", vmin=0, vmax=float(found.maps.max())
            )
    return figure


def pictures(
    shown: Tensor, columns: Sequence[str], rows: Sequence[str] = ("",), scale: float | None = 0.0
) -> Figure:
    """Images or maps in rows.

    Args:
        shown: images, (rows, columns, 3, S, S), uint8 or on [0, 1]; or maps, (rows, columns, S, S).
        columns: their titles.
        rows: their titles.
        scale: the value of black in maps, whose largest is white; None gives each map its own.
    """
    figure, grid = _grid(rows, columns, 1.3)
    limits = {} if scale is None else {"vmin": scale, "vmax": float(shown.max())}
    for axes_row, images in zip(grid, shown, strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            if image.dim() == 3:
                axes.imshow(_hwc(image))
            else:
                axes.imshow(image.numpy(), cmap="magma", **limits)
    return figure


def drawn_parts(side: int = 96) -> Figure:
    """The parts of the demonstration data, without a defect and with each kind, masks outlined."""
    shown = {part: ("", *DEFECTS[part]) for part in CATEGORIES}
    figure, grid = _grid(CATEGORIES, shown[CATEGORIES[0]], 1.6)
    for category, (axes_row, part) in enumerate(zip(grid, CATEGORIES, strict=True)):
        for axes, defect in zip(axes_row, shown[part], strict=True):
            image, mask = draw(part, (0, category, 1, 0), side, defect)
            axes.imshow(image, interpolation="none")  # not enlarged in an SVG
            if defect:
                axes.contour(mask, [127], colors="white", linewidths=0.8)
            axes.set_title(defect.replace("_", " ") or "good", fontsize=9)
    return figure


@torch.inference_mode()
def noise_panels(run: AtHand) -> Figure:
    """One anomalous image under several coefficients of Eq. (1), and its reconstructions."""
    index = int(run.images.labels.int().argmax())
    image = run.images.test[index : index + 1].to(run.device)
    x0 = normalise(image, run.settings)
    epsilon = fixed_noise(run.settings).to(run.device)
    noisy = torch.cat([corrupt(x0, epsilon, noise) for noise in NOISES])
    trained = run.settings.noise
    titles = [f"λ = {noise:g}" + " (trained)" * (noise == trained) for noise in NOISES]
    figure, grid = _grid(("corrupted", "reconstructed"), titles, 2)
    for row, pictures in enumerate((noisy, run.network(noisy))):
        shown = to_photograph(pictures, image, run.settings)
        for axes, picture in zip(grid[row], shown.cpu(), strict=True):
            axes.imshow(_hwc(picture))
    return figure


def passed_panels(run: AtHand) -> Figure:
    """What of each kind of synthetic defect passes, on the first held-out image.

    The share beside a kind is that of all its defects; see `n2n.measurement.passed_defects`.
    """
    fraction, seed = run.settings.validation_fraction, run.record.key.seed
    _, held_out = split_validation(len(run.images.train), fraction, seed)
    development = development_set(run.images, held_out)
    first = [development.defects.index(kind) for kind in KINDS]
    seen = development.test[[0, *first]]  # the image without a defect, and with each
    noisy = _corrupted(seen, run)
    painted = detect(run.network, seen, run.settings, run.device, progress=False).reconstructions
    drawn, passed = (
        (0.5 + AMPLIFIED * (shown[1:].float() - shown[:1]) / 255).clamp(0, 1)
        for shown in (seen, painted)
    )
    shares = run.record.content.get("passed_defects", {})
    names = [SHOWN[kind] + (f": {shares[kind]:.0%}" if kind in shares else "") for kind in KINDS]
    titles = (
        "normal image", "with a defect", "what the network gets", "what it paints",
        f"the defect, {AMPLIFIED} times", f"what passes, {AMPLIFIED} times",
    )  # fmt: skip
    figure, grid = _grid(names, titles, 1.7)
    for row in range(len(KINDS)):
        pictures = (
            seen[0], seen[row + 1], noisy[row + 1], painted[row + 1], drawn[row], passed[row]
        )  # fmt: skip
        for axes, picture in zip(grid[row], pictures, strict=True):
            axes.imshow(_hwc(picture))
    return figure


def _corrupted(images: Tensor, run: AtHand) -> Tensor:
    """What the network is given of images, uint8 (N, 3, S, S), on [0, 1]."""
    x0 = normalise(images, run.settings)
    x = corrupt(x0, detection_noise(run.settings), run.settings.test_noise)
    return to_photograph(x, images, run.settings)


def _first_of_each(defects: Sequence[str], kinds: Sequence[str] | None = None) -> list[int]:
    """The first test image of each kind, or of some."""
    return [defects.index(kind) for kind in dict.fromkeys(defects if kinds is None else kinds)]


def _grid(rows: Sequence[str], columns: Sequence[str], side: float) -> tuple[Figure, Any]:
    """A figure of pictures, so many inches wide each, and its axes."""
    size = (side * len(columns), side * len(rows) + 0.4)
    figure, grid = new_figure(len(rows), len(columns), size)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(name, fontsize=9)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=9)
    return figure, grid


def _hwc(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()
