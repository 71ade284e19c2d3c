"""What happens when the machine fails a run: full disk, lost data, no memory, a diverging loss."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from n2n.errors import N2NError
from n2n.gpus import gpu_slot
from n2n.notebooks import execute_notebook
from n2n.settings import Settings
from n2n.training import train
from tests.conftest import draw_parts

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's")


def start(
    root: Path, results: Path, *more: object, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "n2n", "run", "--data", root, "--dataset", "parts", "--category",
        "disc", "--preset", "demo", "--image-size", 64, "--width", 4, "--epochs", 2, "--device",
        "cpu", "--quiet", "--results", results, *more,
    ]  # fmt: skip
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, preexec_fn=limit,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def one_sentence(outcome: subprocess.CompletedProcess[str]) -> str:
    assert outcome.returncode == 1, outcome.stderr
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    assert lines[0].startswith("n2n: ")
    return lines[0]


@pytest.mark.parametrize(
    ("kilobytes", "what"),
    [(100, "decoded images"), (400, "checkpoint"), (2000, None)],
)
def test_a_full_disk_gives_one_sentence_and_leaves_no_half(
    parts: Path, tmp_path: Path, kilobytes: int, what: str | None
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024,) * 2)

    outcome = start(parts, tmp_path, limit=limit)
    if what is None:
        assert outcome.returncode == 0, outcome.stderr
        return
    sentence = one_sentence(outcome)
    assert what in sentence
    assert "free some space" in sentence
    assert list(tmp_path.rglob("*.tmp")) == []
    assert list(tmp_path.rglob("checkpoint.pt")) == []
    assert start(parts, tmp_path).returncode == 0  # with space again


def test_a_results_folder_that_cannot_be_written(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "work").touch()  # root may write into any folder, but not below a file
    assert "cannot be written" in one_sentence(start(parts, tmp_path))


def test_lost_data_are_named_and_the_checkpoint_is_kept(tmp_path: Path) -> None:
    draw_parts(tmp_path / "data/parts/disc", train=10)
    results = tmp_path / "results"
    assert start(tmp_path / "data", results).returncode == 0
    record = next(results.glob("runs/*/*/*/*/seed0"))
    shutil.rmtree(record)
    checkpoint = results / "work" / record.relative_to(results / "runs") / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"any")
    shutil.rmtree(tmp_path / "data/parts")
    assert "There is no folder" in one_sentence(start(tmp_path / "data", results))
    assert checkpoint.read_bytes() == b"any"


def test_too_little_memory_names_a_smaller_batch(parts: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)

    more = ["--width", 64, "--image-size", 1024, "--batch-size", 8]
    sentence = one_sentence(start(parts, tmp_path, *more, limit=limit))
    assert "memory is too small" in sentence
    assert "--batch-size 4" in sentence


def test_a_diverging_loss_names_its_step_and_keeps_the_checkpoint(
    tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2n import training

    images = torch.randint(0, 255, (10, 3, 64, 64), dtype=torch.uint8)
    checkpoint = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, steps = training.total_loss, 0

    def exploding(*arguments: object) -> torch.Tensor:
        nonlocal steps
        steps += torch.is_grad_enabled()
        loss = whole(*arguments)  # type: ignore[arg-type]
        return loss * float("inf") if steps == 4 else loss  # two steps an epoch

    monkeypatch.setattr(training, "total_loss", exploding)
    with pytest.raises(N2NError, match=r"in step 2 of 2 of epoch 2; lower --learning-rate"):
        train(images, tiny, 0, torch.device("cpu"), checkpoint=checkpoint, progress=False)
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1


def test_a_failing_cell_leaves_the_notebook_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    output = tmp_path / "out.ipynb"
    with pytest.raises(N2NError, match=r"experiment failed with N2NError.*out\.ipynb"):
        execute_notebook("experiment", output, {"results": str(tmp_path)})
    assert "There is no record" in output.read_text()
    with pytest.raises(N2NError, match="no parameter 'colour'"):
        execute_notebook("experiment", output, {"colour": 1})


def test_two_runs_share_no_gpu_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with gpu_slot() as one:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # as another process would see it
        with gpu_slot() as other:
            assert {one, other} == {"0", "1"}
            assert os.environ["CUDA_VISIBLE_DEVICES"] == other
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
            with gpu_slot(runs_per_gpu=2) as shared:
                assert shared in ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpu_slot() as none:
        assert none is None


@pytest.mark.parametrize(("given", "held"), [("3", None), ("2,3", "2")])
def test_a_slurm_job_with_several_gpus_shares_them_out(
    given: str, held: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with gpu_slot() as gpu:
        assert gpu == held
        assert os.environ["CUDA_VISIBLE_DEVICES"] == (held or given)


def test_gpus_that_differ_are_counted_as_nvidia_smi_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "GPU-a, NVIDIA T400\nGPU-b, NVIDIA H200\n"
    done = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    with gpu_slot() as gpu:
        assert gpu == "GPU-a"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(N2NError, match=r"differ.*set CUDA_DEVICE_ORDER=PCI_BUS_ID"), gpu_slot():
        pass
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with gpu_slot() as gpu:
        assert gpu == "GPU-a"
