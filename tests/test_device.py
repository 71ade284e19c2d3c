"""What is said of the machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from n2n.device import (
    can_compile,
    choose_device,
    choose_precision,
    compile_errors,
    describe,
    exact_float32,
    memory_errors,
    memory_format,
)
from n2n.errors import N2NError

PEAK = """
import numpy as np, torch
from n2n.device import keep_freed_memory, peak_memory_mib, reset_peak_memory
cpu = torch.device("cpu")
keep_freed_memory()  # as a training does
earlier = [np.ones(2**17) for _ in range(600)]  # 600 MiB
whole = peak_memory_mib(cpu)
del earlier
reset_peak_memory(cpu)
print(whole, peak_memory_mib(cpu))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can start again to count")
def test_the_peak_of_a_run_is_without_the_runs_before_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True
    ).stdout.split()
    whole, own = map(float, done)
    assert whole > 600
    assert own < whole - 500


CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC

processor\t: 1
model name\t: another
"""


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (CPUINFO, "AMD EPYC (family 25, model 17), "),
        ("processor\t: 0\nCPU part\t: 0xd40\n", "of another kind, "),
    ],
)
def test_a_processor_is_named_with_its_model(
    said: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: said)
    monkeypatch.setattr("platform.processor", lambda: "of another kind")
    assert describe(torch.device("cpu")).startswith(named)
    assert describe(torch.device("mps")).startswith(f"mps of {named}")


def test_float32_is_float32_within_and_as_it_was_after() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as in a container that asks for it
    try:
        with exact_float32():
            assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 == before[0]
    finally:
        torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),  # as PyTorch names it on ARM
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"neon": True, "bf16": False}, torch.float32),
    ],
)
def test_a_cpu_detects_in_what_it_multiplies(
    capabilities: dict[str, bool], precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", torch.device("cpu"), training=False) == precision
    assert choose_precision("auto", torch.device("cpu")) == torch.float32


def test_a_gpu_that_is_too_old_for_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert choose_precision("auto", gpu, training=False) == torch.float32
    with pytest.raises(N2NError, match="cannot compute in bfloat16; choose --precision float32"):
        choose_precision("bfloat16", gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert choose_precision("auto", gpu, training=False) == torch.bfloat16
    assert choose_precision("bfloat16", gpu) == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "triton", "compiler", "compiles", "layout"),
    [
        ("cuda", True, True, True, torch.channels_last),
        ("cuda", False, True, False, torch.channels_last),  # as on Windows
        ("cuda", True, False, False, torch.channels_last),  # as in a slim container
        ("mps", True, True, False, torch.contiguous_format),
        ("cpu", True, True, False, torch.channels_last),
    ],
)
def test_what_a_device_is_asked_for(
    device: str,
    triton: bool,
    compiler: bool,
    compiles: bool,
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if triton else None)
    monkeypatch.setattr("shutil.which", lambda name: name if compiler else None)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert not can_compile(torch.device(device))  # without Python's headers
    (tmp_path / "Python.h").touch()
    assert can_compile(torch.device(device)) == compiles
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert not can_compile(torch.device(device))
    assert memory_format(torch.device(device)) == layout


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_device_is_chosen(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    assert choose_device() == torch.device(chosen)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GiB, max allowed: 9.07 GiB)"),
        RuntimeError("Invalid buffer size: 12.00 GiB"),
    ],
)
def test_a_full_gpu_is_named_whoever_notices(error: RuntimeError) -> None:
    said = r"^The GPU's memory is too small for this run; so\.$"
    with pytest.raises(N2NError, match=said), memory_errors("so"):
        raise error


def test_a_gpu_that_fills_while_the_network_is_compiled_is_named() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with (
        pytest.raises(N2NError, match=r"^The GPU's memory is too small for this run; so\.$"),
        memory_errors("so"),
        compile_errors(True),
    ):
        raise BackendCompilerFailed(print, full, None)
    with pytest.raises(N2NError, match=r"could not be compiled.*no compiler"), compile_errors(True):
        raise BackendCompilerFailed(print, RuntimeError("no compiler"), None)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="illegal"), memory_errors("so"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_gpu_that_has_no_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(N2NError, match=r"'cuda' cannot be used here; choose --device cpu"):
        choose_device()
