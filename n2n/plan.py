"""Studies: files that list runs in the order of their importance.

A study is a YAML file with a ``title``, a ``purpose``, and ``runs``, a list of blocks::

    - dataset: MPDD
      categories: [metal_plate, bracket_white]
      seeds: [0, 1, 2]
      method: n2n                # or a baseline's name; may be left out
      preset: replication        # of the settings; see n2n.settings
      base: {image_size: 128}    # settings that every variant of the block has; may be left out
      variants:                  # each a set of settings; may be left out
        - {}
        - {learning_rate: 0.0001}
      trace: 10                  # measure detection every so many epochs; may be left out
      precision: bfloat16        # of the training; may be left out
      weights: ~/resnet18.pth    # a baseline's file or folder; may be left out

Within a block every variant of the first seed comes before the second seed.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from n2n.baselines import settings as baseline_settings
from n2n.baselines.settings import BaselineSettings, make_baseline_settings
from n2n.errors import N2NError, reason
from n2n.records import Part, Record, RunKey
from n2n.settings import (
    Settings,
    command_options,
    make_settings,
    of_training,
    variant,
)

PRECISIONS = ("auto", "float32", "bfloat16")  # of a training; see n2n.device


@dataclass(frozen=True)
class Run:
    """One run: a method with its settings on a category.

    Attributes:
        dataset: folder's name, for example MPDD.
        category: folder's name, for example bracket_white.
        settings: of our method or of a baseline.
        seed: of everything random.
        trace: of our method: measure detection after each so many epochs, and after the first, the
            second and the last planned one, and write ``trace.csv``;
            0 does not. It is a diagnostic: no checkpoint and no setting is chosen by it.
        precision: of the training, one of `PRECISIONS`; 'auto' is float32, and takes a record of
            another for done.
        weights: of a baseline: torchvision's file for the backbone, DRAEM's folder of textures;
            what is embedded needs none.
    """

    dataset: str
    category: str
    settings: Settings | BaselineSettings
    seed: int = 0
    trace: int = 0
    precision: str = "auto"
    weights: str | None = None

    @property
    def key(self) -> RunKey:
        """Where its record belongs."""
        if isinstance(self.settings, Settings):
            method, named = "n2n", variant(self.settings)
        else:
            method, named = self.settings.method, self.settings.variant
        return RunKey(self.dataset, self.category, method, named, self.seed)

    @functools.cached_property  # a study asks each run for it many times
    def training(self) -> tuple[Part, int, str, Settings | BaselineSettings]:
        """What decides its network: runs that agree in it share one."""
        own = self.settings
        decides = of_training(own) if isinstance(own, Settings) else own
        return self.key.part, self.seed, self.precision, decides

    @property
    def options(self) -> list[str]:
        """Those of ``n2n run`` that make its record, but for the root of the images."""
        if isinstance(self.settings, Settings):
            options = command_options(self.settings)
        else:
            options = baseline_settings.command_options(self.settings)
        named = ["--dataset", self.dataset, "--category", self.category, "--seed", str(self.seed)]
        options += ["--precision", self.precision]
        if self.trace:
            options += ["--trace", str(self.trace)]
        return [*named, *options]

    @property
    def command(self) -> str:
        """How to make its record; ROOT stands for the root of the images."""
        return shlex.join(["n2n", "run", "--data", "ROOT", *self.options])


def run_of(record: Record) -> Run:
    """The run that makes a record again, but for its trace, whose interval no record tells.

    It follows the record's settings, not its command: early ones name no precision, and take for
    granted what was then the preset.
    """
    key = record.key
    settings = record.settings if key.method == "n2n" else record.baseline
    return Run(key.dataset, key.category, settings, key.seed, precision=record.precision)


@dataclass(frozen=True)
class Study:
    """A study's title, purpose and runs, the most important first, none twice."""

    title: str
    purpose: str
    runs: tuple[Run, ...]

    def missing(self, results: Path) -> list[Run]:
        """The runs without a record."""
        return [run for run in self.runs if not run.key.is_finished(results)]


def read_study(path: Path) -> Study:
    """Read a study's file.

    Raises:
        N2NError: where it is missing, is not YAML, or has an unknown or missing entry; names the
            block and the entry.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise N2NError(f"There is no study {path}; the shipped ones are in studies/.") from error
    except UnicodeDecodeError as error:
        raise N2NError(f"The study {path} is not in UTF-8; save it in that.") from error
    except OSError as error:
        said = f"The study {path} cannot be read ({reason(error)}); name a file that can."
        raise N2NError(said) from error
    except yaml.YAMLError as error:
        raise N2NError(f"The study {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        top = _entries(content, {"title": str, "purpose": str, "runs": list}, {})
        runs = [run for number, block in enumerate(top["runs"], 1) for run in _block(block, number)]
        if not runs:
            raise N2NError("its entry 'runs' is empty.")
        once: dict[RunKey, Run] = {}  # of the same run, the first counts
        for run in runs:
            first = once.setdefault(run.key, run)
            if len({first.precision, run.precision, "auto"}) > 2:
                raise N2NError(
                    f"{run.key.folder(Path('results'))} is listed in {first.precision} and in "
                    f"{run.precision}, and has one place; make it two studies with results folders "
                    "of their own."
                )
    except N2NError as error:
        raise N2NError(f"The study {path}: {error}") from error
    return Study(top["title"], top["purpose"], tuple(once.values()))


class _Loader(yaml.SafeLoader):
    """YAML's own, of which an entry that is there twice would silently lose the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse an entry that is there twice."""
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(
                problem=f"the entry {twice[0]!r} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _block(block: Any, number: int) -> Iterator[Run]:
    try:
        values = _entries(
            block,
            {"dataset": str, "categories": list},
            {
                "seeds": [0],
                "method": "n2n",
                "preset": "replication",
                "base": {},
                "variants": [{}],
                "trace": 0,
                "precision": "auto",
                "weights": "",
            },
        )
        if not all(type(seed) is int and seed >= 0 for seed in values["seeds"]):
            raise N2NError("its seeds must be whole numbers from 0 on.")
        if odd := [c for c in values["categories"] if not isinstance(c, str)]:
            raise N2NError(
                f"{odd[0]!r} is not the name of a category; put a name that looks like a number "
                "in quotes, as its folder is called."
            )
        for name in ("categories", "seeds", "variants"):
            if not values[name]:
                raise N2NError(f"its entry {name!r} is empty, so that it lists no run.")
        if not all(isinstance(changes, dict) for changes in values["variants"]):
            raise N2NError("each of its variants must be a set of settings such as {noise: 0.2}.")
        for changes in (values["base"], *values["variants"]):
            if odd := [name for name in changes if not isinstance(name, str)]:
                raise N2NError(f"{odd[0]!r} is not the name of a setting.")
        if values["trace"] < 0:
            raise N2NError("its entry 'trace' must be a number of epochs, or 0 for none.")
        if values["precision"] not in PRECISIONS:
            raise N2NError(f"its entry 'precision' must be one of {', '.join(PRECISIONS)}.")
        every = [values["base"] | changes for changes in values["variants"]]
        chosen: list[Settings | BaselineSettings]
        if values["method"] == "n2n":
            if values["weights"]:
                raise N2NError("its entry 'weights' belongs to the other methods; n2n uses none.")
            chosen = [make_settings(values["preset"], **changes) for changes in every]
        else:
            if foreign := sorted(block.keys() & {"preset", "trace"}):
                raise N2NError(f"its entry {foreign[0]!r} belongs to n2n alone.")
            chosen = [make_baseline_settings(values["method"], **changes) for changes in every]
        runs = [
            Run(
                values["dataset"],
                category,
                settings,
                seed,
                values["trace"],
                values["precision"],
                values["weights"] or None,
            )
            for seed in values["seeds"]
            for settings in chosen
            for category in values["categories"]
        ]
        for run in runs:
            _ = run.key  # refuses names that would leave the results folder
    except N2NError as error:
        raise N2NError(f"block {number}: {error}") from error
    yield from runs


def _entries(given: Any, required: dict[str, type], optional: dict[str, Any]) -> dict[str, Any]:
    """The entries of a mapping, each of its type, with the optional ones filled in."""
    kinds = required | {name: type(value) for name, value in optional.items()}
    if not isinstance(given, dict):
        raise N2NError(f"it must have the entries {', '.join(kinds)}.")
    if unknown := sorted(str(name) for name in given.keys() - kinds.keys()):
        raise N2NError(f"there is no entry {unknown[0]!r}; the entries are {', '.join(kinds)}.")
    if absent := [name for name in required if name not in given]:
        raise N2NError(f"the entry {absent[0]!r} is missing.")
    values = optional | given
    for name, kind in kinds.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            words = {str: "a text", list: "a list", dict: "a set of settings", int: "a number"}
            raise N2NError(f"its entry {name!r} must be {words[kind]}.")
    return values
