"""What a run's network makes of its test images, drawn; where images and weights are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from n2n.analysis import figures
from n2n.corruption import corrupt, fixed_noise, normalise, to_unit
from n2n.data import Category, load_category
from n2n.detection import Detection, detect
from n2n.device import choose_device
from n2n.experiment import load_network
from n2n.measurement import development_set
from n2n.records import WEIGHTS, Record
from n2n.settings import Settings
from n2n.synthetic import KINDS
from n2n.training import split_validation

NOISES = (0.0, 0.2, 0.3, 0.4, 0.6)


def detection_panels(
    record: Record, data: str | Path | None, results: str | Path, device: str = "auto"
) -> Figure | str:
    """The columns of Figure 4 for the first test image of each kind, or why they are missing."""
    at_hand = _at_hand(record, data, results, device)
    if isinstance(at_hand, str):
        return at_hand
    images, network, settings, threshold, where = at_hand
    indices = figures.first_of_each_defect(images.defects)
    found = detect(network, images.test[indices], settings, where, progress=False)
    return _once(figures.detection_panels(images, indices, found, threshold["pixel"]))


@torch.inference_mode()
def input_panels(
    records: Mapping[str, Record],
    data: str | Path | None,
    results: str | Path,
    defects: Sequence[str] | None = None,
    device: str = "auto",
) -> Figure | str:
    """The input, the reconstruction and the map of some runs, or why they are missing.

    Args:
        records: of one category, by their titles.
        data: root of the data sets.
        results: folder of the decoded images.
        defects: one row each, the first test image of the kind; None shows all.
        device: 'auto', 'cpu', 'cuda', ...
    """
    seen: dict[str, tuple[Tensor, Detection]] = {}
    for title, record in records.items():
        at_hand = _at_hand(record, data, results, device)
        if isinstance(at_hand, str):
            return at_hand
        images, network, settings, _, where = at_hand
        kinds = images.defects if defects is None else list(defects)
        indices = [images.defects.index(kind) for kind in dict.fromkeys(kinds)]
        shown = images.test[indices]
        noisy = corrupt(normalise(shown), fixed_noise(settings), settings.noise)
        found = detect(network, shown, settings, where, progress=False)
        seen[title] = to_unit(noisy).clamp(0, 1), found
    return _once(figures.input_panels(images, indices, seen))


@torch.inference_mode()
def noise_panels(
    record: Record, data: str | Path | None, results: str | Path, device: str = "auto"
) -> Figure | str:
    """One anomalous image under several coefficients of Eq. (1), and its reconstructions."""
    at_hand = _at_hand(record, data, results, device)
    if isinstance(at_hand, str):
        return at_hand
    images, network, settings, _, where = at_hand
    index = int(images.labels.int().argmax())
    x0 = normalise(images.test[index : index + 1].to(where))
    noisy = torch.cat([corrupt(x0, fixed_noise(settings).to(where), noise) for noise in NOISES])
    shown = [to_unit(x).clamp(0, 1).cpu() for x in (noisy, network(noisy))]
    return _once(figures.noise_panels(NOISES, shown[0], shown[1], settings.noise))


@torch.inference_mode()
def passed_panels(
    record: Record, data: str | Path | None, results: str | Path, device: str = "auto"
) -> Figure | str:
    """What of each kind of synthetic defect passes, on the first held-out image; or why not.

    The share that a kind's name gives is that of all its defects; see
    `n2n.measurement.passed_defects`.
    """
    at_hand = _at_hand(record, data, results, device)
    if isinstance(at_hand, str):
        return at_hand
    images, network, settings, _, where = at_hand
    _, held_out = split_validation(len(images.train), settings.validation_fraction, record.key.seed)
    development = development_set(images, held_out)
    normal, first = development.test[:1], int((~development.labels).sum())
    defective = development.test[first : first + len(KINDS)]
    seen = torch.cat([normal, defective])
    corruption = settings.noise if settings.noise_at_test else 0.0
    noisy = to_unit(corrupt(normalise(seen), fixed_noise(settings), corruption)).clamp(0, 1)
    painted = detect(network, seen, settings, where, progress=False).reconstructions / 255
    columns = {
        "normal image": normal.expand_as(defective) / 255,
        "with a defect": defective / 255,
        "what the network gets": noisy[1:],
        "what it paints": painted[1:],
        "what passes": (0.5 + painted[1:] - painted[:1]).clamp(0, 1),
    }
    shares = record.content.get("passed_defects", {})
    rows = [f"{kind}: {shares[kind]:.0%}" if kind in shares else kind for kind in KINDS]
    return _once(figures.passed_panels(rows, columns))


def _once(figure: Figure) -> Figure:
    """Closed, so that a notebook shows it as the cell's value and not a second time."""
    plt.close(figure)
    return figure


def _at_hand(
    record: Record, data: str | Path | None, results: str | Path, device: str
) -> tuple[Category, nn.Module, Settings, dict[str, float], torch.device] | str:
    """A record's images, network, settings and thresholds, or a sentence on what is missing."""
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
    size = record.content["settings"]["image_size"]
    cache = Path(results) / "work" / "images"
    images = load_category(Path(data), key.dataset, key.category, size, cache=cache, progress=False)
    if images.fingerprint != record.content["data"]["fingerprint"]:
        return f"*The images in {data} are not shown: this record was made with others.*"
    where = choose_device(device)
    network, settings, threshold, _ = load_network(record.folder, where)
    return images, network, settings, threshold, where
