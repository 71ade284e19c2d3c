"""Data: both layouts, every kind of image, and every kind of bad input."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from n2n.data import (
    EXPECTED_COUNTS,
    check,
    find_categories,
    list_category,
    load_category,
)
from n2n.decoding import decode_image, decode_mask
from n2n.errors import N2NError
from n2n.settings import MaskRule
from tests.conftest import draw_parts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw_parts(tmp_path / "MPDD" / "tubes", train=3, good=2, spotted=2)
    return tmp_path


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def visa(root: Path, **changes: str) -> Path:
    """A root with VisA/fryum: two training, one normal and one anomalous test image."""
    rng = np.random.default_rng(1)
    rows = []
    for name, split in (("000", "train"), ("001", "train"), ("002", "test")):
        image = f"fryum/Data/Images/Normal/{name}.JPG"
        save(root / "VisA" / image, rng.integers(0, 255, (20, 30, 3), np.uint8))
        rows.append(["fryum", split, "normal", image, ""])
    image, mask = "fryum/Data/Images/Anomaly/000.JPG", "fryum/Data/Masks/Anomaly/000.png"
    save(root / "VisA" / image, rng.integers(0, 255, (20, 30, 3), np.uint8))
    indices = np.zeros((20, 30), np.uint8)
    indices[5:9, 5:9] = 3  # a class index, not 255
    save(root / "VisA" / mask, indices)
    rows.append(["fryum", "test", "anomaly", image, mask])
    rows.append(["candle", "train", "normal", "candle/Data/Images/Normal/000.JPG", ""])
    rows = [[changes.get(value, value) for value in row] for row in rows]
    split = root / "VisA" / "split_csv" / "1cls.csv"
    split.parent.mkdir(parents=True)
    with split.open("w", newline="") as file:
        csv.writer(file).writerows([["object", "split", "label", "image", "mask"], *rows])
    return root


def test_published_counts_sum_to_the_paper_s() -> None:
    mpdd = [counts for (name, _), counts in EXPECTED_COUNTS.items() if name == "MPDD"]
    assert [sum(column) for column in zip(*mpdd, strict=True)] == [888, 176, 282]
    of_visa = [counts for (name, _), counts in EXPECTED_COUNTS.items() if name == "VisA"]
    train, good, anomalous = (sum(column) for column in zip(*of_visa, strict=True))
    assert (len(of_visa), train + good, anomalous) == (12, 9621, 1200)


def test_mvtec_layout(root: Path) -> None:
    found = load_category(root, "MPDD", "tubes", 64, progress=False)
    assert found.train.shape == (3, 3, 64, 64)
    assert found.train.dtype == torch.uint8
    assert found.names == (
        "test/good/000.png", "test/good/001.png", "test/spot/000.png", "test/spot/001.png",
    )  # fmt: skip
    assert found.labels.tolist() == [False, False, True, True]
    assert found.masks.any((1, 2)).tolist() == [False, False, True, True]
    for n in (2, 3):  # to each image its own
        drawn = Image.open(root / f"MPDD/tubes/ground_truth/spot/{n - 2:03d}_mask.png")
        assert np.array_equal(found.masks[n].numpy(), np.asarray(drawn) > 0)
    assert found.defects[2] == "spot"
    # At its own size, an image is not changed at all.
    original = np.asarray(Image.open(root / "MPDD/tubes/train/good/000.png"))
    assert np.array_equal(found.train[0, 1].numpy(), original)


def test_visa_layout_follows_its_split_file(tmp_path: Path) -> None:
    found = load_category(visa(tmp_path), "VisA", "fryum", 64, progress=False)
    assert (len(found.train), len(found.test)) == (2, 2)
    assert found.defects == ("anomaly", "good")
    assert found.names[0] == "Data/Images/Anomaly/000.JPG"
    share = found.masks[0].float().mean().item()
    assert share == pytest.approx(16 / 600, rel=0.2)  # class index 3 counts as anomalous


def forbid(forbidden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the user has no right to it; root has all rights."""
    everything = Path.iterdir

    def listed(folder: Path) -> Iterator[Path]:
        if folder == forbidden:
            raise PermissionError(13, "Permission denied", str(folder))
        return everything(folder)

    monkeypatch.setattr(Path, "iterdir", listed)


def test_what_must_not_be_looked_into_is_passed_over(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "lost+found").mkdir()
    forbid(root / "lost+found", monkeypatch)
    assert find_categories(root) == [("MPDD", "tubes")]


@pytest.mark.parametrize("inside", ["test", "test/spot", "train/good", "ground_truth/spot"])
def test_a_folder_of_a_category_that_must_not_be_read_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    forbid(root / "MPDD/tubes" / inside, monkeypatch)
    with pytest.raises(N2NError, match=rf"tubes/{inside} must not be read; allow it"):
        list_category(root, "MPDD", "tubes")


def test_a_root_that_must_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(root, monkeypatch)
    with pytest.raises(N2NError, match=rf"{root.name} must not be read; allow it"):
        find_categories(root)


def test_categories_are_found(root: Path) -> None:
    (visa(root) / "MPDD" / "empty").mkdir()
    (root / "MPDD" / ".plate.unfinished" / "train" / "good").mkdir(parents=True)
    (root / "notes.txt").write_text("no data set")
    assert find_categories(root) == [("MPDD", "tubes"), ("VisA", "fryum")]


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("L", "bmp"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("1", "png"),
     ("CMYK", "jpg"), ("RGB", "webp"), ("L", "tif")],
)  # fmt: skip
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    white = np.full((8, 12, 3), 255, np.uint8)
    decoded = decode_image(save(tmp_path / f"white.{suffix}", white, mode), 64)
    assert decoded.shape == (64, 64, 3)
    assert decoded.min() >= 250


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.full((8, 8), 100 * 257, np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    assert np.unique(decode_image(path, 8)).tolist() == [100]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    assert decode_image(save(tmp_path / "clear.png", clear), 8).min() == 255


def test_the_camera_s_rotation_is_applied(tmp_path: Path) -> None:
    left_black = np.zeros((8, 16, 3), np.uint8)
    left_black[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / "turned.jpg"
    Image.fromarray(left_black).save(path, exif=exif, quality=95)
    decoded = decode_image(path, 64)
    assert decoded[:20].max() < 30  # black is on top now
    assert decoded[-20:].min() > 220


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white")]
    path = tmp_path / "animated.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(path, 8).max() < 10


def test_resizing_is_pillow_s_bilinear(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    expected = Image.fromarray(noise).resize((32, 32), Image.Resampling.BILINEAR)
    decoded = decode_image(save(tmp_path / "noise.png", noise), 32)
    assert np.array_equal(decoded, np.asarray(expected))


def test_resizing_by_other_filters(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    path = save(tmp_path / "noise.png", noise)
    assert np.array_equal(decode_image(path, 32, "nearest"), noise[1::2, 1::3])
    blocks = noise.reshape(32, 2, 32, 3, 3).mean((1, 3))
    assert np.abs(decode_image(path, 32, "box") - blocks).max() < 1  # rounded twice
    bicubic = Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(decode_image(path, 32, "bicubic"), np.asarray(bicubic))


@pytest.mark.parametrize(("y", "x"), [(0, 0), (37, 91), (127, 127)])
def test_a_defect_of_one_pixel_does_not_vanish(tmp_path: Path, y: int, x: int) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[y, x] = 255
    image = save(tmp_path / "image.png", np.zeros((128, 128), np.uint8))
    resized = decode_mask(save(tmp_path / "mask.png", mask), image, 64)
    assert np.argwhere(resized).tolist() == [[y // 2, x // 2]]


def test_masks_keep_half_covered_pixels(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 255  # the whole of a pixel of the result
    mask[0, :2] = 255  # half of one
    mask[7, 7] = 255  # a quarter of one
    image = save(tmp_path / "image.png", np.zeros((8, 8), np.uint8))
    path = save(tmp_path / "mask.png", mask)
    assert np.argwhere(decode_mask(path, image, 4)).tolist() == [[0, 0], [1, 1]]
    assert np.argwhere(decode_mask(path, image, 4, "any")).tolist() == [[0, 0], [1, 1], [3, 3]]
    # The nearest pixel of 2x2 is the lower right one
    assert np.argwhere(decode_mask(path, image, 4, "nearest")).tolist() == [[1, 1], [3, 3]]


def test_no_rule_leaves_a_mask_empty(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[4, 2] = 255
    image = save(tmp_path / "image.png", np.zeros((8, 8), np.uint8))
    path = save(tmp_path / "mask.png", mask)
    for rule in get_args(MaskRule):
        assert np.argwhere(decode_mask(path, image, 4, rule)).tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"plain text", "not an image"), (b"\x89PNG\r\n\x1a\n", "truncated")],
)
def test_what_is_not_an_image_is_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "part 7 größer.png"
    path.write_bytes(content)
    with pytest.raises(N2NError, match=rf"größer\.png cannot be read: it is .*{word}"):
        decode_image(path, 64)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = save(tmp_path / "cut.jpg", noise)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(N2NError, match=r"cut\.jpg cannot be read"):
        decode_image(path, 64)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "bomb.png", np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(N2NError, match=r"bomb\.png has too many pixels"):
        decode_image(path, 64)


def test_more_than_sixteen_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.full((64, 64), 65536, np.int32)).save(path)
    with pytest.raises(N2NError, match=r"deep.tiff has more than 16 bits a pixel; export it"):
        decode_image(path, 64)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_a_sound_image_that_cannot_be_opened_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = save(tmp_path / "sound.png", np.zeros((64, 64), np.uint8))

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(N2NError, match=f"sound.png cannot be read \\({os.strerror(number)}\\)"):
        decode_image(path, 64)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16", "P", "P, white first"])
def test_what_is_not_black_in_a_mask_is_marked(tmp_path: Path, mode: str) -> None:
    marked = np.zeros((40, 40), np.uint8)
    marked[8:16, 20:30] = 255
    drawn = Image.fromarray(marked)
    if mode == "I;16":
        drawn = Image.fromarray(marked.astype(np.uint16) * 257)
    elif mode == "P, white first":
        drawn = drawn.convert("RGB").quantize(2)
        assert drawn.getpalette()[:3] == [255, 255, 255]
    else:
        drawn = drawn.convert(mode)  # the opacity marks nothing
    drawn.save(tmp_path / "mask.png")
    save(tmp_path / "image.png", np.zeros((40, 40, 3), np.uint8))
    found = decode_mask(tmp_path / "mask.png", tmp_path / "image.png", 40)
    assert np.array_equal(found, marked > 0)


def test_a_mask_of_another_size_is_named(root: Path) -> None:
    mask = root / "MPDD/tubes/ground_truth/spot/000_mask.png"
    save(mask, np.full((32, 64), 255, np.uint8))
    with pytest.raises(N2NError, match=r"000_mask\.png is 64x32 pixels.*000\.png is 64x64"):
        load_category(root, "MPDD", "tubes", 64, progress=False)


def test_an_empty_mask_is_named(root: Path) -> None:
    mask = root / "MPDD/tubes/ground_truth/spot/001_mask.png"
    save(mask, np.zeros((64, 64), np.uint8))
    with pytest.raises(N2NError, match=r"001_mask\.png marks no pixel"):
        load_category(root, "MPDD", "tubes", 64, progress=False)


def test_a_missing_mask_is_named(root: Path) -> None:
    (root / "MPDD/tubes/ground_truth/spot/001_mask.png").unlink()
    with pytest.raises(N2NError, match=r"001_mask\.png of .*test/spot/001\.png is missing"):
        list_category(root, "MPDD", "tubes")


def test_missing_folders_are_named(root: Path) -> None:
    with pytest.raises(N2NError, match=r"no folder .*connector"):
        list_category(root, "MPDD", "connector")
    with pytest.raises(N2NError, match="no folder"):
        find_categories(root / "nowhere")
    shutil.rmtree(root / "MPDD/tubes/train")
    with pytest.raises(N2NError, match="no training image"):
        list_category(root, "MPDD", "tubes")


@pytest.mark.parametrize("name", ["..", "", "a/b", "a\\b", "."])
def test_names_cannot_leave_the_root(root: Path, name: str) -> None:
    with pytest.raises(N2NError, match="not the name of a folder"):
        list_category(root, "MPDD", name)


def test_visa_s_split_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(N2NError, match="split 'validation'"):
        list_category(visa(tmp_path / "a", train="validation"), "VisA", "fryum")
    root = visa(tmp_path / "b")
    (root / "VisA/fryum/Data/Images/Normal/001.JPG").unlink()
    with pytest.raises(N2NError, match=r"001\.JPG, which .*1cls\.csv names, is missing"):
        list_category(root, "VisA", "fryum")
    (root / "VisA/split_csv/1cls.csv").unlink()
    with pytest.raises(N2NError, match=r"split file .*1cls\.csv is missing"):
        list_category(root, "VisA", "fryum")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fryum/Data/Images/Normal/001.JPG", "fryum/../other/001.JPG", r"001\.JPG, .* is missing"),
        ("fryum/Data/Images/Normal/001.JPG", "other/001.JPG", r"other/001\.JPG, .* is missing"),
        ("fryum/Data/Masks/Anomaly/000.png", "", r"names no mask for .*000\.JPG"),
        ("test,anomaly", "train,anomaly", r"Anomaly/000\.JPG into the training; use 1cls\.csv as"),
        ("fryum,", "candle,", r"no training image in .*fryum; split_csv/1cls\.csv must name some"),
    ],
)
def test_rows_of_the_split_file_that_cannot_be_meant(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    root = visa(tmp_path)
    save(root / "VisA/other/001.JPG", np.zeros((8, 8, 3), np.uint8))
    split = root / "VisA/split_csv/1cls.csv"
    assert old in split.read_text()
    split.write_text(split.read_text().replace(old, new))
    with pytest.raises(N2NError, match=message):
        list_category(root, "VisA", "fryum")


def test_a_byte_order_mark_does_a_split_file_no_harm(tmp_path: Path) -> None:
    root = visa(tmp_path)
    split = root / "VisA/split_csv/1cls.csv"
    split.write_bytes(b"\xef\xbb\xbf" + split.read_bytes())
    assert len(list_category(root, "VisA", "fryum").train) == 2


def test_a_split_file_cannot_name_files_outside(tmp_path: Path) -> None:
    root = visa(tmp_path / "a")
    outside = save(tmp_path / "a/outside.JPG", np.zeros((8, 8, 3), np.uint8))
    split = root / "VisA/split_csv/1cls.csv"
    text = split.read_text().replace("fryum/Data/Images/Normal/001.JPG", f"../{outside.name}")
    split.write_text(text)
    with pytest.raises(N2NError, match="is missing"):
        list_category(root, "VisA", "fryum")


def test_a_linked_category_is_followed(tmp_path: Path) -> None:
    root = visa(tmp_path / "a")
    (root / "VisA/fryum").rename(tmp_path / "elsewhere")
    (root / "VisA/fryum").symlink_to(tmp_path / "elsewhere")
    assert len(list_category(root, "VisA", "fryum").train) == 2


def test_the_fingerprint_follows_the_bytes_not_the_place(root: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return load_category(folder, "MPDD", "tubes", 64, progress=False).fingerprint

    moved = tmp_path / "elsewhere"
    shutil.copytree(root / "MPDD", moved / "MPDD")
    assert fingerprint(moved) == fingerprint(root)
    image = moved / "MPDD/tubes/train/good/000.png"
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    assert fingerprint(moved) != fingerprint(root)


def test_the_cache_gives_the_same_and_heals_itself(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = load_category(root, "MPDD", "tubes", 64, cache=cache, progress=False)
    (stored,) = cache.iterdir()
    again = load_category(root, "MPDD", "tubes", 64, cache=cache, progress=False)
    assert torch.equal(first.test, again.test)
    assert torch.equal(first.masks, again.masks)
    stored.write_bytes(b"damaged")
    healed = load_category(root, "MPDD", "tubes", 64, cache=cache, progress=False)
    assert torch.equal(first.train, healed.train)
    assert stored.stat().st_size > 1000
    load = partial(load_category, root, "MPDD", "tubes", 24, cache=cache, progress=False)
    smoother, sharper, wider = load(), load(resize="nearest"), load(mask_rule="any")
    assert not torch.equal(sharper.test, smoother.test)
    assert torch.equal(wider.test, smoother.test)
    assert wider.masks.sum() > smoother.masks.sum()
    assert sharper.fingerprint == first.fingerprint
    assert len(list(cache.iterdir())) == 4


def test_check_names_every_problem(root: Path) -> None:
    folder = root / "MPDD/tubes"
    (folder / "train/good/000.png").write_bytes(b"")
    (folder / "test/good/001.png").write_bytes(b"no image")
    (folder / "ground_truth/spot/001_mask.png").unlink()
    (report,) = check(root, progress=False)
    problems = " ".join(report.problems)
    for name in ("train/good/000.png", "test/good/001.png", "001_mask.png", "published are 122"):
        assert name in problems
    assert len(report.problems) == 4


def test_check_counts_what_it_passes_over(root: Path) -> None:
    folder = root / "MPDD/tubes"
    for name in ("train/good/a.svg", "test/spot/Thumbs.db", "train/good/.hidden", "notes.txt"):
        (folder / name).touch()
    Image.new("L", (64, 64)).save(folder / "train/good/b.pgm")
    (report,) = check(root, progress=False)
    assert [Path(name).name for name in report.passed_over] == ["a.svg", "Thumbs.db"]
    assert f"{report.train} training" in " ".join(report.problems)
    assert report.train == len(list_category(root, "MPDD", "tubes").train)


def test_check_of_an_empty_root_says_what_to_provide(tmp_path: Path) -> None:
    with pytest.raises(N2NError, match="metal_plate"):
        check(tmp_path)


def test_check_of_visa_without_a_folder_of_its_own_says_where_to_move_it(tmp_path: Path) -> None:
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").touch()
    (tmp_path / "candle/Data/Images/Normal").mkdir(parents=True)
    with pytest.raises(N2NError, match=f"move what is there to {tmp_path / 'VisA'}"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "category"),
    [("MPDD", "metal_plate"), ("MPDD", "bracket_white"), ("VisA", "fryum"), ("VisA", "capsules")],
)
def test_real_categories_have_their_published_counts(
    real_data: Path, dataset: str, category: str
) -> None:
    if (dataset, category) not in find_categories(real_data):
        pytest.skip(f"{dataset}/{category} is not in N2N_DATA")
    listing = list_category(real_data, dataset, category)
    good = sum(sample.defect == "good" for sample in listing.test)
    counts = (len(listing.train), good, len(listing.test) - good)
    assert counts == EXPECTED_COUNTS[dataset, category]
    sample = next(sample for sample in listing.test if sample.mask is not None)
    assert sample.mask is not None
    assert decode_mask(sample.mask, sample.image, 256).any()
