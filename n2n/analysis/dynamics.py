"""Along the training: detection, and the losses.

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

from n2n.analysis.figures import ANOMALOUS, NORMAL, OURS, new_figure
from n2n.analysis.selection import (
    category_names,
    of_the_same_seeds,
    own_records,
    parts_of,
    runs_of,
    varied_runs,
)
from n2n.analysis.sensitivity import ATTENTION, BASE, variant_label
from n2n.paper import label
from n2n.records import TRACE, Part, Record, find_records
from n2n.settings import PRESETS, Settings, changes

ALONG = (2, 5, 10, 20, 40)  # epochs; of `losses_along`
TRACED = {  # what `trace_figure` shows; and under which level the untrained network's is known
    f"test_image_{BASE.image_score}": "image", "test_image_mean": None, "test_pixel": "pixel",
}  # fmt: skip


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
    figure, (columns,) = new_figure(1, 4, (12, 3.2))
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
        for axes, (column, level) in zip(columns[1:], TRACED.items(), strict=True):
            epochs, values = trace["epoch"].to_numpy(), trace[column].to_numpy()
            if level is not None:
                untrained = record.content["untrained"][level]["auroc"]
                epochs, values = np.insert(epochs, 0, 0), np.insert(values, 0, untrained)
            axes.plot(epochs, 100 * values, "o-", ms=3 if "label" in style else 1, **style)
    columns[0].set(xlabel="epoch", ylabel="validation loss", yscale="log", title="Loss")
    if chosen:
        figure.legend(
            *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
        )  # fmt: skip
    # The same scale in every figure, so that they can be compared
    for axes, name, low in (
        (columns[1], f"Images, {BASE.image_score}", 0), (columns[2], "Images, mean", 0),
        (columns[3], "Pixels", 50),
    ):  # fmt: skip
        axes.set(xlabel="epoch", title=name, ylim=(low, 102))
    columns[1].set_ylabel("AUROC, %")
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
