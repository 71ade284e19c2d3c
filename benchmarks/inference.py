"""Detection: images per second and latency: ``python -m benchmarks.inference``.

PyTorch as `n2n.detection.detect` uses it, and the same network in ONNX Runtime where that is
installed (``pip install onnx onnxscript onnxruntime``). Images are random: speed does not depend
on them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.common import name_of, now, parse, provenance, write_table
from n2n.corruption import corrupt, fixed_noise, normalise
from n2n.detection import anomaly_map, detect
from n2n.device import choose_precision, keep_freed_memory
from n2n.settings import Settings, make_settings
from n2n.training import build_network


def missing_for_onnx(device: torch.device) -> str:
    """What has to be installed before ONNX Runtime computes on the device; nothing if it does."""
    if not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        return "-e '.[benchmarks]'"
    import onnxruntime

    there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return "onnxruntime-gpu" if device.type == "cuda" and not there else ""


def onnx_network(
    network: nn.Module, size: int, threads: int, folder: str, device: torch.device
) -> Callable[..., Tensor]:
    """The network in ONNX Runtime, for batches of any size."""
    import onnxruntime

    path = Path(folder) / "network.onnx"
    example = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(
        network.float(), (example,), str(path), dynamo=True, dynamic_shapes=({0: batch},),
        input_names=["x"], output_names=["y"], verbose=False,
    )  # fmt: skip
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    # As ours on a GPU, single precision is all of it
    gpu = ("CUDAExecutionProvider", {"use_tf32": 0})
    provider = gpu if device.type == "cuda" else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(str(path), chosen, providers=[provider])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.cpu().numpy()})[0])


def detect_pytorch(
    network: nn.Module,
    device: torch.device,
    precision: torch.dtype,
    images: Tensor,
    settings: Settings,
) -> Tensor:
    """The anomaly maps of `detect`, all images at once."""
    found = detect(
        network, images, settings, device, precision, batch_size=len(images), progress=False
    )
    return found.maps


def detect_onnx(run: Callable[..., Tensor], images: Tensor, settings: Settings) -> Tensor:
    """The anomaly maps of `detect`, with the network elsewhere."""
    x0 = normalise(images)
    maps = [
        anomaly_map(run(corrupt(x0, fixed_noise(settings, draw), settings.noise)), x0, settings)
        for draw in range(settings.noise_draws)
    ]
    return torch.stack(maps).mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options, device = parse(parser)
    half = choose_precision("auto", device, training=False)
    halves = {half, torch.float16} if device.type == "cuda" else {half}
    if device.type == "cpu":
        keep_freed_memory()
    base = make_settings("replication", image_size=options.size)
    network = build_network(base, 0, device).eval()
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[Tensor, Settings], Tensor]] = {
            f"PyTorch, {str(precision).removeprefix('torch.')}": partial(
                detect_pytorch, network, device, precision
            )
            for precision in (torch.float32, *sorted(halves - {torch.float32}, key=str))
        }
        if missing := missing_for_onnx(device):
            print(f"Without its rows for ONNX Runtime: pip install {missing} brings it.")
        else:
            run = onnx_network(
                build_network(base, 0, torch.device("cpu")).eval(), options.size,
                options.threads, folder, device,
            )  # fmt: skip
            ways["ONNX Runtime, float32"] = partial(detect_onnx, run)
        rows = []
        for batch, draws in ((1, 1), (32, 1), (1, 8), (32, 2)):
            generator = torch.Generator().manual_seed(0)
            shape = (batch, 3, options.size, options.size)
            images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            settings = make_settings("replication", image_size=options.size, noise_draws=draws)
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            maps = {}
            for repeat in range(options.repeats + 1):
                for name, way in ways.items():
                    began = now(device)
                    maps[name] = way(images, settings)
                    if repeat > 0:
                        seconds[name].append(now(device) - began)
            for name in ways:
                taken = median(seconds[name])
                difference = (maps[name] - maps["PyTorch, float32"]).abs().max()
                rows.append(
                    {
                        "batch": str(batch),
                        "noise draws": str(draws),
                        "network": name,
                        "latency ms": f"{1e3 * taken:.0f}",
                        "images/s": f"{batch / taken:.2f}",
                        "largest difference of a map": f"{float(difference):.1e}",
                    }
                )
    write_table(
        f"inference_{name_of(device)}",
        "Detection: latency and images per second",
        f"Width {base.width} at {options.size}x{options.size}, network and anomaly map; medians "
        f"over {options.repeats} rounds after one to warm up. Without reading the files and "
        "writing what was found, and with the whole batch at once, where `n2n detect` takes eight "
        "images. One thread is timed by its own processor time.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
