"""Skip-GANomaly and DAGAN: reconstructions that are trained against a discriminator.

Both reconstruct a normal image through an autoencoder with skip connections, and score an image by
what the reconstruction misses. They differ in the discriminator.

- Skip-GANomaly (Akçay, Atapour-Abarghouei, Breckon, IJCNN 2019, arXiv:1901.08954), here "S": a
  classifier of real and reconstructed images, whose last features are a latent vector.
- DAGAN (Tang, Kuo, Lan, Ding, Hsu, Young, Sensors 2020, 20(12):3336), here "D": a second
  autoencoder, as in BEGAN. The generator is that of S.

The terms stand in `skip_ganomaly_losses` and `dagan_losses`, the scores in `GAN.forward`. S was
checked against its authors' code. D has no public code that we know; its terms, weights, rate and
steps come from a reader's published notes on its Sections 3.2, 3.3 and 4.2, not from the full
text. Where these are silent, or S's code says something else, the decisions are ours:

- *Weights* 1, 40, 1 of the adversarial, contextual and third term, as both papers are quoted; the
  code of S has 1, 50, 1.
- *Optimiser*. S: Adam, 2e-4 and beta1 0.5 as in its code, at a constant rate; the code's decay
  would begin after the last epoch. D: Adam, 1e-3 (its Section 4.2), other values PyTorch's.
- *Distances* are means over all elements; ||.||_2 in a loss is the mean square, as S's code has it.
- *Turns*: both networks step on every batch from the same forward pass, as in the code of S.
- *S's latent term* trains the discriminator, too, as in its code.
- *S's score* takes mean squares, as in its code: 0.9 of the image's and 0.1 of the latent's. Its
  paper is quoted with the image's L1; sums or means would decide what the shares mean.
- *D's adversarial term* is ||D(x) - D(G(x))||, which the discriminator enlarges and the generator
  lowers (its Eq. (1)). Other implementations take BEGAN's ||G(x) - D(G(x))||.
- *D's discriminator* is its generator without the skip connections: with them, it could pass on
  any image, real or not. The notes do not give its layers.
- *Sizes*: log2(size) halvings to one pixel, as in the code of S; a size that is no power of two is
  halved while it is even, so that every skip connection meets its like.
- *Initial weights*: N(0, 0.02), those of batch normalisation N(1, 0.02), for both as in S's code.
- *Which epoch*: the last. The code of S reports the best AUROC on the test set.
- *Budget*: 100 epochs are ours. The code of S has 15, for far larger sets; D trains 20,000 steps.
- *Scaling* of the scores to [0, 1] over the test set, in both papers, is left out: nothing is
  taken from test data, and AUROC does not change.
- *Batch normalisation* uses its running statistics when scoring, so that a score is an image's
  own; the code of S scores with those of the test batch.
- *Maps*: neither method defines a score of pixels; N2N's paper prints a pixel AUROC for both
  without saying how. Ours is the absolute error of a pixel, mean over the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from n2n.baselines.anomalib_models import Found
from n2n.baselines.settings import BaselineSettings
from n2n.corruption import normalise
from n2n.device import keep_freed_memory, memory_format, precision_context
from n2n.errors import N2NError

WIDTH = 64  # channels after the first convolution
LATENT = 100  # length of the latent vector of Skip-GANomaly's discriminator
ADVERSARIAL, CONTEXTUAL, THIRD = 1.0, 40.0, 1.0  # third: latent, or the discriminator's contextual
RECONSTRUCTION_SHARE = 0.9  # of Skip-GANomaly's score; the rest is the latent distance


class Judgement(NamedTuple):
    """What Skip-GANomaly's discriminator says of images."""

    logit: Tensor  # (N,); its sigmoid is the probability of a real image
    latent: Tensor  # (N, LATENT)


class Losses(NamedTuple):
    """The scalars that the two networks lower, and the contextual term alone."""

    generator: Tensor
    discriminator: Tensor
    contextual: Tensor


def count_halvings(size: int, stop: int = 1) -> int:
    """How often a side can be halved, while it is even and above ``stop``."""
    count = 0
    while size % 2 == 0 and size > stop:
        size, count = size // 2, count + 1
    return count


class AutoEncoder(nn.Module):
    """Convolutions that halve an image down to its bottleneck, and transposed ones back up.

    As the U-Net of pix2pix, which Skip-GANomaly takes: kernels of 4, channels that double up to 8
    times the first; no normalisation of the outermost layers and of the bottleneck.

    Args:
        size: side of the images.
        skip: concatenate each scale of the encoder to that of the decoder.
        width: channels after the first convolution.
    """

    def __init__(self, size: int, skip: bool, width: int) -> None:
        super().__init__()
        depth = count_halvings(size)
        channels = [3] + [width * 2 ** min(level, 3) for level in range(depth)]
        self.skip = skip
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in range(depth):
            down: list[nn.Module] = [_halve(channels[level], channels[level + 1])]
            if 0 < level < depth - 1:
                down.append(nn.BatchNorm2d(channels[level + 1]))
            self.downs.append(nn.Sequential(*down, nn.LeakyReLU(0.2, inplace=True)))
        for level in reversed(range(depth)):
            inputs = channels[level + 1] * (2 if skip and level < depth - 1 else 1)
            up = [
                nn.ReLU(),
                nn.ConvTranspose2d(inputs, channels[level], 4, 2, 1, bias=level == 0),
            ]
            if level > 0:
                up.append(nn.BatchNorm2d(channels[level]))
            self.ups.append(nn.Sequential(*up))

    def forward(self, x: Tensor) -> Tensor:
        """Images on [-1, 1], (N, 3, S, S), to images on [-1, 1], float32."""
        scales = []
        for down in self.downs:
            x = down(x)
            scales.append(x)
        scales.pop()  # the bottleneck goes up itself
        for up in self.ups:
            x = up(x)
            if self.skip and scales:
                x = torch.cat([scales.pop(), x], dim=1)
        return torch.tanh(x.float())


class Discriminator(nn.Module):
    """Skip-GANomaly's: DCGAN's convolutions to a latent vector, then a classifier of it.

    Args:
        size: side of the images.
        width: channels after the first convolution; each further one doubles them.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        depth = count_halvings(size, stop=4)
        layers: list[nn.Module] = [_halve(3, width), nn.LeakyReLU(0.2, inplace=True)]
        for level in range(1, depth):
            inputs, outputs = width * 2 ** (level - 1), width * 2**level
            layers += [_halve(inputs, outputs), nn.BatchNorm2d(outputs)]
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(width * 2 ** (depth - 1), LATENT, size // 2**depth, bias=False))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(LATENT, 1, bias=False)

    def forward(self, x: Tensor) -> Judgement:
        """Images on [-1, 1], (N, 3, S, S), to logits and latent vectors, float32."""
        latent = self.features(x).flatten(1)
        return Judgement(self.classifier(latent).flatten().float(), latent.float())


def _halve(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


def skip_ganomaly_losses(x: Tensor, fake: Tensor, of_real: Judgement, of_fake: Judgement) -> Losses:
    """Skip-GANomaly's training objective (its Section III): adversarial, contextual, latent.

    The generator wants its images to be taken for real, near the input (L1) and of the same latent
    vector; the discriminator tells real from fake.

    Args:
        x: images on [-1, 1], (N, 3, S, S).
        fake: their reconstructions.
        of_real: the discriminator's word on ``x``.
        of_fake: and on ``fake``.
    """
    real, made = torch.ones_like(of_real.logit), torch.zeros_like(of_fake.logit)
    classify = F.binary_cross_entropy_with_logits
    contextual = F.l1_loss(fake, x)
    latent = F.mse_loss(of_fake.latent, of_real.latent)
    adversarial = classify(of_fake.logit, real)
    told = classify(of_real.logit, real) + classify(of_fake.logit, made)
    return Losses(
        generator=ADVERSARIAL * adversarial + CONTEXTUAL * contextual + THIRD * latent,
        discriminator=ADVERSARIAL * told + THIRD * latent,
        contextual=contextual,
    )


def dagan_losses(x: Tensor, fake: Tensor, of_real: Tensor, of_fake: Tensor) -> Losses:
    """DAGAN's training objective (its Section 3.2): adversarial, contextual of G, contextual of D.

    The discriminator reconstructs real images and drives its reconstructions of real and fake ones
    apart; the generator brings them together.

    Args:
        x: images on [-1, 1], (N, 3, S, S).
        fake: their reconstructions by the generator.
        of_real: reconstructions of ``x`` by the discriminator.
        of_fake: and of ``fake``.
    """
    adversarial = F.mse_loss(of_fake, of_real)
    contextual = F.mse_loss(fake, x)
    return Losses(
        generator=ADVERSARIAL * adversarial + CONTEXTUAL * contextual,
        discriminator=THIRD * F.mse_loss(of_real, x) - ADVERSARIAL * adversarial,
        contextual=contextual,
    )


class Recipe(NamedTuple):
    """What the two methods do not share."""

    losses: Callable[..., Losses]
    learning_rate: float
    betas: tuple[float, float]


RECIPES = {
    "skip-ganomaly": Recipe(skip_ganomaly_losses, 2e-4, (0.5, 0.999)),
    "dagan": Recipe(dagan_losses, 1e-3, (0.9, 0.999)),
}


class GAN(nn.Module):
    """A generator and a discriminator of one of the two methods.

    Args:
        method: a key of `RECIPES`.
        size: side of the images, a multiple of 32.
    """

    def __init__(self, method: str, size: int) -> None:
        super().__init__()
        self.method = method
        self.generator = AutoEncoder(size, skip=True, width=WIDTH)
        self.discriminator: nn.Module = (
            Discriminator(size, WIDTH)
            if method == "skip-ganomaly"
            else AutoEncoder(size, skip=False, width=WIDTH)
        )
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Found:
        """Maps and scores of images on [-1, 1], (N, 3, S, S).

        Skip-GANomaly: 0.9 times the mean squared error plus 0.1 times that of the latent vectors,
        as in its code. DAGAN: the norm ||x - G(x)||_2 of its Section 3.3.
        """
        fake = self.generator(x)
        error = x - fake
        if self.method == "skip-ganomaly":
            latent = self.discriminator(x).latent - self.discriminator(fake).latent
            score = RECONSTRUCTION_SHARE * error.square().mean((1, 2, 3))
            score = score + (1 - RECONSTRUCTION_SHARE) * latent.square().mean(1)
        else:
            score = torch.linalg.vector_norm(error, dim=(1, 2, 3))
        return Found(error.abs().mean(1), score)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(getattr(module, "bias", None), Tensor):
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def build_gan(settings: BaselineSettings, seed: int, device: torch.device) -> GAN:
    """The untrained networks of a seed, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gan = GAN(settings.method, settings.image_size)
    return gan.to(device).to(memory_format=memory_format(device))  # type: ignore[call-overload,no-any-return]


def fit_gan(
    images: Tensor,
    settings: BaselineSettings,
    seed: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    progress: bool = True,
) -> GAN:
    """Train a GAN on normal images, for the epochs of the settings.

    Args:
        images: all training images, uint8, (N, 3, S, S).
        settings: 'skip-ganomaly' or 'dagan', its epochs and batch size.
        seed: of the initial weights and the order; nothing else is random.
        device: where to train.
        precision: of the convolutions; bfloat16 means mixed precision. Losses are float32.
        progress: show a bar with the losses and the remaining time on stderr.

    Returns:
        The networks in evaluation mode.

    Raises:
        N2NError: where a loss is no longer finite.
    """
    if device.type == "cpu":
        keep_freed_memory()
    gan = build_gan(settings, seed, device).train()
    optimisers = build_optimisers(gan, device)
    size, epochs = settings.batch_size, settings.epochs
    # A rest would weigh more per image than a whole batch; each epoch leaves out others.
    steps = max(len(images) // size, 1)
    order = torch.Generator().manual_seed(seed)
    bar = tqdm(total=epochs * steps, desc="training", unit="step", disable=not progress)
    with bar:
        for epoch in range(epochs):
            shuffled = torch.randperm(len(images), generator=order)
            for batch in torch.split(shuffled, size)[:steps]:
                x = normalise(images[batch].to(device))
                losses = train_step(gan, optimisers, x, precision)
                generator, discriminator, contextual = torch.stack(losses).tolist()
                if not math.isfinite(generator + discriminator):
                    raise N2NError(
                        f"The loss of {settings.method} is not finite in epoch {epoch + 1}; "
                        "use --precision float32 or another seed."
                    )
                bar.set_postfix(
                    generator=f"{generator:.4g}", discriminator=f"{discriminator:.4g}",
                    contextual=f"{contextual:.4g}", refresh=False,
                )  # fmt: skip
                bar.update()
    return gan.eval()


def build_optimisers(
    gan: GAN, device: torch.device
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam for the generator and for the discriminator, at the method's rate."""
    recipe = RECIPES[gan.method]
    options: dict[str, Any] = {
        "lr": recipe.learning_rate, "betas": recipe.betas, "fused": device.type in ("cpu", "cuda"),
    }  # fmt: skip
    return (
        torch.optim.Adam(gan.generator.parameters(), **options),
        torch.optim.Adam(gan.discriminator.parameters(), **options),
    )


def train_step(
    gan: GAN,
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    x: Tensor,
    precision: torch.dtype = torch.float32,
) -> Losses:
    """One step of both networks on images on [-1, 1], (N, 3, S, S); the losses before it.

    Each network gets the gradients of its own loss alone, both from one forward pass.
    """
    x = x.contiguous(memory_format=memory_format(x.device))
    with precision_context(x.device, precision):
        fake = gan.generator(x)
        of_real, of_fake = gan.discriminator(x), gan.discriminator(fake)
    losses = RECIPES[gan.method].losses(x, fake, of_real, of_fake)
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    losses.generator.backward(  # type: ignore[no-untyped-call]
        inputs=list(gan.generator.parameters()), retain_graph=True
    )
    losses.discriminator.backward(inputs=list(gan.discriminator.parameters()))  # type: ignore[no-untyped-call]
    for optimiser in optimisers:
        optimiser.step()
    return Losses(*(loss.detach() for loss in losses))
