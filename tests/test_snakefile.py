"""The Snakefile: what it sees as missing, and, where asked for, whole studies.

N2N_CAMPAIGN=1 also runs a study with a damaged category. With a Slurm at hand (tests/slurm/setup.sh
makes one of this machine), N2N_SLURM=1 runs a small demonstration to the finished book on it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from n2n.plan import read_study
from tests.conftest import draw_parts

ROOT = Path(__file__).parents[1]
STUDY = """
title: Tiny
purpose: Test.
runs:
  - dataset: {dataset}
    categories: [{categories}]
    preset: demo
    base: {{image_size: 64, width: 4, epochs: 1, t_max: 1}}
"""
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None,
    reason="snakemake is not installed; make cluster",
)


def snakemake(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *(str(argument) for argument in arguments)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def write_study(folder: Path, dataset: str, *categories: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(STUDY.format(dataset=dataset, categories=", ".join(categories)))
    return path


def missing_runs(target: str, study: Path | str, results: Path) -> int:
    """How many runs a dry run counts."""
    outcome = snakemake("-n", target, "--config", f"study={study}", f"results={results}")
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, said
    counts = re.findall(r"^run +(\d+)$", said, re.MULTILINE)  # before and after the jobs
    return int(counts[-1])


def test_the_full_study_is_seen_whole(tmp_path: Path) -> None:
    runs = len(read_study(ROOT / "studies/full.yaml").runs)
    assert runs > 1000
    assert missing_runs("everything", "studies/full.yaml", tmp_path) == runs


@pytest.mark.parametrize(
    ("target", "jobs"),
    [
        ("baselines", 18 * 5 * 8),
        ("table1", 6 * 5 * (1 + 5)),
        ("table3", 12 * 5 * (1 + 6)),
        ("table4", 6 * 5 * 4),
    ],
)
def test_a_target_asks_for_its_own_runs(tmp_path: Path, target: str, jobs: int) -> None:
    assert missing_runs(target, "studies/full.yaml", tmp_path) == jobs


def test_a_run_that_is_there_is_no_job(tmp_path: Path) -> None:
    study = write_study(tmp_path, "parts", "disc", "ring")
    folder = read_study(study).runs[0].key.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "record.json").touch()
    assert missing_runs("runs", study, tmp_path) == 1


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("dat=here", "--config has no 'dat'"),
        ("data=/no/such/folder", "there is no folder /no/such/folder"),
        ("data=/", "name a folder for your records, --config results=mine"),
        ("missing=all", "can only be 'skip'"),
        ("device=cuda:1", "each run is given a GPU here"),
        ("study=/no/such/study", "There is no study /no/such/study"),
    ],
)
def test_a_mistyped_setting_is_refused(tmp_path: Path, setting: str, sentence: str) -> None:
    study = write_study(tmp_path, "parts", "disc")
    outcome = snakemake("-n", "runs", "--config", f"study={study}", setting)
    assert outcome.returncode == 1
    assert sentence in outcome.stderr + outcome.stdout


@pytest.mark.skipif(not os.environ.get("N2N_CAMPAIGN"), reason="N2N_CAMPAIGN is not set")
def test_a_failed_run_is_named_and_stops_no_other(tmp_path: Path) -> None:
    for category in ("disc", "ring"):
        draw_parts(tmp_path / "data/parts" / category, train=10)
    damaged = tmp_path / "data/parts/disc/train/good/000.png"
    damaged.write_bytes(b"")
    options = [
        "--cores", 1, "--config", f"study={write_study(tmp_path, 'parts', 'disc', 'ring')}",
        f"data={tmp_path / 'data'}", f"results={tmp_path / 'results'}", "device=cpu",
    ]  # fmt: skip
    outcome = snakemake("runs", *options)
    assert outcome.returncode == 1
    assert "000.png cannot be read: it is empty" in outcome.stderr
    assert len(list(tmp_path.rglob("record.json"))) == 1
    assert (tmp_path / "results/notebooks/parts/disc").is_dir()  # as far as it came
    damaged.unlink()  # mended: only what failed is run again
    outcome = snakemake("runs", *options)
    assert outcome.returncode == 0, outcome.stderr
    assert len(list(tmp_path.rglob("record.json"))) == 2
    assert "Nothing to be done" in snakemake("runs", *options).stderr


@pytest.mark.skipif(not os.environ.get("N2N_SLURM"), reason="N2N_SLURM is not set")
def test_slurm_makes_the_book(tmp_path: Path) -> None:
    outcome = snakemake(
        "--workflow-profile", "profiles/slurm", "--forcerun", "table", "--jobs", 2,
        "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", 2,
        "--set-threads", "run=1", "--set-resources", "run:gpu=0", "run:mem_mb=3000",
        "--default-resources", "mem_mb=3000", "runtime=60",
        "--config", f"study={write_study(tmp_path, 'demo', 'plate', 'tubes')}",
        f"results={ROOT / 'results/demo/slurm'}", "device=cpu",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert "has been submitted with SLURM jobid" in outcome.stderr
    assert (ROOT / "_build/html/index.html").is_file()
