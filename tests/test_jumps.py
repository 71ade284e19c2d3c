"""The jumps of a loss, from records written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from n2n.analysis import jumps
from n2n.settings import Settings, make_settings
from tests.records import small, study_run, write


def test_the_largest_jump_of_a_loss(tmp_path: Path) -> None:
    settings = make_settings("replication")
    losses = {tmp_path: [1.0, 0.5, 0.75, 0.2, 0.3], tmp_path / "float32": [1.0, 0.5, 0.1]}
    for root in losses:
        study_run(root, settings, 0.9)
        study_run(root, make_settings("replication", image_score="max"), 0.9)  # the same network
        study_run(root, make_settings("replication", epochs=5, t_max=5), 0.9)  # a smaller budget
    study_run(tmp_path, make_settings("replication", learning_rate=5e-4), 0.8)
    study_run(tmp_path, make_settings("replication", noise=0.2), 0.8)
    study_run(tmp_path, make_settings("improved"), 0.8)  # the first by name, of the same network
    for root, values in losses.items():
        for folder in (root / "runs/MPDD/metal_plate/n2n").glob("*/*"):
            content = json.loads((folder / "record.json").read_text())
            content["training"] |= {"best_epoch": 4}
            content["provenance"] = {"precision": "float32" if root.name == "float32" else "half"}
            (folder / "record.json").write_text(json.dumps(content))
            history = pd.DataFrame({"epoch": range(1, len(values) + 1), "train_loss": values})
            history.to_csv(folder / "history.csv", index=False)
    found = jumps.of_trainings(tmp_path)
    assert found[["run", "precision", "jump", "epoch", "kept"]].to_numpy().tolist() == [
        ["learning rate 0.0005", "half", pytest.approx(1.5), 3, 4],
        ["λ = 0.2", "half", pytest.approx(1.5), 3, 4],
        ["λ = 0.3", "float32", pytest.approx(0.5), 2, 4],
        ["λ = 0.3", "half", pytest.approx(1.5), 3, 4],
    ]
    (axes,) = jumps.figure(found).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[2:] == ["λ = 0.3, seed 0, float32", "λ = 0.3, seed 0"]
    table = jumps.steadier_table(found)
    by = ["learning rate", "precision"]
    assert table[by].to_numpy().tolist() == [
        ["0.0005", "half"], ["0.001", "float32"], ["0.001", "half"],
    ]  # fmt: skip
    assert dict(table.iloc[2]) == {
        "category": "Metal Plate", "learning rate": "0.001", "precision": "half", "seed": 0,
        "largest jump": "1.5", "images, synthetic": 80.0, "images": 90.0,
        "images, maximum": 90.0, "pixels": 90.0, "found": "90 of 100 (1)",
    }  # fmt: skip


def test_how_many_trainings_jump(tmp_path: Path) -> None:
    def trained(settings: Settings, losses: list[float], seed: int = 0, **content: object) -> None:
        def files(folder: Path) -> None:
            table = pd.DataFrame({"epoch": range(1, len(losses) + 1), "train_loss": losses})
            table["validation_loss"] = [1.0, losses[1], 4 * seed or losses[1]]
            table.to_csv(folder / "history.csv", index=False)

        write(tmp_path, settings, seed=seed, files=files, **content)

    single = {"provenance": {"precision": "float32"}}
    trained(make_settings("replication"), [1.0, 0.5, 0.8])  # 1.6-fold
    trained(make_settings("replication", noise=0.0), [1.0, 0.5, 0.7], 1)  # held out: 8-fold
    trained(make_settings("replication"), [1.0, 0.1, 0.9], 1, **single)
    trained(make_settings("replication", noise_grain=8), [1.0, 0.2, 1.0])  # 5-fold
    trained(make_settings("replication", learning_rate=5e-4), [1.0, 0.2, 1.0])
    trained(small(), [1.0, 0.4, 0.8])  # 2-fold
    trained(small(image_score="max"), [1.0, 0.4, 0.8])  # the same training
    trained(small(width=8), [1.0, 0.4, 0.5])
    trained(small(learning_rate=1e-4), [1.0, 0.4, 0.8])
    trained(small(), [1.0, 0.3, 0.9], 1, **single)
    found = jumps.count_table(tmp_path, jumps.of_trainings(tmp_path))
    half, single_precision = "bfloat16", "float32"
    assert found.iloc[:, 1:].to_numpy().tolist() == [
        [half, 2, 1, "1.6-fold", 1, "8.0-fold"],
        [single_precision, 1, 1, "9.0-fold", 1, "40.0-fold"],
        [half, 1, 1, "5.0-fold", 0, "1.0-fold"],
        [half, 2, 1, "2.0-fold", 0, "1.0-fold"],
        [single_precision, 1, 1, "3.0-fold", 1, "13.3-fold"],
    ]
