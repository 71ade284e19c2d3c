"""What the notebooks show of run records: tables and the sentences around them."""

from __future__ import annotations

import math

import pandas as pd
from IPython.display import HTML

from n2n.analysis.markup import escape_markdown, html_table
from n2n.analysis.selection import wanted_settings
from n2n.analysis.tables import own_cells
from n2n.baselines.settings import row_label
from n2n.metrics import FPR_LIMIT, NAMES
from n2n.paper import label
from n2n.plan import Run, run_of
from n2n.records import Record
from n2n.settings import PRESETS, make_settings


def heading(record: Record) -> str:
    """What was run, and what its numbers may be taken for, in the book's Markdown."""
    key, content = record.key, record.content
    badge, nature = "replicated", "These numbers were measured on real images."
    if key.dataset == "demo":
        badge, nature = "demonstration", (
            "These are images of the demonstration data, drawn by a program: their numbers say "
            "nothing about the paper's."
        )  # fmt: skip
    if key.method == "n2n":
        training = content["training"]
        end = "stopped early" if training["stopped"] == "early" else "to the end of the budget"
        nature += f" Trained for {training['epochs']} epochs ({end}), "
        nature += f"kept epoch {training['best_epoch']}."
        method = key.method
    else:
        method = row_label(record.baseline, record.precision)
    return (
        f"[{badge}]{{.badge-{badge}}} **{escape_markdown(f'{key.dataset} / {key.category}')}**, "
        f"{escape_markdown(method)}, `{key.variant.replace('`', '')}`, seed {key.seed}. {nature}"
    )


def metrics_table(record: Record) -> HTML:
    """Every metric in percent, with its interval; of our method beside the untrained network's."""
    rows = []
    for level in ("image", "pixel"):
        for name in record.content["metrics"][level]:
            low, high = record.interval(level, name)
            row = {
                "level": level,
                "metric": NAMES[name] + (f" (to {FPR_LIMIT})" if name == "aupro" else ""),
                "%": _percent(record.metric(level, name)),
                "95 % interval": "" if math.isnan(low) else f"{100 * low:.2f} to {100 * high:.2f}",
            }
            if record.content["untrained"] is not None:
                row["untrained"] = _percent(record.content["untrained"][level][name])
            rows.append(row)
    return html_table(pd.DataFrame(rows))


def _percent(value: float) -> str:
    """A share in percent; a dash where it is not defined, as without an anomalous image."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def score_table(record: Record) -> HTML:
    """The image-level metrics that other image scores would have given, in percent."""
    chosen = record.content["settings"].get("image_score", "own")  # a baseline's own
    rows = [
        {"image score": name + (" (chosen)" if name == chosen else "")}
        | {
            title: _percent(values[metric])
            for metric, title in (("auroc", "AUROC"), ("ap", "average precision"))
        }
        for name, values in record.content["image_scores"].items()
    ]
    return html_table(pd.DataFrame(rows))


def provenance_table(record: Record) -> HTML:
    """Where the numbers of a record come from."""
    origin, data = record.content["provenance"], record.content["data"]
    training = record.content["training"]
    devices = training.get("devices", [])
    trained = ", then ".join(map(str, devices)) if len(devices) > 1 else None
    bound = "" if origin.get("peak_memory_of") == "this run" else "at most "
    peak: str | None = f"{bound}{origin['peak_memory_mib']} MiB"
    if by := training.get("by"):  # the run whose network this is another use of
        trained = f"by {by['variant']}, commit {by['commit'] or 'unknown'}"
        trained += f", on {by['device']}" if by.get("device") else ""  # older records do not tell
        peak = None  # that of the training is not known
    rows = {
        "record": record.folder.as_posix(),
        "rerun": f"{run_of(record).command} --results NEW",
        "date": origin["date"],
        "commit": origin["commit"] or "not from a checkout",
        "device": f"{origin['device']}, {origin['precision']}",
        "trained": trained,
        "versions": ", ".join(f"{name} {v}" for name, v in origin["packages"].items()),
        "time": f"{origin['wall_seconds'] / 60:.1f} min in all, "
        f"{training['seconds'] / 60:.1f} min of training",
        "peak memory": peak,
        "data": f"{data['train']} training images, {data['test_good']} normal and "
        f"{data['test_anomalous']} anomalous test images, fingerprint {data['fingerprint']}",
    }
    told = {name: text for name, text in rows.items() if text}
    frame = pd.DataFrame({"": list(told), "provenance": list(told.values())})
    return html_table(frame, fit=True)


def coverage(cells: pd.DataFrame, preset: str) -> str:
    """How many cells of a table were run, in Markdown."""
    own = own_cells(cells)
    ours = own[own["ours"].notna()]
    names = ours.loc[ours["category"] != "average", "category"].map(label)
    categories = ", ".join(dict.fromkeys(names)) or "none yet"
    return (
        f"Preset `{preset}`, {PRESETS[preset].epochs} epochs at most. "
        f"Measured on real images: {categories}. Of the {len(own)} cells of our method's columns "
        f"(averages included), {len(ours)} {'was' if len(ours) == 1 else 'were'} run."
    )


def record_table(cells: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The records behind a table of `n2n.analysis.tables.compare`, and the command of each.

    Cells that were not run come last, with the command that runs them.
    """
    done: dict[str, str] = {}
    missing: dict[str, str] = {}
    for cell in own_cells(cells).query("category != 'average'").itertuples():
        for record in cell.runs:
            done[record.folder.as_posix()] = f"{run_of(record).command} --results NEW"
        if not cell.runs:
            settings = make_settings(preset, **(wanted_settings(cell.column, preset) or {}))
            run = Run(cell.dataset, cell.category, settings, seed=0)
            missing[f"not run: {label(cell.category)}, {label(cell.column)}"] = run.command
    commands = done | missing
    return pd.DataFrame({"run record": list(commands), "command": list(commands.values())})
