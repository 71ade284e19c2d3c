"""The reconstruction network of Section 3.2: an M-net with residual attention and SKFF.

Figures 2 and 3 of the paper are not in its text. What the text leaves open follows SRMNet (Fan et
al. 2022), from which it takes the pixel shuffle, with the block replaced by the residual attention
module and without SRMNet's global residual, which would pass the noise on to the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.settings import Settings

LEVELS = 4  # resolutions of the U-Net, as many as the paper's network has
REDUCTION, LEAST = 8, 4  # squeeze and excitation: an eighth of the channels, but four at least


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that only changes the number of channels."""
    return nn.Conv2d(inputs, outputs, 1)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that keeps the size of its input."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class GlobalMean(nn.Module):
    """The mean over all pixels, (N, C, H, W) to (N, C, 1, 1).

    `Tensor.mean` and `AdaptiveAvgPool2d` divide the gradient after they have spread it over the
    pixels; dividing a sum does so before, and saves two passes over a full-size tensor.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 1, 1)."""
        # The sum over 256x256 pixels of a mean above 1 is more than float16 holds.
        wide = torch.float32 if x.dtype == torch.float16 else None
        return x.sum((2, 3), keepdim=True, dtype=wide) / (x.shape[2] * x.shape[3])


class ResidualAttention(nn.Module):
    """The residual attention module of Section 3.2.1, one per level; see decision D26.

    Both pathways begin with a 1x1 convolution; the residual one goes on with two 3x3 convolutions,
    or as many as are asked for, and weighs its channels by global pooling (squeeze and excitation).
    For comparison it can go without this ``gate``, or without the other pathway, the ``identity``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        convolutions: int = 2,
        gate: bool = True,
        identity: bool = True,
    ) -> None:
        super().__init__()
        squeezed = max(outputs // REDUCTION, LEAST)
        # Either is made in any case, so that the rest begins with the same weights
        straight = conv1x1(inputs, outputs)
        self.identity = straight if identity else None
        self.residual = nn.Sequential(conv1x1(inputs, outputs))
        for _ in range(convolutions):
            self.residual += nn.Sequential(nn.ReLU(inplace=True), conv3x3(outputs, outputs))
        attention = nn.Sequential(
            GlobalMean(),
            conv1x1(outputs, squeezed),
            nn.ReLU(inplace=True),
            conv1x1(squeezed, outputs),
            nn.Sigmoid(),
        )
        self.attention = attention if gate else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        result: Tensor = self.residual(x)
        if self.attention is not None:
            result = result * self.attention(result)
        return result if self.identity is None else self.identity(x) + result


class SKFF(nn.Module):
    """Selective kernel feature fusion (Section 3.2.2; Zamir et al. 2020).

    A softmax over the branches for each image and channel; the paper's 'at different spatial
    positions' does not describe it: the weights are the same at every position.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        squeezed = max(channels // REDUCTION, LEAST)
        self.pool = GlobalMean()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1, bias=False), nn.PReLU())
        self.excite = nn.ModuleList(
            nn.Conv2d(squeezed, channels, 1, bias=False) for _ in range(branches)
        )

    def forward(self, branches: list[Tensor]) -> Tensor:
        """As many (N, channels, h, w) as there are branches, to one of the first one's size.

        Smaller branches are enlarged bilinearly, by whole factors. That keeps their means and
        commutes with a weight for each channel, so both are taken where there are fewer pixels.
        """
        pooled = torch.stack([self.pool(branch) for branch in branches]).sum(0)
        squeezed = self.squeeze(pooled)
        weights = torch.stack([excite(squeezed) for excite in self.excite]).softmax(0)
        # Autocast takes the softmax in float32; full-size products in it would cost twice as much.
        weights = weights.to(branches[0].dtype)
        fused = weights[0] * branches[0]
        for weight, branch in zip(weights[1:], branches[1:], strict=True):
            fused = fused + F.interpolate(
                weight * branch, fused.shape[-2:], mode="bilinear", align_corners=False
            )
        return fused


class Down(nn.Sequential):
    """Half the size, twice the channels: pixel-unshuffle, then 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.PixelUnshuffle(2), conv1x1(4 * channels, 2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, 2 * channels, H / 2, W / 2).

        A convolution of 2x2 pixels with these weights is both, without the rearranged copy.
        """
        weight, bias = self[1].parameters()
        channels = x.shape[1]
        return F.conv2d(x, weight.reshape(2 * channels, channels, 2, 2), bias, stride=2)


class Up(nn.Sequential):
    """Twice the size, half the channels: pixel-shuffle, then 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.PixelShuffle(2), conv1x1(channels // 4, channels // 2))


class MNet(nn.Module):
    """The reconstruction network of Figure 2: noisy images on [-1, 1] to images on [-1, 1].

    Its width, its depth and what else the text leaves open are named in `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        width, levels = settings.width, settings.levels

        def block(inputs: int, outputs: int) -> nn.Module:
            first, *more = (
                ResidualAttention(
                    c,
                    outputs,
                    convolutions=settings.convolutions,
                    gate=settings.attention_gate,
                    identity=settings.attention_identity,
                )
                if settings.attention
                else conv1x1(c, outputs)  # Table 5
                for c in [inputs] + (settings.blocks - 1) * [outputs]
            )
            return nn.Sequential(first, *more) if more else first

        channels = [width * 2**level for level in range(levels)]
        self.lift = conv3x3(3, width)
        joined = settings.scaled_inputs and not settings.added_inputs
        self.encoder = nn.ModuleList(
            block(c + width if level and joined else c, c) for level, c in enumerate(channels)
        )
        self.down = nn.ModuleList(Down(c) for c in channels[:-1])
        # Made in any case, so that the rest begins with the same weights
        skips = [conv3x3(c, c) for c in channels[:-1]]
        plain = [nn.Identity() for _ in skips]
        self.skip = nn.ModuleList(skips if settings.skip_convolution else plain)
        self.up = nn.ModuleList(Up(2 * c) for c in channels[:-1])
        self.decoder = nn.ModuleList(block(2 * c, c) for c in channels[:-1])
        head = conv3x3 if settings.head_size == 3 else conv1x1
        self.head = nn.ModuleList(head(c, width) for c in channels)
        self.fuse = SKFF(width, levels)
        self.output = conv3x3(width, 3)
        # Made last, so that the rest begins with the same weights
        own: list[int] = []
        if settings.added_inputs:
            own = channels[1:]
        elif not settings.shared_lift:
            own = [width for _ in channels[1:]]
        self.lift_scaled = nn.ModuleList(conv3x3(3, c) for c in own)
        for module in self.modules():  # wherever it was made; PyTorch reads the mode at each call
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.padding_mode = settings.padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H, W), H and W multiples of 2^(levels - 1)."""
        noisy = x
        features = self.encoder[0](self.lift(x))
        encoded = [features]
        for level, (down, encoder) in enumerate(zip(self.down, self.encoder[1:], strict=True)):
            features = down(features)
            if self.settings.scaled_inputs:
                # A bilinear resize by one half is the mean of 2x2 pixels. It leaves half of the
                # noise's deviation, the nearest pixel all of it.
                mean = self.settings.input_filter == "mean"
                x = F.avg_pool2d(x, 2) if mean else x[..., ::2, ::2]
                lift = self.lift_scaled[level] if self.lift_scaled else self.lift
                if self.settings.added_inputs:
                    features = features + lift(x)
                else:
                    features = torch.cat([features, lift(x)], 1)
            features = encoder(features)
            encoded.append(features)

        branches = [self.head[-1](features)]
        for level in reversed(range(len(self.skip))):
            skip = self.skip[level](encoded[level])
            features = self.decoder[level](torch.cat([self.up[level](features), skip], 1))
            branches.insert(0, self.head[level](features))

        reconstruction: Tensor = self.output(self.fuse(branches))
        if self.settings.tanh:
            reconstruction = reconstruction.tanh()
        return reconstruction + noisy if self.settings.global_residual else reconstruction


class UNet(nn.Module):
    """A plain U-Net of the same depth and widths (Ronneberger et al. 2015), for comparison.

    Two 3x3 convolutions in each block; no input but at full size, no attention, no SKFF.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS)]
        self.encoder = nn.ModuleList(
            _twice(3 if level == 0 else c, c) for level, c in enumerate(channels)
        )
        self.down = nn.ModuleList(Down(c) for c in channels[:-1])
        self.up = nn.ModuleList(Up(2 * c) for c in channels[:-1])
        self.decoder = nn.ModuleList(_twice(2 * c, c) for c in channels[:-1])
        self.output = conv3x3(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H, W), H and W multiples of 8."""
        encoded = [self.encoder[0](x)]
        for down, encoder in zip(self.down, self.encoder[1:], strict=True):
            encoded.append(encoder(down(encoded[-1])))
        features = encoded[-1]
        for level in reversed(range(LEVELS - 1)):
            features = torch.cat([self.up[level](features), encoded[level]], 1)
            features = self.decoder[level](features)
        reconstruction: Tensor = self.output(features)
        return reconstruction


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(inputs, outputs),
        nn.ReLU(inplace=True),
        conv3x3(outputs, outputs),
        nn.ReLU(inplace=True),
    )
