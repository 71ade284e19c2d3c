"""From a trained network to anomaly maps and image scores (Section 3.3, last sentence)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from n2n.corruption import corrupt, detection_noise, normalise, to_photograph, to_unit
from n2n.device import exact_float32, memory_errors, run_network
from n2n.loss import error_map, gaussian_filter
from n2n.settings import Settings

BATCH = 8  # images at a time; changes the speed and the memory, not the result


@dataclass
class Detection:
    """What a network sees in a set of images; all tensors on the CPU."""

    maps: Tensor  # float32, (N, S, S): the error at each pixel, see `anomaly_map`
    scored: Tensor  # (N, S, S), from which the image scores are taken: the maps, or calibrated
    reconstructions: Tensor  # uint8, (N, 3, S, S), of the first noise draw


@dataclass(frozen=True)
class Expected:
    """What error normal images show at each position; see `expected_error`."""

    mean: Tensor  # float32, (S, S)
    deviation: Tensor  # float32, (S, S), above zero

    def calibrate(self, maps: Tensor) -> Tensor:
        """By how many deviations maps (N, S, S) exceed what is expected."""
        return (maps - self.mean) / self.deviation


def expected_error(maps: Tensor) -> Expected:
    """The mean and the deviation of the anomaly maps (N, S, S) of normal training images.

    Not in the paper. Edges and hooks are hard to reconstruct in every image, so the largest error
    of an image often says nothing about it. Both are smoothed by a Gaussian of a 64th of the side,
    since parts do not lie in the same place to the pixel; the mean deviation is added to each, so
    that where all normal images agree a trifle does not count as an anomaly.
    """
    sigma = maps.shape[-1] / 64
    mean = gaussian_filter(maps.mean(0), sigma, "reflect")
    variance = gaussian_filter(maps.var(0, correction=0), sigma, "reflect")
    deviation = variance.clamp_min(0).sqrt()
    return Expected(mean, deviation + deviation.mean().clamp_min(1e-6))


@torch.inference_mode()
def detect(
    network: nn.Module,
    images: Tensor,
    settings: Settings,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    expected: Expected | None = None,
    batch_size: int = BATCH,
    progress: bool = True,
) -> Detection:
    """Reconstruct corrupted images and map the error of each pixel.

    The paper does not say whether test images are corrupted; a network that was trained on noisy
    images is given noisy images here, too, with one fixed noise field per draw for all of them,
    unless ``noise_at_test`` is off.

    Args:
        network: as trained, in evaluation mode.
        images: uint8, (N, 3, S, S).
        settings: of the training; ``noise_draws`` maps are averaged; see `detection_noise`.
        device: where the network is.
        precision: of the convolutions.
        expected: calibrates the map that the image scores are taken from; see `expected_error`.
        batch_size: changes the speed and the memory, not the result.
        progress: show a bar on stderr.

    Raises:
        N2NError: where the memory is too small.
    """
    noises = [detection_noise(settings, draw).to(device) for draw in range(settings.noise_draws)]
    maps = torch.empty(len(images), *images.shape[-2:])
    reconstructions = torch.empty_like(images, device="cpu")
    bar = tqdm(total=len(images), desc="detecting", unit="image", disable=not progress)
    advice = "close other programs" + (" or use the CPU" if device.type != "cpu" else "")
    with memory_errors(advice), exact_float32(), bar:
        for begin in range(0, len(images), batch_size):
            batch = slice(begin, begin + batch_size)
            seen = images[batch].to(device)
            x0 = normalise(seen, settings)
            total = torch.zeros(len(x0), *x0.shape[-2:], device=device)
            for draw, noise in enumerate(noises):
                x = corrupt(x0, noise, settings.test_noise)
                reconstruction = run_network(network, x, precision)
                total += anomaly_map(reconstruction, x0, settings)
                if draw == 0:
                    shown = to_photograph(reconstruction.float(), seen, settings)
                    reconstructions[batch] = (shown * 255).round().to(torch.uint8).cpu()
            maps[batch] = (total / len(noises)).cpu()
            bar.update(len(x0))
    scored = maps if expected is None else expected.calibrate(maps)
    return Detection(maps, scored, reconstructions)


def anomaly_map(reconstruction: Tensor, x0: Tensor, settings: Settings) -> Tensor:
    """The error at each pixel, (N, S, S), of normalised images (N, 3, S, S).

    Eq. (9) as in the loss (Section 3.3), or the absolute error alone; smoothed where the settings
    say so.
    """
    if settings.anomaly_map == "eq9":
        error = error_map(reconstruction, x0, settings)
    else:
        error = (to_unit(reconstruction.float()) - to_unit(x0)).abs().mean(1)
    if settings.map_sigma:
        error = gaussian_filter(error, settings.map_sigma, "reflect")
    return error


def image_scores(maps: Tensor) -> dict[str, Tensor]:
    """Every image score that the paper's silence allows, (N,) each, from maps (N, S, S).

    The largest value, the mean, and the mean of the largest hundredth of the pixels; of some of
    them alone where the maps are (N, P).
    """
    flat = maps.flatten(1)
    top = max(flat.shape[1] // 100, 1)
    return {
        "max": flat.amax(1),
        "mean": flat.mean(1),
        "top1%": flat.topk(top, dim=1).values.mean(1),
    }
