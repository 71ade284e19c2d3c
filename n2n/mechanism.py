"""Behind the tables: what the training, the noise and the network's parts do to the detection.

All from run records; the small study's runs are those of `n2n.sensitivity`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from n2n.baseline_settings import METHODS, BaselineSettings, row_label
from n2n.beyond import INGREDIENTS
from n2n.figures import ANOMALOUS, NORMAL, PAPER
from n2n.paper import printed_cells
from n2n.records import Record, find_records
from n2n.sensitivity import BASE, in_study, label, own_records
from n2n.settings import DETECTION, PRESETS, Settings, changes, settings_from_dict
from n2n.tables import called_anomalous, runs_of

# A change of these is named in the figure of `quality_figure`
NAMED = {"alpha", "c1", "network", "loss_range", "global_residual", "attention"}


def traced(results: Path) -> list[tuple[Record, pd.DataFrame]]:
    """The runs whose detection was measured along the training, and those measurements."""
    return [
        (record, pd.read_csv(record.folder / "trace.csv"))
        for record in own_records(results)
        if (record.folder / "trace.csv").exists()
    ]


def trace_figure(results: Path, category: str) -> Figure:
    """Detection and validation loss along the training, for each learning rate of the study."""
    figure, columns = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    rates = plt.get_cmap("viridis")
    chosen = [
        (record, trace)
        for record, trace in traced(results)
        if record.key.category == category
        and record.key.seed == 0
        and set(changes(settings_from_dict(record.content["settings"]), BASE)) <= {"learning_rate"}
    ]
    chosen.sort(key=lambda item: item[0].content["settings"]["learning_rate"])
    for number, (record, trace) in enumerate(chosen):
        history = pd.read_csv(record.folder / "history.csv")
        colour = rates(0.15 + 0.7 * number / max(len(chosen) - 1, 1))
        name = f"{record.content['settings']['learning_rate']:g}"
        columns[0].plot(history["epoch"], history["validation_loss"], color=colour, label=name)
        for axes, column in (
            (columns[1], f"test_image_{BASE.image_score}"),
            (columns[2], "test_pixel"),
        ):
            untrained = record.content["untrained"]["pixel" if "pixel" in column else "image"]
            epochs = np.concatenate([[0], trace["epoch"]])
            values = np.concatenate([[untrained["auroc"]], trace[column]])
            axes.plot(epochs, 100 * values, "o-", ms=3, color=colour, label=name)
    columns[0].set(xlabel="epoch", ylabel="validation loss", yscale="log", title="Loss")
    if chosen:
        figure.legend(
            *columns[0].get_legend_handles_labels(), title="learning rate",
            loc="outside right upper",
        )  # fmt: skip
    # The same scale in every figure, so that they can be compared
    columns[1].set(
        xlabel="epoch", ylabel="%", title=f"Image AUROC ({BASE.image_score})", ylim=(0, 102)
    )
    columns[2].set(xlabel="epoch", ylabel="%", title="Pixel AUROC", ylim=(50, 102))
    figure.suptitle(category.replace("_", " "))
    plt.close(figure)
    return figure


def full_size_figure(results: Path) -> Figure:
    """Detection along the training of the tables' own runs, on synthetic and on real defects."""
    records = find_records(results)
    shown = {
        record.key
        for dataset, category in {(record.key.dataset, record.key.category) for record in records}
        for record in runs_of(records, dataset, category, PRESETS["replication"])
    }
    chosen = [(record, trace) for record, trace in traced(results) if record.key in shown]
    rows = max(-(-len(chosen) // 2), 1)
    figure, grid = plt.subplots(
        rows, 2, figsize=(9, 3.2 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, (record, trace) in zip(grid.flat, chosen, strict=False):
        for part, style in (("test", "-"), ("development", ":")):
            for level, colour in (("image_top1%", ANOMALOUS), ("pixel", NORMAL)):
                name = f"{'images' if level != 'pixel' else 'pixels'}, " + (
                    "test" if part == "test" else "synthetic"
                )
                values = 100 * trace[f"{part}_{level}"]
                axes.plot(trace["epoch"], values, style, color=colour, label=name)
        category = record.key.category.replace("_", " ")
        axes.set(xlabel="epoch", title=f"{category}, seed {record.key.seed}")
    for axes in grid[:, 0]:
        axes.set_ylabel("AUROC, %")
    if chosen:
        grid[0, 0].legend(fontsize="small")
    plt.close(figure)
    return figure


def jumps(results: Path) -> pd.DataFrame:
    """How steadily the full-size trainings of 100 epochs went: the largest jump of their loss.

    A jump is the training loss of an epoch over the lowest before it. Runs in single precision are
    those in ``results/float32``; see ``studies/precision.yaml``.

    Returns:
        Columns: category, run, seed, precision, epochs, jump, epoch (of the jump), kept (the epoch
        of the lowest validation loss), stopped ('early' or 'epochs'), history, record.
    """
    rows, seen = [], set()
    for record in own_records(results) + own_records(results / "float32"):
        settings = settings_from_dict(record.content["settings"])
        training = record.content["training"]
        changed = changes(settings, PRESETS["replication"])
        whole = not changed.keys() & {"image_size", "width", "batch_size", "epochs", "t_max"}
        trained = {name: value for name, value in changed.items() if name not in DETECTION}
        precision = record.content["provenance"]["precision"]
        once = (record.key.category, record.key.seed, precision, *sorted(trained.items()))
        if not whole or once in seen:  # a training may serve several runs
            continue
        seen.add(once)
        history = pd.read_csv(record.folder / "history.csv")
        over = history["train_loss"] / history["train_loss"].cummin().shift(1)
        rows.append(
            {
                "category": record.key.category.replace("_", " "),
                "run": label(trained) if trained else "λ = 0.3",
                "seed": record.key.seed,
                "precision": precision,
                "epochs": training["epochs"],
                "jump": over.max(),
                "epoch": int(history["epoch"][over.idxmax()]),
                "kept": training["best_epoch"],
                "stopped": training["stopped"],
                "history": history,
                "record": record,
            }
        )
    columns = (
        "category", "run", "seed", "precision", "epochs", "jump", "epoch", "kept", "stopped",
        "history", "record",
    )  # fmt: skip
    return pd.DataFrame(rows, columns=list(columns))


def jumps_figure(found: pd.DataFrame) -> Figure:
    """The training loss of each training of `jumps` along its epochs, the wildest ones named."""
    categories = list(dict.fromkeys(found["category"]))
    figure, grid = plt.subplots(
        1, max(len(categories), 1), figsize=(9, 3.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    wildest = found.sort_values("jump", ascending=False).index[:4]
    wild = dict(zip(wildest, plt.get_cmap("tab10")(range(4)), strict=False))
    for axes, category in zip(grid[0], categories, strict=False):
        for row in found[found["category"] == category].itertuples():
            name = f"{row.run}, seed {row.seed}" + (", float32" * (row.precision == "float32"))
            style: dict[str, Any] = {"color": PAPER, "alpha": 0.5, "lw": 0.8}
            if row.Index in wild or row.precision == "float32":
                style = {"color": wild.get(row.Index, "black"), "lw": 1.4, "label": name}
            axes.plot(row.history["epoch"], row.history["train_loss"], **style)
        axes.set(yscale="log", xlabel="epoch", title=category)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    grid[0, 0].set_ylabel("training loss, Eq. (9)")
    plt.close(figure)
    return figure


def steadier_table(found: pd.DataFrame) -> pd.DataFrame:
    """What a steadier training changes: the rows of `jumps` of the tables' network, at each rate.

    AUROC in percent. *Synthetic*: on synthetic defects, for the choice between them; *found*: bad
    test images above the threshold of `n2n detect`, and good ones in brackets.
    """
    rows = []
    for row in found.itertuples():
        content = row.record.content
        settings = settings_from_dict(content["settings"])
        if not changes(settings, PRESETS["replication"]).keys() <= {"learning_rate"}:
            continue
        bad, good = called_anomalous(row.record)
        rows.append(
            {
                "category": row.category,
                "learning rate": f"{settings.learning_rate:g}",
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


def longer_training(
    results: Path, category: str = "bracket_white", budgets: tuple[int, int] = (25, 100)
) -> pd.DataFrame:
    """What a larger budget of epochs changes at full size, a column for each lambda, as text.

    Of the seeds that were run with both budgets the first; percent, and the ratio of the error in
    the defects to that beside them.
    """
    runs: dict[tuple[float, int], dict[int, Record]] = {}  # by lambda and seed, then by budget
    for record in own_records(results):
        settings = settings_from_dict(record.content["settings"])
        changed = changes(settings, PRESETS["replication"]).keys()
        if record.key.category == category and changed <= {"noise", "epochs", "t_max"}:
            of_seed = runs.setdefault((settings.noise, record.key.seed), {})
            of_seed[settings.epochs] = record
    table: dict[str, dict[str, str]] = {}
    for (noise, _), of_seed in sorted(runs.items()):
        if f"λ = {noise:g}" in table or not set(budgets) <= of_seed.keys():
            continue
        values = [_localisation(of_seed[epochs]) for epochs in budgets]
        table[f"λ = {noise:g}"] = {
            name: f"{values[0][name]:.1f} → {values[1][name]:.1f}" for name in values[0]
        }
    frame = pd.DataFrame(table)
    frame.index.name = f"{budgets[0]} → {budgets[1]} epochs"
    return frame.reset_index()


def _localisation(record: Record) -> dict[str, float]:
    error = record.content["reconstruction"]["absolute"]
    return {
        "images, top 1 %": 100 * record.content["image_scores"]["top1%"]["auroc"],
        "peak in the defect": 100 * record.content["peak_in_defect"]["maps"],
        "pixels, average precision": 100 * record.metric("pixel", "ap"),
        "pixels, AUROC": 100 * record.metric("pixel"),
        "AUPRO": 100 * record.metric("pixel", "aupro"),
        "error in the defects : beside them": error["defects"] / error["beside"],
    }


def mechanism_table(results: Path, base: Settings = BASE) -> pd.DataFrame:
    """Mean absolute reconstruction error inside and outside the masks, for each lambda.

    In thousandths of the range from black to white, their ratio, and what the maps make of it: how
    often their largest value lies in the defect, and the image-level AUROC of that value, both in
    percent. Means over the seeds of all runs that differ from ``base`` in lambda alone.
    """
    rows = []
    for record in own_records(results):
        settings = settings_from_dict(record.content["settings"])
        content = record.content
        if "reconstruction" not in content or not changes(settings, base).keys() <= {"noise"}:
            continue
        error = content["reconstruction"]["absolute"]
        rows.append(
            {
                "category": record.key.category.replace("_", " "),
                "λ": settings.noise,
                "seeds": record.key.seed,
                "in the defects": 1000 * error["defects"],
                "beside them": 1000 * error["beside"],
                "in normal images": 1000 * error["normal"],
                "defects : beside": error["defects"] / error["beside"],
                "peak in the defect": 100 * content["peak_in_defect"]["maps"],
                "largest value": 100 * content["image_scores"]["max"]["auroc"],
            }
        )
    columns = (
        "category", "λ", "seeds", "in the defects", "beside them", "in normal images",
        "defects : beside", "peak in the defect", "largest value",
    )  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(columns))
    means = {name: (name, "mean") for name in columns[3:]}
    return (
        frame.groupby(["category", "λ"]).agg(seeds=("seeds", "count"), **means)
        .round(1).reset_index()
    )  # fmt: skip


def trivial_table(results: Path, full_size: bool = False) -> pd.DataFrame:
    """Detectors that learn nothing beside the trained network, AUROC in percent.

    Of the small study's base, or of the tables' preset at the largest budget that was run.
    """
    records = own_records(results)
    if full_size:
        parts = sorted({(record.key.dataset, record.key.category) for record in records})
        runs = [run for part in parts for run in runs_of(records, *part, PRESETS["replication"])]
    else:
        runs = [r for r in records if not changes(settings_from_dict(r.content["settings"]), BASE)]
    rows = []
    for record in runs:
        content = record.content
        if "trivial" not in content:  # not in the oldest records
            continue
        detectors = {
            "trained network": content["metrics"],
            "untrained network": content["untrained"],
            "distance to the mean image": content["trivial"]["mean_image"],
            "distance to the blurred image": content["trivial"]["blurred_image"],
        }
        if grey := content["trivial"].get("grey_image"):  # not in older records
            detectors["distance to grey"] = grey
        for name, found in detectors.items():
            for level in ("image", "pixel"):
                rows.append(
                    {
                        "detector": name,
                        "column": f"{record.key.category.replace('_', ' ')}, {level}",
                        "auroc": 100 * found[level]["auroc"],
                    }
                )
    frame = pd.DataFrame(rows, columns=["detector", "column", "auroc"])
    wide = frame.pivot_table(index="detector", columns="column", values="auroc", sort=False)
    wide.columns.name = None
    return wide.round(1).astype(object).where(wide.notna(), "–").reset_index()


def quality_figure(results: Path) -> Figure:
    """Detection over how well normal images are restored: a point per training of the small study.

    Runs that differ from another in the use of the network alone are left out, and so is the
    literal learning rate, whose error is off the scale.
    """
    rows = []
    for record in own_records(results):
        settings = settings_from_dict(record.content["settings"])
        changed = changes(settings, BASE)
        if "reconstruction" not in record.content or not in_study(settings):
            continue
        if changed.keys() & DETECTION or settings.learning_rate < 1e-5:
            continue
        rows.append(
            {
                "category": record.key.category.replace("_", " "),
                "group": _group(changed),
                "name": label(changed) if changed.keys() & NAMED or settings.noise == 0 else "",
                "error": 1000 * record.content["reconstruction"]["absolute"]["normal"],
                "image": 100 * record.content["image_scores"][BASE.image_score]["auroc"],
                "pixel": 100 * record.metric("pixel"),
            }
        )
    frame = pd.DataFrame(rows, columns=["category", "group", "name", "error", "image", "pixel"])
    several = frame.groupby("category")["image"].transform("size") > 1
    categories = list(dict.fromkeys(frame[several]["category"]))
    figure, grid = plt.subplots(
        1, max(len(categories), 1), figsize=(4.9 * max(len(categories), 1), 4.6), sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    markers = {
        "as the base": "o", "other noise": "s", "another network": "X", "another loss": "^"
    }  # fmt: skip
    for axes, category in zip(grid[0], categories, strict=False):
        part = frame[frame["category"] == category]
        for level, colour in (("image", ANOMALOUS), ("pixel", NORMAL)):
            for group, marker in markers.items():
                chosen = part[part["group"] == group]
                name = f"{level}s, {group}"
                axes.plot(chosen["error"], chosen[level], marker, color=colour, ms=6, label=name)
        for run in part[part["name"] != ""].drop_duplicates("name").itertuples():
            axes.annotate(
                run.name, (run.error, run.image), xytext=(4, -3), textcoords="offset points",
                fontsize=6, annotation_clip=False,
            )  # fmt: skip
        axes.set_xlim(0.9 * part["error"].min(), 1.5 * part["error"].max())
        axes.axhline(50, color=PAPER, lw=0.8, ls=":")
        axes.set(
            xscale="log", xlabel="mean error of normal test images, 1/1000", title=category,
            ylim=(0, 102),
        )  # fmt: skip
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    grid[0, 0].set_ylabel(f"AUROC, % (images: {BASE.image_score})")
    if categories:
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
        )
    plt.close(figure)
    return figure


def thumbnail_table(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of the nearest thumbnail, beside the printed one of N2N."""
    cells = printed_cells()
    cells = cells[cells["column"].eq("Ours") & cells["level"].eq("image")]
    printed = {(c.dataset, c.category): c.printed for c in cells.itertuples()}
    rows = []
    for record in find_records(results):
        if record.key.method != "thumbnail":
            continue
        side, hidden = record.content["settings"]["side"], record.content.get("hidden_alike", {})
        rows.append(
            {
                "category": record.key.category.replace("_", " "),
                "thumbnail": f"{side}×{side}",
                "image AUROC": _with_interval(record),
                "with the defects hidden": f"{100 * hidden.get('mean', math.nan):.1f}",
                "N2N, printed": printed.get((record.key.dataset, record.key.category), ""),
            }
        )
    columns = [
        "category", "thumbnail", "image AUROC", "with the defects hidden", "N2N, printed"
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def image_mean_table(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of one number of each image; see `n2n.trivial.MeanQuantity`.

    By the number itself, whole and with what each mask covers left out of both images of a pair,
    and by its distance from the training images'. Below 50 the bad ones have less of it.
    """
    rows = [
        {
            "category": record.key.category.replace("_", " "),
            "mean of": record.content["settings"]["quantity"],
            "more of it": f"{100 * record.content['image_scores']['mean']['auroc']:.1f}",
            "more of it, defects hidden": f"{100 * record.content['hidden_alike']['mean']:.1f}",
            "farther from the training images": _with_interval(record),
        }
        for record in find_records(results)
        if record.key.method == "image-mean"
    ]
    columns = [
        "category", "mean of", "more of it", "more of it, defects hidden",
        "farther from the training images",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _with_interval(record: Record) -> str:
    low, high = record.interval("image")
    return f"{100 * record.metric('image'):.1f} ({100 * low:.0f} to {100 * high:.0f})"


def masks_table(results: Path) -> pd.DataFrame:
    """How large the masks are, in percent: of the image, and of all defective pixels.

    From the records of the thumbnails, which are made first; see `n2n.measurement.about_data`.
    """
    rows = {}
    for record in find_records(results):
        if record.key.method != "thumbnail":
            continue
        masks = record.content["data"].get("masks")
        if masks is not None and None not in masks.values():
            rows[record.key.category.replace("_", " ")] = {
                "median defect, of the image": f"{100 * masks['median']:.2f}",
                "grown by a sixteenth": f"{100 * masks['grown_median']:.1f}",
                "the largest fifth, of all defective pixels": f"{100 * masks['largest_fifth']:.0f}",
            }
    return pd.DataFrame([{"category": name} | row for name, row in rows.items()])


def hidden_defects(results: Path) -> pd.DataFrame:
    """Image-level AUROC (percent) of full-size runs, as it is and with the defects hidden.

    Columns: category, detector, score, whole, hidden, alike; means over the seeds of the largest
    budget that was run. The score is the run's own rule, of a baseline what comes nearest to it.
    See `n2n.measurement.hidden_defects` and `n2n.measurement.hidden_alike`, which is NaN where one
    of the records is older.
    """
    rows = []
    for record in find_records(results):
        content, settings = record.content, record.content["settings"]
        if settings["image_size"] != PRESETS["replication"].image_size:
            continue
        if record.key.method == "n2n":
            score = settings["image_score"]
        elif BaselineSettings(**settings).own:
            score = METHODS[record.key.method].score
        else:
            continue
        hidden = content.get("hidden_defects", {}).get(score, math.nan)
        if math.isnan(hidden):
            continue
        rows.append(
            {
                "category": record.key.category.replace("_", " "),
                "detector": _detector(settings),
                "score": score,
                "epochs": settings.get("epochs", 0),
                "whole": 100 * content["image_scores"][score]["auroc"],
                "hidden": 100 * hidden,
                "alike": 100 * content.get("hidden_alike", {}).get(score, math.nan),
            }
        )
    by = ["category", "detector", "score"]
    frame = pd.DataFrame(rows, columns=[*by, "epochs", "whole", "hidden", "alike"])
    largest = frame["epochs"] == frame.groupby(by)["epochs"].transform("max")
    groups = frame[largest].drop(columns="epochs").groupby(by, sort=False)
    # A mean over other seeds than its neighbour's could not be compared with it.
    return groups.agg(lambda seeds: seeds.mean(skipna=False)).reset_index()


def hidden_figure(found: pd.DataFrame) -> Figure:
    """For each detector its AUROC on whole images, and with the defects hidden in either way."""
    categories = list(dict.fromkeys(found["category"]))
    names = found.sort_values("whole", ascending=False)["detector"]
    # From below: the others, then the runs of N2N, each with the best on top
    detectors = sorted(dict.fromkeys(names), key=lambda name: not name.startswith("N2N"))[::-1]
    figure, grid = plt.subplots(
        1, max(len(categories), 1), figsize=(9, 1.2 + 0.3 * len(detectors)), sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, category in zip(grid[0], categories, strict=False):
        part = found[found["category"] == category]
        at = [detectors.index(name) for name in part["detector"]]
        axes.hlines(at, part["hidden"], part["whole"], color=PAPER, lw=1)
        axes.plot(part["whole"], at, "o", color=ANOMALOUS, label="whole images")
        axes.plot(
            part["hidden"],
            at,
            "o",
            color=ANOMALOUS,
            mfc="white",
            label="defects hidden in the bad image",
        )
        axes.plot(
            part["alike"], at, "D", color=NORMAL, ms=5, label="hidden in both images of a pair"
        )
        axes.axvline(50, color=PAPER, lw=0.8, ls=":")
        axes.set(xlabel="AUROC, %", xlim=(-3, 103), title=category)
        axes.set_yticks(range(len(detectors)), detectors)
    if categories:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    plt.close(figure)
    return figure


def _detector(settings: dict[str, Any]) -> str:
    if settings.get("method") in METHODS:
        return row_label(settings, budget=False)
    changed = changes(settings_from_dict(settings), PRESETS["replication"])
    kept = {name: value for name, value in changed.items() if name not in ("epochs", "t_max")}
    if not kept:
        return "N2N, as in the tables"
    names = (name for name, ingredients in INGREDIENTS.items() if ingredients == kept)
    return "N2N, " + next(names, label(kept))


def _group(changed: dict[str, object]) -> str:
    """What kind of change a training of the small study is."""
    if changed.keys() & {"noise", "noise_mean", "noise_std"}:
        return "other noise"
    if changed.keys() & {"attention", "network", "global_residual"}:
        return "another network"
    if changed.keys() & {"alpha", "sigmas", "c1", "c2", "border", "loss_range"}:
        return "another loss"
    return "as the base"
