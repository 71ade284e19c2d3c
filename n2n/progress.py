"""How far a study is: done, running, begun, failed, missing, and the time that is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from n2n.baselines.settings import BaselineSettings
from n2n.data import EXPECTED_COUNTS
from n2n.errors import N2NError
from n2n.plan import Run, Study
from n2n.records import CHECKPOINT, WEIGHTS, Record, failure, is_running, read_record

STATES = ("done", "running", "failed", "begun", "missing")


def work_of(run: Run) -> float:
    """How long a run takes, in a unit that only serves to compare runs of one method.

    The number of training images is the published one; of other categories it is not known.
    """
    settings = run.settings
    images = EXPECTED_COUNTS.get((run.dataset, run.category), (100,))[0]
    if isinstance(settings, BaselineSettings):
        return images * max(settings.epochs, 1) * settings.image_size**2 / 1e7
    return images * settings.epochs * (settings.image_size * settings.width) ** 2 / 1e11


def state(run: Run, results: Path) -> str:
    """'begun' has a checkpoint that nobody is at work on; 'failed' said why.

    A run is 'running' where a process of this machine holds it; of other machines only the
    checkpoints are seen.
    """
    if run.key.is_finished(results):
        return "done"
    if is_running(run.key, results):
        return "running"
    if failure(run.key, results) is not None:
        return "failed"
    return "begun" if (run.key.work(results) / CHECKPOINT).exists() else "missing"


def overview(study: Study, results: Path) -> str:
    """A table of a study's runs by data set, method and state, with the failures and the time left.

    The time is that of one run after the other, from the seconds of the finished runs of the same
    method. A run that takes over the network of another run of the study counts for nothing; early
    stopping makes the rest an upper estimate.
    """
    states = {run: state(run, results) for run in study.runs}
    counts: dict[tuple[str, str], Counter[str]] = {}
    for run, found in states.items():
        counts.setdefault((run.dataset, run.key.method), Counter())[found] += 1
    lines = [f"{'data set':<14}{'method':<16}" + "".join(f"{name:>9}" for name in STATES)]
    lines += [
        f"{dataset:<14}{method:<16}" + "".join(f"{count[name]:>9}" for name in STATES)
        for (dataset, method), count in counts.items()
    ]
    total = Counter(states.values())
    lines.append(f"{'all':<30}" + "".join(f"{total[name]:>9}" for name in STATES))
    for run, found in states.items():
        if found == "failed":
            lines.append(f"failed: {run.key.folder(results)}: {failure(run.key, results)}")
    left = [run for run, found in states.items() if found != "done"]
    if left:
        lines.append(f"time left, one run after the other: {_time_left(states, left, results)}")
    return "\n".join(lines)


def _time_left(states: dict[Run, str], left: list[Run], results: Path) -> str:
    spent: dict[str, float] = defaultdict(float)
    worked: dict[str, float] = defaultdict(float)
    for run, found in states.items():
        if found == "done" and (seconds := _seconds(run, results)) is not None:
            spent[run.key.method] += seconds
            worked[run.key.method] += work_of(run)
    training = _without_shared(states, left, results)
    unknown = sorted({run.key.method for run in training} - worked.keys())
    known = [run for run in training if run.key.method in worked]
    seconds = sum(work_of(run) * spent[run.key.method] / worked[run.key.method] for run in known)
    text = f"about {seconds / 3600:.1f} h" if known or not unknown else "not known yet"
    return f"{text}, without {', '.join(unknown)}" if known and unknown else text


def _without_shared(states: dict[Run, str], left: list[Run], results: Path) -> list[Run]:
    """The runs that are left, but those whose network is there or is another's of them."""
    there = [run for run in states if (run.key.folder(results) / WEIGHTS).exists()]
    first = {run.training: run for run in reversed([*there, *left])}
    return [run for run in left if first[run.training] is run]


def _seconds(run: Run, results: Path) -> float | None:
    try:
        record: Record = read_record(run.key.folder(results))
        return float(record.content["provenance"]["wall_seconds"])
    except (N2NError, KeyError, TypeError, ValueError):
        return None
