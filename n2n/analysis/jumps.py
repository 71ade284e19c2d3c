"""How steady the trainings are: the jumps of their loss, and what makes it steadier.

All from run records; the small study's runs are those of `n2n.analysis.sensitivity`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from n2n.analysis.figures import PAPER, new_figure
from n2n.analysis.selection import category_names, own_records
from n2n.analysis.sensitivity import BASE, in_study, run_label
from n2n.analysis.thresholds import called_anomalous
from n2n.records import Record
from n2n.settings import BUDGET, DETECTION, PRESETS, changes

JUMP = 1.5  # times the lowest loss before
LOSSES = {  # the columns of `count_table`
    "train_loss": ("jump", "the farthest"),
    "validation_loss": ("on held-out images", "their farthest"),
}
KINDS = {  # of full-size trainings, by what they change besides the noise
    frozenset[str](): "of the tables, with residual attention",
    frozenset({"c1", "c2"}): "with squared constants",
    frozenset({"noise_grain"}): "with coarse noise",
    frozenset({"attention"}): "without the modules",
}
SMALL = "of the small study, half as large and half as wide"


def of_trainings(results: Path) -> pd.DataFrame:
    """How steadily the full-size trainings of 100 epochs went: the largest jump of their loss.

    A jump is the training loss of an epoch over the lowest before it. Those of
    ``studies/precision.yaml``, in ``results/float32``, are among them.

    Returns:
        Columns: category, run, seed, precision, jump, epoch (of the jump), kept (the epoch of the
        lowest validation loss), history, record.
    """
    rows, seen = [], set()
    records = own_records(results) + own_records(results / "float32")
    names = category_names(records)

    def use(record: Record) -> int:
        """How much the use of a network differs from the tables', which come first."""
        return len(_changed(record).keys() & DETECTION)

    for record in sorted(records, key=use):
        changed = _changed(record)
        whole = not changed.keys() & {"image_size", "width", "batch_size", *BUDGET}
        trained = {name: value for name, value in changed.items() if name not in DETECTION}
        part = record.key.part
        once = (*part, record.key.seed, record.precision, *sorted(trained.items()))
        if not whole or once in seen:  # a training may serve several runs
            continue
        seen.add(once)
        history = record.table("history.csv")
        over = _rises(history["train_loss"])
        rows.append(
            {
                "category": names[part],
                "run": run_label(trained, PRESETS["replication"]),
                "seed": record.key.seed,
                "precision": record.precision,
                "jump": over.max(),
                "epoch": int(history["epoch"][over.idxmax()]),
                "kept": record.content["training"]["best_epoch"],
                "history": history,
                "record": record,
            }
        )
    by = ["category", "run", "seed", "precision"]
    columns = [*by, "jump", "epoch", "kept", "history", "record"]
    return pd.DataFrame(rows, columns=columns).sort_values(by, ignore_index=True)


def _rises(losses: pd.Series[float]) -> pd.Series[float]:
    """Each epoch's loss over the lowest before it."""
    return losses / losses.cummin().shift(1)


def _changed(record: Record) -> dict[str, Any]:
    return changes(record.settings, PRESETS["replication"])


def figure(found: pd.DataFrame) -> Figure:
    """The training loss of each of `of_trainings` along its epochs, the wildest ones named.

    A panel for each category of several trainings.
    """
    several = found.groupby("category")["run"].transform("size") > 1
    categories = list(dict.fromkeys(found["category"][several]))
    drawn, grid = new_figure(1, max(len(categories), 1), (9, 3.6), sharey=True)
    wildest = found.sort_values("jump", ascending=False).index[:4]
    wild = dict(zip(wildest, plt.get_cmap("tab10")(range(4)), strict=False))
    for axes, category in zip(grid[0], categories, strict=False):
        for row in found[found["category"] == category].itertuples():
            name = f"{row.run}, seed {row.seed}" + (", float32" * (row.precision == "float32"))
            style: dict[str, Any] = {"color": PAPER, "alpha": 0.5, "lw": 0.8}
            single = row.precision == "float32" and not found["precision"].eq("float32").all()
            if row.Index in wild or single:
                style = {"color": wild.get(row.Index, "black"), "lw": 1.4, "label": name}
            axes.plot(row.history["epoch"], row.history["train_loss"], **style)
        axes.set(yscale="log", xlabel="epoch", title=category)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    grid[0, 0].set_ylabel("training loss, Eq. (9)")
    return drawn


def steadier_table(found: pd.DataFrame) -> pd.DataFrame:
    """What a steadier training changes: `of_trainings`, of the tables' network, at each rate.

    AUROC in percent. *Synthetic*: on synthetic defects, for the choice between them; *found*: bad
    test images above the threshold of `n2n detect`, and good ones in brackets.
    """
    rows = []
    for row in found.itertuples():
        content = row.record.content
        if not _changed(row.record).keys() <= {"learning_rate"}:
            continue
        bad, good = called_anomalous(row.record)
        rows.append(
            {
                "category": row.category,
                "learning rate": f"{content['settings']['learning_rate']:g}",
                "precision": row.precision,
                "seed": row.seed,
                "largest jump": f"{row.jump:.1f}",
                "images, synthetic": 100 * content["development"]["all"]["image_top1%"],
                "images": 100 * content["image_scores"]["top1%"]["auroc"],
                "images, maximum": 100 * content["image_scores"]["max"]["auroc"],
                "pixels": 100 * row.record.metric("pixel"),
                "found": f"{bad} of {content['data']['test_anomalous']} ({good})",
            }
        )
    by = ["category", "learning rate", "precision", "seed"]
    columns = [
        *by, "largest jump", "images, synthetic", "images", "images, maximum", "pixels", "found",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).sort_values(by, ignore_index=True).round(1)


def count_table(results: Path, found: pd.DataFrame) -> pd.DataFrame:
    """How many trainings at the usual rate jump, by their kind and precision; as text.

    By the training loss, and by that on the held-out images. The small study's are among them,
    whatever they change but the rate. A training that serves several runs counts once, by its
    losses.

    Args:
        results: folder of the runs.
        found: those at full size, of `of_trainings`.
    """
    trained = []
    for row in found.itertuples():
        kind = KINDS.get(frozenset(_changed(row.record).keys() - DETECTION - {"noise"}))
        if kind is not None:
            trained.append((kind, row.precision, row.history))
    small = {}
    for record in own_records(results) + own_records(results / "float32"):
        if record.settings.learning_rate == BASE.learning_rate and in_study(record.settings):
            history = record.table("history.csv")
            small[tuple(history["train_loss"])] = (SMALL, record.precision, history)
    rises = pd.DataFrame(
        [
            (kind, precision, *(_rises(history[loss]).max() for loss in LOSSES))
            for kind, precision, history in [*trained, *small.values()]
        ],
        columns=["trainings at 10⁻³", "precision", *LOSSES],
    )
    rows = []
    for of, group in rises.groupby(["trainings at 10⁻³", "precision"]):
        counted: dict[str, object] = dict(zip(rises.columns[:2], of, strict=True))
        counted["how many"] = len(group)
        for loss, (jump, farthest) in LOSSES.items():
            counted[jump] = int((group[loss] > JUMP).sum())
            counted[farthest] = f"{group[loss].max():.1f}-fold"
        rows.append(counted)
    order = [*KINDS.values(), SMALL]
    return pd.DataFrame(sorted(rows, key=lambda row: order.index(str(row["trainings at 10⁻³"]))))
