"""The machine: which device, which precision, and what to say when its memory is short."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

from n2n.errors import N2NError
from n2n.files import cores


def choose_device(name: str = "auto") -> torch.device:
    """'auto' is the first CUDA device where there is one, Apple's MPS next, else the CPU.

    Raises:
        N2NError: where the device is unknown, not there, or not one that this build of PyTorch can
            compute on.
    """
    if name == "auto":
        found = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else found
    try:
        device = torch.device(name)
        if device.type == "meta":  # it has no values
            raise RuntimeError("no device to compute on")
        torch.ones(1, device=device).add(1)  # a GPU that is too old is there, and has no kernels
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise N2NError(f"The memory of {name!r} is taken; close other programs.") from error
        raise N2NError(
            f"The device {name!r} cannot be used here; choose --device cpu, "
            "or install a build of PyTorch for it."
        ) from error
    return device


def choose_precision(name: str, device: torch.device, *, training: bool = True) -> torch.dtype:
    """The type of the network's convolutions: 'float32', 'bfloat16', 'float16' or 'auto'.

    'auto' is float32 for a training, which bfloat16 can lead astray (decision D49), and for
    detection bfloat16 where the device multiplies it in hardware. Weights, optimiser, loss and
    maps are float32 in any case. float16 has three bits more than bfloat16 and is for detection
    alone, as small gradients would vanish in it.

    Raises:
        N2NError: for another name, for a training in float16, and for bfloat16 on a GPU that is too
            old for it.
    """
    if name == "float16" and not training:
        return torch.float16
    if name == "auto":
        return torch.bfloat16 if not training and has_bfloat16(device) else torch.float32
    if name not in ("float32", "bfloat16"):
        choices = "auto, float32 or bfloat16" if training else "float32, float16, bfloat16 or auto"
        raise N2NError(f"There is no precision {name!r} here; choose {choices}.")
    if name == "bfloat16" and device.type == "cuda" and not has_bfloat16(device):
        raise N2NError("This GPU cannot compute in bfloat16; choose --precision float32.")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it is asked of the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's
    return any(capabilities.get(name) for name in names)


def memory_format(device: torch.device) -> torch.memory_format:
    """Of images and weights: channels last, in which convolutions are faster.

    But not on Apple's GPUs, where PyTorch's gradients are slow in it (pytorch#193349) and those of
    batch normalisation wrong (pytorch#188371).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` has what it needs, and nobody has disabled it.

    That is Triton, which Windows lacks, and what Triton builds its launchers with: a C compiler and
    Python's headers, which a slim container lacks.
    """
    return (
        device.type == "cuda"
        and os.environ.get("TORCH_COMPILE_DISABLE", "0") != "1"
        and importlib.util.find_spec("triton") is not None
        and any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang")))
        and Path(sysconfig.get_path("include"), "Python.h").is_file()
    )


def precision_context(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to ``dtype``; does nothing for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def run_network(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """What a network makes of images, (N, 3, S, S), its convolutions in ``dtype``."""
    with precision_context(x.device, dtype):
        return network(x.contiguous(memory_format=memory_format(x.device)))


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Let a GPU compute in float32 what is float32.

    Unless told otherwise its convolutions drop 13 bits of each number (TF32), and so do its matrix
    products where the environment asks for it, as some containers' does.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, fp32_precision="ieee"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees for the next one; elsewhere, do nothing.

    Activations of many megabytes are otherwise returned to the system and zeroed page by page in
    each step, which costs up to a quarter of it on a CPU; see ``benchmarks/results``.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(arena_max, 1)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


# What the driver and the libraries of a GPU say where PyTorch's own allocator was not asked
_GPU_IS_FULL = (
    "CUDA error: out of memory", "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED",
    "MPS backend out of memory", "Invalid buffer size",
)  # fmt: skip


def _gpu_is_full(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in _GPU_IS_FULL
    )


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation has failed, on the GPU or the CPU."""
    if isinstance(error, RuntimeError):
        return _gpu_is_full(error) or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError)


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn a failed allocation, on the GPU or the CPU, into one sentence with ``advice``.

    Raises:
        N2NError: in place of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        whose = "The GPU" if _gpu_is_full(error) else "This machine"
        raise N2NError(f"{whose}'s memory is too small for this run; {advice}.") from error


@contextlib.contextmanager
def compile_errors(compiled: bool) -> Iterator[None]:
    """Say how to do without ``torch.compile`` where it fails: no C compiler, too old a GPU.

    Raises:
        N2NError: in place of the compiler's error.
    """
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        inner = getattr(error, "inner_exception", error)
        if out_of_memory(inner):
            raise inner from error
        reason = " ".join(str(error).split("\n")[:2])  # the backend; what it said
        raise N2NError(
            f"The network could not be compiled on this machine ({reason}); use `n2n run "
            "--no-compile`, or set TORCH_COMPILE_DISABLE=1."
        ) from error


def describe(device: torch.device) -> str:
    """The device in words, for a run record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    by = "" if device.type == "cpu" else f"{device.type} of "
    return f"{by}{_processor()}, {cores()} cores, {torch.get_num_threads()} threads"


def _processor() -> str:
    """Its name; on Linux with its family and model, as a rented machine may hide more of the name.

    Another model rounds otherwise, and is as good as another seed.
    """
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
        about = {name.strip(): value.strip() for name, value in pairs}
        if about.keys() >= {"model name", "cpu family", "model"}:  # of x86
            return f"{about['model name']} (family {about['cpu family']}, model {about['model']})"
    return platform.processor() or platform.machine()


def reset_peak_memory(device: torch.device) -> bool:
    """Let `peak_memory_mib` count from here on, and say whether it does: beside GPUs on Linux only.

    What the runs before it have freed, and glibc has kept, is given back first.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type == "cpu" and sys.platform == "linux":
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            Path("/proc/self/clear_refs").write_text("5")  # the largest size so far := that now
            return True
    return False


def peak_memory_mib(device: torch.device) -> float:
    """The largest memory held in MiB: the GPU's allocations, or the process's own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        if largest := [line for line in lines if line.startswith("VmHWM")]:  # not in every sandbox
            return float(largest[0].split()[1]) / 2**10
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
