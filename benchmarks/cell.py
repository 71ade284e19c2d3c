"""One cell of a table, ours against the usual way: ``python -m benchmarks.cell``.

Both train the same network from the same initial weights by the same stopping rule on one
category, score its test images and measure AUROC. The usual way is what a quick implementation
does: a `DataLoader` that decodes every image in every epoch, float32, channels first, the dense
loss of the public ports, a reading of the loss in every step, and scikit-learn on the pixels of
maps that are resized to the images' own size.

By default on the demonstration data, at a small budget; name a category of your own with
``--data ROOT --dataset MPDD --category metal_plate --size 256 --width 32``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import name_of, now, parse, provenance, write_table
from benchmarks.loss import dense, dense_map
from n2n import demo_data
from n2n.corruption import corrupt, draw_noise, fixed_noise
from n2n.data import list_category
from n2n.decoding import decode_image
from n2n.device import exact_float32
from n2n.plan import Run
from n2n.runs import make_record
from n2n.settings import Settings, make_settings
from n2n.training import build_network, split_validation


class Images(Dataset[torch.Tensor]):
    """Files that are decoded whenever they are asked for."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = decode_image(self.paths[index], self.size)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1


def usual(
    root: Path, dataset: str, category: str, settings: Settings, device: torch.device
) -> tuple[int, dict[str, float]]:
    """Epochs, and image and pixel AUROC of a cell, the usual way."""
    listing = list_category(root, dataset, category)
    train_paths = [sample.image for sample in listing.train]
    chosen, held_out = split_validation(len(train_paths), settings.validation_fraction, 0)
    size, batch = settings.image_size, settings.batch_size
    loaders = [
        DataLoader(Images([train_paths[i] for i in part], size), batch, shuffle=shuffle)
        for part, shuffle in ((chosen, True), (held_out, False))
    ]
    network = build_network(settings, 0, device)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, settings.betas, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.t_max, 1e-6)
    generator = torch.Generator(device).manual_seed(0)
    best, weights = float("inf"), network.state_dict()
    epochs = waited = 0
    while epochs < settings.epochs and waited < settings.patience:
        epochs, waited = epochs + 1, waited + 1
        network.train()
        for x0 in loaders[0]:
            x0 = x0.to(device)
            noisy = corrupt(x0, draw_noise(tuple(x0.shape), settings, generator), settings.noise)
            loss = dense(network(noisy), x0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
        schedule.step()
        network.eval()
        with torch.no_grad():
            noise = fixed_noise(settings).to(device)
            losses = [
                dense(network(corrupt(x0.to(device), noise, settings.noise)), x0.to(device)).item()
                for x0 in loaders[1]
            ]
        if np.mean(losses) < best:
            best, waited = float(np.mean(losses)), 0
            weights = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    scores, labels, pixels, truth = [], [], [], []
    with torch.no_grad():
        for sample in listing.test:
            x0 = Images([sample.image], size)[0][None].to(device)
            noise = fixed_noise(settings).to(device)
            small = dense_map(network(corrupt(x0, noise, settings.noise)), x0)
            with Image.open(sample.image) as image:
                own = image.size[::-1]
            error = F.interpolate(small[None], own, mode="bilinear")[0, 0].cpu().numpy()
            mask = np.zeros(own, bool)
            if sample.mask is not None:
                with Image.open(sample.mask) as drawn:
                    mask = np.asarray(drawn) > 0
            flat = np.sort(error.ravel())
            scores.append(flat[-max(len(flat) // 100, 1) :].mean())
            labels.append(sample.mask is not None)
            pixels.append(error.ravel())
            truth.append(mask.ravel())
    return epochs, {
        "image": float(roc_auc_score(labels, scores)),
        "pixel": float(roc_auc_score(np.concatenate(truth), np.concatenate(pixels))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--category", default="plate")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12, help="at most")
    parser.add_argument("--patience", type=int, default=3)
    options, device = parse(parser)
    settings = make_settings(
        "replication", image_size=options.size, width=options.width, epochs=options.epochs,
        t_max=options.epochs, patience=options.patience,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder, "data")
        if options.data is None:
            demo_data.generate(root)
        torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)  # starts a GPU
        began = now(device)
        with exact_float32():  # as ours is
            epochs, theirs = usual(root, options.dataset, options.category, settings, device)
        middle = now(device)
        record = make_record(
            Run(options.dataset, options.category, settings), root,
            results=Path(folder, "results"), device=str(device), progress=False,
        )  # fmt: skip
        ended = now(device)
    ours = {level: record.metric(level) for level in ("image", "pixel")}
    rows = [
        {
            "way": way,
            "epochs": str(count),
            "seconds": f"{seconds:.0f}",
            "times ours": f"{seconds / (ended - middle):.1f}",
            **{f"{level} AUROC, %": f"{100 * found[level]:.2f}" for level in found},
        }
        for way, count, seconds, found in (
            ("usual", epochs, middle - began, theirs),
            ("n2n run", record.content["training"]["epochs"], ended - middle, ours),
        )
    ]
    intervals = {
        level: " to ".join(f"{100 * limit:.1f}" for limit in record.interval(level))
        for level in ours
    }
    write_table(
        f"cell_{name_of(device)}",
        "A whole cell of a table",
        f"{options.dataset}/{options.category}, {options.size}x{options.size}, width "
        f"{options.width}, at most {options.epochs} epochs, {options.patience} of patience: data, "
        "training, detection, metrics. Ours also has intervals, AUPRO, the untrained network, "
        "synthetic defects and the record in its time, and on a GPU the compilation. Our 95 % "
        f"intervals: images {intervals['image']}, pixels {intervals['pixel']}. One thread is "
        "timed by its own processor time.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
