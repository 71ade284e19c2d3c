"""What more epochs change, from records written by hand."""

from __future__ import annotations

from pathlib import Path

from n2n.analysis import budgets
from n2n.settings import make_settings
from tests.records import record, small, write


def test_several_budgets_at_full_size(tmp_path: Path) -> None:
    for noise, epochs, image in ((0.3, 25, 0.5), (0.3, 100, 0.75), (0.0, 100, 0.1)):
        settings = make_settings("replication", noise=noise, epochs=epochs, t_max=epochs)
        record(tmp_path, settings, image)
    record(tmp_path, make_settings("replication", epochs=500), 0.8)  # its T_max is 100
    record(tmp_path, make_settings("replication", width=16), 0.2)  # another network
    record(tmp_path, make_settings("replication"), 0.4, seed=1)  # of one budget alone
    write(tmp_path, make_settings("replication"), 0.1, dataset="mine", peak_in_defect={"maps": 0.5})
    found = budgets.table(tmp_path, make_settings("replication"))
    assert found.iloc[:, :6].to_numpy().tolist() == [
        ["Metal Plate (MPDD)", "0.3", "25", "0", "25", "50.0"],
        ["Metal Plate (MPDD)", "0.3", "100", "0", "100", "75.0"],
        ["Metal Plate (MPDD)", "0.3", "500, T_max 100", "0", "500", "80.0"],
    ]
    assert found.iloc[0, 6:].tolist() == [
        "60.0", "50.0", "80.0", "90.0", "10.00", "80.0", "25.0",
    ]  # fmt: skip


def test_the_budgets_of_the_small_study(tmp_path: Path) -> None:
    for seed in (0, 1):
        record(tmp_path, small(), 0.5 + seed / 10, seed=seed)
        record(tmp_path, small(epochs=80), 0.8, seed=seed)
    record(tmp_path, small(epochs=500, t_max=500), 0.7)  # the most budgets has the first seed
    found = budgets.table(tmp_path, small())
    assert found["epochs, at most"].tolist() == ["40", "80, T_max 40", "500"]
    record(tmp_path, small(epochs=500, t_max=500), 0.9, seed=1)
    record(tmp_path, small(), 0.9, seed=2)
    record(tmp_path, small(noise=0.2), 0.9)  # of one budget
    found = budgets.table(tmp_path, small())
    assert found["seeds"].tolist() == ["0, 1"] * 3
    assert found["images, top 1 %"].tolist() == ["55.0", "80.0", "80.0"]


def test_a_budget_whose_defects_were_not_hidden(tmp_path: Path) -> None:
    for epochs in (40, 80):
        hidden = {"hidden_alike": {"mean": 0.5}} if epochs == 40 else {}
        write(tmp_path, small(epochs=epochs), peak_in_defect={"maps": 0.5}, **hidden)
    assert budgets.table(tmp_path, small())["defects hidden"].tolist() == ["50.0", "–"]
    assert budgets.table(tmp_path / "nowhere", small()).empty
