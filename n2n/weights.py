"""The file of a trained network, ``weights.pt``, and what detection needs beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from n2n.detection import Expected
from n2n.device import memory_errors, out_of_memory
from n2n.errors import N2NError
from n2n.records import RECORD, WEIGHTS, read_record
from n2n.settings import Settings, settings_from_dict
from n2n.training import build_network, read_saved


def save_network(
    path: Path,
    network: nn.Module,
    settings: Settings,
    threshold: dict[str, float],
    expected: Expected | None,
) -> None:
    """Write what `load_network` reads.

    Raises:
        OSError, RuntimeError: where the file cannot be written.
    """
    torch.save(
        {
            "settings": settings.as_dict(),
            "threshold": threshold,
            "network": network.state_dict(),
            "expected": None if expected is None else dataclasses.asdict(expected),
        },
        path,
    )


@memory_errors("close other programs or choose another --device")
def load_network(
    path: Path, device: torch.device
) -> tuple[nn.Module, Settings, dict[str, float], Expected | None]:
    """The network, settings, thresholds and expected error of a run's folder or ``weights.pt``.

    Raises:
        N2NError: where the file is missing, must not be read or is not such a file, or the memory
            is too small.
    """
    file = path / WEIGHTS if path.is_dir() else path
    mend = "name a run's folder"
    if (file.parent / RECORD).exists():
        mend = "it may be damaged: delete its folder and run it again"
    foreign = N2NError(f"{file} is not a file of weights that `n2n run` wrote; {mend}.")
    try:
        saved = read_saved(file, foreign)  # on the CPU, where maps are calibrated
    except FileNotFoundError as error:
        raise _no_weights(file) from error
    try:
        settings = settings_from_dict(saved["settings"])
        network = build_network(settings, 0, device)
        network.load_state_dict(saved["network"])
        threshold = {name: float(value) for name, value in saved["threshold"].items()}
        expected = Expected(**saved["expected"]) if saved.get("expected") else None
    except N2NError as error:
        raise N2NError(f"{file} is of another version of this program. {error}") from error
    except Exception as error:  # so can what is in it
        if out_of_memory(error):
            raise
        raise foreign from error
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
