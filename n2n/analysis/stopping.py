"""When a training ends by other readings of 'if the loss did not decrease' (Section 4.2).

Nothing is trained again: until it stops, a training is the same by every rule, so the recorded
losses say when each would have ended it, and the recorded traces about what it would have detected.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from n2n.records import TRACE, Record
from n2n.settings import PRESETS, changes, of_training

RULES = (  # which loss, and the least share of it by which it must fall to count
    ("validation", 0.0),
    ("training", 0.0),
    ("validation", 0.01),
    ("validation", 0.05),
    ("validation", 0.1),
)


def stop(losses: Iterable[float], patience: int, least: float = 0.0) -> tuple[int | None, int]:
    """After which epoch a training ends, None where it does not, and which epoch it keeps.

    Args:
        losses: of its epochs, the first one's first.
        patience: epochs without a lower loss.
        least: the share of the lowest loss by which one must be below it to be lower.
    """
    lowest, kept = np.inf, 0
    for epoch, loss in enumerate(losses, 1):
        if loss < lowest * (1 - least):
            lowest, kept = loss, epoch
        elif epoch - kept >= patience:
            return epoch, kept
    return None, kept


def stopping_table(found: pd.DataFrame, *, attention: bool = True) -> pd.DataFrame:
    """What each of `RULES` makes of the full-size trainings, a row per category and rule.

    *Ended*: how many trainings, of those whose epochs suffice to tell; *after* and *kept*: the
    median, the smallest and the largest epoch of these. *Images* and *pixels*: the change of the
    test AUROC, in points, from the epoch that the training kept to the one that the rule keeps, of
    the ended ones that were *traced*, each at the nearest traced epoch: the mean, the smallest and
    the largest. No epoch is chosen by it.

    Args:
        found: of `n2n.analysis.jumps.of_trainings`; of each category those in the precision that
            most of them have.
        attention: of the network; lambda may be any.
    """
    rows = []
    wanted = set() if attention else {"attention"}
    apart = [
        changes(of_training(record.settings), PRESETS["replication"]).keys() - {"noise"}
        for record in found["record"]
    ]
    asked = found[np.array([names == wanted for names in apart], bool)]
    most = asked.groupby("category")["precision"].transform(lambda of: of.mode()[0])
    for category, trainings in asked[asked["precision"] == most].groupby("category"):
        for loss, least in RULES:
            ended, told, moved = [], 0, []
            for training in trainings.itertuples():
                settings = training.record.settings
                column = "validation_loss" if loss == "validation" else "train_loss"
                after, kept = stop(training.history[column], settings.patience, least)
                told += after is not None or len(training.history) == settings.epochs
                if after is not None:
                    ended.append((after, kept))
                    moved.append(_moved(training.record, training.kept, kept))
            change = pd.DataFrame(moved, columns=["images", "pixels"], dtype=float)
            epochs = pd.DataFrame(ended, columns=["after", "kept"])
            rows.append(
                {
                    "category": category,
                    "loss": loss,
                    "least step": f"{100 * least:g} %" if least else "any",
                    "ended": f"{len(ended)} of {told}",
                    "after epoch": _range(epochs["after"]),
                    "kept": _range(epochs["kept"]),
                    "traced": int(change["pixels"].notna().sum()),
                    "images": _extent(change["images"]),
                    "pixels": _extent(change["pixels"]),
                }
            )
    return pd.DataFrame(rows)


def _extent(points: pd.Series) -> str:
    """The mean, and in brackets the smallest and the largest, of those that are known."""
    known = points.dropna()
    if known.empty:
        return ""
    # A rounded zero has no sign of its own
    mean, low, high = (round(v, 1) + 0.0 for v in (known.mean(), known.min(), known.max()))
    return f"{mean:+.1f}" if len(known) == 1 else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _range(epochs: pd.Series) -> str:
    if epochs.empty:
        return ""
    if len(epochs) == 1:
        return f"{epochs[0]}"
    return f"{epochs.median():.0f} ({epochs.min()} to {epochs.max()})"


def _moved(record: Record, from_epoch: int, to_epoch: int) -> tuple[float, float]:
    """By how many points the test AUROC of images and pixels differs; NaN without a trace."""
    if not (record.folder / TRACE).exists():
        return np.nan, np.nan
    trace = record.table(TRACE)
    before, after = (
        trace.loc[(trace["epoch"] - epoch).abs().idxmin()] for epoch in (from_epoch, to_epoch)
    )
    change = 100 * (after - before)
    return change[f"test_image_{record.settings.image_score}"], change["test_pixel"]
