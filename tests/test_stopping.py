"""When other rules would have ended a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from n2n.analysis.jumps import of_trainings
from n2n.analysis.stopping import stop, stopping_table
from n2n.settings import make_settings
from tests.records import write


@pytest.mark.parametrize(
    ("losses", "least", "expected"),
    [
        ([5, 4, 3, 2, 1], 0.0, (None, 5)),
        ([5, 4, 4, 4, 1], 0.0, (4, 2)),  # equal is not lower
        ([5, 4, 6, 3.9, 6], 0.0, (None, 4)),
        ([5, 4, 3.7, 3.65, 1], 0.1, (4, 2)),  # less than a tenth below 4
        ([5, 4, 3.7, 3.5, 3.4], 0.1, (None, 4)),  # small steps add up
        ([5, np.nan, np.nan], 0.0, (3, 1)),
        ([], 0.0, (None, 0)),
    ],
)
def test_the_rule_by_hand(
    losses: list[float], least: float, expected: tuple[int | None, int]
) -> None:
    assert stop(losses, patience=2, least=least) == expected


def test_what_each_rule_makes_of_a_training(tmp_path: Path) -> None:
    """Three trainings of 100 epochs, the last of which its own loss had ended."""
    epochs = np.arange(1, 101)
    falling = 0.85**epochs
    creeping = np.where(epochs <= 10, falling, 0.85**10 * 0.999 ** (epochs - 10))

    def trained(
        seed: int, validation: np.ndarray, training: np.ndarray, kept: int,
        precision: str = "bfloat16", **changes: object,
    ) -> None:  # fmt: skip
        def files(folder: Path) -> None:
            pd.DataFrame(
                {
                    "epoch": epochs[: len(validation)],
                    "train_loss": training,
                    "validation_loss": validation,
                }
            ).to_csv(folder / "history.csv", index=False)
            if seed == 1:
                trace = {"epoch": [10, 50, 100], "test_image_top1%": [0.9, 0.8, 0.7]}
                pd.DataFrame(trace | {"test_pixel": [0.5, 0.6, 0.9]}).to_csv(
                    folder / "trace.csv", index=False
                )

        write(
            tmp_path, make_settings("replication", **changes), seed=seed, files=files,
            provenance={"precision": precision},
            training={"epochs": len(validation), "stopped": "early", "best_epoch": kept}, 
        )  # fmt: skip

    trained(0, falling, falling, 100)
    trained(1, creeping, falling, 100)
    up = np.concatenate([falling[:20], np.full(20, 1.0)])
    trained(2, up, falling[:40], 20)
    found = stopping_table(of_trainings(tmp_path)).set_index(["loss", "least step"])
    assert found["ended"].to_dict() == {
        ("validation", "any"): "1 of 3",
        ("training", "any"): "0 of 2",  # of the third nobody knows
        ("validation", "1 %"): "1 of 3",
        ("validation", "5 %"): "2 of 3",
        ("validation", "10 %"): "2 of 3",
    }
    # From the tenth epoch on the second falls by 0.1 % each: by 1 % within 20, by 5 not
    row = found.loc[("validation", "5 %")]
    assert row[["after epoch", "kept", "traced", "images", "pixels"]].to_list() == [
        "35 (30 to 40)", "15 (10 to 20)", 1, "+20.0", "-40.0"
    ]  # fmt: skip
    assert stopping_table(of_trainings(tmp_path), attention=False).empty

    trained(0, falling, falling, 100, attention=False)
    trained(1, creeping, falling, 100, noise=0.2)
    trained(3, creeping, falling, 100, precision="float32")  # the fewer are left out
    trained(3, creeping, falling, 100, batch_size=1)  # so is this
    trainings = of_trainings(tmp_path)
    single = stopping_table(trainings[trainings["precision"] == "float32"])
    assert single["ended"].iloc[0] == "0 of 1"
    both = stopping_table(trainings).set_index(["loss", "least step"])
    row = both.loc[("validation", "5 %")]
    assert (row["ended"], row["traced"]) == ("3 of 4", 2)
    assert row["images"] == "+20.0 (+20.0 to +20.0)"
    bare = stopping_table(of_trainings(tmp_path), attention=False)
    assert set(bare["ended"]) == {"0 of 1"}
    assert set(bare["images"]) == {""}
