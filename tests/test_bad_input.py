"""Every kind of bad input, through `n2n check` and `n2n run`: the sentence and the exit code.

The table of book/reliability.md names the same cases.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from n2n.cli import main
from tests.conftest import draw_parts
from tests.test_data import visa

PAGE = Path(__file__).parents[1] / "book" / "reliability.md"
FINE = None  # exit code 0
Spoil = Callable[[Path], object]


def first(folder: Path) -> Path:
    return folder / "train/good/000.png"


def mask(folder: Path) -> Path:
    return folder / "ground_truth/spot/000_mask.png"


def cut(folder: Path) -> None:
    path = first(folder)
    path.write_bytes(path.read_bytes()[:500])


def animate(folder: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("grey", "red")]
    frames[0].save(folder / "train/good/x.webp", save_all=True, append_images=frames[1:])


def loop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(path)


def invert(folder: Path) -> None:
    marked = np.asarray(Image.open(mask(folder)))
    Image.fromarray(255 - marked).save(mask(folder))


def keep(folder: Path, count: int) -> None:
    for path in sorted((folder / "train/good").iterdir())[count:]:
        path.unlink()


NOT_READ = "cannot be read: it is "
# Name of the case, what is done to a category, what `check` says, what `run` says.
CASES: list[tuple[str, Spoil, str | None, str | None]] = [
    ("truncated image", cut, NOT_READ + "truncated", NOT_READ + "truncated"),
    ("empty folder", lambda f: keep(f, 0), "no training image", "no training image"),
    ("file of zero bytes", lambda f: first(f).write_bytes(b""), "it is empty", "it is empty"),
    ("text with an image's name", lambda f: first(f).write_text("?"), "not an image", "not an im"),
    ("decompression bomb", lambda f: Image.new("1", (12000, 12000)).save(first(f)),
     "too many pixels", "too many pixels"),
    ("image of one pixel", lambda f: Image.new("RGB", (1, 1)).save(first(f)), FINE, FINE),
    ("CMYK", lambda f: Image.new("CMYK", (64, 64)).save(f / "train/good/x.jpg"), FINE, FINE),
    ("sixteen bits", lambda f: Image.fromarray(np.full((64, 64), 30000, np.uint16)).save(first(f)),
     FINE, FINE),
    ("twelve bits in sixteen",
     lambda f: Image.fromarray(np.full((64, 64), 3000, np.uint16)).save(first(f)),
     "no pixel above 3000 of 65535", "no pixel above 3000 of 65535"),
    ("floating-point pixels", lambda f: Image.new("F", (64, 64), 0.5).save(f / "train/good/x.tif"),
     "x.tif has floating-point pixels", "x.tif has floating-point pixels"),
    ("animation", animate, FINE, FINE),
    ("broken EXIF", lambda f: Image.new("RGB", (64, 64)).save(first(f), exif=b"Exif\0\0II*\0"),
     NOT_READ + "truncated", NOT_READ + "truncated"),
    ("image that links to itself", lambda f: loop(first(f)), "link that leads", "symbolic links"),
    ("folder that links to itself", lambda f: loop(f / "train/good"), "no training", "no training"),
    ("link to a folder above", lambda f: (f / "test/up").symlink_to(f), FINE, FINE),
    ("folder with an image's name", lambda f: (f / "train/good/x.png").mkdir(), "it is a folder",
     "directory"),
    ("spaces and Unicode in names",
     lambda f: first(f).rename(f / "train/good/Teil 7 größer 部品.png"), FINE, FINE),
    ("name that is not UTF-8", lambda f: first(f).rename(f / os.fsdecode(b"train/good/gr\xf6.png")),
     "gr\\udcf6.png' has a name that is not UTF-8", "has a name that is not UTF-8"),
    ("image beside the folders", lambda f: shutil.copy(first(f), f / "test/x.png"),
     "is not looked at; move it", FINE),
    ("folder by another name", lambda f: (f / "train/good").rename(f / "train/fine"),
     "no training image", "no training image"),
    ("two images that share a mask",
     lambda f: Image.new("RGB", (64, 64)).save(f / "test/spot/000.bmp"),
     "share a mask", "share a mask"),
    ("missing mask", lambda f: mask(f).unlink(), "is missing; restore it", "is missing; restore"),
    ("mask of another size", lambda f: Image.new("L", (32, 64), 255).save(mask(f)),
     "is 32x64 pixels", "is 32x64 pixels"),
    ("mask that marks nothing", lambda f: Image.new("L", (64, 64)).save(mask(f)),
     "marks no pixel", "marks no pixel"),
    ("mask as JPEG", lambda f: Image.open(mask(f)).save(mask(f), "JPEG"),
     "is a JPEG", "is a JPEG"),
    ("inverted mask", invert, "if it is inverted", FINE),
    ("no anomalous test image", lambda f: shutil.rmtree(f / "test/spot"), FINE, FINE),
    ("no normal test image", lambda f: shutil.rmtree(f / "test/good"), FINE, FINE),
    ("one training image", lambda f: keep(f, 1), "a run needs 8", "cannot be split"),
    ("seven training images", lambda f: keep(f, 7), "a run needs 8", "until there are 8"),
    ("eight training images", lambda f: keep(f, 8), FINE, FINE),
]  # fmt: skip


def n2n(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run(root: Path, dataset: str, category: str) -> Result:
    return n2n(
        "run", "--data", root, "--dataset", dataset, "--category", category, "--preset", "demo",
        "--image-size", 64, "--width", 4, "--epochs", 1, "--device", "cpu", "--quiet",
        "--results", root.parent / "results",
    )  # fmt: skip


def check_outcome(outcome: Result, sentence: str | None) -> None:
    assert isinstance(outcome.exception, SystemExit | None), outcome.exception
    assert outcome.exit_code == (0 if sentence is FINE else 1), outcome.output
    assert (sentence or "") in outcome.output


@pytest.mark.parametrize(
    ("spoil", "of_check", "of_run"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_input(tmp_path: Path, spoil: Spoil, of_check: str | None, of_run: str | None) -> None:
    root = tmp_path / "data"
    draw_parts(root / "parts/disc", train=10, good=2, spotted=2)
    spoil(root / "parts/disc")
    check_outcome(n2n("check", root), of_check)
    outcome = run(root, "parts", "disc")
    check_outcome(outcome, of_run)
    if of_run is not FINE:
        assert len(outcome.output.strip().splitlines()) == 1
        assert not (tmp_path / "results" / "runs").exists()


def test_metrics_that_cannot_be_measured_are_named(tmp_path: Path) -> None:
    draw_parts(tmp_path / "data/parts/disc", train=10, good=2, spotted=1)
    shutil.rmtree(tmp_path / "data/parts/disc/test/spot")
    assert "AUROC is not defined" in run(tmp_path / "data", "parts", "disc").output


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": "validation"}, "split 'validation'"),
        ({"anomaly": "strange"}, "label 'strange'"),
        ({"fryum/Data/Images/Normal/001.JPG": "../../etc/passwd"}, "is missing; restore it"),
        ({"fryum/Data/Images/Normal/001.JPG": "/etc/passwd"}, "is missing; restore it"),
        ({"fryum/Data/Images/Normal/001.JPG": "fryum/Data/Images/Normal/000.JPG"}, "JPG twice"),
    ],
)
def test_split_files_with_unknown_rows(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    root = visa(tmp_path / "data", **changes)
    check_outcome(n2n("check", root), sentence)
    check_outcome(run(root, "VisA", "fryum"), sentence)


@pytest.mark.parametrize("name", ["../parts/disc", "..", "", "a\\b", "a\0b"])
def test_names_that_would_leave_their_folder(parts: Path, name: str) -> None:
    outcome = run(parts, "parts", name)
    check_outcome(outcome, "is not the name of a folder")
    check_outcome(run(parts, name, "disc"), "is not the name of a folder")


def test_the_documentation_names_every_case() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name, *_ in CASES if f"| {name} |" not in page] == []
