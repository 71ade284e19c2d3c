"""What more epochs change, from records written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2n.analysis import budgets
from n2n.settings import make_settings
from tests.records import record, small, write


def test_four_times_the_epochs_at_full_size(tmp_path: Path) -> None:
    for epochs, image in ((25, 0.5), (100, 0.75)):
        for noise in (0.3, 0.0):
            if (epochs, noise) != (25, 0.0):  # one budget alone is no comparison
                settings = make_settings("replication", noise=noise, epochs=epochs, t_max=epochs)
                record(tmp_path, settings, image)
    write(tmp_path, make_settings("replication"), 0.1, dataset="mine")  # another part of this name
    table = budgets.longer_training(tmp_path, ("MPDD", "metal_plate"))
    assert list(table.columns) == ["epochs", "λ = 0.3; 25 → 100"]
    assert dict(table.to_numpy().tolist())["images, top 1 %"] == "50.0 → 75.0"
    assert dict(table.to_numpy().tolist())["error in the defects : beside them"] == "4.0 → 4.0"
    record(tmp_path, make_settings("replication", epochs=500), 0.8)
    record(tmp_path, make_settings("replication", epochs=60), 0.3)  # no budget of this table
    record(tmp_path, make_settings("replication"), 0.4, seed=1)
    table = budgets.longer_training(tmp_path, ("MPDD", "metal_plate"))
    images = table.set_index("epochs").loc["images, top 1 %", "λ = 0.3; 25 → 100 → 500"]
    assert images == "50.0 → 75.0 → 80.0"


def test_the_budgets_of_the_small_study(tmp_path: Path) -> None:
    long = {"epochs": 500, "t_max": 500}
    for settings, image in (
        (small(), 0.5), (small(epochs=80), 0.6), (small(**long), 0.7),
        (small(epochs=500, t_max=100), 0.8), (small(**long, noise=0.0), 0.1),
    ):  # fmt: skip
        record(tmp_path, settings, image)
    record(tmp_path, small(), 0.6, seed=1)
    write(tmp_path, small(), 0.9, category="tubes")  # of one budget
    found = budgets.small_table(tmp_path).set_index("epochs, at most")
    assert list(found.index) == [
        "40", "80, T_max 40", "500, T_max 100", "500",
    ]  # fmt: skip
    assert found["images, top 1 %"].tolist() == pytest.approx([55, 60, 80, 70])
    assert found["defects hidden"].tolist() == [50] * 4
    assert found["which seeds"].tolist() == ["0, 1", "0", "0", "0"]
