"""The tables of the exercises, from records written by hand and from one that was run."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from n2n.analysis import confounds
from n2n.analysis.exercises import DEMO, beside_untrained, by_kind, copying
from n2n.analysis.panels import input_panels
from n2n.baselines.settings import make_baseline_settings
from n2n.plan import Run
from n2n.runs import make_record
from n2n.settings import Settings, make_settings
from tests.records import write

SCORES = """image,defect,anomalous,max,mean,top1%
a,good,0,1,1,3
b,good,0,2,2,4
c,dent,1,3,0,3
d,dent,1,0,0,5
e,rust,1,3,3,1
"""


def write_scores(folder: Path) -> None:
    (folder / "scores.csv").write_text(SCORES)


def test_each_kind_is_set_against_all_good_images(tmp_path: Path) -> None:
    write(tmp_path, DEMO, dataset="demo", category="plate", files=write_scores)
    # Dents against 1 and 2 by the maximum: 3 wins twice, 0 never; by the top 1 %: 3 ties with 3
    # and loses against 4, 5 wins twice
    assert by_kind(tmp_path).to_numpy().tolist() == [
        ["plate", "dent", 2, "0", 50.0, 0.0, 62.5],
        ["plate", "rust", 1, "0", 100.0, 100.0, 0.0],
    ]
    second = SCORES.replace("d,dent,1,0,0,5", "d,dent,1,3,0,5")
    write(
        tmp_path, DEMO, dataset="demo", category="plate", seed=1,
        files=lambda folder: (folder / "scores.csv").write_text(second),
    )  # fmt: skip
    assert by_kind(tmp_path)["max"].tolist() == [75.0, 100.0]  # the mean of the seeds
    small = make_settings("demo", image_size=64)
    write(tmp_path, small, dataset="demo", category="plate", files=write_scores)
    assert by_kind(tmp_path, "image_size")["image size"].tolist() == [64, 64, 128, 128]
    assert by_kind(tmp_path, "noise_grain")["defect"].tolist() == ["dent", "rust"]
    assert by_kind(tmp_path, category="tubes").empty


def test_kinds_of_defects_by_the_score_of_each_method(tmp_path: Path) -> None:
    """The same images by our top 1 % and by the one score that other methods write down."""

    def write_own(folder: Path) -> None:
        table = pd.read_csv(io.StringIO(SCORES), usecols=["image", "defect", "anomalous"])
        table.assign(own=[1, 2, 3, 3, 0]).to_csv(folder / "scores.csv", index=False)

    write(tmp_path, make_settings(), files=write_scores)
    write(  # a smaller budget
        tmp_path, make_settings(epochs=5, t_max=5),
        files=lambda folder: (folder / "scores.csv").write_text(SCORES.replace("c,dent", "c,rust")),
    )  # fmt: skip
    for category in ("metal_plate", "tubes"):
        write(tmp_path, make_baseline_settings("thumbnail"), category=category, files=write_own)
    found = confounds.kinds(tmp_path)
    assert confounds.kinds_table(found[found["category"] == "Metal Plate"]).to_numpy().tolist() == [
        ["N2N, as in the tables", 62.5, 0.0],
        ["Nearest thumbnail", 100.0, 0.0],
    ]
    (axes, _) = confounds.kinds_figure(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Nearest thumbnail", "N2N, as in the tables"
    ]  # fmt: skip
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dent (2)", "rust (1)"]


def test_copying_has_a_row_for_each_noise(tmp_path: Path) -> None:
    errors = {0.0: (0.01, 0.005), 0.3: (0.06, 0.02)}
    for noise, (inside, beside) in errors.items():
        for seed, loss in enumerate((0.0126, 0.0102)):

            def history(folder: Path, loss: float = loss) -> None:
                (folder / "history.csv").write_text(f"epoch,validation_loss\n1,0.0300\n2,{loss}\n")

            write(
                tmp_path, make_settings("demo", noise=noise), 0.8, dataset="demo",
                category="plate", seed=seed, files=history,
                reconstruction={"absolute": {"defects": inside, "beside": beside, "normal": 0.01}},
            )  # fmt: skip
    write(tmp_path, make_settings("demo", width=8), dataset="demo", category="plate")
    assert copying(tmp_path).to_numpy().tolist() == [
        ["plate", 0.0, "0, 1", 0.0114, 80.0, 40.0, 90.0, 10.0, 5.0, 2.0],
        ["plate", 0.3, "0, 1", 0.0114, 80.0, 40.0, 90.0, 60.0, 20.0, 3.0],
    ]


def test_beside_untrained(tmp_path: Path) -> None:
    untrained = {
        "image": {"auroc": 0.5, "ap": 0.6},
        "pixel": {"auroc": 0.5, "ap": 0.01, "aupro": 0.15},
    }
    mean = {"image": {"auroc": 0.7, "ap": 0.6}, "pixel": {"auroc": 0.7, "ap": 0.02, "aupro": 0.4}}
    blurred = {
        "image": {"auroc": 0.6, "ap": 0.6},
        "pixel": {"auroc": 0.6, "ap": 0.03, "aupro": 0.3},
    }
    write(
        tmp_path, DEMO, dataset="demo", category="tubes", untrained=untrained,
        trivial={"mean_image": mean, "blurred_image": blurred},
    )  # fmt: skip
    table = beside_untrained(tmp_path)
    assert table["map"].tolist() == [
        "trained", "untrained", "distance to the mean image", "distance to the blurred image"
    ]  # fmt: skip
    assert table["average precision"].tolist() == [10.0, 1.0, 2.0, 3.0]
    assert set(table["category"]) == {"tubes"}  # and not Tubes, the part of MPDD
    assert beside_untrained(tmp_path, "image_size")["image size"].tolist() == [128] * 4
    assert beside_untrained(tmp_path, category="plate").empty
    images = beside_untrained(tmp_path, level="image")
    assert images["AUROC"].tolist() == [99.0, 50.0, 70.0, 60.0]
    assert "AUPRO" not in images


def test_without_a_run_there_is_nothing(tmp_path: Path) -> None:
    assert by_kind(tmp_path).empty
    assert copying(tmp_path).empty
    assert beside_untrained(tmp_path).empty


def test_what_the_network_is_given(tmp_path: Path, parts: Path, tiny: Settings) -> None:
    mpl.use("agg")
    run = Run("parts", "disc", tiny, precision="float32")
    record = make_record(run, parts, results=tmp_path, device="cpu", progress=False)
    drawn = input_panels({"fine": record}, parts, tmp_path, ["spot"])
    assert isinstance(drawn, Figure)
    original, given, *_ = (axes.images[0].get_array() for axes in drawn.axes)
    # Eq. (1) in the image's own scale, where the noise of mean 0.5 on [-1, 1] has the mean 0.75
    shift = float(given.mean()) - 0.7 * float(original.mean()) / 255
    assert shift == pytest.approx(0.3 * 0.75, abs=0.01)
    (record.folder / "weights.pt").unlink()
    assert "not committed" in str(input_panels({"fine": record}, parts, tmp_path))
