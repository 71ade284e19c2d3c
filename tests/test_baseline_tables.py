"""The tables of the methods that the paper compares with."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2n.analysis import figures
from n2n.analysis.baseline_tables import baselines_beside_paper, costs
from n2n.analysis.tables import compare
from n2n.baselines.settings import make_baseline_settings
from tests.records import write


def test_a_baseline_with_another_backbone_is_not_judged(tmp_path: Path) -> None:
    def run(method: str, image: float, seed: int, own_peak: bool, **changes: object) -> None:
        provenance = {"peak_memory_mib": 900, "precision": "float32"}
        if own_peak:
            provenance = {
                "peak_memory_mib": 800, "peak_memory_of": "this run", "precision": "bfloat16"
            }  # fmt: skip
        write(
            tmp_path, make_baseline_settings(method, **changes), image, seed=seed,
            intervals={"image": {"auroc": (0.4, 0.6)}, "pixel": {"auroc": (0.8, 0.95)}},
            training={"seconds": 12.3}, inference={"seconds_per_image": 0.05},
            provenance=provenance,
        )  # fmt: skip

    wide = {"backbone": "wide-resnet50-2"}
    run("padim", 0.5, 0, False, backbone="efficientnet-lite0")
    run("padim", 0.5, 0, False, **wide)
    run("padim", 0.7, 1, False, **wide)
    # Of another precision and with its own peak of memory: a row of its own
    run("padim", 0.7, 2, True, **wide)
    run("patchcore", 0.7, 0, True, coreset=0.5, **wide)
    found = baselines_beside_paper(1, tmp_path)
    assert set(found["category"]) == {"Metal Plate"}  # no other was run
    other = found.set_index("method")
    assert list(other.loc[["DAGAN", "Skip-GANomaly", "CFLOW"], "verdict"]) == ["not run"] * 3
    half = other.loc["PatchCore (WideResNet-50-2, coreset 0.5, bfloat16)"]
    assert (half["verdict"], half["bring"]) == ("other settings", "")
    assert list(other["bring"][["DAGAN", "CFLOW"]]) == ["", "wide_resnet50_2-95faca4d.pth"]
    lite, wide_net = other.loc["PaDiM (EfficientNet-Lite0)"], other.loc["PaDiM (WideResNet-50-2)"]
    assert (lite["ours"], wide_net["ours"]) == ("50.00", "60.00 ± 14.14")  # mean and deviation
    assert (lite["difference"], wide_net["difference"]) == ("-6.30", "+3.70")
    assert (lite["verdict"], lite["bring"]) == ("another backbone", "wide_resnet50_2-95faca4d.pth")
    assert wide_net["verdict"] == "inconclusive"  # printed: 56.30, in an interval from 40 to 60
    assert wide_net["bring"] == ""
    half = other.loc["PaDiM (WideResNet-50-2, bfloat16)"]
    assert (half["ours"], half["peak, MiB"], wide_net["peak, MiB"]) == ("70.00", "800", "≤ 900")
    assert set(compare(1, tmp_path)["verdict"]) == {"not run"}  # never in the printed column
    assert baselines_beside_paper(4, tmp_path).empty


def test_costs_name_a_detector_without_its_budget(tmp_path: Path) -> None:
    for epochs, seed in ((4, 0), (4, 1), (200, 0)):
        write(
            tmp_path, make_baseline_settings("rd4ad", epochs=epochs), 0.5 + seed / 5,
            dataset="VisA", category="fryum", seed=seed, training={"seconds": 10.0 + seed},
            inference={"seconds_per_image": 0.25},
            provenance={"precision": "float32", "peak_memory_mib": 100 + seed},
        )  # fmt: skip
    found = costs(tmp_path)
    axes = figures.accuracy_against_cost(found).axes[0]
    drawn = [text.get_text() for text in axes.texts]
    assert drawn == ["RD4AD"] * 2  # the backbone is told by the colour
    assert [line.get_mfc() == "white" for line in axes.get_lines()] == [False, True]  # 4 of 200
    assert list(found["method"]) == [
        "RD4AD (EfficientNet-Lite0)", "RD4AD (EfficientNet-Lite0, 4 of 200 epochs)"
    ]  # fmt: skip
    assert set(found["detector"]) == {"RD4AD (EfficientNet-Lite0)"}
    assert list(found["auroc"]) == pytest.approx([50, 60])
    assert list(found["seconds"]) == [10.0, 10.5]
    assert list(found["seeds"]) == [1, 2]
    assert list(found["per_image"]) == [0.25, 0.25]
    assert list(found["peak"]) == ["≤ 100", "≤ 101"]
