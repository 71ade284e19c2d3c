"""Demonstration data: painted metal parts that a program draws, with defects and their masks.

The folders are those of MPDD, below ``DIRECTORY/demo``::

    CATEGORY/train/good/000.png             CATEGORY/test/DEFECT/000.png
    CATEGORY/test/good/000.png              CATEGORY/ground_truth/DEFECT/000_mask.png

``demo.json`` beside the categories tells the settings they were made with. Categories appear whole.

An image is drawn from a signed distance (where the part is), a relief (how it catches the light)
and an albedo, twice as fine as it is saved. The plane of the image is [-1, 1] x [-1, 1], x to the
right and y down; lengths are in its units. `Field` is an array of shape (n, n), `Colours` one of
shape (3, n, n), in linear light on [0, 1].
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from n2n.errors import N2NError, write_errors
from n2n.files import cores, write_text

VERSION = 1  # of the images; a change that alters a pixel increases it
DEFECTS = {
    "plate": ("bent", "hole", "missing_paint", "rust", "scratch"),
    "bracket": ("bent", "missing_paint", "missing_part", "rust", "scratch"),
    "tubes": ("crushed", "missing_paint", "missing_part", "rust", "scratch"),
}
CATEGORIES: tuple[str, ...] = tuple(DEFECTS)
VISIBLE = 8  # of 255: a pixel belongs to the mask where a channel changed by more
PAINT = {"plate": (0.02, 0.09, 0.23), "bracket": (0.015, 0.125, 0.085), "tubes": (0.68, 0.36, 0.03)}
TUBE_RADIUS = 0.085

Field = NDArray[np.floating[Any]]
Colours = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]
Key = tuple[int, int, int, int]  # seed, category, split, image


class Part(NamedTuple):
    """The geometry of what lies in the image."""

    distance: Field  # to the outline; negative inside the part
    relief: Field  # height of the surface
    shade: Field  # factor of the albedo on [0, 1], for instance inside a tube
    label: Field  # number of the tube; zero for single parts


def _noise(rng: Generator, n: int, rows: int, columns: int) -> Field:
    """Smooth noise, mean 0 and deviation near 0.7, with so many grains down and across."""
    grains = rng.standard_normal((min(rows, n), min(columns, n)), dtype=np.float32)
    return np.asarray(Image.fromarray(grains).resize((n, n), Image.Resampling.BICUBIC))


def _step(values: Field, low: float, high: float) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high`, which may be the smaller."""
    t: Field = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _length(x: Field, y: Field) -> Field:
    return (x * x + y * y) ** 0.5


def _box(x: Field, y: Field, width: float, height: float, radius: float) -> Field:
    """Signed distance to a rounded box with these half sides."""
    x, y = np.abs(x) - (width - radius), np.abs(y) - (height - radius)
    outside = _length(np.maximum(x, 0), np.maximum(y, 0))
    return outside + np.minimum(np.maximum(x, y), 0) - radius


def _local(x: Field, y: Field, at: Sequence[float], angle: float) -> tuple[Field, Field]:
    """Coordinates along and across a direction, from a point."""
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    x, y = x - at[0], y - at[1]
    return x * cosine + y * sine, y * cosine - x * sine


def _shift(field: Field, dx: float, dy: float) -> Field:
    """Move a field by a length; its border is continued."""
    n = len(field)
    index = np.arange(n)
    rows, columns = (np.clip(index - round(d * n / 2), 0, n - 1) for d in (dy, dx))
    return field[rows][:, columns]


def _mix(below: Colours, above: Colours | float, weight: Field) -> Colours:
    return below + weight * (above - below)


def _edge(distance: Field, width: float, height: float) -> Field:
    """Relief of a rounded edge that rises to `height` within `width`."""
    t: Field = np.clip(1 + distance / width, 0, 1)
    return height * (1 - 0.98 * t * t) ** 0.5


def _plate(u: Field, v: Field) -> tuple[Field, Field]:
    """Distance and relief of a plate with an embossed rim, two ribs and six holes."""
    u, v = u / 1.08, v / 1.08
    outline = _box(u, v, 0.66, 0.5, 0.13)
    corners = _length(np.abs(u) - 0.43, np.abs(v) - 0.28) - 0.055
    slot = _box(u + 0.2, v, 0.1, 0.045, 0.045)
    round_hole = _length(u - 0.2, v) - 0.115
    distance = np.maximum(outline, -np.minimum(np.minimum(corners, slot), round_hole))
    rim = 0.016 * np.exp(-(((outline + 0.085) / 0.02) ** 2))
    ribs = 0.014 * _step(_box(u, np.abs(v) - 0.26, 0.27, 0.026, 0.026), 0.01, -0.022)
    collar = 0.012 * np.exp(-(((round_hole - 0.035) / 0.014) ** 2))
    return distance, _edge(distance, 0.022, 0.02) + rim + ribs + collar


def _bracket(u: Field, v: Field, missing: int = -1) -> tuple[Field, Field]:
    """Distance and relief of an L of two legs, of which one is bent upwards.

    `missing` takes away the tab (0), the corner of the lower leg (1) or of the bent leg (2).
    """
    u, v = u + 0.1, v + 0.02
    lower = _box(u - 0.04, v - 0.36, 0.56, 0.19, 0.06)
    upper = _box(u + 0.32, v + 0.05, 0.2, 0.6, 0.06)
    if missing == 1:
        lower = np.maximum(lower, (u - v) * 0.7071 - 0.16)
    if missing == 2:
        upper = np.maximum(upper, -(u + v) * 0.7071 - 0.56)
    fillet = np.maximum(_box(u + 0.08, v - 0.13, 0.08, 0.08, 0.0), 0.12 - _length(u, v - 0.05))
    distance = np.minimum(np.minimum(lower, upper), fillet)
    if missing != 0:
        distance = np.minimum(distance, _box(u - 0.62, v - 0.4, 0.09, 0.075, 0.03))
    holes = np.minimum(_length(u - 0.12, v - 0.34) - 0.062, _length(u - 0.42, v - 0.34) - 0.062)
    holes = np.minimum(holes, _length(u + 0.32, v - 0.36) - 0.085)
    holes = np.minimum(holes, _box(u + 0.32, v + 0.38, 0.05, 0.12, 0.05))
    distance = np.maximum(distance, -holes)
    bent = 0.42 * 0.03 * np.log1p(np.exp(np.clip((v + 0.1) / -0.03, -30, 30)))
    rib = 0.02 * _step(_box(u - 0.25, v - 0.48, 0.28, 0.018, 0.018), 0.008, -0.016)
    return distance, _edge(distance, 0.022, 0.02) + bent + rib


def _choose(rng: Generator, where: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of a random point among these."""
    row, column = divmod(int(rng.choice(np.flatnonzero(where))), where.shape[1])
    return row, column


def _single(
    category: str, rng: Generator, damage: Generator, defect: str, x: Field, y: Field
) -> Part:
    """A plate or a bracket somewhere near the middle."""
    at, scale = rng.uniform(-0.09, 0.09, 2).tolist(), rng.uniform(0.97, 1.03)
    angle = rng.uniform(-1, 1) * (0.35 if category == "plate" else np.pi)
    missing = int(damage.integers(3)) if defect == "missing_part" else -1

    def shape(x: Field, y: Field) -> tuple[Field, Field]:
        u, v = _local(x, y, at, angle)
        u, v = u / scale, v / scale
        distance, relief = _plate(u, v) if category == "plate" else _bracket(u, v, missing)
        return distance * scale, relief

    distance, relief = shape(x, y)
    if defect == "bent":  # the plane is pushed in or out around a point of the outline
        reach = _length(x - at[0], y - at[1])
        spot = _choose(damage, (np.abs(distance) < 3 / len(x)) & (reach > 0.5))
        spot_x, spot_y = float(x[spot]), float(y[spot])
        width = damage.uniform(0.1, 0.15)
        weight = np.exp(((x - spot_x) ** 2 + (y - spot_y) ** 2) / (-2 * width**2))
        push = float(damage.choice([-1, 1])) * damage.uniform(0.06, 0.09) / float(reach[spot])
        away_x, away_y = push * (spot_x - at[0]), push * (spot_y - at[1])
        distance, relief = shape(x - weight * away_x, y - weight * away_y)
        relief = relief + weight * damage.uniform(0.02, 0.04)
    if defect == "hole":
        spot = _choose(damage, distance < -0.07)
        hole = _length(x - x[spot], y - y[spot]) - damage.uniform(0.035, 0.055)
        distance = np.maximum(distance, -hole)
        relief = relief - 0.02 + _edge(-hole, 0.015, 0.02)
    return Part(distance, relief, np.ones_like(x), np.zeros_like(x))


def _scatter(rng: Generator) -> Iterator[tuple[float, float, float, float]]:
    """Tubes (x, y, angle, half length) that touch at most."""
    laid: list[NDArray[np.float64]] = []
    steps = np.linspace(-1, 1, 9)
    for _ in range(int(rng.integers(250, 400))):
        x, y = rng.uniform(-0.84, 0.84, 2).tolist()
        angle, half = rng.uniform(0, np.pi), rng.uniform(0.17, 0.19)
        reach = max(half - 0.6 * TUBE_RADIUS, 0) * steps
        axis = np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=1)
        gaps = [np.hypot(*(axis[:, None] - other[None]).T).min() for other in laid]
        if np.abs(axis).max() < 0.88 and min(gaps, default=1.0) > 2.12 * TUBE_RADIUS:
            laid.append(axis)
            yield x, y, angle, half


def _tubes(rng: Generator, damage: Generator, defect: str, x: Field, y: Field) -> Part:
    """Many short tubes, seen slightly from below, so that the lower end of each is open."""
    n = len(x)
    part = Part(np.full_like(x, 0.5), np.zeros_like(x), np.ones_like(x), np.zeros_like(x))
    tubes = list(_scatter(rng))
    harmed = int(damage.integers(len(tubes))) if defect in ("crushed", "missing_part") else -1
    for index, (at_x, at_y, angle, half) in enumerate(tubes):
        low = [max(int((c + 0.62) * n / 2), 0) for c in (at_y, at_x)]
        high = [min(int((c + 1.38) * n / 2), n) for c in (at_y, at_x)]
        near = np.s_[low[0] : high[0], low[1] : high[1]]
        s, t = _local(x[near], y[near], (at_x, at_y), angle)
        radius: Field | float = TUBE_RADIUS
        if index == harmed and defect == "missing_part":  # the lower half is cut off
            cut = half * damage.uniform(0.7, 1.1)
            s, half = s + cut / 2, half - cut / 2
        if index == harmed and defect == "crushed":
            where, depth = half * damage.uniform(-0.4, 0.4), damage.uniform(0.25, 0.4)
            dent = np.exp(-(((s - where) / 0.055) ** 2))
            radius = TUBE_RADIUS * (1 - depth * dent)
            t = t + float(damage.choice([-1, 1])) * 0.6 * (TUBE_RADIUS - radius)
        across = np.clip(t / radius, -1, 1)
        round_ = np.sqrt(1 - 0.995 * across * across)
        tilt = TUBE_RADIUS * (0.12 + 0.38 * float(np.sin(angle)))  # short half axis of the ends
        distance = np.maximum(np.abs(t) - radius, np.abs(s) - half - tilt * round_)
        relief = radius * round_ * 0.9
        ring = _length((s - half) / tilt, t / TUBE_RADIUS)  # 1 on the rim of the open end
        inside = _step(ring, 0.86, 0.76)
        rim = _step(ring, 1.04, 0.96)
        relief = relief * (1 - rim) + rim * (0.05 * (s - half) + 0.9 * TUBE_RADIUS)
        shade = 1 - inside * (0.97 - 0.25 * _step(s - half, -tilt, 2 * tilt))
        nearer = distance < part.distance[near]
        values = (distance, relief, shade, np.full_like(distance, index))
        for field, value in zip(part, values, strict=True):
            field[near][nearer] = value[nearer]
    return part


def _damage(
    defect: str, rng: Generator, x: Field, y: Field, part: Part, albedo: Colours
) -> tuple[Colours, Field, Field]:
    """Albedo, relief and gloss (shapes as given) of a painted part with one surface defect."""
    n = len(x)
    gloss = np.full_like(x, 0.32)
    relief = part.relief
    if defect not in ("scratch", "missing_paint", "rust"):
        return albedo, relief, gloss
    small = bool(part.label.any())
    spot = _choose(
        rng, (part.distance < -0.05) & (part.shade == 1) & (np.maximum(abs(x), abs(y)) < 0.9)
    )
    own = (part.label == part.label[spot]).astype(np.float32)
    u, v = _local(x, y, (float(x[spot]), float(y[spot])), rng.uniform(0, np.pi))
    metal = 0.33 * (1 + 0.12 * _noise(rng, n, n, max(n // 24, 2)))
    if defect == "scratch":
        half = rng.uniform(0.07, 0.11) if small else rng.uniform(0.14, 0.3)
        v = v - rng.uniform(-0.8, 0.8) * u * u - 0.004 * _noise(rng, n, 24, 24)
        width = rng.uniform(0.006, 0.011) * np.sqrt(np.clip(1 - (u / half) ** 2, 0, 1))
        weight = own * _step(np.abs(v) - width, 0.002, -0.003) * _step(np.abs(u), half, 0.9 * half)
        return _mix(albedo, 1.9 * metal, weight), relief - 0.006 * weight, gloss + weight
    radius = rng.uniform(0.06, 0.085) if small else rng.uniform(0.08, 0.15)
    ragged = _length(u / rng.uniform(1.0, 1.5), v) / radius
    ragged = ragged + 0.2 * _noise(rng, n, 24, 24) + 0.1 * _noise(rng, n, 80, 80)
    if defect == "missing_paint":
        weight = own * _step(ragged, 1.03, 0.97)
        return _mix(albedo, metal, weight), relief - 0.005 * weight, gloss + 0.2 * weight
    grain = _noise(rng, n, 100, 100)
    weight = own * _step(ragged + 0.25 * grain, 1.1, 0.75)
    tone = _step(grain + 0.7 * _noise(rng, n, 40, 40), -0.9, 1.2)
    brown = np.array([0.07, 0.022, 0.009], np.float32)[:, None, None]
    orange = np.array([0.36, 0.12, 0.03], np.float32)[:, None, None]
    albedo = _mix(albedo, _mix(brown, orange, tone), weight)
    return albedo, relief + 0.003 * weight * grain, gloss * (1 - weight)


def _ground(category: str, rng: Generator, x: Field, y: Field) -> Colours:
    """What the parts lie on: a wooden table, a woven belt or felt."""
    n, offset = len(x), rng.uniform(0, 6)
    tone: Field
    if category == "bracket":
        warp = 0.25 * _noise(rng, n, 5, 2)
        rings = np.sin(24 * (y + warp) + offset) + 0.5 * np.sin(61 * (y + warp))
        fibre = _noise(rng, n, 220, 10) + 0.6 * _noise(rng, n, n, 40)
        tone, colour = 1 + 0.07 * rings + 0.1 * fibre, (0.46, 0.31, 0.19)
    elif category == "plate":
        weave = np.sin(150 * x + offset) * np.sin(150 * y)
        tone = 1 + 0.16 * weave + 0.04 * _noise(rng, n, 12, 12) + 0.1 * _noise(rng, n, n, n)
        tone = tone + 0.08 * _noise(rng, n, 160, 3) * _noise(rng, n, 9, 5)  # scuffs
        colour = (0.27, 0.27, 0.255)
    else:
        fluff = _noise(rng, n, 160, 160) + 0.7 * _noise(rng, n, n, n)
        tone, colour = 1 + 0.1 * fluff + 0.07 * _noise(rng, n, 8, 8), (0.16, 0.18, 0.21)
    return np.array(colour, np.float32)[:, None, None] * tone


def _picture(category: str, key: Key, size: int, defect: str = "", attempt: int = 0) -> Pixels:
    """One image, shape (size, size, 3); everything but the defect depends on the key alone."""
    pose, look, texture = default_rng(key).spawn(3)
    damage = default_rng((*key, attempt + 1))
    n = 2 * size
    line = (np.arange(n, dtype=np.float32) + 0.5) * (2 / n) - 1
    x, y = np.meshgrid(line, line)
    if category == "tubes":
        part = _tubes(pose, damage, defect, x, y)
    else:
        part = _single(category, pose, damage, defect, x, y)

    # Paint and what happened to it
    tint = np.array(PAINT[category], np.float32) * look.uniform(0.94, 1.06, 3).astype(np.float32)
    speckle = 1 + 0.05 * _noise(texture, n, 200, 200) + 0.03 * _noise(texture, n, 14, 14)
    peel = 0.00022 * _noise(texture, n, 110, 110)
    albedo: Colours = tint[:, None, None] * (speckle * part.shade)
    albedo, relief, gloss = _damage(defect, damage, x, y, part, albedo)

    # Light from the upper left: matt paint with a highlight, strongest near a spot
    bearing, height = -2.2 + look.uniform(-0.12, 0.12), look.uniform(1.0, 1.2)
    sun_x, sun_y = float(np.cos(bearing)), float(np.sin(bearing))
    slope_y, slope_x = np.gradient(relief + peel, 2 / n)
    upright = (slope_x * slope_x + slope_y * slope_y + 1) ** -0.5
    facing = np.maximum(height - sun_x * slope_x - sun_y * slope_y, 0) * upright
    facing = facing / (1 + height**2) ** 0.5
    at = look.uniform(-0.8, 0.8, 2).tolist()
    u, v = x - at[0], y - at[1]
    off = (slope_x + 0.37 * sun_x - 0.5 * u) ** 2 + (slope_y + 0.37 * sun_y - 0.5 * v) ** 2
    shine = gloss * part.shade * upright / (1 + off / 0.05) ** 2
    painted = albedo * (0.38 + 0.92 * facing) + 0.5 * shine

    # Shadow on the ground, close and cast
    cast = 0.085 if category == "tubes" else 0.05
    thrown = _shift(part.distance, -cast * sun_x, -cast * sun_y)
    close = np.exp(np.minimum(-part.distance, 0) / 0.03)
    dark = (1 - 0.55 * close) * (1 - 0.6 * _step(thrown, 0.05, -0.03))
    ground = _ground(category, texture, x, y) * dark
    linear = _mix(ground, painted, np.clip(0.5 - part.distance * (n / 2), 0, 1))

    # Uneven light, colour of the light, sensor
    lean, spot = look.uniform(-0.12, 0.12, 2).tolist(), look.uniform(0.12, 0.28)
    lamp = 0.9 + lean[0] * x + lean[1] * y + spot * np.exp(-1.5 * (u * u + v * v))
    lamp -= 0.1 * (x * x + y * y)
    linear *= lamp
    linear *= look.uniform(0.98, 1.02, (3, 1, 1)).astype(np.float32)
    rows = linear[:, ::2] + linear[:, 1::2]
    mean = np.maximum(rows[:, :, ::2] + rows[:, :, 1::2], 0) / 4
    shown = (mean / (1 + 0.15 * mean)) ** (1 / 2.2)
    shown += 0.008 * look.standard_normal(shown.shape, dtype=np.float32)
    return (255 * shown.clip(0, 1) + 0.5).astype(np.uint8).transpose(1, 2, 0)


def draw(category: str, key: Key, size: int, defect: str = "") -> tuple[Pixels, Pixels]:
    """Draw one image and its mask.

    Args:
        category: One of `CATEGORIES`.
        key: Seed, category, split and image; equal keys give equal images.
        size: Pixels along each side.
        defect: One of the category's `DEFECTS`, or empty.

    Returns:
        The image, shape (size, size, 3), and the mask, shape (size, size), 0 or 255: where the
        defect changed the image visibly, with gaps of single pixels closed.
    """
    clean = _picture(category, key, size)
    if not defect:
        return clean, np.zeros((size, size), np.uint8)
    for attempt in range(100):
        image = _picture(category, key, size, defect, attempt)
        change = np.abs(image.astype(np.int16) - clean).max(axis=2)
        mask = Image.fromarray((change > VISIBLE).astype(np.uint8) * 255)
        mask = mask.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MinFilter(3))
        marked = np.asarray(mask)
        if np.count_nonzero(marked) >= max(4, size * size // 4000):
            return image, marked
    raise RuntimeError(f"{category}: no visible {defect} in 100 attempts")


def _write_category(
    category: str, folder: Path, made: dict[str, int], workers: int, bar: tqdm[Any]
) -> None:
    """Draw and write all images of a category."""
    splits = {"train/good": made["train"], "test/good": made["test_good"]}
    splits |= {f"test/{defect}": made["test_per_defect"] for defect in DEFECTS[category]}
    masks = folder / "ground_truth"
    for path in [folder / split for split in splits] + [masks / name for name in DEFECTS[category]]:
        path.mkdir(parents=True)

    def write(number: int, split: str, index: int) -> None:
        key = (made["seed"], CATEGORIES.index(category), number, index)
        defect = "" if split.endswith("/good") else split.removeprefix("test/")
        image, mask = draw(category, key, made["size"], defect)
        Image.fromarray(image).save(folder / split / f"{index:03d}.png", compress_level=3)
        if defect:
            Image.fromarray(mask).save(masks / defect / f"{index:03d}_mask.png")

    # Threads suffice, as NumPy and Pillow mostly work outside the interpreter's lock.
    with ThreadPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(write, number, split, index)
            for number, (split, count) in enumerate(splits.items())
            for index in range(count)
        ]
        try:
            for job in jobs:
                job.result()
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


def _complete(root: Path, made: dict[str, int]) -> list[str]:
    """The categories that are there; raises where they are not as `made` describes them."""
    present = [category for category in CATEGORIES if (root / category).exists()]
    if not present:
        return []
    try:
        found = dict(json.loads((root / "demo.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise N2NError(
            f"{root / 'demo.json'} cannot be read, so nobody knows how the images beside it were "
            "made; remove the folder or choose another directory."
        ) from error
    if found != made:
        other = [f"{name} {found.get(name)}" for name in made if found.get(name) != made[name]]
        raise N2NError(
            f"{root} holds demonstration data made with other settings ({', '.join(other)}); "
            "remove it or choose another directory."
        )
    for category in present:
        expected = made["train"] + made["test_good"]
        expected += 2 * len(DEFECTS[category]) * made["test_per_defect"]
        number = sum(1 for _ in (root / category).rglob("*.png"))
        if number != expected:
            raise N2NError(
                f"{root / category} holds {number} images and masks instead of {expected}; "
                "remove it and generate it again."
            )
    return present


def generate(
    directory: Path,
    *,
    seed: int = 0,
    size: int = 256,
    progress: bool = True,
    categories: Sequence[str] | None = None,
    train: int = 60,
    test_good: int = 20,
    test_per_defect: int = 6,
    workers: int | None = None,
) -> Path:
    """Write the demonstration data below a directory, or leave it if it is there already.

    A category appears when all of its images are written. The images depend on the seed and the
    size, and neither on each other nor on the number of workers.

    Args:
        directory: Where the folder ``demo`` is or will be.
        seed: Zero or more; other seeds give other images.
        size: Pixels along each side, 32 to 1024.
        progress: Show a progress bar on the standard error output.
        categories: Some of `CATEGORIES`; without it, all.
        train: Normal images to train with, at least 1; equally the two that follow.
        test_good: Normal images to test with.
        test_per_defect: Images of each defect.
        workers: Threads; without it, one for each core, but at most 8.

    Returns:
        ``directory/demo``.

    Raises:
        N2NError: if a value is outside its range, a category is there but made otherwise, or the
            directory cannot be written.
    """
    wanted = list(dict.fromkeys(categories if categories is not None else CATEGORIES))
    unknown = [category for category in wanted if category not in CATEGORIES]
    if unknown:
        raise N2NError(f"{unknown[0]} is not a demonstration category: {', '.join(CATEGORIES)}.")
    if seed < 0:
        raise N2NError(f"The seed is {seed}; it must be zero or more.")
    if not 32 <= size <= 1024:
        raise N2NError(f"The size is {size} pixels; it must be between 32 and 1024.")
    counts = {"train": train, "test_good": test_good, "test_per_defect": test_per_defect}
    for name, count in counts.items():
        if count < 1:
            raise N2NError(f"{name} is {count}; it must be at least 1.")
    made = {"version": VERSION, "seed": seed, "size": size, **counts}
    workers = workers or min(cores(), 8)

    root = directory / "demo"
    mend = "free some space or choose another directory"
    with write_errors(f"The demonstration data {root}", mend):
        present = _complete(root, made)
        missing = [category for category in wanted if category not in present]
        if not missing and progress:
            tqdm.write(f"{root} is complete; nothing to do.", file=sys.stderr)
        if not missing:
            return root
        write_text(root / "demo.json", json.dumps(made, indent=2) + "\n")
        images = (train + test_good + test_per_defect * len(DEFECTS[name]) for name in missing)
        with tqdm(total=sum(images), unit="image", disable=not progress) as bar:
            for category in missing:
                bar.set_description(category)
                unfinished = root / f".{category}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                try:
                    _write_category(category, unfinished, made, workers, bar)
                    unfinished.rename(root / category)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    return root
