"""The metrics beside AUROC, from records written by hand."""

from __future__ import annotations

from pathlib import Path

from n2n.analysis.beside_auroc import every_metric, localisation
from n2n.analysis.tables import compare
from n2n.baselines.settings import make_baseline_settings
from n2n.settings import make_settings
from tests.records import write

UNTRAINED = {
    "image": {"auroc": 0.3, "ap": 0.4, "f1max": 0.8},
    "pixel": {"auroc": 0.5, "ap": 0.01, "f1max": 0.02, "aupro": 0.15},
}


def test_every_metric_stands_above_what_learns_nothing(tmp_path: Path) -> None:
    for seed, image in enumerate((0.7, 0.8)):
        write(
            tmp_path, make_settings("replication"), image, seed=seed, untrained=UNTRAINED,
            trivial={"mean_image": UNTRAINED}, data={"test_good": 10, "test_anomalous": 30},
        )  # fmt: skip
    # 75 and the deviation of 70 and 80; guessing, three of four images called bad are bad, and
    # calling all bad has the recall 1: F1 = 2 * 0.75 / 1.75
    assert every_metric(compare(1, tmp_path)).to_numpy().tolist() == [
        ["Metal Plate", "N2N", "75.0 ± 7.1", "50.0", "60.0"],
        ["Metal Plate", "a guess", "50.0", "75.0", "85.7"],
        ["Metal Plate", "untrained", "30.0", "40.0", "80.0"],
        ["Metal Plate", "mean image", "30.0", "40.0", "80.0"],
    ]
    pixels = every_metric(compare(2, tmp_path))
    assert list(pixels.columns) == [
        "category", "map", "AUROC", "average precision", "F1-max", "AUPRO"
    ]  # fmt: skip
    assert pixels["AUPRO"].tolist() == ["80.0", "15.0", "15.0"]
    both = every_metric(compare(5, tmp_path))
    assert both["map"].tolist()[0] == "with attention"
    assert list(both["level"]) == ["image"] * 4 + ["pixel"] * 3


def test_without_a_run_or_a_mask_there_is_nothing(tmp_path: Path) -> None:
    assert every_metric(compare(1, tmp_path)).empty
    assert localisation(tmp_path).empty
    nothing = dict.fromkeys(("auroc", "ap", "f1max", "aupro"), float("nan"))
    write(
        tmp_path,
        make_settings("replication"),
        metrics={"image": UNTRAINED["image"], "pixel": nothing},
    )
    assert every_metric(compare(2, tmp_path)).empty
    assert localisation(tmp_path).empty


def test_localisation_of_every_method(tmp_path: Path) -> None:
    write(tmp_path, make_settings("replication"))
    for seed, aupro in enumerate((0.5, 0.6)):
        write(
            tmp_path, make_baseline_settings("padim"), seed=seed, category="bracket_white",
            metrics={
                "image": UNTRAINED["image"],
                "pixel": {"auroc": 0.7, "ap": 0.2, "f1max": 0.3, "aupro": aupro},
            },
        )  # fmt: skip
    table = localisation(tmp_path).set_index("method")
    assert table.loc["N2N"].to_dict() == {
        "Metal Plate, AUROC": "90.0", "Metal Plate, AP": "10.0", "Metal Plate, AUPRO": "80.0",
        "Bracket White, AUROC": "", "Bracket White, AP": "", "Bracket White, AUPRO": "",
    }  # fmt: skip
    assert table.loc["PaDiM (EfficientNet-Lite0)", "Bracket White, AUPRO"] == "55.0"
