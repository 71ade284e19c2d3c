"""Which records stand for what, from records written by hand."""

from __future__ import annotations

from pathlib import Path

from n2n.analysis import confounds, mechanism, sensitivity
from tests.records import small, write


def test_two_data_sets_may_share_a_category(tmp_path: Path) -> None:
    for dataset, image in (("MPDD", 0.9), ("mine", 0.5)):
        error = {"defects": image, "beside": 0.1, "normal": 0.1}
        write(
            tmp_path, small(), image, dataset=dataset, reconstruction={"absolute": error},
            peak_in_defect={"maps": 0.5, "scored": 0.5},
            trivial={name: {"image": {"auroc": 0.3}, "pixel": {"auroc": 0.4}}
                     for name in ("mean_image", "blurred_image")},
            development={"all": dict.fromkeys(("image_max", "image_mean", "image_top1%"), image)},
        )  # fmt: skip
    names = ["Metal Plate (MPDD)", "Metal Plate (mine)"]
    assert mechanism.mechanism_table(tmp_path)["defects : beside"].tolist() == [9.0, 5.0]
    scores = sensitivity.development_table(tmp_path).query("`image score` == 'top1%'")
    assert scores[["category", "test images"]].to_numpy().tolist() == [
        [names[0], "90.0"], [names[1], "50.0"]
    ]  # fmt: skip
    trivial = confounds.trivial_table(tmp_path).set_index("detector").loc["trained network"]
    assert trivial[[f"{name}, image" for name in names]].tolist() == [90.0, 50.0]
