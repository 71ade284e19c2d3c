"""Images of a category, decoded once: MPDD's layout, VisA's, or any folder like MVTec AD's.

A category's images are at ``ROOT/DATASET/CATEGORY``. With a folder ``Data/Images`` in it, it has
VisA's layout, and ``ROOT/DATASET/split_csv/1cls.csv`` is its split. Otherwise it has MVTec AD's,
which is MPDD's too: ``train/good``, ``test/good``, ``test/DEFECT`` and
``ground_truth/DEFECT/NAME_mask.png``.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from n2n.decoding import DECODER, decode_image, decode_mask
from n2n.errors import N2NError, reason, write_errors
from n2n.files import cores, write_whole
from n2n.settings import MaskRule, Resize

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif",
    ".pgm", ".ppm", ".pnm",
}  # fmt: skip
SPLIT_FILE = "split_csv/1cls.csv"
USABLE = ("Data/Images", "train/good")  # a category has one of these folders
LEAST_TRAINING = 8  # of whose fifth the synthetic defects need two
MOST_COVERED = 0.9  # of an image by a defect; above, `check` takes the mask for inverted

# Published counts: training, normal test and anomalous test images. MPDD: Jezek et al. 2021 (the
# sums are the paper's 888, 176 and 282); VisA: its official split file.
EXPECTED_COUNTS: dict[tuple[str, str], tuple[int, int, int]] = {
    ("MPDD", "bracket_black"): (289, 32, 47),
    ("MPDD", "bracket_brown"): (185, 26, 51),
    ("MPDD", "bracket_white"): (110, 30, 30),
    ("MPDD", "connector"): (128, 30, 14),
    ("MPDD", "metal_plate"): (54, 26, 71),
    ("MPDD", "tubes"): (122, 32, 69),
    ("VisA", "candle"): (900, 100, 100),
    ("VisA", "capsules"): (542, 60, 100),
    ("VisA", "cashew"): (450, 50, 100),
    ("VisA", "chewinggum"): (453, 50, 100),
    ("VisA", "fryum"): (450, 50, 100),
    ("VisA", "macaroni1"): (900, 100, 100),
    ("VisA", "macaroni2"): (900, 100, 100),
    ("VisA", "pcb1"): (904, 100, 100),
    ("VisA", "pcb2"): (901, 100, 100),
    ("VisA", "pcb3"): (905, 101, 100),
    ("VisA", "pcb4"): (904, 101, 100),
    ("VisA", "pipe_fryum"): (450, 50, 100),
}


@dataclass(frozen=True)
class Sample:
    """One image file of a category."""

    name: str  # relative to the category's folder, with forward slashes
    image: Path
    mask: Path | None  # of an anomalous test image
    defect: str  # 'good', the defect's folder, or 'anomaly' for VisA


@dataclass(frozen=True)
class Listing:
    """The files of a category, in a fixed order."""

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


@dataclass(frozen=True)
class Category:
    """A category in memory, all images at one size."""

    train: Tensor  # uint8, (N, 3, S, S)
    test: Tensor  # uint8, (M, 3, S, S)
    masks: Tensor  # bool, (M, S, S)
    labels: Tensor  # bool, (M,): anomalous
    names: tuple[str, ...]  # of the test images, as in `Sample`
    defects: tuple[str, ...]  # of the test images
    fingerprint: str


@dataclass(frozen=True)
class CategoryReport:
    """What `check` found out about a category."""

    dataset: str
    category: str
    train: int
    test_good: int
    test_anomalous: int
    expected: tuple[int, int, int] | None
    problems: tuple[str, ...]
    passed_over: tuple[str, ...]  # files beside the images whose endings are no image's


@contextlib.contextmanager
def _permitted() -> Iterator[None]:
    """Turn a folder that must not be looked into into one sentence."""
    try:
        yield
    except PermissionError as error:
        raise N2NError(f"{error.filename} must not be read; allow it, or remove it.") from error


def list_category(root: Path, dataset: str, category: str) -> Listing:
    """The files of a category; nothing is decoded.

    Raises:
        N2NError: where the folder, the split file, a mask or every training image is missing, or
            a folder must not be read.
    """
    listing, problems = _scan(root, dataset, category)
    if problems:
        raise N2NError(problems[0])
    return listing


@_permitted()
def find_categories(root: Path, *inner: str) -> list[tuple[str, str]]:
    """Every (data set, category) below a root that has one of the folders ``inner`` in it.

    Without any named, those of a category that a run can use.

    Raises:
        N2NError: where the root is not a folder, or must not be read.
    """
    if not root.is_dir():
        raise N2NError(f"There is no folder {root}; name the folder that holds MPDD or VisA.")
    return [
        (dataset.name, category.name)
        for dataset in sorted(root.iterdir())
        if not dataset.name.startswith(".")
        for category in _inside(dataset)
        if not category.name.startswith(".")  # such as demonstration data that are not finished
        if any(_is_folder(category / name) for name in inner or USABLE)
    ]


def _is_folder(path: Path) -> bool:
    """Whether it is one; no where it must not be looked into."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _inside(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it is a file or must not be looked into."""
    try:
        return sorted(folder.iterdir())
    except (NotADirectoryError, PermissionError):  # as lost+found
        return []


def unreadable_name(path: Path) -> str | None:
    """A sentence about a file or folder whose name is not UTF-8, and so can be in no table."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return f"{str(path)!a} has a name that is not UTF-8; rename it."
    return None


def load_category(
    root: Path,
    dataset: str,
    category: str,
    size: int,
    *,
    resize: Resize = "bilinear",
    mask_rule: MaskRule = "half",
    cache: Path | None = None,
    progress: bool = True,
) -> Category:
    """Decode a category with all cores.

    Args:
        root: the images are in ``root/dataset/category``.
        dataset: folder's name.
        category: folder's name.
        size: pixels along each side.
        resize: see `decode_image`.
        mask_rule: see `decode_mask`.
        cache: folder for the decoded tensors, found again by fingerprint and the three above.
        progress: show a bar on stderr.

    Raises:
        N2NError: naming the first file that is missing or cannot be used.
    """
    listing = list_category(root, dataset, category)
    samples = [*listing.train, *listing.test]
    files = [s.image for s in samples] + [s.mask for s in samples if s.mask is not None]
    label = f"{dataset}/{category}"
    hashes = dict(
        zip(files, in_parallel(_sha256, files, f"{label}: checking files", progress), strict=True)
    )
    fingerprint = _fingerprint(listing, hashes)
    stored = (
        None if cache is None else cache / f"{fingerprint}-{size}-{resize}-{mask_rule}-{DECODER}.pt"
    )
    tensors = None if stored is None else _read_cache(stored)
    if tensors is None:
        images = in_parallel(
            lambda sample: decode_image(sample.image, size, resize),
            samples, f"{label}: reading images", progress,
        )  # fmt: skip
        defective = [(s.mask, s.image) for s in listing.test if s.mask is not None]
        drawn = iter(
            in_parallel(
                lambda pair: decode_mask(*pair, size, mask_rule),
                defective, f"{label}: reading masks", progress,
            )
        )  # fmt: skip
        masks = [
            np.zeros((size, size), bool) if s.mask is None else next(drawn) for s in listing.test
        ]
        count = len(listing.train)
        tensors = {
            "train": _stacked(images[:count]),
            "test": _stacked(images[count:]),
            "masks": torch.from_numpy(np.stack(masks)),
        }
        if stored is not None:
            _write_cache(stored, tensors)
    return Category(
        **tensors,
        labels=torch.tensor([sample.mask is not None for sample in listing.test]),
        names=tuple(sample.name for sample in listing.test),
        defects=tuple(sample.defect for sample in listing.test),
        fingerprint=fingerprint,
    )


def _stacked(images: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def check(root: Path, *, progress: bool = True) -> list[CategoryReport]:
    """Decode every image and mask below a root and collect what is wrong, file by file.

    Raises:
        N2NError: where the root is missing or has no category.
    """
    categories = find_categories(root, "Data", "train", "test", "ground_truth")
    if (root / SPLIT_FILE).is_file():
        raise N2NError(f"VisA lies in {root} itself; move what is there to {root / 'VisA'}.")
    if not categories:
        raise N2NError(
            f"There is no category in {root}; expected are folders such as "
            f"{root / 'MPDD' / 'metal_plate' / 'train' / 'good'} or "
            f"{root / 'VisA' / 'fryum' / 'Data' / 'Images'}."
        )
    return [_check_category(root, *names, progress=progress) for names in categories]


def _check_category(root: Path, dataset: str, category: str, *, progress: bool) -> CategoryReport:
    listing, problems = _scan(root, dataset, category)

    def problem(sample: Sample) -> str | None:
        try:
            decode_image(sample.image, 64)
            if sample.mask is not None:
                covered = decode_mask(sample.mask, sample.image, 64).mean()
                if covered > MOST_COVERED:
                    return (
                        f"The mask {sample.mask} marks {covered:.0%} of its image; "
                        "if it is inverted, invert it."
                    )
        except N2NError as error:
            return str(error)
        return None

    samples = [*listing.train, *listing.test]
    found = in_parallel(problem, samples, f"{dataset}/{category}: checking", progress)
    problems += [text for text in found if text is not None]
    good = sum(sample.defect == "good" for sample in listing.test)
    counts = (len(listing.train), good, len(listing.test) - good)
    expected = EXPECTED_COUNTS.get((dataset, category))
    if expected is not None and counts != expected:
        problems.append(
            f"{dataset}/{category} has {counts[0]} training, {counts[1]} normal and {counts[2]} "
            f"anomalous test images; published are {expected[0]}, {expected[1]} and {expected[2]}."
        )
    elif 0 < counts[0] < LEAST_TRAINING:
        problems.append(
            f"{dataset}/{category} has too few training images ({counts[0]}); a run needs "
            f"{LEAST_TRAINING}, two of which it holds out."
        )
    folder = root / dataset / category
    others: tuple[str, ...] = ()
    if not _is_visa(folder):
        others = _no_images(folder)
        problems += [
            f"{path} is not looked at; move it into a folder of {place}, such as {place}/{inner}."
            for place, inner in (("train", "good"), ("test", "good"), ("ground_truth", "DEFECT"))
            for path in _images(folder / place)
        ]
    return CategoryReport(dataset, category, *counts, expected, tuple(problems), others)


def _no_images(folder: Path) -> tuple[str, ...]:
    """Files where images are looked for, hidden ones aside, that do not end like one."""
    places = ("train/good", "test/*", "ground_truth/*")
    return tuple(
        str(path)
        for place in places
        for path in sorted(folder.glob(f"{place}/*"))
        if path.suffix.lower() not in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


@_permitted()
def _scan(root: Path, dataset: str, category: str) -> tuple[Listing, list[str]]:
    """The files of a category, and a sentence about each that is missing or contradictory."""
    for name in (dataset, category):
        if name in ("", ".", "..") or {"/", "\\"} & set(name):
            raise N2NError(f"{name!r} is not the name of a folder; give the name alone.")
    folder = root / dataset / category
    if not folder.is_dir():
        raise N2NError(f"There is no folder {folder}; see `n2n check {root}` for what is there.")
    problems: list[str] = []
    visa = _is_visa(folder)
    if visa:
        train, test = _scan_visa(root / dataset, category, problems)
    else:
        train, test = _scan_mvtec(folder, problems)
    for samples, kind, place in ((train, "training", "train/good"), (test, "test", "test/good")):
        if not samples:
            endings = f"normal ones ({', '.join(sorted(SUFFIXES))})"
            mend = f"{SPLIT_FILE} must name some" if visa else f"put {endings} in {place}"
            problems.append(f"There is no {kind} image in {folder}; {mend}.")
    return Listing(tuple(train), tuple(test)), problems


def _is_visa(folder: Path) -> bool:
    return (folder / "Data" / "Images").is_dir()


def _scan_mvtec(folder: Path, problems: list[str]) -> tuple[list[Sample], list[Sample]]:
    def sample(image: Path, mask: Path | None, defect: str) -> Sample:
        return Sample(image.relative_to(folder).as_posix(), image, mask, defect)

    if odd := [said for path in folder.rglob("*") if (said := unreadable_name(path))]:
        problems += sorted(odd)
        return [], []
    train = [sample(image, None, "good") for image in _images(folder / "train" / "good")]
    test = []
    defects = folder / "test"
    for defect in sorted(defects.iterdir()) if defects.is_dir() else []:
        named: dict[str, Path] = {}
        for image in _images(defect):
            mask = None
            if defect.name != "good":
                masks = folder / "ground_truth" / defect.name
                mask = _with_any_suffix(masks / f"{image.stem}_mask")
                if (other := named.setdefault(image.stem, image)) != image:
                    problems.append(f"{other} and {image} would share a mask; rename one of them.")
                if mask is None:
                    problems.append(
                        f"The mask {masks / image.stem}_mask.png of {image} is missing; "
                        "restore it, or remove the image."
                    )
                    continue
            test.append(sample(image, mask, defect.name))
    return train, test


def _scan_visa(
    dataset: Path, category: str, problems: list[str]
) -> tuple[list[Sample], list[Sample]]:
    split = dataset / SPLIT_FILE
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    try:
        with split.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.DictReader(lines) if row.get("object") == category]
    except FileNotFoundError:
        problems.append(f"The split file {split} is missing; it comes with the data set.")
        return [], []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"The split file {split} cannot be read ({error}); restore the original.")
        return [], []
    seen = set()
    for row in rows:
        part, label, name = row.get("split"), row.get("label"), row.get("image") or ""
        if part not in samples or label not in ("normal", "anomaly"):
            problems.append(
                f"The split file {split} has a row with split {part!r} and label {label!r}; "
                "restore the original."
            )
            continue
        if (part, label) == ("train", "anomaly"):
            problems.append(
                f"The split file {split} puts the anomalous image {name} into the training; "
                "use 1cls.csv as published."
            )
            continue
        if name in seen:
            problems.append(f"The split file {split} names {name} twice; restore the original.")
            continue
        seen.add(name)
        image = dataset / name
        mask = dataset / (row.get("mask") or "") if label == "anomaly" else None
        if mask == dataset:
            problems.append(f"{split} names no mask for {image}; restore the original.")
            continue
        for path, folder in ((image, dataset / category), (mask, dataset)):
            if path is not None and not (path.is_file() and _stays_below(path, folder)):
                problems.append(f"{path}, which {split} names, is missing; restore it.")
                break
        else:
            inside = Path(name).relative_to(category).as_posix()
            defect = "good" if mask is None else "anomaly"
            samples[part].append(Sample(inside, image, mask, defect))
    return tuple(sorted(samples[part], key=_order) for part in ("train", "test"))  # type: ignore[return-value]


def _order(sample: Sample) -> tuple[bool, str]:
    return sample.defect == "good", sample.name


def _stays_below(path: Path, folder: Path) -> bool:
    """Whether a name from a file stays in its folder; links that the user laid are followed."""
    return path.is_relative_to(folder) and ".." not in path.relative_to(folder).parts


def _images(folder: Path) -> list[Path]:
    inside = folder.iterdir() if folder.is_dir() else []
    return sorted(
        path for path in inside if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _with_any_suffix(stem: Path) -> Path | None:
    candidates = [path for path in _images(stem.parent) if path.stem == stem.name]
    return candidates[0] if candidates else None


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], label: str, progress: bool
) -> list[Result]:
    """Map with a thread per core (Pillow and hashing release the lock), in order, with a bar."""
    return thread_map(
        function, items, max_workers=cores(), tqdm_class=tqdm, desc=label, unit="file",
        disable=not progress, leave=False,
    )  # fmt: skip


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise N2NError(f"{path} cannot be read ({reason(error)}); restore it.") from error


def _fingerprint(listing: Listing, hashes: dict[Path, str]) -> str:
    """Sixteen digits that change with any byte, name or role of a file, not with its place."""
    digest = hashlib.sha256()
    for part, samples in (("train", listing.train), ("test", listing.test)):
        for sample in samples:
            mask = "" if sample.mask is None else hashes[sample.mask]
            digest.update(f"{part}\0{sample.name}\0{hashes[sample.image]}\0{mask}\n".encode())
    return digest.hexdigest()[:16]


def _read_cache(path: Path) -> dict[str, Tensor] | None:
    try:
        tensors: dict[str, Tensor] = torch.load(path, weights_only=True)
    except Exception:  # missing or damaged: decode again
        return None
    return tensors if set(tensors) == {"train", "test", "masks"} else None


def _write_cache(path: Path, tensors: dict[str, Tensor]) -> None:
    mend = "free some space or choose another --results folder"
    with write_errors(f"The decoded images {path}", mend, (OSError, RuntimeError)):
        write_whole(path, lambda file: torch.save(tensors, file))
