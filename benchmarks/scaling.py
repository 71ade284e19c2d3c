"""How a training step grows with resolution, width and batch: ``python -m benchmarks.scaling``.

The exponent is the slope of log seconds over log size, by least squares: 2 for the side of the
image means that the time grows with its pixels.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np
import torch

from benchmarks.common import name_of, now, provenance, write_table
from n2n.corruption import corrupt, draw_noise, normalise
from n2n.device import choose_device, choose_precision, keep_freed_memory, precision_context
from n2n.loss import total_loss
from n2n.settings import Settings, make_settings
from n2n.training import build_network

BASE = {"image_size": 128, "width": 16, "batch_size": 4}
SWEEPS = {
    "image_size": (64, 96, 128, 192, 256),
    "width": (8, 16, 24, 32),
    "batch_size": (1, 2, 4, 8),
}


def seconds_of_a_step(settings: Settings, device: torch.device, repeats: int) -> float:
    """Median over steps of random images, after one to warm up."""
    precision = choose_precision("auto", device)
    network = build_network(settings, 0, device).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    generator = torch.Generator(device).manual_seed(0)
    shape = (settings.batch_size, 3, settings.image_size, settings.image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8, device=device)
    taken = []
    for _ in range(repeats + 1):
        began = now(device)
        x0 = normalise(images)
        noisy = corrupt(x0, draw_noise(shape, settings, generator), settings.noise)
        with precision_context(device, precision):
            restored = network(noisy.contiguous(memory_format=torch.channels_last))
        loss = total_loss(restored, x0, settings)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        taken.append(now(device) - began)
    return median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, help="ignored: sizes are swept")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    rows = []
    for name, values in SWEEPS.items():
        seconds = [
            seconds_of_a_step(
                make_settings("replication", **(BASE | {name: value})), device, options.repeats
            )
            for value in values
        ]
        exponent = np.polyfit(np.log(values), np.log(seconds), 1)[0]
        rows.append(
            {
                "varied": name.replace("_", " "),
                "values": ", ".join(map(str, values)),
                "ms per step": ", ".join(f"{1e3 * value:.0f}" for value in seconds),
                "exponent": f"{exponent:.2f}",
            }
        )
    write_table(
        f"scaling_{name_of(device)}",
        "A training step at other sizes",
        "One is varied, the others stay at 128x128 pixels, width 16, batch 4; medians over "
        f"{options.repeats} steps. One thread is timed by its own processor time.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
