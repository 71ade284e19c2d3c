"""Along the training, from records written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from n2n.analysis import budgets, dynamics
from n2n.analysis.selection import own_records
from n2n.settings import BUDGET, Settings, make_settings
from tests.records import small, write


def _two_epochs(folder: Path) -> None:
    table = pd.DataFrame({"epoch": [1, 2], "validation_loss": [0.2, 0.1]})
    table.to_csv(folder / "history.csv", index=False)
    aurocs = {"test_image_top1%": [0.5], "test_image_mean": [0.6], "test_pixel": [0.75]}
    pd.DataFrame({"epoch": [2]} | aurocs).to_csv(folder / "trace.csv", index=False)


def test_the_seeds_of_a_learning_rate_share_a_name(tmp_path: Path) -> None:
    for settings, seed in (
        (small(), 1), (small(learning_rate=1e-4), 2), (small(), 2), (small(learning_rate=1e-4), 1),
        (small(width=8), 1),  # more than another rate
    ):  # fmt: skip
        write(tmp_path, settings, seed=seed, files=_two_epochs)
    figure = dynamics.trace_figure(tmp_path, ("MPDD", "metal_plate"))
    losses, images, by_mean, pixels = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "learning rate 0.0001", "learning rate 0.001",
    ]  # fmt: skip
    assert len(losses.lines) == 4
    untrained = 100 * own_records(tmp_path)[0].content["untrained"]["image"]["auroc"]
    for line in images.lines:
        assert line.get_ydata().tolist() == [untrained, 50.0]
    # By the mean, the untrained network's is not on record
    assert [line.get_ydata().tolist() for line in by_mean.lines] == 4 * [[60.0]]
    assert [line.get_xdata().tolist() for line in pixels.lines] == 4 * [[0, 2]]
    assert dynamics.trace_figure(tmp_path, ("MPDD", "tubes")).axes[0].lines[:] == []


def test_budgets_along_the_training(tmp_path: Path) -> None:
    for settings in (small(), small(epochs=500, t_max=500), small(learning_rate=1e-4)):
        write(tmp_path, settings, files=_two_epochs)
    part = ("MPDD", "metal_plate")
    figure = dynamics.trace_figure(tmp_path, part, BUDGET, budgets.named)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["40 epochs", "500 epochs"]


def test_a_second_image_score_along_the_training(tmp_path: Path) -> None:
    def files(folder: Path) -> None:
        places = ("image_max", "image_mean", "image_top1%", "pixel")
        row = {f"{part}_{level}": 0.5 for part in ("test", "development") for level in places}
        pd.DataFrame([{"epoch": 1} | row, {"epoch": 2} | row]).to_csv(
            folder / "trace.csv", index=False
        )

    for epochs in (100, 500):  # of which the larger budget is shown
        write(tmp_path, make_settings("paper", epochs=epochs), files=files)
    figure = dynamics.full_size_figure(tmp_path, make_settings("paper"), other="mean")
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "images by max, test", "images by mean, test", "pixels, test",
        "images by max, synthetic", "images by mean, synthetic", "pixels, synthetic",
    ]  # fmt: skip
    assert all(line.get_ydata().tolist() == [50, 50] for line in axes.lines)
    assert dynamics.full_size_figure(tmp_path).legends == []  # no run of this preset


def test_losses_along_the_training(tmp_path: Path) -> None:
    """Of the seeds that every network has, by hand."""

    def trained(settings: Settings, seed: int, losses: list[float]) -> None:
        def files(folder: Path) -> None:
            epochs = range(1, len(losses) + 1)
            table = pd.DataFrame({"epoch": epochs, "validation_loss": losses})
            table.to_csv(folder / "history.csv", index=False)

        write(tmp_path, settings, seed=seed, files=files)

    trained(small(), 0, [0.5, 0.030, 0.4, 0.4, 0.010])
    trained(small(), 1, [0.5, 0.050, 0.4, 0.4, 0.020])
    trained(small(), 2, [0.5, 0.9, 0.4, 0.4, 0.9])
    bare = small(attention_identity=False)
    trained(bare, 0, [0.5, 0.2, 0.4, 0.4, 0.1])
    trained(bare, 1, [0.5, 0.4, 0.4])  # stopped early
    trained(small(attention_gate=False, width=8), 0, [0.5, 0.2, 0.4, 0.4, 0.1])
    found = dynamics.losses_along(tmp_path).set_index("network")
    assert found.index.tolist() == ["without residual connections", "the whole network"]
    assert found["seeds"].tolist() == [2, 2]
    assert found["epoch 2"].tolist() == [300, 40]
    assert np.isnan(found.loc["without residual connections", "epoch 5"])
    assert found.loc["the whole network", "epoch 5"] == 15
    assert found["epoch 10"].isna().all()
    trained(small(attention=False), 3, [0.5])  # a seed of its own
    assert dynamics.losses_along(tmp_path).empty
