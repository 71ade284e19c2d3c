"""Skip-GANomaly and DAGAN: their terms computed apart, and what a training promises."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from n2n.baselines import gans
from n2n.baselines.gans import GAN, AutoEncoder, Discriminator, Judgement, Losses
from n2n.baselines.methods import fit, score
from n2n.baselines.settings import BaselineSettings, make_baseline_settings
from n2n.corruption import normalise
from n2n.errors import N2NError
from n2n.plan import Run
from n2n.records import find_records
from n2n.runs import make_record
from tests.conftest import smooth_images

CPU = torch.device("cpu")
NARROW = 8  # channels, for seconds; the papers' 64 in one test
methods = pytest.mark.parametrize("method", gans.RECIPES)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gans, "WIDTH", NARROW)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return smooth_images(8)


def small(method: str, epochs: int = 1, batch_size: int = 4) -> BaselineSettings:
    return make_baseline_settings(method, image_size=64, epochs=epochs, batch_size=batch_size)


class Given(nn.Module):
    """A network that gives back what it was told to."""

    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(x)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def test_losses_of_skip_ganomaly() -> None:
    x, fake = draw(3, 3, 4, 4), draw(3, 3, 4, 4, seed=1)
    real_logit, fake_logit = 3 * draw(3, seed=2), 3 * draw(3, seed=3)
    real_latent, fake_latent = draw(3, 100, seed=4), draw(3, 100, seed=5)
    of_real = Judgement(torch.tensor(real_logit), torch.tensor(real_latent))
    of_fake = Judgement(torch.tensor(fake_logit), torch.tensor(fake_latent))
    found = gans.skip_ganomaly_losses(torch.tensor(x), torch.tensor(fake), of_real, of_fake)

    real_chance, fake_chance = (1 / (1 + np.exp(-logit)) for logit in (real_logit, fake_logit))
    contextual = np.abs(x - fake).sum() / x.size
    latent = ((real_latent - fake_latent) ** 2).sum() / real_latent.size
    fooled = -np.log(fake_chance).mean()
    told = -np.log(real_chance).mean() - np.log(1 - fake_chance).mean()
    assert float(found.contextual) == pytest.approx(contextual, rel=1e-12)
    assert float(found.generator) == pytest.approx(fooled + 40 * contextual + latent, rel=1e-12)
    assert float(found.discriminator) == pytest.approx(told + latent, rel=1e-12)


def test_losses_of_dagan() -> None:
    x, fake, of_real, of_fake = (draw(2, 3, 4, 4, seed=seed) for seed in range(4))
    found = gans.dagan_losses(*(torch.tensor(value) for value in (x, fake, of_real, of_fake)))
    adversarial = ((of_real - of_fake) ** 2).mean()
    contextual, own = ((x - fake) ** 2).mean(), ((x - of_real) ** 2).mean()
    assert float(found.contextual) == pytest.approx(contextual, rel=1e-12)
    assert float(found.generator) == pytest.approx(adversarial + 40 * contextual, rel=1e-12)
    assert float(found.discriminator) == pytest.approx(own - adversarial, rel=1e-12)


def test_an_undecided_discriminator_and_a_perfect_generator() -> None:
    x = torch.zeros(2, 3, 4, 4)
    judged = Judgement(torch.zeros(2), torch.ones(2, 100))
    found = gans.skip_ganomaly_losses(x, x, judged, judged)
    assert float(found.generator) == pytest.approx(math.log(2))
    assert float(found.discriminator) == pytest.approx(2 * math.log(2))
    assert gans.dagan_losses(x, x, x, x) == Losses(*(torch.zeros(()) for _ in range(3)))


@methods
def test_scores_and_maps_by_hand(method: str, narrow: None) -> None:
    """An error of 0.5 in one pixel of one channel; latent vectors one apart in one element."""
    gan = GAN(method, 64).eval()
    x, fake = torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    fake[1, 2, 5, 7] = 0.5
    gan.generator = Given(lambda _: fake)
    if method == "skip-ganomaly":
        latent = torch.zeros(2, 100)
        latent[1, 3] = 1.0
        answer = {
            True: Judgement(torch.zeros(2), latent),
            False: Judgement(*latent[None] * 0, latent * 0),
        }
        gan.discriminator = Given(lambda seen: answer[seen is fake])
    found = gan(x)
    rows = 3 * 64 * 64
    expected = 0.9 * 0.25 / rows + 0.1 / 100 if method == "skip-ganomaly" else 0.5
    assert found.pred_score.tolist() == pytest.approx([0.0, expected])
    assert found.anomaly_map.shape == (2, 64, 64)
    assert found.anomaly_map.nonzero().tolist() == [[1, 5, 7]]
    assert float(found.anomaly_map[1, 5, 7]) == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(("size", "depth", "bottom"), [(64, 6, 1), (96, 5, 3), (256, 8, 1)])
def test_depth_and_shape_of_the_autoencoders(size: int, depth: int, bottom: int) -> None:
    for skip in (True, False):
        network = AutoEncoder(size, skip, NARROW).eval()
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
        assert len(convolutions) == depth
        widths = [NARROW * factor for factor in (1, 2, 4, 8, 8, 8, 8, 8)]
        assert [part.out_channels for part in convolutions] == widths[:depth]
        seen: list[Tensor] = []
        network.downs[-1].register_forward_hook(lambda *call, seen=seen: seen.append(call[2]))
        with torch.inference_mode():
            out = network(torch.rand(1, 3, size, size) * 2 - 1)
        assert out.shape == (1, 3, size, size)
        assert float(out.abs().max()) <= 1
        assert seen[0].shape[2:] == (bottom, bottom)


def test_the_papers_widths() -> None:
    """As many weights as pix2pix's U-Net of 8 halvings has: 54.4 million."""
    count = sum(value.numel() for value in AutoEncoder(256, True, gans.WIDTH).parameters())
    assert count == 54_413_955  # its 'unet_256' from 3 to 3 channels prints 54.414 M


@pytest.mark.parametrize("size", [64, 96, 256])
def test_shape_of_the_discriminator(size: int) -> None:
    with torch.inference_mode():
        judged = Discriminator(size, NARROW).eval()(torch.zeros(2, 3, size, size))
    assert judged.logit.shape == (2,)
    assert judged.latent.shape == (2, 100)


def test_skip_connections_carry_detail_past_the_bottleneck() -> None:
    """With the bottleneck's output cut off, only an autoencoder with them still sees its input."""
    for skip in (True, False):
        torch.manual_seed(0)
        network = AutoEncoder(64, skip, NARROW).eval()
        network.downs[-1].register_forward_hook(lambda *call: call[2] * 0)
        first, second = (network(torch.full((1, 3, 64, 64), value)) for value in (-1.0, 1.0))
        assert torch.equal(first, second) is not skip


@methods
def test_each_network_gets_the_gradient_of_its_own_loss(
    method: str, images: Tensor, narrow: None
) -> None:
    gan = gans.build_gan(small(method), 0, CPU).train()
    apart = copy.deepcopy(gan)
    x = normalise(images[:2])
    gans.train_step(gan, gans.build_optimisers(gan, CPU), x)

    fake = apart.generator(x)
    losses = gans.RECIPES[method].losses(x, fake, apart.discriminator(x), apart.discriminator(fake))
    for network, loss, found in (
        (apart.generator, losses.generator, gan.generator),
        (apart.discriminator, losses.discriminator, gan.discriminator),
    ):
        wanted = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
        moved = [value.grad for value in found.parameters()]
        for one, other in zip(wanted, moved, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-6)


@methods
def test_a_seed_repeats_to_the_bit(method: str, images: Tensor, narrow: None) -> None:
    before = torch.random.get_rng_state()

    def maps(seed: int) -> Tensor:
        model = fit(images, small(method), seed, CPU, progress=False)
        return score(model, images, small(method), CPU, progress=False)[0]

    first = maps(0)
    assert torch.equal(first, maps(0))
    assert not torch.equal(first, maps(1))
    assert torch.equal(before, torch.random.get_rng_state())  # nobody else's draws are moved


@methods
def test_mixed_precision_trains_to_finite_float32(
    method: str, images: Tensor, narrow: None
) -> None:
    model = fit(images, small(method), 0, CPU, precision=torch.bfloat16, progress=False)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    maps, scores = score(model, images, small(method), CPU, progress=False)
    assert torch.isfinite(maps).all()
    assert torch.isfinite(scores).all()


@methods
def test_training_learns_the_normal_images(
    method: str, images: Tensor, narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    history: list[Losses] = []
    step = gans.train_step
    monkeypatch.setattr(
        gans, "train_step", lambda *given: history.append(step(*given)) or history[-1]
    )
    epochs = {"skip-ganomaly": 40, "dagan": 20}[method]
    settings = small(method, epochs, batch_size=2)
    model = fit(images, settings, 0, CPU, progress=False)
    assert len(history) == epochs * 4
    assert not model.training
    start, end = float(history[0].contextual), float(history[-1].contextual)
    assert end < 0.5 * start

    pasted = images.clone()
    pasted[:, :, 20:36, 20:36] = 255
    maps, scores = score(model, torch.cat([images, pasted]), settings, CPU, progress=False)
    assert scores[8:].min() > scores[:8].max()
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[20:36, 20:36] = True
    assert maps[8:, inside].mean() > 2 * maps[8:, ~inside].mean()

    alone = score(model, pasted[3:4], settings, CPU, progress=False)
    torch.testing.assert_close(alone[0][0], maps[11], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[1][0], scores[11], rtol=1e-4, atol=1e-5)


@methods
def test_fewer_images_than_a_batch(method: str, images: Tensor, narrow: None) -> None:
    model = fit(images[:1], small(method), 0, CPU, progress=False)
    assert score(model, images, small(method), CPU, progress=False)[0].shape == (8, 64, 64)


@methods
def test_a_training_that_goes_astray_is_stopped(
    method: str, images: Tensor, narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = gans.RECIPES[method]

    def broken(*given: object) -> Losses:
        return Losses(*(loss * torch.nan for loss in recipe.losses(*given)))

    monkeypatch.setitem(gans.RECIPES, method, recipe._replace(losses=broken))
    with pytest.raises(N2NError, match=f"loss of {method} is not finite in epoch 1; use --prec"):
        fit(images, small(method), 0, CPU, progress=False)


@methods
def test_a_run_writes_a_record(method: str, parts: Path, tmp_path: Path, narrow: None) -> None:
    run = Run("parts", "disc", small(method))
    record = make_record(run, parts, results=tmp_path, device="cpu", progress=False)
    assert (record.key.method, record.key.variant) == (
        method,
        "own_image-size-64_epochs-1_batch-size-4",
    )
    assert 0 <= record.metric("image") <= 1
    assert 0 <= record.metric("pixel") <= 1
    assert record.content["provenance"]["command"].count("--weights") == 0
    assert [found.key for found in find_records(tmp_path)] == [record.key]


def test_the_command_needs_no_extra(parts: Path, tmp_path: Path) -> None:
    """A run of each from the command line, where anomalib cannot be imported."""
    code = (
        "import sys\n"
        "for name in ('anomalib', 'torchvision', 'timm', 'lightning'): sys.modules[name] = None\n"
        "import torch; torch.set_num_threads(1)\n"
        "from n2n.baselines import gans; gans.WIDTH = 8\n"
        "from n2n.cli import main\n"
        "for method in ('skip-ganomaly', 'dagan'):\n"
        "    main(['run', '--dataset', 'parts', '--category', 'disc', '--image-size', '64',\n"
        "          '--epochs', '1', '--method', method, *sys.argv[1:]], standalone_mode=False)\n"
        "loaded = [name for name, module in sys.modules.items() if module is not None]\n"
        "print([name for name in loaded if name.split('.')[0] in ('anomalib', 'torchvision')])\n"
    )
    options = ["--data", str(parts), "--results", str(tmp_path), "--device", "cpu", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert {found.key.method for found in find_records(tmp_path)} == set(gans.RECIPES)
