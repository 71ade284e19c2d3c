"""The small study: its base, the runs around it, and what a choice is called.

The base and its variants are those of ``studies/sensitivity.yaml``; what they change, says
`n2n.analysis.effects`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from n2n.analysis.selection import category_names, own_records
from n2n.records import Part, Record
from n2n.settings import BUDGET, DETECTION, PRESETS, Settings, changes, make_settings

BASE = make_settings("replication", image_size=128, width=16, epochs=40, t_max=40)
PRINTED = {  # what `paper` has that is not its budget
    name: value for name, value in changes(PRESETS["paper"], BASE).items()
    if name not in {"image_size", "width", *BUDGET}
}  # fmt: skip
BASE_NAME = "the base"
# What takes other weights, or another score, from the same training: it has the base's luck
SAME_TRAINING = DETECTION | {"checkpoint", "monitor", "weight_average"}
ATTENTION = ("attention", "attention_gate", "attention_identity")  # of the modules
LEVELS = {
    "synthetic": "synthetic defects",
    "image": "test images",
    "mean": "test images, by the mean",
    "pixel": "test pixels",
}
SQUARED = {"c1": 0.01**2, "c2": 0.03**2}  # the usual constants of SSIM
WORDS: dict[str, dict[Any, str]] = {
    "sigmas": {(0.5, 1.0, 2.0, 4.0): "without the widest filter", (1.5,): "one filter, σ = 1.5"},
    "alpha": {0.0: "α = 0", 0.025: "α = 0.025", 1.0: "α = 1"},
    "noise_mean": {0.0: "noise of mean 0"},
    "noise_octaves": {5: "five at once"},
    "noise_std": {1.0: "noise of deviation 1", 0.7071: "noise of variance 0.5"},
    "map_sigma": {2.0: "map blurred"},
    "image_score": {"max": "maximum score", "mean": "mean score"},
    "calibration": {"scores": "score calibrated"},
    "attention": {False: "without residual attention"},
    "scaled_inputs": {False: "without the smaller inputs"},
    "input_filter": {"nearest": "smaller inputs by nearest pixel"},
    "shared_lift": {False: "a first convolution for each size"},
    "standardise": {True: "each image standardised"},
    "channels_together": {True: "its channels together"},
    "contrast": {1.6: "contrast raised by 1.6"},
    "added_inputs": {True: "smaller inputs added"},
    "blocks": {2: "two modules in a row"},
    "convolutions": {1: "one 3×3 convolution a module", 3: "three 3×3 convolutions a module"},
    "head_size": {1: "1×1 heads"},
    "padding": {"reflect": "convolutions with mirrored borders"},
    "skip_convolution": {False: "plain skip connections"},
    "tanh": {True: "tanh of the output"},
    "resize": {"nearest": "resized by nearest pixel", "bicubic": "resized bicubically"},
    "mask_rule": {"any": "masks: any covered pixel counts", "nearest": "masks: nearest pixel"},
    "mean_at_test": {True: "the noise's mean on test images"},
    "monitor": {"training": "stopped by the training loss"},
    "attention_gate": {False: "without the gate"},
    "attention_identity": {False: "without residual connections"},
    "loss_range": {"normalised": "loss on [-1, 1]"},
    "fresh_noise": {False: "each image keeps its noise"},
    "noise_at_test": {False: "test images without noise or its mean"},
    "anomaly_map": {"l1": "map: absolute error alone"},
    "network": {"unet": "plain U-Net"},
    "global_residual": {True: "global residual"},
    "border": {"zero": "zeros beyond the border"},
    "checkpoint": {"last": "last epoch instead of the best"},
    "augmentation": {"flips": "training images flipped"},
    "weight_average": {0.99: "running mean of the weights"},
    "noise": {0.0: "λ = 0 (no noise)", 0.2: "λ = 0.2", 0.4: "λ = 0.4"},
    "t_max": {100: "T_max 100"},
}


def variant_label(changed: dict[str, Any]) -> str:
    """A short name of a variant for a reader: 'λ = 0.2', 'learning rate 0.0001'."""
    if not changed:
        return BASE_NAME
    parts = []
    if PRINTED.items() <= changed.items():
        parts.append("preset paper")
        changed = {name: value for name, value in changed.items() if name not in PRINTED}
    for name, value in changed.items():
        if name == "t_max" and changed.get("epochs") == value:
            continue
        if name in SQUARED and SQUARED.items() <= changed.items():
            parts += ["squared constants"] if name == "c1" else []
            continue
        if name == "epochs" and "t_max" not in changed:
            parts.append(f"{value} epochs on the same schedule")
        elif value in WORDS.get(name, {}):
            parts.append(WORDS[name][value])
        elif isinstance(value, tuple):
            parts.append(f"{name} {', '.join(f'{item:g}' for item in value)}")
        else:
            number = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(f"{name.replace('_', ' ')} {number}")
    return "; ".join(parts)


def run_label(changed: dict[str, Any], base: Settings) -> str:
    """`variant_label`, which names the base itself by its lambda: 'λ = 0.3'."""
    return variant_label(changed) if changed else f"λ = {base.noise:g}"


def study_runs(results: Path, base: Settings = BASE) -> pd.DataFrame:
    """A row per run of the study around ``base`` and level, one of `LEVELS`.

    'synthetic' is the image level on synthetic defects instead of the test images; 'mean' has the
    mean of the map for the image score, whatever the run's own is; 'image' and 'synthetic' have the
    base's, unless the score is all that is changed. Of a part with variants the
    other image scores of the base's own maps are some, too. A precision that no run of the base has
    is named.

    Columns: category, variant (its label), changed (names of the settings, sorted), seed, level,
    auroc, untrained (percent), stage ('training' or 'same training'), record.
    """
    records, rows = own_records(results), []
    names = category_names(records)
    inside = [record for record in records if in_study(record.settings, base)]
    parts = {record.key.part for record in inside if changes(record.settings, base)}
    scored = [
        other
        for record in inside
        if not changes(record.settings, base) and record.key.part in parts
        for other in _scored(record)
    ]
    usual: dict[Part, set[str]] = {}  # the precisions of the base
    for record in inside:
        if not changes(record.settings, base):
            usual.setdefault(record.key.part, set()).add(record.precision)
    there = {(r.key.part, r.key.seed, r.settings) for r in inside}
    known = {(other.key.part, other.key.seed, other.settings) for other in scored}
    inside = [r for r in inside if (r.key.part, r.key.seed, r.settings) not in known] + scored
    for record in inside:
        settings, content = record.settings, record.content
        changed = changes(settings, base)
        score = settings.image_score
        if "image_score" in changed and not changed.keys() <= DETECTION:
            score = base.image_score
            if (
                record.key.part,
                record.key.seed,
                dataclasses.replace(settings, image_score=score),
            ) in there:
                continue  # the same training
        precision = record.precision
        odd = precision not in usual.get(record.key.part, {precision})
        aurocs = {
            level: (record.metric(level), content["untrained"][level]["auroc"])
            for level in ("image", "pixel")
        }
        if score != settings.image_score:
            aurocs["image"] = (content["image_scores"][score]["auroc"], np.nan)
        aurocs["mean"] = (content["image_scores"]["mean"]["auroc"], np.nan)
        synthetic = content["development"]["all"][f"image_{score}"]
        aurocs["synthetic"] = (synthetic, np.nan)
        for level, (auroc, untrained) in aurocs.items():
            rows.append(
                {
                    "category": names[record.key.part],
                    "variant": variant_label(changed) + (f", {precision}" if odd else ""),
                    "changed": tuple(sorted(changed)),
                    "seed": record.key.seed,
                    "level": level,
                    "auroc": 100 * auroc,
                    "untrained": 100 * untrained,
                    "stage": "same training" if changed.keys() <= SAME_TRAINING else "training",
                    "record": record,
                }
            )
    columns = [
        "category", "variant", "changed", "seed", "level", "auroc", "untrained", "stage", "record",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _scored(record: Record) -> list[Record]:
    """The record as it would be had another of the image scores that it holds been its own."""
    content = record.content
    return [
        dataclasses.replace(
            record,
            content=content
            | {
                "settings": content["settings"] | {"image_score": score},
                "metrics": content["metrics"] | {"image": found},
            },
        )
        for score, found in content["image_scores"].items()
        if score != record.settings.image_score
    ]


def base_table(results: Path) -> pd.DataFrame:
    """The base's own AUROC (percent): mean over the seeds, spread, and the untrained network's."""
    runs = study_runs(results)
    base = runs[runs["variant"] == BASE_NAME]
    rows = [
        {
            "category": str(category),
            "level": LEVELS[level],
            "AUROC, %": f"{group['auroc'].mean():.1f}",
            "lowest to highest seed": f"{group['auroc'].min():.1f} to {group['auroc'].max():.1f}",
            "untrained, %": ""
            if group["untrained"].isna().all()
            else f"{group['untrained'].mean():.1f}",
            "seeds": len(group),
        }
        for (category, level), group in base.groupby(["category", "level"], sort=False)
        if level != "synthetic"
    ]
    return pd.DataFrame(rows)


def elsewhere_table(results: Path, elsewhere: Path) -> pd.DataFrame:
    """The base's trainings beside the same on another machine, as text: AUROC in percent.

    *Here → there*, a row for each seed of which ``elsewhere`` has a record, too.
    """
    here, there = (study_runs(folder) for folder in (results, elsewhere))
    here = here[here["variant"] == BASE_NAME]
    both = here.merge(there, on=["category", "variant", "seed", "level"], suffixes=("", " there"))
    both["text"] = [f"{row[0]:.1f} → {row[1]:.1f}" for row in both[["auroc", "auroc there"]].values]
    table = both.pivot(index=["category", "seed"], columns="level", values="text")
    table.columns.name = None
    return table.reindex(columns=["image", "mean", "pixel"]).rename(columns=LEVELS).reset_index()


def development_table(results: Path, base: Settings = BASE) -> pd.DataFrame:
    """For each category run with ``base``: AUROC by image score, on synthetic and real defects."""
    records, rows = own_records(results), []
    names = category_names(records)
    for record in records:
        settings = record.settings
        if changes(settings, base):
            continue
        found = record.content["development"]["all"]
        for score, values in record.content["image_scores"].items():
            rows.append(
                {
                    "category": names[record.key.part],
                    "image score": score,
                    "synthetic defects": 100 * found[f"image_{score}"],
                    "test images": 100 * values["auroc"],
                    "seeds": record.key.seed,
                }
            )
    columns = ["category", "image score", "synthetic defects", "test images", "seeds"]
    frame = pd.DataFrame(rows, columns=columns)
    means = frame.groupby(["category", "image score"], sort=False).agg(
        {"synthetic defects": "mean", "test images": "mean", "seeds": "count"}
    )
    means = means.round(1).reset_index()
    return means.astype({"synthetic defects": str, "test images": str})


def in_study(settings: Settings, base: Settings = BASE) -> bool:
    """Whether a run has the base's size, or differs from it in the budget or the width alone.

    Variants that are tested once more with the mean of their noise are no choice of their own; see
    `n2n.analysis.mechanism.at_test_table`.
    """
    size = {"image_size", "width", *BUDGET}
    changed = changes(settings, base).keys()
    if settings.mean_at_test and not changed <= DETECTION:
        return False
    return settings.image_size == base.image_size and (
        not changed & size or changed <= BUDGET or changed == {"width"}
    )
