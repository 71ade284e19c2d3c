"""Along the training: detection, the losses and their jumps.

All from run records; the small study's runs are those of `n2n.analysis.sensitivity`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from n2n.analysis.figures import ANOMALOUS, NORMAL, OURS, PAPER, new_figure
from n2n.analysis.selection import (
    category_names,
    of_the_same_seeds,
    own_records,
    parts_of,
    runs_of,
    varied_runs,
)
from n2n.analysis.sensitivity import ATTENTION, BASE, run_label, variant_label
from n2n.analysis.tables import called_anomalous
from n2n.paper import label
from n2n.records import TRACE, Part, Record, find_records
from n2n.settings import BUDGET, DETECTION, PRESETS, Settings, changes

ALONG = (2, 5, 10, 20, 40)  # epochs; of `losses_along`


def traced(results: Path) -> list[tuple[Record, pd.DataFrame]]:
    """The runs whose detection was measured along the training, and those measurements."""
    return [
        (record, record.table(TRACE))
        for record in own_records(results)
        if (record.folder / TRACE).exists()
    ]


def trace_figure(
    results: Path,
    part: Part,
    varied: Collection[str] = ("learning_rate",),
    named: Callable[[Settings], str] = lambda settings: f"learning rate {settings.learning_rate:g}",
) -> Figure:
    """Detection and validation loss along the trainings of the small study, by what is ``varied``.

    Their settings may differ from the study's base in what is ``varied``; ``named`` is what tells
    the lines apart. Thin: further seeds.
    """
    figure, (columns,) = new_figure(1, 3, (11, 3.4))
    colours = plt.get_cmap("viridis")
    chosen = [
        (record, trace)
        for record, trace in traced(results)
        if record.key.part == part and changes(record.settings, BASE).keys() <= set(varied)
    ]
    chosen.sort(
        key=lambda item: (item[0].key.seed, *(getattr(item[0].settings, name) for name in varied))
    )
    names = list(dict.fromkeys(named(record.settings) for record, _ in chosen))
    known = set()
    for record, trace in chosen:
        history = record.table("history.csv")
        name = named(record.settings)
        place = names.index(name) / max(len(names) - 1, 1)
        style: dict[str, Any] = {"color": colours(0.15 + 0.7 * place)}
        style |= {"lw": 0.7, "alpha": 0.6} if name in known else {"label": name}
        known.add(name)
        columns[0].plot(history["epoch"], history["validation_loss"], **style)
        for axes, column in (
            (columns[1], f"test_image_{BASE.image_score}"),
            (columns[2], "test_pixel"),
        ):
            untrained = record.content["untrained"]["pixel" if "pixel" in column else "image"]
            epochs = np.concatenate([[0], trace["epoch"]])
            values = np.concatenate([[untrained["auroc"]], trace[column]])
            axes.plot(epochs, 100 * values, "o-", ms=3 if "label" in style else 1, **style)
    columns[0].set(xlabel="epoch", ylabel="validation loss", yscale="log", title="Loss")
    if chosen:
        figure.legend(
            *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
        )  # fmt: skip
    # The same scale in every figure, so that they can be compared
    columns[1].set(
        xlabel="epoch", ylabel="%", title=f"Image AUROC ({BASE.image_score})", ylim=(0, 102)
    )
    columns[2].set(xlabel="epoch", ylabel="%", title="Pixel AUROC", ylim=(50, 102))
    figure.suptitle(label(part[1]))
    return figure


def full_size_figure(
    results: Path, settings: Settings = PRESETS["replication"], other: str | None = None
) -> Figure:
    """Detection along the training of a preset's runs, on synthetic and on real defects.

    Images by the preset's score and, where it is named, by an ``other``.
    """
    records = find_records(results)
    names = category_names(records)
    shown = {
        record.key for part in parts_of(records) for record in runs_of(records, *part, settings)
    }
    chosen = [(record, trace) for record, trace in traced(results) if record.key in shown]
    own = settings.image_score
    levels = [(f"image_{own}", "images", ANOMALOUS), ("pixel", "pixels", NORMAL)]
    if other is not None:
        levels[:1] = [
            (f"image_{own}", f"images by {own}", ANOMALOUS),
            (f"image_{other}", f"images by {other}", OURS),
        ]
    columns = 2 if len(chosen) > 1 else 1
    rows = max(-(-len(chosen) // columns), 1)
    figure, grid = new_figure(rows, columns, (9, 3.2 * rows), sharey=True)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, (record, trace) in zip(grid.flat, chosen, strict=False):
        for part, style in (("test", "-"), ("development", ":")):
            for level, name, colour in levels:
                name += ", test" if part == "test" else ", synthetic"
                values = 100 * trace[f"{part}_{level}"]
                axes.plot(trace["epoch"], values, style, color=colour, label=name)
        category = names[record.key.part]
        axes.set(xlabel="epoch", title=f"{category}, seed {record.key.seed}")
    for axes in grid[:, 0]:
        axes.set_ylabel("AUROC, %")
    if chosen:
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), fontsize="small",
            loc="outside lower center", ncols=2,
        )  # fmt: skip
    return figure


def jumps(results: Path) -> pd.DataFrame:
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
        precision = record.content["provenance"]["precision"]
        part = record.key.part
        once = (*part, record.key.seed, precision, *sorted(trained.items()))
        if not whole or once in seen:  # a training may serve several runs
            continue
        seen.add(once)
        history = record.table("history.csv")
        over = history["train_loss"] / history["train_loss"].cummin().shift(1)
        rows.append(
            {
                "category": names[part],
                "run": run_label(trained, PRESETS["replication"]),
                "seed": record.key.seed,
                "precision": precision,
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


def _changed(record: Record) -> dict[str, Any]:
    return changes(record.settings, PRESETS["replication"])


def jumps_figure(found: pd.DataFrame) -> Figure:
    """The training loss of each training of `jumps` along its epochs, the wildest ones named."""
    categories = list(dict.fromkeys(found["category"]))
    figure, grid = new_figure(1, max(len(categories), 1), (9, 3.6), sharey=True)
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
    return figure


def steadier_table(found: pd.DataFrame) -> pd.DataFrame:
    """What a steadier training changes: the rows of `jumps` of the tables' network, at each rate.

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


def losses_along(results: Path) -> pd.DataFrame:
    """How fast networks learn that lack the residual attention modules, or a part (Section 3.2.1).

    Validation loss, in thousandths, after some of the epochs of the small study, a row per part and
    network: the mean over the seeds that all networks of the part have.
    """
    runs: dict[str, dict[str, list[Record]]] = {}
    for category, record in varied_runs(results, BASE, *ATTENTION):
        changed = changes(record.settings, BASE)
        network = variant_label(changed) if changed else "the whole network"
        runs.setdefault(category, {}).setdefault(network, []).append(record)
    rows = []
    for category, networks in runs.items():
        shared = of_the_same_seeds(list(networks.values()))
        if len(networks) == 1 or not shared[0]:  # nothing to compare
            continue
        for network, records in zip(networks, shared, strict=True):
            losses = [
                record.table("history.csv").set_index("epoch")["validation_loss"]
                for record in records
            ]
            mean = 1000 * pd.concat(losses, axis=1).mean(axis=1, skipna=False)
            row = {"category": category, "network": network, "seeds": len(records)}
            rows.append(row | {f"epoch {epoch}": mean.get(epoch) for epoch in ALONG})
    columns = ["category", "network", "seeds", *(f"epoch {epoch}" for epoch in ALONG)]
    return pd.DataFrame(rows, columns=columns).round(1)
