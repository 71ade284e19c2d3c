"""What more epochs change, from records written by hand."""

from __future__ import annotations

from pathlib import Path

from n2n.analysis import budgets
from n2n.settings import make_settings
from tests.records import small, study_run, write

PLATE = ("MPDD", "metal_plate")
IMAGES = "images, by the top 1 %"


def test_several_budgets_at_full_size(tmp_path: Path) -> None:
    for noise, epochs, image in ((0.3, 25, 0.5), (0.3, 100, 0.75), (0.0, 100, 0.1)):
        settings = make_settings("replication", noise=noise, epochs=epochs, t_max=epochs)
        study_run(tmp_path, settings, image)
    study_run(tmp_path, make_settings("replication", epochs=500), 0.8)  # its T_max is 100
    study_run(tmp_path, make_settings("replication", width=16), 0.2)  # another network
    study_run(tmp_path, make_settings("replication"), 0.4, seed=1)  # of one budget alone
    for other in ({"category": "tubes"}, {"dataset": "mine"}):
        write(tmp_path, make_settings("replication"), 0.1, **other)
    found = budgets.table(tmp_path, make_settings("replication"), PLATE)
    assert list(found.columns) == ["epochs, at most", "25", "100", "500, T_max 100"]
    assert found.to_numpy().tolist() == [
        ["λ", "0.3", "0.3", "0.3"],
        ["seeds", "0", "0", "0"],
        ["ended after", "25", "100", "500"],
        [IMAGES, "50.0", "75.0", "80.0"],
        ["images, by the mean", "60.0", "60.0", "60.0"],
        ["the same, defects hidden", "50.0", "50.0", "50.0"],
        ["images, synthetic defects", "80.0", "80.0", "80.0"],
        ["pixels, AUROC", "90.0", "90.0", "90.0"],
        ["pixels, average precision", "10.00", "10.00", "10.00"],
        ["AUPRO", "80.0", "80.0", "80.0"],
        ["peak in the defect", "25.0", "25.0", "25.0"],
    ]


def test_the_budgets_of_the_small_study(tmp_path: Path) -> None:
    for seed in (0, 1):
        study_run(tmp_path, small(), 0.5 + seed / 10, seed=seed)
        study_run(tmp_path, small(epochs=80), 0.8, seed=seed)
    study_run(tmp_path, small(epochs=500, t_max=500), 0.7)  # the most budgets has the first seed
    found = budgets.table(tmp_path, small(), PLATE)
    assert list(found.columns[1:]) == ["40", "80, T_max 40", "500"]
    study_run(tmp_path, small(epochs=500, t_max=500), 0.9, seed=1)
    study_run(tmp_path, small(), 0.9, seed=2)
    study_run(tmp_path, small(noise=0.2), 0.9)  # of one budget
    found = budgets.table(tmp_path, small(), PLATE).set_index("epochs, at most")
    assert found.loc["seeds"].tolist() == ["0, 1"] * 3
    assert found.loc[IMAGES].tolist() == ["55.0", "80.0", "80.0"]


def test_a_budget_whose_defects_were_not_hidden(tmp_path: Path) -> None:
    for epochs in (40, 80):
        hidden = {"hidden_alike": {"mean": 0.5}} if epochs == 40 else {}
        write(tmp_path, small(epochs=epochs), peak_in_defect={"maps": 0.5}, **hidden)
    found = budgets.table(tmp_path, small(), PLATE).set_index("epochs, at most")
    assert found.loc["the same, defects hidden"].tolist() == ["50.0", "–"]
    assert budgets.table(tmp_path, small(), ("MPDD", "tubes")).empty
    write(tmp_path, small(), category="tubes", peak_in_defect={"maps": 0.5})  # one alone
    assert budgets.table(tmp_path, small(), ("MPDD", "tubes")).empty
