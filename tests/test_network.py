"""The network of Section 3.2 against a second implementation of its description."""

import copy
from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from n2n.network import LEVELS, SKFF, Down, GlobalMean, MNet, ResidualAttention, Up
from n2n.settings import make_settings

WIDTH = 8


def image(*shape: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    """On [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1


def make(seed: int = 0, **changes) -> MNet:
    torch.manual_seed(seed)
    return MNet(make_settings(**{"width": WIDTH} | changes))


# ---- A second implementation, in elementary operations on the named weights


def plain_conv(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """A convolution with zeros around the image, as a product of matrices.

    Or with the image mirrored there, where the weights have an entry of that name.
    """
    kernel, size = weights[f"{name}.weight"], x.shape[-2:]
    reach = kernel.shape[-1] // 2
    if "mirrored" in weights:
        rows, columns = (
            [*range(reach, 0, -1), *range(n), *range(n - 2, n - 2 - reach, -1)] for n in size
        )
        patches = F.unfold(x[:, :, rows][..., columns], kernel.shape[-1])
    else:
        patches = F.unfold(x, kernel.shape[-1], padding=reach)
    y = (kernel.flatten(1) @ patches).unflatten(2, size)
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias[:, None, None]


def plain_attention(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    r = plain_conv(x, weights, f"{name}.residual.0")
    place = 2
    while f"{name}.residual.{place}.weight" in weights:
        r = plain_conv(r.clamp(min=0), weights, f"{name}.residual.{place}")
        place += 2
    pooled = r.mean((2, 3), keepdim=True)
    hidden = plain_conv(pooled, weights, f"{name}.attention.1").clamp(min=0)
    gate = 1 / (1 + torch.exp(-plain_conv(hidden, weights, f"{name}.attention.3")))
    return plain_conv(x, weights, f"{name}.identity") + gate * r


def plain_block(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """With attention, or a single convolution in its place; or several of them in a row."""
    row = 0
    while any(key.startswith(f"{name}.{row}.") for key in weights):
        x = plain_block(x, weights, f"{name}.{row}")
        row += 1
    if row:
        return x
    single = f"{name}.weight" in weights
    return (plain_conv if single else plain_attention)(x, weights, name)


def plain_skff(branches: list[Tensor], weights: dict[str, Tensor], name: str) -> Tensor:
    """Sum, pool, squeeze, PReLU, one excitation for each branch, softmax over the branches."""
    pooled = sum(branches).mean((2, 3), keepdim=True)
    z = plain_conv(pooled, weights, f"{name}squeeze.0")
    z = torch.where(z >= 0, z, weights[f"{name}squeeze.1.weight"] * z)
    v = [plain_conv(z, weights, f"{name}excite.{i}") for i in range(len(branches))]
    total = sum(torch.exp(one) for one in v)
    return sum(torch.exp(one) / total * b for one, b in zip(v, branches, strict=True))


def space_to_depth(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return parts.reshape(n, 4 * c, h // 2, w // 2)


def depth_to_space(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    parts = x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // 4, 2 * h, 2 * w)


def bilinear(size: int, target: int) -> Tensor:
    """Weights (target, size) of a linear interpolation between the centres of pixels."""
    at = ((torch.arange(target, dtype=torch.float64) + 0.5) * size / target - 0.5).clamp(
        0, size - 1
    )
    return (1 - (at[:, None] - torch.arange(size)).abs()).clamp(min=0)


def plain_network(
    x: Tensor,
    weights: dict[str, Tensor],
    *,
    scaled_inputs: bool = True,
    added_inputs: bool = False,
    input_filter: str = "mean",
    tanh: bool = False,
) -> Tensor:
    height, width = x.shape[-2:]
    lowest = sum(name.startswith("head.") for name in weights) // 2 - 1
    inputs = [x]
    mode = "bilinear" if input_filter == "mean" else "nearest"
    for _ in range(lowest):
        inputs.append(F.interpolate(inputs[-1], scale_factor=0.5, mode=mode))
    own = "lift_scaled.0.weight" in weights
    lifts = ["lift", *(f"lift_scaled.{i}" if own else "lift" for i in range(lowest))]
    legs = [plain_conv(one, weights, lift) for one, lift in zip(inputs, lifts, strict=True)]

    encoded = [plain_block(legs[0], weights, "encoder.0")]
    for level in range(1, lowest + 1):
        down = plain_conv(space_to_depth(encoded[-1]), weights, f"down.{level - 1}.1")
        both = torch.cat([down, legs[level]], 1) if scaled_inputs else down
        both = down + legs[level] if added_inputs else both
        encoded.append(plain_block(both, weights, f"encoder.{level}"))

    decoded = {lowest: encoded[lowest]}
    for level in reversed(range(lowest)):
        up = plain_conv(depth_to_space(decoded[level + 1]), weights, f"up.{level}.1")
        skip = encoded[level]
        if f"skip.{level}.weight" in weights:
            skip = plain_conv(skip, weights, f"skip.{level}")
        decoded[level] = plain_block(torch.cat([up, skip], 1), weights, f"decoder.{level}")

    branches = []
    for level in range(lowest + 1):
        head = plain_conv(decoded[level], weights, f"head.{level}")
        vertical = bilinear(head.shape[2], height)
        horizontal = bilinear(head.shape[3], width)
        branches.append(torch.einsum("ih,nchw,jw->ncij", vertical, head, horizontal))
    output = plain_conv(plain_skff(branches, weights, "fuse."), weights, "output")
    return 2 * torch.sigmoid(2 * output) - 1 if tanh else output


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("size", [(16, 24), (40, 16)])
def test_network_is_its_description(attention, size):
    network = make(attention=attention).double()
    x = image(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = plain_network(x, dict(network.named_parameters()))
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 2}, {"levels": 3, "blocks": 2}, {"levels": 5}, {"scaled_inputs": False},
        {"input_filter": "nearest"}, {"shared_lift": False}, {"skip_convolution": False},
        {"tanh": True}, {"added_inputs": True}, {"head_size": 1}, {"padding": "reflect"},
    ],
)  # fmt: skip
def test_other_networks_are_their_description(attention, changes):
    network = make(attention=attention, **changes).double()
    x = image(2, 3, 32, 16, dtype=torch.float64)
    told = {
        name: changes[name]
        for name in ("scaled_inputs", "added_inputs", "input_filter", "tanh") & changes.keys()
    }
    with torch.no_grad():
        weights = dict(network.named_parameters())
        if changes.get("padding") == "reflect":
            weights["mirrored"] = torch.ones(())
        expected = plain_network(x, weights, **told)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)
    blocks = sum(isinstance(m, ResidualAttention) for m in network.modules())
    levels = changes.get("levels", LEVELS)
    assert blocks == attention * (2 * levels - 1) * changes.get("blocks", 1)


def test_own_first_convolutions_leave_the_other_weights_alone():
    shared, own = make().state_dict(), make(shared_lift=False).state_dict()
    assert own.keys() - shared.keys() == {
        f"lift_scaled.{level}.{name}" for level in range(LEVELS - 1) for name in ("weight", "bias")
    }
    assert all(torch.equal(own[name], shared[name]) for name in shared)


@pytest.mark.parametrize(("input_filter", "kept"), [("mean", 0.5), ("nearest", 1.0)])
def test_what_a_smaller_input_keeps_of_the_noise(input_filter, kept):
    """Each halving by the mean leaves half of the noise's deviation, by the nearest pixel all."""
    network = make(input_filter=input_filter)
    seen: list[Tensor] = []
    network.lift.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        network(image(8, 3, 128, 128))
    deviations = torch.stack([one.std() for one in seen])
    expected = deviations[0] * kept ** torch.arange(LEVELS)
    torch.testing.assert_close(deviations, expected, rtol=0.05, atol=0)


def test_plain_skips_leave_the_other_weights_alone():
    whole, plain = make().state_dict(), make(skip_convolution=False).state_dict()
    assert set(whole) - set(plain) == {name for name in whole if name.startswith("skip.")}
    assert all(torch.equal(plain[name], whole[name]) for name in plain)


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 16), (24, 16), (72, 40)])
def test_residual_attention_is_its_description(inputs, outputs):
    torch.manual_seed(1)
    block = ResidualAttention(inputs, outputs).double()
    weights = {f"block.{name}": p for name, p in block.named_parameters()}
    x = image(2, inputs, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain_attention(x, weights, "block"))
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert block.identity.kernel_size == (1, 1)
    assert block.residual[0].kernel_size == (1, 1)
    assert [c.kernel_size[0] for c in convolutions] == [1, 1, 3, 3, 1, 1]


@pytest.mark.parametrize("number", [1, 3])
def test_another_number_of_convolutions(number):
    network = make(convolutions=number).double()
    x = image(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        weights = dict(network.named_parameters())
        torch.testing.assert_close(network(x), plain_network(x, weights), rtol=0, atol=1e-12)
    taps = [m.kernel_size[0] for m in network.encoder[0].residual if isinstance(m, nn.Conv2d)]
    assert taps == [1, *number * [3]]


@pytest.mark.parametrize("missing", ["identity", "attention"])
def test_a_part_of_the_module_goes_without_the_rest(missing):
    """Without the identity the gated pathway is left; without the gate its weight is one."""
    whole = dict(make(1).named_parameters())
    switch = "attention_gate" if missing == "attention" else "attention_identity"
    network = make(1, **{switch: False})
    other = dict(network.named_parameters())
    assert other.keys() == {name for name in whole if missing not in name.split(".")}
    assert all(torch.equal(whole[name], weights) for name, weights in other.items())
    block = network.encoder[1]
    weights = {name: p for name, p in whole.items() if name.startswith("encoder.1.")}
    absent = "identity.weight" if missing == "identity" else "attention.3.weight"
    bias = absent.replace("weight", "bias")
    weights[f"encoder.1.{absent}"] = torch.zeros_like(weights[f"encoder.1.{absent}"])
    closed = torch.zeros if missing == "identity" else partial(torch.full, fill_value=99.0)
    weights[f"encoder.1.{bias}"] = closed(weights[f"encoder.1.{bias}"].shape)
    x = image(2, block.residual[0].in_channels, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain_attention(x, weights, "encoder.1"))


# ---- Shapes and sizes


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (64, 96), (72, 40)])
@pytest.mark.parametrize("attention", [True, False])
def test_output_is_an_image_of_the_same_size(size, attention):
    with torch.no_grad():
        y = make(attention=attention)(image(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert y.dtype == torch.float32
    assert y.isfinite().all()


def convolutions(width: int, attention: bool, side: int) -> Iterator[tuple[int, int, int, bool]]:
    """(inputs, outputs, taps, has a bias, and pixels) of each convolution that an image meets."""
    c = [width, 2 * width, 4 * width, 8 * width]
    pixels = [(side // 2**level) ** 2 for level in range(4)]

    def block(inputs: int, outputs: int, n: int):
        yield inputs, outputs, 1, True, n
        if attention:
            squeezed = max(outputs // 8, 4)
            yield inputs, outputs, 1, True, n
            yield outputs, outputs, 9, True, n
            yield outputs, outputs, 9, True, n
            yield outputs, squeezed, 1, True, 1
            yield squeezed, outputs, 1, True, 1

    yield 3, width, 9, True, sum(pixels)  # the lift, shared by four sizes
    for level in range(4):
        yield from block(c[level] + (width if level else 0), c[level], pixels[level])
        yield c[level], width, 9, True, pixels[level]  # head
    for level in range(3):
        yield 4 * c[level], c[level + 1], 1, True, pixels[level + 1]  # down
        yield c[level + 1] // 4, c[level], 1, True, pixels[level]  # up
        yield c[level], c[level], 9, True, pixels[level]  # skip
        yield from block(2 * c[level], c[level], pixels[level])  # decoder
    squeezed = max(width // 8, 4)
    yield width, squeezed, 1, False, 1
    for _ in range(4):
        yield squeezed, width, 1, False, 1
    yield width, 3, 9, True, pixels[0]  # output


@pytest.mark.parametrize(
    ("width", "attention", "parameters", "gigaflops"),
    [
        (16, True, 699_716, 6.813),
        (32, True, 2_791_292, 26.990),
        (16, False, 166_804, 2.221),
        (32, False, 663_076, 8.619),
    ],
)
def test_parameters_and_operations(width, attention, parameters, gigaflops):
    """Of one image of 256 x 256, forward; a multiplication and an addition count as two."""
    every = list(convolutions(width, attention, 256))
    prelu = 1
    assert sum(o * (i * t + bias) for i, o, t, bias, _ in every) + prelu == parameters
    assert sum(2 * i * o * t * n for i, o, t, _, n in every) / 1e9 == pytest.approx(
        gigaflops, abs=5e-4
    )
    with torch.device("meta"):
        network = MNet(make_settings(width=width, attention=attention))
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.empty(1, 3, 256, 256))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert counter.get_total_flops() == sum(2 * i * o * t * n for i, o, t, _, n in every)


def test_inputs_are_bilinear_halvings_of_halvings():
    network, seen = make(), []
    network.lift.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = image(2, 3, 64, 96)
    network(x)
    assert len(seen) == LEVELS == 4
    for level, actual in enumerate(seen):
        assert actual.shape == (2, 3, 64 // 2**level, 96 // 2**level)
        torch.testing.assert_close(actual, x)
        x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


# ---- Nothing idles


@pytest.mark.parametrize("attention", [True, False])
def test_every_parameter_learns(attention):
    network = make(attention=attention)
    target = image(2, 3, 64, 64, seed=1)
    (network(image(2, 3, 64, 64)) - target).square().mean().backward()
    still = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


PARTS = [
    *(f"{part}.{level}" for part in ("encoder", "head") for level in range(4)),
    *(f"{part}.{level}" for part in ("down", "skip", "up", "decoder") for level in range(3)),
    "fuse.squeeze",
    *(f"fuse.excite.{level}" for level in range(4)),
    "encoder.1.attention",
    "decoder.0.residual",
    "decoder.2.identity",
]


@pytest.mark.parametrize("part", PARTS)
def test_cutting_a_part_changes_the_output(part):
    network, x = make(), image(1, 3, 64, 64)
    with torch.no_grad():
        whole = network(x)
        module = network.get_submodule(part)
        module.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        change = (network(x) - whole).abs().max()
    assert change > 1e-5


@pytest.mark.parametrize("level", range(4))
def test_cutting_an_input_changes_the_output(level):
    """Each size of the noisy image is used: the lift's output for that size is set to zero."""
    network, x, calls = make(), image(1, 3, 64, 64), []
    with torch.no_grad():
        whole = network(x)

        def cut(_module, _inputs, output):
            calls.append(output.shape[-1])
            return torch.zeros_like(output) if len(calls) == level + 1 else output

        network.lift.register_forward_hook(cut)
        change = (network(x) - whole).abs().max()
    assert calls == [64, 32, 16, 8]
    assert change > 1e-4


def test_the_input_is_not_added_to_the_output():
    """A global residual, as in SRMNet, would pass the noise on."""
    network = make()
    nn.init.zeros_(network.output.weight)
    y = network(image(1, 3, 64, 64))
    assert torch.equal(y, network.output.bias[:, None, None].expand_as(y))


def test_output_is_not_squashed():
    network = make()
    nn.init.constant_(network.output.bias, 7.0)
    assert network(image(1, 3, 64, 64)).mean() > 5


# ---- SKFF


@pytest.mark.parametrize(("channels", "branches"), [(8, 4), (32, 4), (64, 2)])
def test_skff_is_its_description(channels, branches):
    torch.manual_seed(2)
    skff = SKFF(channels, branches).double()
    parts = [image(2, channels, 12, 10, seed=s, dtype=torch.float64) for s in range(branches)]
    with torch.no_grad():
        expected = plain_skff(parts, dict(skff.named_parameters()), "")
        torch.testing.assert_close(skff(parts), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(8, 16), (24, 8)])
def test_skff_enlarges_what_is_smaller(size):
    """As if it were given the enlarged branches: their means and weights are the same."""
    torch.manual_seed(2)
    skff = SKFF(8, 4).double()
    parts = [
        image(2, 8, size[0] // 2**s, size[1] // 2**s, seed=s, dtype=torch.float64) + s
        for s in range(4)
    ]
    with torch.no_grad():
        enlarged = [F.interpolate(part, size, mode="bilinear") for part in parts]
        expected = plain_skff(enlarged, dict(skff.named_parameters()), "")
        torch.testing.assert_close(skff(parts), expected, rtol=0, atol=1e-13)


def test_skff_of_equal_branches_is_the_branch():
    torch.manual_seed(3)
    branch = image(2, 16, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(SKFF(16, 4)([branch] * 4), branch, rtol=0, atol=1e-6)


def recovered_weights(output: Tensor, branches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One weight for each branch, image and channel that explains the output, and what is left."""
    columns = torch.stack(branches, -1).flatten(2, 3)  # (N, C, HW, branches)
    right = output.flatten(2)[..., None]
    weights = torch.linalg.lstsq(columns, right).solution
    return weights[..., 0], (columns @ weights - right).abs().max()


def test_skff_weights_sum_to_one_and_do_not_depend_on_the_position():
    """Not as the paper says, 'at different spatial positions'; see Zamir et al. 2020.

    The weights are read off the output: four numbers for an image and channel explain all of its
    pixels, although one half of each branch is far larger than the other.
    """
    torch.manual_seed(4)
    skff = SKFF(16, 4).double()
    branches = [5 * image(3, 16, 12, 10, seed=s, dtype=torch.float64) for s in range(4)]
    for i, branch in enumerate(branches):
        branch[..., :5] *= 10.0 ** (i - 1)
        branch += i  # or the means, on which the weights depend, would be nearly zero
    with torch.no_grad():
        weights, left = recovered_weights(skff(branches), branches)
        assert left < 1e-9
        assert (weights > 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 16, dtype=torch.float64))
        assert weights.std(-1).min() > 1e-4  # the branches do differ in their weights
        assert weights.std(1).min() > 1e-4  # and so do the channels
        assert weights.std(0).min() > 1e-6  # and the images

        order = torch.randperm(120)
        moved = [b.flatten(2)[..., order].unflatten(2, (12, 10)) for b in branches]
        again, _ = recovered_weights(skff(moved), moved)
    torch.testing.assert_close(again, weights)


# ---- The ablation


def test_without_attention_only_the_modules_are_replaced():
    whole, bare = make(attention=True), make(attention=False)
    modules = {n: m for n, m in whole.named_modules() if isinstance(m, ResidualAttention)}
    assert sorted(modules) == sorted(
        [f"encoder.{i}" for i in range(4)] + [f"decoder.{i}" for i in range(3)]
    )
    assert not any(isinstance(m, ResidualAttention) for m in bare.modules())
    for name, module in modules.items():
        single = bare.get_submodule(name)
        assert type(single) is nn.Conv2d
        assert single.kernel_size == (1, 1)
        assert single.weight.shape == module.identity.weight.shape

    def others(network: MNet) -> dict[str, torch.Size]:
        return {
            name: p.shape
            for name, p in network.named_parameters()
            if name.split(".")[0] not in ("encoder", "decoder")
        }

    assert others(whole) == others(bare)
    assert {n.split(".")[0] for n, _ in bare.named_parameters()} == {
        n.split(".")[0] for n, _ in whole.named_parameters()
    }


# ---- Pixel shuffling


def test_down_and_up_lose_nothing():
    x = image(2, 8, 16, 12)
    assert torch.equal(Up(32)[0](Down(8)[0](x)), x)
    assert torch.equal(Down(8)[0](x), space_to_depth(x))
    assert torch.equal(Up(8)[0](x), depth_to_space(x))
    assert Down(8)(x).shape == (2, 16, 8, 6)
    assert Up(8)(x).shape == (2, 4, 32, 24)


def test_down_reads_exactly_its_four_pixels():
    x = image(1, 8, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(Down(8)(x)[0, :, 3, 5].sum(), x)
    touched = gradient.abs().sum((0, 1)).nonzero().tolist()
    assert touched == [[6, 10], [6, 11], [7, 10], [7, 11]]


# ---- Batches, memory formats, precision


@pytest.mark.parametrize("attention", [True, False])
def test_a_batch_is_its_images(attention):
    network, x = make(attention=attention), image(4, 3, 64, 64)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_training_and_evaluation_are_the_same():
    network, x = make(), image(2, 3, 64, 64)
    with torch.no_grad():
        training = network.train()(x)
        assert torch.equal(training, network.eval()(x))


def test_channels_last_is_the_same():
    network = make()
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    x = image(2, 3, 64, 96)
    results = [network(x), other(x.contiguous(memory_format=torch.channels_last))]
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
    for one, result in zip((network, other), results, strict=True):
        result.square().mean().backward()
        assert all(p.grad.isfinite().all() for p in one.parameters())
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)


def test_the_global_mean_of_half_precision_does_not_overflow():
    x = torch.full((1, 2, 256, 256), 2.5)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert GlobalMean()(x.to(dtype)).flatten().tolist() == [2.5, 2.5]


def test_bfloat16_is_near_float32():
    network, x = make(), image(2, 3, 64, 64)
    exact = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = network(x)
    assert coarse.dtype == torch.bfloat16
    assert (coarse - exact).abs().max() < 0.05 * exact.abs().max()
    coarse.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_same_seed_same_weights():
    one, other, different = make(seed=5), make(seed=5), make(seed=6)
    x = image(1, 3, 64, 64)
    assert torch.equal(one(x), other(x))
    assert not torch.equal(one(x), different(x))


# ---- The receptive field


def field(network: MNet, side: int) -> Tensor:
    """The input pixels, (side, side), on which the central output pixel depends."""
    x = image(1, 3, side, side, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, :, side // 2, side // 2].sum(), x)
    return gradient[0].abs().sum(0) > 0


def without_pooling(network: MNet) -> MNet:
    """The gradient no longer goes through the global means, whose results stay as they are."""
    for name, module in network.named_modules():
        if name.endswith(".attention") or name.startswith("fuse.excite."):
            module.register_forward_hook(lambda _, __, output: output.detach())
    return network


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("side", [64, 256])
def test_global_means_show_every_pixel_the_whole_image(attention, side):
    assert field(make(width=4, attention=attention).double(), side).all()


@pytest.mark.parametrize(
    ("attention", "scaled_inputs", "first", "last"),
    [
        (True, True, 128 - 47, 128 + 54), (True, False, 128 - 47, 128 + 54),
        (False, True, 128 - 24, 128 + 23), (False, False, 128 - 17, 128 + 16),
    ],
)  # fmt: skip
def test_convolutions_alone_see_a_square(attention, scaled_inputs, first, last):
    """102 pixels a side, so all of an image of 64, with smaller inputs and without.

    Without attention modules 48, and 34 where the smaller inputs are gone, too.
    """
    network = make(width=4, attention=attention, scaled_inputs=scaled_inputs)
    network = without_pooling(network.double())
    seen = field(network, 256)
    assert seen.any(0).nonzero()[[0, -1], 0].tolist() == [first, last]
    assert seen.any(1).nonzero()[[0, -1], 0].tolist() == [first, last]
    assert field(network, 64).all() == attention
