"""Kills a tiny training again and again, and compares what it ends with.

    python campaigns/kill.py --kills 40 --out campaigns/results/kill.md

Each round starts a run in an empty results folder, kills it without warning (SIGKILL) at a moment
that is drawn, or as soon as a certain file is being written, looks at what is left, and starts
the same command again. After two kills the run may end, and its numbers and weights must be those
of an undisturbed run, bit for bit. Ends with exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from n2n import demo_data, training
from n2n.plan import Run
from n2n.records import find_records
from n2n.runs import make_record
from n2n.settings import make_settings

SETTINGS = make_settings("demo", image_size=64, width=4, epochs=8, t_max=8)
KILLS_PER_RUN = 2
# What a kill waits for: a moment of its own, or the first file of such a name below results/work.
MOMENTS = {
    "any moment": None,
    "decoded images being written": "images/*.tmp",
    "checkpoint being written": "**/checkpoint.pt.*.tmp",
    "record being written": "**/record.*.tmp",
}


def child(data: Path, results: Path) -> None:
    """The run, on one thread and with a checkpoint after every epoch."""
    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS = 0.0
    run = Run("demo", "plate", SETTINGS, precision="float32")
    make_record(run, data, results=results, device="cpu", progress=False)


def start(data: Path, results: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--child", str(data), str(results)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen[bytes], due: Callable[[], bool]) -> bool:
    """Kill a process as soon as something holds; False where it ended before."""
    while process.poll() is None:
        if due():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.0005)
    return False


def left_behind(results: Path) -> str:
    """What a killed run leaves, after a look into every file that claims to be whole."""
    found = []
    for checkpoint in (results / "work").rglob("checkpoint.pt"):
        state = torch.load(checkpoint, weights_only=True)
        assert len(state["history"]) == state["epoch"], f"{checkpoint} is half-written"
        found.append(f"checkpoint of epoch {state['epoch']}")
    for cached in (results / "work/images").glob("*.pt"):
        assert set(torch.load(cached, weights_only=True)) == {"train", "test", "masks"}, cached
        found.append("decoded images")
    for record in find_records(results):  # refuses a damaged one
        names = {path.name for path in record.folder.iterdir()}
        assert {"weights.pt", "history.csv", "scores.csv", "pixel_roc.csv"} <= names, record.folder
        found.append("record")
    halves = sum(1 for path in (results / "work").rglob("*.tmp"))
    if halves:
        found.append(f"{halves} unfinished, not taken for whole")
    return ", ".join(found) or "nothing"


def numbers(results: Path) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """All that a run measured, without its times, and its weights."""
    (record,) = find_records(results)
    content = record.content
    measured = {
        name: content[name]
        for name in ("metrics", "intervals", "untrained", "threshold", "development", "data")
    }
    measured["scores"] = (record.folder / "scores.csv").read_text()
    rows = (record.folder / "history.csv").read_text().splitlines()
    measured["history"] = [row.rpartition(",")[0] for row in rows]  # without the seconds
    weights = torch.load(record.folder / "weights.pt", weights_only=True)["network"]
    return measured, weights


def differs(one: Path, other: Path) -> str:
    """Where two runs differ, or nothing."""
    (here, weights), (there, others) = numbers(one), numbers(other)
    named = [name for name in here if json.dumps(here[name]) != json.dumps(there[name])]
    named += [name for name in weights if not torch.equal(weights[name], others[name])]
    return ", ".join(named)


def campaign(kills: int, seed: int) -> tuple[list[str], list[str]]:
    """Rows of the result table, and what went wrong."""
    draw = random.Random(seed)
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        demo_data.generate(
            root / "data", size=64, categories=["plate"], train=12, test_good=4,
            test_per_defect=2, progress=False,
        )  # fmt: skip
        undisturbed, began = root / "undisturbed", time.monotonic()
        assert start(root / "data", undisturbed).wait() == 0
        length = time.monotonic() - began
        count = runs = 0
        while count < kills:
            results, runs = root / f"run{runs}", runs + 1
            of_this_run = 0
            while of_this_run < KILLS_PER_RUN and count < kills:
                # Half of the kills at any moment, the others where a file is being written.
                name = draw.choice(list(MOMENTS)[1:]) if count % 2 else "any moment"
                pattern, at = MOMENTS[name], time.monotonic() + draw.uniform(0.2, length)
                work = results / "work"

                def due(pattern: str | None = pattern, at: float = at, work: Path = work) -> bool:
                    return time.monotonic() > at if pattern is None else any(work.glob(pattern))

                for stale in work.rglob("*.tmp"):  # of an earlier kill: not what is waited for
                    if pattern is not None and stale.is_file():
                        stale.unlink()
                process = start(root / "data", results)
                began = time.monotonic()
                if not kill_when(process, due):
                    if process.returncode != 0:
                        wrong.append(f"run {count}: {process.communicate()[1].decode()}")
                    break  # it ended before
                count, of_this_run = count + 1, of_this_run + 1
                rows.append(
                    f"| {count} | {name} | {time.monotonic() - began:.2f} | "
                    f"{left_behind(results)} |"
                )
                print(rows[-1], flush=True)
            last = start(root / "data", results)
            if last.wait() != 0:
                wrong.append(f"kill {count}: {last.stderr.read().decode() if last.stderr else ''}")
                continue
            difference = differs(undisturbed, results)
            halves = [str(path) for path in (results / "work").rglob("record.*.tmp")]
            if difference or halves:
                wrong.append(f"kill {count}: differs in {difference}; left {halves}")
            if of_this_run:
                ended = "otherwise" if difference else "equal"
                rows[-1] = f"{rows[-1][:-1]}; then ended {ended} |"
    return rows, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("campaigns/results/kill.md"))
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    rows, wrong = campaign(options.kills, options.seed)
    ended = sum("then ended equal" in row for row in rows)
    text = [
        "# Killed at random moments",
        "",
        f"`python campaigns/kill.py --kills {options.kills} --seed {options.seed}` on "
        f"{platform.system()} {platform.machine()}, PyTorch {torch.__version__}, one thread: "
        f"{len(rows)} kills, {ended} runs that went on to the end with the bits of the undisturbed "
        f"run, {len(wrong)} that did not.",
        "",
        "| kill | moment | seconds after the start | what was left |",
        "| --- | --- | --- | --- |",
        *rows,
        *(["", "Wrong:", "", *(f"- {text}" for text in wrong)] if wrong else []),
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(text) + "\n")
    print(text[2])
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
