"""The demonstration data: the same for a seed, whole or absent, with exact masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from n2n import demo_data
from n2n.demo_data import CATEGORIES, DEFECTS, VISIBLE, draw, generate
from n2n.errors import N2NError

FEW: dict[str, Any] = {
    "size": 64,
    "train": 2,
    "test_good": 2,
    "test_per_defect": 1,
    "progress": False,
}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("data"), **FEW)


def test_layout(demo: Path) -> None:
    expected = {"demo.json"}
    for category, defects in DEFECTS.items():
        assert len(defects) >= 4
        for index in ("000", "001"):
            expected |= {f"{category}/{split}/good/{index}.png" for split in ("train", "test")}
        for defect in defects:
            expected.add(f"{category}/test/{defect}/000.png")
            expected.add(f"{category}/ground_truth/{defect}/000_mask.png")
    assert set(contents(demo)) == expected
    assert json.loads((demo / "demo.json").read_text())["size"] == 64


def test_images_and_masks(demo: Path) -> None:
    for path in demo.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (64, 64)
            values = np.asarray(image)
        if path.stem.endswith("_mask"):
            assert set(np.unique(values)) == {0, 255}
            assert values.ndim == 2
            assert np.mean(values > 0) < 0.2
        else:
            assert values.shape == (64, 64, 3)
            assert values.std() > 10
    images = [path.read_bytes() for path in demo.rglob("good/*.png")]
    assert len(set(images)) == len(images)


def test_the_seed_decides_every_byte(demo: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "again", workers=1, categories=["bracket"], **FEW)
    assert contents(again / "bracket") == contents(demo / "bracket")
    other = generate(tmp_path / "other", seed=1, categories=["bracket"], **FEW)
    images, others = contents(demo / "bracket"), contents(other / "bracket")
    assert all(images[name] != others[name] for name in images if name.endswith("0.png"))


def test_images_do_not_depend_on_their_number(demo: Path, tmp_path: Path) -> None:
    more = generate(tmp_path, categories=["plate"], **{**FEW, "train": 3, "test_per_defect": 2})
    images, others = contents(demo / "plate"), contents(more / "plate")
    assert images.items() <= others.items()


@pytest.mark.parametrize(
    ("category", "defect"), [(name, defect) for name in CATEGORIES for defect in DEFECTS[name]]
)
def test_outside_the_mask_nothing_changes(category: str, defect: str) -> None:
    for index in range(3):
        key = (3, 0, 2, index)
        clean, empty = draw(category, key, 96)
        image, mask = draw(category, key, 96, defect)
        change = np.abs(image.astype(int) - clean).max(axis=2)
        assert not empty.any()
        assert mask.any()
        assert change[mask == 0].max() <= VISIBLE
        assert np.mean(change[mask > 0] > VISIBLE) > 0.7


def test_data_that_is_there_is_left_alone(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_data, "draw", None)
    assert generate(demo.parent, **{**FEW, "progress": True}) == demo
    assert "nothing to do" in capsys.readouterr().err


def test_categories_are_added(tmp_path: Path) -> None:
    generate(tmp_path, categories=["plate"], **FEW)
    before = (tmp_path / "demo/plate/train/good/000.png").stat().st_mtime_ns
    root = generate(tmp_path, categories=["plate", "bracket"], **FEW)
    assert (root / "plate/train/good/000.png").stat().st_mtime_ns == before
    assert sorted(path.name for path in root.iterdir()) == ["bracket", "demo.json", "plate"]


def test_other_settings_are_refused(demo: Path) -> None:
    before = contents(demo)
    with pytest.raises(N2NError, match=r"other settings.*remove it or choose another directory"):
        generate(demo.parent, seed=1, **FEW)
    assert contents(demo) == before


def test_foreign_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "demo/plate").mkdir(parents=True)
    with pytest.raises(N2NError, match=r"demo\.json cannot be read"):
        generate(tmp_path, categories=["plate"], **FEW)
    (tmp_path / "demo/demo.json").write_text("[1]")
    with pytest.raises(N2NError, match=r"demo\.json cannot be read"):
        generate(tmp_path, categories=["plate"], **FEW)
    root = generate(tmp_path / "own", categories=["plate"], **FEW)
    (root / "plate/test/rust/000.png").unlink()
    with pytest.raises(N2NError, match="plate holds 13 images and masks instead of 14; remove it"):
        generate(tmp_path / "own", categories=["plate"], **FEW)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_no_category(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(category: str, key: tuple[int, ...], size: int, defect: str = "") -> Any:
        if key[2] == 3:
            raise failure
        return draw(category, (key[0], key[1], key[2], key[3]), size, defect)

    monkeypatch.setattr(demo_data, "draw", interrupted)
    expected = N2NError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        generate(tmp_path, categories=["plate"], **FEW)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["demo.json"]
    monkeypatch.undo()
    assert (generate(tmp_path, categories=["plate"], **FEW) / "plate").is_dir()


def test_a_killed_run_is_repeated(demo: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "demo/.plate.unfinished/train/good"
    leftover.mkdir(parents=True)
    (leftover / "000.png").write_bytes(b"half")
    root = generate(tmp_path, categories=["plate"], **FEW)
    assert contents(root / "plate") == contents(demo / "plate")
    assert not (tmp_path / "demo/.plate.unfinished").exists()


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(N2NError, match="cannot be written"):
        generate(tmp_path / "file", **FEW)


@pytest.mark.parametrize(
    "wrong",
    [{"size": 16}, {"seed": -1}, {"train": 0}, {"test_per_defect": 0}, {"categories": ["disc"]}],
)
def test_values_outside_their_ranges(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(N2NError):
        generate(tmp_path, **{**FEW, **wrong})
    assert not list(tmp_path.iterdir())
