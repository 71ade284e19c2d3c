"""Run records: one folder for each run, either complete or not there.

``RESULTS/runs/DATASET/CATEGORY/METHOD/VARIANT/seedN/`` holds

- ``record.json``: metrics with intervals, settings, and provenance;
- ``scores.csv``: every test image with its label and its image scores;

and of our method

- ``history.csv``: learning rate and losses of each epoch;
- ``trace.csv``: detection along the training, where that was asked for;
- ``pixel_roc.csv``: the ROC curve of the pixels, thinned for drawing;
- ``weights.pt``: the network, for detection (not committed).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from n2n.baselines.settings import BaselineSettings
from n2n.errors import BusyError, N2NError, reason, write_errors
from n2n.files import sync
from n2n.settings import Settings, settings_from_dict

if TYPE_CHECKING:
    import pandas as pd

RECORD, WEIGHTS, TRACE = "record.json", "weights.pt", "trace.csv"
CHECKPOINT = "checkpoint.pt"  # of a run that is not finished
FAILED = "failed.txt"
SCHEMA = 1
# Where null is null; what was measured may not be defined, as without an anomalous test image
PLAIN = ("settings", "data", "training", "provenance")

Part = tuple[str, str]  # data set and category


@dataclass(frozen=True, order=True)
class RunKey:
    """What identifies a run."""

    dataset: str
    category: str
    method: str
    variant: str
    seed: int

    def __post_init__(self) -> None:
        """Refuse names from a study or a record that would leave the results folder."""
        for name in (self.dataset, self.category, self.method, self.variant):
            outside = name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(str(name))
            if outside or not isinstance(name, str):
                raise N2NError(f"{name!r} is not the name of a folder; give the name alone.")
            if len(os.fsencode(name)) > 255:  # as much as a file system takes
                raise N2NError(
                    f"The folder's name {name[:60]}... is too long; change fewer settings at once."
                )
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not whole or not 0 <= self.seed < 2**32:
            raise N2NError(f"The seed {self.seed!r} is not a whole number from 0 to 2^32 - 1.")

    @property
    def part(self) -> Part:
        """The data set and the category."""
        return self.dataset, self.category

    def folder(self, results: Path) -> Path:
        """Where the finished record is."""
        return results / "runs" / self._relative()

    def is_finished(self, results: Path) -> bool:
        """Whether the record is there."""
        return (self.folder(results) / RECORD).exists()

    def work(self, results: Path) -> Path:
        """Where the unfinished run keeps its checkpoint."""
        return results / "work" / self._relative()

    def _relative(self) -> Path:
        return Path(self.dataset, self.category, self.method, self.variant, f"seed{self.seed}")


@dataclass(frozen=True)
class Record:
    """A finished run: its key, its folder and the content of ``record.json``."""

    key: RunKey
    folder: Path
    content: dict[str, Any]

    @functools.cached_property
    def settings(self) -> Settings:
        """What a run of our method was made with."""
        return settings_from_dict(self.content["settings"])

    @functools.cached_property
    def baseline(self) -> BaselineSettings:
        """What a run of another method was made with."""
        return BaselineSettings(**self.content["settings"])

    @property
    def precision(self) -> str:
        """What the network was trained in: 'bfloat16' or 'float32'."""
        return str(self.content["provenance"]["precision"])

    def metric(self, level: str, name: str = "auroc") -> float:
        """A metric from 0 to 1 by level, 'image' or 'pixel'; NaN where it is not defined."""
        return float(self.content["metrics"][level][name])

    def interval(self, level: str, name: str = "auroc") -> tuple[float, float]:
        """The 95 % bootstrap interval of a metric over the test images."""
        low, high = self.content["intervals"][level][name]
        return float(low), float(high)

    def table(self, name: str) -> pd.DataFrame:
        """One of the CSV files beside the record.

        Raises:
            N2NError: where it is missing or damaged.
        """
        import pandas as pd  # slow to import, and the command line looks for records, too

        path = self.folder / name
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise self._damaged(path) from error

    def scores(self) -> pd.DataFrame:
        """A row per test image: 'anomalous', 0 or 1, its scores, and 'chosen', the run's own.

        Raises:
            N2NError: where ``scores.csv`` is missing or damaged.
        """
        table = self.table("scores.csv")
        chosen = self.content["settings"].get("image_score", "own")  # baselines have one of theirs
        if not {"anomalous", chosen} <= set(table.columns):
            raise self._damaged(self.folder / "scores.csv")
        return table.assign(chosen=table[chosen])

    def _damaged(self, path: Path) -> N2NError:
        return N2NError(f"{path} is missing or damaged; delete its folder and run it again.")


@contextlib.contextmanager
def only_one(key: RunKey, results: Path) -> Iterator[None]:
    """Hold a run, so that two processes never work on it; a process that dies lets it go.

    Why the last attempt failed stays in ``failed.txt`` of its work folder; see `failure`.

    Raises:
        BusyError: where another process holds it.
        N2NError: where the folder cannot be written.
    """
    path = key.work(results).with_suffix(".lock")
    with write_errors(f"The folder {path.parent}", "choose another --results"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path).acquire(timeout=1)  # `n2n status` may look at it just now
        except Timeout as error:
            raise BusyError(
                f"Another process is at work on {key.folder(results)}; wait for it, or stop it "
                "first."
            ) from error
    commit()  # what runs from here on, whatever is there when the record is written
    with lock:  # its file stays: deleting it would let two others hold two files of one name
        failed = key.work(results) / FAILED
        with contextlib.suppress(OSError):
            failed.unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            with contextlib.suppress(OSError):  # a full disk has its own sentence already
                failed.parent.mkdir(parents=True, exist_ok=True)
                failed.write_text(
                    str(error) if isinstance(error, N2NError) else repr(error),
                    encoding="utf-8",
                    errors="backslashreplace",
                )
            raise


def finished(
    key: RunKey, results: Path, precision: str = "auto", progress: bool = False
) -> Record | None:
    """The record of a run where it is there already, which is said on stderr."""
    if not key.is_finished(results):
        return None
    folder = key.folder(results)
    record = read_record(folder)
    if record.key != key:
        raise N2NError(f"{folder} holds the record of another run; move it to its own place.")
    origin = record.content.get("provenance", {})
    there = origin.get("precision")
    other = "" if precision in ("auto", there) else f", trained in {there}"
    if progress or other:
        made = f"made on {origin['date'][:10] if 'date' in origin else 'an unknown day'}{other}"
        print(
            f"{folder} is complete: not run again ({made}; another results folder makes a new one)",
            file=sys.stderr,
        )
    return record


def is_running(key: RunKey, results: Path) -> bool:
    """Whether a process of this machine holds the run."""
    path = key.work(results).with_suffix(".lock")
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def failure(key: RunKey, results: Path) -> str | None:
    """Why the last attempt at a run failed, where that is known."""
    try:
        return (key.work(results) / FAILED).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def write_record(
    key: RunKey, results: Path, content: dict[str, Any], write_files: Callable[[Path], None]
) -> Record:
    """Write a record's folder beside its place, move it there when it is whole, and clean up.

    Args:
        key: of the run.
        results: the results folder.
        content: of ``record.json``, without the key; NaN becomes null.
        write_files: writes the other files into the folder that it is given.

    Raises:
        N2NError: where the folder cannot be written, or is there already.
    """
    target = key.folder(results)
    temporary = key.work(results) / f"record.{os.getpid()}.tmp"
    if key.is_finished(results):
        raise N2NError(f"There is a record in {target} already; delete it to run it again.")
    text = json.dumps({"schema": SCHEMA, **asdict(key), **_without_nan(content)}, indent=1)
    mend = "free some space or choose another --results folder, and start the same command again"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with write_errors(f"The record {target}", mend, (OSError, RuntimeError)):
            temporary.mkdir(parents=True)
            write_files(temporary)
            (temporary / RECORD).write_text(text + "\n")
            for file in temporary.iterdir():
                sync(file)
            shutil.rmtree(target, ignore_errors=True)  # without a record it was none
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(key.work(results), ignore_errors=True)  # its checkpoint is needed no more
    return read_record(target)


def read_record(folder: Path) -> Record:
    """Read the record of a folder.

    Raises:
        N2NError: where it is missing, unreadable, or written by another version.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text())
        key = RunKey(
            **{name: content[name] for name in ("dataset", "category", "method", "variant", "seed")}
        )
        complete = (
            content["schema"] == SCHEMA and {"metrics", "intervals", "settings"} <= content.keys()
        )
        if complete:
            _check_types(content)
    except FileNotFoundError as error:
        raise N2NError(f"There is no run record {path}; run the experiment first.") from error
    except OSError as error:
        raise N2NError(f"The run record {path} cannot be read ({reason(error)}).") from error
    except N2NError as error:
        raise N2NError(
            f"The run record {path} is of another version of this program, or damaged ({error}) "
            "Use that version, or delete its folder and rerun."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise N2NError(f"The run record {path} is damaged; delete its folder and rerun.") from error
    if not complete:
        raise N2NError(f"The run record {path} has another schema; delete its folder and rerun.")
    content |= {part: _with_nan(content[part]) for part in content.keys() - PLAIN}
    return Record(key, folder, content)


def _check_types(content: dict[str, Any]) -> None:
    """Refuse a record from elsewhere whose metrics or settings are not what they must be."""
    for part in ("metrics", "intervals"):
        for level in ("image", "pixel"):
            _ = content[part][level]["auroc"]
    values = [value for level in content["metrics"].values() for value in level.values()]
    for low, high in (pair for level in content["intervals"].values() for pair in level.values()):
        values += [low, high]
    if not all(_is_share(value) for value in values):
        raise ValueError("a metric is not a number from 0 to 1")
    if content["method"] == "n2n":
        settings_from_dict(content["settings"])
        _ = content["training"]["epochs"], content["training"]["stopped"]
        _ = [content["untrained"][level]["auroc"] for level in ("image", "pixel")]
        _ = content["image_scores"][content["settings"]["image_score"]]["auroc"]
    else:
        BaselineSettings(**content["settings"])


def _is_share(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= 1)  # type: ignore[operator]


def find_records(results: Path) -> list[Record]:
    """All records of a results folder, sorted by key; none where there are none yet."""
    paths = sorted((results / "runs").glob(f"*/*/*/*/*/{RECORD}"))
    return sorted((read_record(path.parent) for path in paths), key=lambda record: record.key)


def check_same_images(records: Iterable[Record]) -> None:
    """Refuse to average or compare runs of different images.

    Raises:
        N2NError: where the fingerprints of the data differ.
    """
    by_images = {record.content.get("data", {}).get("fingerprint"): record for record in records}
    if len(by_images) > 1:
        one, other, *_ = by_images.values()
        raise N2NError(
            f"{one.folder} and {other.folder} are of different images and cannot be compared; "
            "keep them in results folders of their own."
        )


def refuse_other_images(key: RunKey, results: Path, fingerprint: str) -> None:
    """Keep runs of different images apart: the tables average and compare those of a category.

    Raises:
        N2NError: where a record of the category was made with others.
    """
    folder = results / "runs" / key.dataset / key.category
    for path in sorted(folder.glob(f"*/*/*/{RECORD}")):
        there = None
        with contextlib.suppress(N2NError):  # a damaged one hinders no other run
            there = read_record(path.parent).content.get("data", {}).get("fingerprint")
        if there not in (None, fingerprint):
            raise N2NError(
                f"The records in {folder} are of other images (fingerprint {there}, these have "
                f"{fingerprint}) and cannot stand beside this run's; name another results folder."
            )


@functools.cache
def commit() -> str | None:
    """The commit of the package's source, with '-dirty' where the package differs from it.

    Once for a process: what runs in it is what was there when its first run began.
    """
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "records.py")  # else it is an installed copy
        dirty = git("status", "--porcelain", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _with_nan(value: Any) -> Any:
    """The numbers that `_without_nan` wrote."""
    if isinstance(value, dict):
        return {k: float("nan") if item is None else _with_nan(item) for k, item in value.items()}
    if isinstance(value, list):
        return [float("nan") if item is None else _with_nan(item) for item in value]
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
