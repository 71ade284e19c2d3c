"""Training: repeatable, resumable, and honest when it fails."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from n2n import training
from n2n.corruption import corrupt, fixed_noise, normalise
from n2n.detection import detect, expected_error, image_scores
from n2n.device import has_bfloat16
from n2n.errors import N2NError
from n2n.loss import error_map, total_loss
from n2n.network import UNet
from n2n.settings import OF_MNET, Settings
from n2n.training import (
    Trained,
    build_network,
    build_optimiser,
    split_validation,
    train,
    train_step,
)
from tests.conftest import on_a_gpu, smooth_images
from tests.test_settings import OTHERS

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def images() -> torch.Tensor:
    return smooth_images(10, seed=3)


def run(images: torch.Tensor, settings: Settings, **options: object) -> Trained:
    return train(images, settings, 0, CPU, progress=False, **options)  # type: ignore[arg-type]


def equal_weights(one: Trained, other: Trained) -> bool:
    pairs = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def losses(trained: Trained) -> list[tuple[float, float]]:
    return [(row["train_loss"], row["validation_loss"]) for row in trained.history]


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(
    images: torch.Tensor, tiny: Settings
) -> None:
    first, second = run(images, tiny), run(images, tiny)
    assert losses(first) == losses(second)
    assert equal_weights(first, second)
    other = train(images, tiny, 1, CPU, progress=False)
    assert losses(first) != losses(other)


@on_a_gpu
def test_same_seed_on_a_gpu_gives_nearly_the_same_losses(
    images: torch.Tensor, tiny: Settings
) -> None:
    first, second = (train(images, tiny, 0, GPU, progress=False) for _ in range(2))
    for one, other in zip(losses(first), losses(second), strict=True):
        assert one == pytest.approx(other, rel=0.01)  # as the book says


@on_a_gpu
@pytest.mark.parametrize(("precision", "near"), [(torch.float32, 0.01), (torch.bfloat16, 0.05)])
def test_a_compiled_network_learns_on_a_gpu_what_the_plain_one_learns(
    images: torch.Tensor, tiny: Settings, precision: torch.dtype, near: float
) -> None:
    if precision == torch.bfloat16 and not has_bfloat16(GPU):
        pytest.skip("this GPU cannot compute in bfloat16")
    plain, compiled = (
        train(images, tiny, 0, GPU, precision, compile_network=whether, progress=False)
        for whether in (False, True)
    )
    for one, other in zip(losses(plain), losses(compiled), strict=True):
        assert one == pytest.approx(other, rel=near)


@on_a_gpu
def test_an_interrupted_training_goes_on_on_a_gpu(
    images: torch.Tensor, tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def stop(epoch: int, _: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    go = partial(train, images, tiny, 0, GPU, checkpoint=tmp_path / "checkpoint.pt", progress=False)
    with pytest.raises(KeyboardInterrupt):
        go(after_epoch=stop)
    resumed, whole = go(), train(images, tiny, 0, GPU, progress=False)
    assert len(resumed.history) == tiny.epochs
    for one, other in zip(losses(resumed), losses(whole), strict=True):
        assert one == pytest.approx(other, rel=0.01)


@on_a_gpu
def test_a_gpu_detects_what_the_cpu_detects(images: torch.Tensor, tiny: Settings) -> None:
    network = build_network(tiny, 0, CPU).eval()
    expected = detect(network, images, tiny, CPU, progress=False).maps
    network = network.to(GPU)
    found = detect(network, images, tiny, GPU, progress=False).maps
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)
    coarse = detect(network, images, tiny, GPU, torch.float16, progress=False).maps
    torch.testing.assert_close(coarse.cpu(), expected, rtol=0, atol=1e-2)


@on_a_gpu
def test_the_host_waits_for_nothing_in_a_step_on_a_gpu(
    images: torch.Tensor, tiny: Settings
) -> None:
    network = build_network(tiny, 0, GPU)
    optimiser = build_optimiser(network, tiny, GPU)
    noise = torch.Generator(GPU).manual_seed(0)
    step = partial(train_step, network, optimiser, images[:2].to(GPU), noise, tiny, torch.float32)
    step()  # makes the filters' matrices
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"attention": False}, {"network": "unet"}, {"global_residual": True},
        {"attention_gate": False}, {"attention_identity": False},
        {"levels": 3, "blocks": 2}, {"scaled_inputs": False}, {"tanh": True},
        {"input_filter": "nearest"}, {"shared_lift": False}, {"added_inputs": True},
        {"convolutions": 1, "head_size": 1, "padding": "reflect"}, {"standardise": True},
        {"skip_convolution": False}, {"mean_at_test": True, "noise_draws": 1},
        {"loss_range": "normalised", "border": "zero"}, {"anomaly_map": "l1", "map_sigma": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_mixes_devices_and_a_step_reads_nothing(
    changes: dict[str, Any], images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a GPU: where tensors hold no number, reading one or mixing devices raises."""
    elsewhere = torch.device("meta")
    on_cpu = torch.Tensor.cpu

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(tensor, device="cpu") if tensor.is_meta else on_cpu(tensor)

    def noise(shape: tuple[int, ...], *_: object) -> torch.Tensor:
        return torch.empty(shape, device=elsewhere)

    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(training, "draw_noise", noise)
    settings = replace(tiny, **({"noise_draws": 2, "calibration": "scores"} | changes))
    network = build_network(settings, 0, elsewhere)
    optimiser = build_optimiser(network, settings, elsewhere)
    there = torch.empty_like(images, device=elsewhere)
    loss = train_step(network, optimiser, there, torch.Generator(), settings, torch.float32)
    assert loss.is_meta
    plain = expected_error(torch.zeros(2, 64, 64))
    found = detect(network, images, settings, elsewhere, expected=plain, progress=False)
    assert found.scored.shape == found.maps.shape == (10, 64, 64)


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize("changed", [{}, {"augmentation": "flips", "weight_average": 0.9}])
def test_an_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(
    images: torch.Tensor,
    tiny: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
    changed: dict[str, Any],
) -> None:
    tiny = replace(tiny, **changed)
    whole = run(images, tiny)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = tmp_path / "work" / "checkpoint.pt"
    validate = training._validate
    calls = 0

    def interrupted(*arguments: object) -> float:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise KeyboardInterrupt
        return validate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(images, tiny, checkpoint=checkpoint)
    monkeypatch.setattr(training, "_validate", validate)
    assert torch.load(checkpoint, weights_only=True)["epoch"] == stop_after

    resumed = run(images, tiny, checkpoint=checkpoint)
    assert losses(resumed) == losses(whole)
    assert equal_weights(resumed, whole)
    assert resumed.best_epoch == whole.best_epoch


def interrupted(
    images: torch.Tensor, settings: Settings, checkpoint: Path, after: int
) -> dict[str, Any]:
    """The checkpoint of so many epochs, of a training that is stopped in the one after them."""

    def stop(epoch: int, network: torch.nn.Module) -> None:
        if epoch == after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, settings, checkpoint=checkpoint, after_epoch=stop)
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return state


def test_a_training_names_every_commit_and_device_that_worked_on_it(
    images: torch.Tensor, tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "commit", lambda: "first")
    monkeypatch.setattr(training, "describe", lambda _: "here")
    interrupted(images, replace(tiny, epochs=3), checkpoint, after=1)
    for commit in ("second", "third"):  # the third finds nothing left to do
        monkeypatch.setattr(training, "commit", lambda commit=commit: commit)
        monkeypatch.setattr(training, "describe", lambda _: "there")
        trained = run(images, replace(tiny, epochs=3), checkpoint=checkpoint)
        assert trained.commits == ["first", "second"]
        assert trained.devices == ["here", "there"]


def test_a_checkpoint_of_another_network_is_refused(
    images: torch.Tensor, tiny: Settings, tmp_path: Path
) -> None:
    """Of the same settings, but from a version of the program with other layers."""
    checkpoint = tmp_path / "checkpoint.pt"
    run(images, tiny, checkpoint=checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    for part in ({"network": {}}, {"best_weights": ...}):
        torch.save({k: v for k, v in (state | part).items() if v is not ...}, checkpoint)
        with pytest.raises(N2NError, match=r"checkpoint\.pt is of another version"):
            run(images, tiny, checkpoint=checkpoint)


def test_a_checkpoint_for_which_the_gpu_is_too_full_is_kept(
    images: torch.Tensor, tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    checkpoint = tmp_path / "checkpoint.pt"
    run(images, tiny, checkpoint=checkpoint)
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", full)
    with pytest.raises(N2NError, match=r"^The GPU's memory is too small"):
        run(images, tiny, checkpoint=checkpoint)


def test_a_checkpoint_that_is_older_than_a_setting_goes_on_and_one_that_is_younger_does_not(
    images: torch.Tensor, tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    state = interrupted(images, tiny, checkpoint, after=2)
    state["identity"]["settings"]["colour"] = 1
    torch.save(state, checkpoint)
    with pytest.raises(N2NError, match=r"checkpoint\.pt is of another version"):
        run(images, tiny, checkpoint=checkpoint)
    for name in ("colour", "augmentation", "weight_average"):
        del state["identity"]["settings"][name]
    torch.save(state, checkpoint)
    resumed, whole = run(images, tiny, checkpoint=checkpoint), run(images, tiny)
    assert resumed.history[:2] == state["history"]
    assert losses(resumed) == losses(whole)
    assert equal_weights(resumed, whole)


def test_a_checkpoint_of_other_settings_is_refused(
    images: torch.Tensor, tiny: Settings, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    run(images, replace(tiny, epochs=1), checkpoint=checkpoint)
    with pytest.raises(N2NError, match=r"checkpoint\.pt belongs to another run"):
        run(images, replace(tiny, epochs=2), checkpoint=checkpoint)


def test_a_checkpoint_of_other_images_or_another_precision_is_refused(
    images: torch.Tensor, tiny: Settings, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    begun, whole = replace(tiny, epochs=1), images
    run(whole, begun, checkpoint=checkpoint)
    run(whole, begun, checkpoint=checkpoint)
    with pytest.raises(N2NError, match="belongs to another run"):
        run(whole.flip(-1), begun, checkpoint=checkpoint)
    with pytest.raises(N2NError, match="another --precision"):
        run(whole, begun, checkpoint=checkpoint, precision=torch.bfloat16)
    torch.save([1], checkpoint)
    with pytest.raises(N2NError, match="belongs to another run"):
        run(whole, begun, checkpoint=checkpoint)


def test_compiled_graphs_have_fixed_sizes(
    images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for whole batches in training; what is smaller, and the validation, needs none."""
    shapes: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[object]) -> object:
        shapes.extend(i.shape for i in inputs if isinstance(i, torch.Tensor) and i.ndim == 4)
        assert not [i for i in inputs if isinstance(i, torch.SymInt)]
        return graph.forward

    compiler = partial(torch.compile, backend=backend)
    monkeypatch.setattr(training.torch, "compile", compiler)
    settings = replace(tiny, epochs=2, t_max=2, batch_size=3)  # eight images: 3, 3, 2; then two
    trained = run(images, settings, compile_network=True)
    batches = [shape[0] for shape in shapes if shape[1:] == images.shape[1:]]
    assert batches == [3]
    monkeypatch.undo()
    eager = run(images, settings)
    assert np.allclose(losses(trained), losses(eager), rtol=1e-4)


def test_where_compilation_fails_the_message_names_the_option(
    images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(*_: object) -> None:
        raise RuntimeError("no C compiler")

    compiler = partial(torch.compile, backend=backend)
    monkeypatch.setattr(training.torch, "compile", compiler)
    with pytest.raises(N2NError, match=r"could not be compiled.*no C compiler.*--no-compile"):
        run(images, tiny, compile_network=True)


def test_where_memory_is_short_no_message_names_what_is_so_already(
    images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(training, "_train_epoch", greedy)
    with pytest.raises(N2NError, match=r"; try --batch-size 2 or a smaller --width\.$"):
        run(images, replace(tiny, batch_size=4))
    with pytest.raises(N2NError, match=r"; try a smaller --width\.$"):
        run(images, replace(tiny, batch_size=1))
    monkeypatch.setattr(training, "build_optimiser", greedy)  # before the first step, too
    with pytest.raises(N2NError, match=r"memory is too small .* try a smaller --width\.$"):
        run(images, replace(tiny, batch_size=1))
    with pytest.raises(N2NError, match=r"; close other programs\.$"):
        detect(greedy, images, tiny, CPU, progress=False)  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_named(
    images: torch.Tensor, tiny: Settings, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(N2NError, match=r"checkpoint\.pt cannot be read; delete it"):
        run(images, tiny, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), r"\(Permission denied\); give the right to"),
        (MemoryError(), "memory is too small"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory is too small"),
    ],
)
def test_nobody_is_told_to_delete_a_checkpoint_that_is_whole(
    images: torch.Tensor,
    tiny: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.touch()
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(N2NError, match=message) as caught:
        run(images, tiny, checkpoint=checkpoint)
    assert "delete it" not in str(caught.value)


def test_the_learning_rate_follows_the_cosine_of_section_4_2(
    images: torch.Tensor, tiny: Settings
) -> None:
    trained = run(images, replace(tiny, epochs=4, t_max=2, learning_rate=1e-3))
    rates = [row["learning_rate"] for row in trained.history]
    # Falls to eta_min after t_max epochs, then rises again: that is what T_max = 100 with 500
    # epochs does, too.
    half = 1e-6 + (1e-3 - 1e-6) / 2
    assert rates == pytest.approx([1e-3, half, 1e-6, half])


def test_the_paper_s_rate_does_not_move(images: torch.Tensor, tiny: Settings) -> None:
    trained = run(images, replace(tiny, epochs=3, learning_rate=1e-6))
    assert {row["learning_rate"] for row in trained.history} == {1e-6}


def test_the_average_of_the_weights_is_the_running_mean_over_the_steps(
    images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step: list[list[np.ndarray]] = []

    def watched(network: torch.nn.Module, *others: Any) -> torch.Tensor:
        loss = train_step(network, *others)
        after_step.append([w.detach().double().numpy().copy() for w in network.parameters()])
        return loss

    monkeypatch.setattr(training, "train_step", watched)
    trained = run(images, replace(tiny, weight_average=0.75, checkpoint="last"))
    means = after_step[0]
    for weights in after_step[1:]:
        means = [0.75 * mean + 0.25 * new for mean, new in zip(means, weights, strict=True)]
    for kept, mean in zip(trained.network.parameters(), means, strict=True):
        np.testing.assert_allclose(kept.detach().numpy(), mean, rtol=1e-5, atol=1e-7)

    plain = run(images, tiny)
    assert [row[0] for row in losses(trained)] == [row[0] for row in losses(plain)]
    assert [row[1] for row in losses(trained)] != [row[1] for row in losses(plain)]


@pytest.mark.parametrize("fresh", [True, False])
def test_noise_is_fresh_or_the_image_s_own(
    images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    """What each image is blended with, from what the network is given (Eq. 1, solved for it)."""
    given: dict[int, list[torch.Tensor]] = {}

    def watched(x0: torch.Tensor, epsilon: torch.Tensor, noise: float) -> torch.Tensor:
        x = corrupt(x0, epsilon, noise)
        if epsilon.shape == x0.shape and torch.is_grad_enabled():  # not the validation's
            for image, noisy in zip(x0, x, strict=True):
                number = int((normalise(images) - image).abs().flatten(1).amax(1).argmin())
                given.setdefault(number, []).append((noisy - (1 - noise) * image) / noise)
        return x

    monkeypatch.setattr(training, "corrupt", watched)
    run(images, replace(tiny, fresh_noise=fresh, epochs=3, t_max=3))
    assert len(given) == 8
    for first, *later in given.values():
        assert len(later) == 2
        for noise in later:
            assert bool(torch.allclose(noise, first, atol=1e-5)) is not fresh
    one, other, *_ = given.values()
    assert not torch.allclose(one[0], other[0], atol=0.1)
    assert float(one[0].mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("augmentation", ["none", "flips"])
def test_flips_show_every_image_once_in_each_epoch_turned_by_chance(
    images: torch.Tensor,
    tiny: Settings,
    monkeypatch: pytest.MonkeyPatch,
    augmentation: Literal["none", "flips"],
) -> None:
    seen: list[np.ndarray] = []

    def watched(network: torch.nn.Module, optimiser: Any, batch: torch.Tensor, *others: Any) -> Any:
        seen.extend(batch.numpy())
        return train_step(network, optimiser, batch, *others)

    monkeypatch.setattr(training, "train_step", watched)
    epochs = len(run(images, replace(tiny, augmentation=augmentation)).history)
    learned, _ = split_validation(len(images), tiny.validation_fraction, 0)
    axes = ((), (1,), (2,), (1, 2))
    known = {
        np.flip(image, axis).tobytes(): (index, axis)
        for index, image in enumerate(images[learned].numpy())
        for axis in axes
    }
    found = [known[image.tobytes()] for image in seen]
    parts = [found[start : start + len(learned)] for start in range(0, len(found), len(learned))]
    assert len(parts) == epochs
    for part in parts:
        assert sorted(index for index, _ in part) == list(range(len(learned)))
    assert len({tuple(index for index, _ in part) for part in parts}) == epochs  # other orders
    turned = {tuple(axis for _, axis in sorted(part)) for part in parts}
    assert len(turned) == (epochs if augmentation == "flips" else 1)
    assert {axis for _, axis in found} == (set(axes) if augmentation == "flips" else {()})


def test_no_two_epochs_of_any_seeds_share_their_chance() -> None:
    drawn = [
        training._mix(seed, epoch) + k for seed in range(9) for epoch in range(500) for k in (0, 1)
    ]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("name", OF_MNET)
def test_each_setting_makes_another_network(name: str, tiny: Settings) -> None:
    """Which one, tests/test_network.py says."""
    (value, *_) = OTHERS[name]
    x = torch.rand(1, 3, 64, 64)
    plain, changed = (build_network(s, 7, CPU) for s in (tiny, replace(tiny, **{name: value})))
    assert (plain(x) - changed(x)).abs().max() > 1e-4


def test_the_plain_network_is_a_u_net(tiny: Settings) -> None:
    assert type(build_network(replace(tiny, network="unet"), 7, CPU)) is UNet


def test_two_steps_are_adamw_on_eq_9_of_the_clean_images(
    images: torch.Tensor, tiny: Settings
) -> None:
    """Loshchilov and Hutter (2019), Algorithm 2, in NumPy; the gradient of plain `error_map`."""
    settings = replace(tiny, weight_decay=0.1)  # betas 0.5 and 0.999, as printed
    network = build_network(settings, 0, CPU)
    optimiser = build_optimiser(network, settings, CPU)
    weights = [p.detach().double().numpy().copy() for p in network.parameters()]
    first, second = [0 * w for w in weights], [0 * w for w in weights]
    drawn, again = (torch.Generator().manual_seed(1) for _ in range(2))
    x0 = (images[:2].double() / 127.5 - 1).float()
    for step in (1, 2):
        apart = copy.deepcopy(network)
        loss = train_step(network, optimiser, images[:2], drawn, settings, torch.float32)
        noisy = 0.7 * x0 + 0.3 * (0.5 + 0.5 * torch.randn(x0.shape, generator=again))
        expected = error_map(apart(noisy), x0, settings).mean()
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
        gradients = torch.autograd.grad(expected, list(apart.parameters()))
        for i, (p, wanted) in enumerate(zip(network.parameters(), gradients, strict=True)):
            assert p.grad is not None
            close = 1e-3 * float(wanted.abs().max())
            torch.testing.assert_close(p.grad, wanted, rtol=1e-3, atol=close)
            g = p.grad.double().numpy()
            first[i], second[i] = 0.5 * first[i] + 0.5 * g, 0.999 * second[i] + 0.001 * g**2
            deviation = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
            move = first[i] / (1 - 0.5**step) / deviation
            weights[i] -= settings.learning_rate * (0.1 * weights[i] + move)
    for p, w in zip(network.parameters(), weights, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_training_and_validation_have_the_precision_that_is_asked_for(
    precision: torch.dtype, images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def watched(reconstruction: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.add((torch.is_grad_enabled(), reconstruction.dtype))
        return total_loss(reconstruction, *others)

    monkeypatch.setattr(training, "total_loss", watched)
    run(images, replace(tiny, epochs=1), precision=precision)
    assert seen == {(True, precision), (False, precision)}


@pytest.mark.parametrize(
    "change",
    [
        {"noise_at_test": False}, {"mean_at_test": True}, {"noise_draws": 2}, {"map_sigma": 2.0},
        {"anomaly_map": "l1"}, {"image_score": "mean"}, {"mask_rule": "any"},
    ],
    ids=str,
)  # fmt: skip
def test_the_use_of_a_network_does_not_reach_its_training(
    change: dict[str, Any], images: torch.Tensor, tiny: Settings
) -> None:
    short = replace(tiny, epochs=1)
    one, other = run(images, short), run(images, replace(short, **change))
    assert losses(one) == losses(other)
    assert equal_weights(one, other)


def test_training_lowers_the_loss(images: torch.Tensor, tiny: Settings) -> None:
    trained = run(images, replace(tiny, epochs=12, t_max=12, learning_rate=1e-2))
    assert trained.history[-1]["train_loss"] < 0.7 * trained.history[0]["train_loss"]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_early_stopping_keeps_the_best_weights_across_an_interruption(
    average: float,
    images: torch.Tensor,
    tiny: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in the fourth epoch, one epoch after the best one; both are in the checkpoint."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    settings = replace(tiny, epochs=6, patience=3, weight_average=average)
    script, seen = [3.0, 2.0, 2.5, 2.1, 2.2, 1.0], {}
    for resumed in (False, True):

        def look(epoch: int, network: torch.nn.Module, resumed: bool = resumed) -> None:
            seen[epoch] = copy.deepcopy(network.state_dict())
            if epoch == 4 and not resumed:
                raise KeyboardInterrupt

        losses_left = iter(script[3:] if resumed else script)
        monkeypatch.setattr(training, "_validate", lambda *_, left=losses_left: next(left))
        with nullcontext() if resumed else pytest.raises(KeyboardInterrupt):
            trained = run(images, settings, checkpoint=tmp_path / "checkpoint.pt", after_epoch=look)
    assert (trained.stopped, len(trained.history), trained.best_epoch) == ("early", 5, 2)
    kept = trained.network.state_dict()
    assert all(torch.equal(kept[name], seen[2][name]) for name in kept)
    assert any(not torch.equal(kept[name], seen[5][name]) for name in kept)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("monitor", "best"), [("validation", 2), ("training", 3)])
def test_either_loss_can_decide(
    monitor: Literal["validation", "training"],
    best: int,
    images: torch.Tensor,
    tiny: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validation, training_loss = iter([3.0, 1.0, 2.0, 2.0]), iter([3.0, 2.0, 1.0, 2.0])
    monkeypatch.setattr(training, "_validate", lambda *_: next(validation))
    monkeypatch.setattr(training, "_train_epoch", lambda *_: next(training_loss))
    assert run(images, replace(tiny, monitor=monitor)).best_epoch == best


def test_validation_loss_is_eq_9_on_held_out_images(images: torch.Tensor, tiny: Settings) -> None:
    trained = run(images, replace(tiny, epochs=1))
    _, held_out = split_validation(len(images), 0.2, 0)
    x0 = normalise(images[held_out])
    with torch.inference_mode():
        restored = trained.network(corrupt(x0, fixed_noise(tiny), tiny.noise))
        expected = float(total_loss(restored, x0, tiny))
    assert trained.history[0]["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_a_number_is_reported_with_its_epoch(
    images: torch.Tensor, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_validate", lambda *_: float("nan"))
    with pytest.raises(N2NError, match=r"not a number in epoch 1; lower --learning-rate"):
        run(images, tiny)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_loss_that_has_blown_up_is_reported_and_not_kept(
    images: torch.Tensor, tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    of_epochs = iter((0.5, 4.9, 5.1))
    monkeypatch.setattr(training, "_train_epoch", lambda *_: next(of_epochs))
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(N2NError, match=r"loss is 5\.1, 10 times .* in epoch 3; lower --learning"):
        run(images, replace(tiny, epochs=4), checkpoint=checkpoint)
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2


def test_split_is_disjoint_complete_and_a_fifth() -> None:
    training_part, validation = split_validation(54, 0.2, seed=0)
    assert len(validation) == 11
    assert sorted([*training_part.tolist(), *validation.tolist()]) == list(range(54))
    assert not torch.equal(validation, split_validation(54, 0.2, seed=1)[1])
    with pytest.raises(N2NError, match="1 training images cannot be split"):
        split_validation(1, 0.2, seed=0)


def test_initial_weights_leave_the_global_generator_alone(tiny: Settings) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_network(tiny, 0, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_detection_does_not_depend_on_the_batch_size(images: torch.Tensor, tiny: Settings) -> None:
    network = build_network(tiny, 0, CPU).eval()
    single = detect(network, images, tiny, CPU, batch_size=1, progress=False)
    batched = detect(network, images, tiny, CPU, batch_size=7, progress=False)
    assert (single.maps - batched.maps).abs().max() < 1e-5
    for name, scores in image_scores(single.scored).items():
        assert (scores - image_scores(batched.scored)[name]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, "one draw"), ({"noise_draws": 3}, "three draws"),
        ({"mean_at_test": True}, "the mean"), ({"noise_at_test": False}, "nothing"),
    ],
)  # fmt: skip
def test_what_test_images_are_blended_with(
    changes: dict[str, Any], seen: str, images: torch.Tensor, tiny: Settings
) -> None:
    """A network that hands its input on shows it: Eq. (1) in NumPy, at every pixel."""
    x0 = images[:2].numpy() / 127.5 - 1
    epsilon = {
        "one draw": [fixed_noise(tiny).numpy()],
        "three draws": [fixed_noise(tiny, draw).numpy() for draw in range(3)],
        "the mean": [np.float64(0.5)],
        "nothing": [x0],
    }[seen]
    given = [0.7 * x0 + 0.3 * one for one in epsilon]
    settings = replace(tiny, anomaly_map="l1", **changes)
    found = detect(torch.nn.Identity(), images[:2], settings, CPU, progress=False)
    expected = np.mean([np.abs(x - x0).mean(1) / 2 for x in given], 0)
    np.testing.assert_allclose(found.maps.numpy(), expected, atol=1e-6)
    # Of several draws the first; what lies outside the range of an image is cut off
    first = (255 * np.clip(given[0] / 2 + 0.5, 0, 1)).round()
    assert np.abs(found.reconstructions.numpy() - first).max() <= 1


def test_expected_error_by_hand() -> None:
    """Where all maps are flat, smoothing changes nothing, and the formula can be done by hand."""
    levels = torch.tensor([1.0, 2.0, 3.0, 6.0])  # mean 3, deviation sqrt(14 / 4)
    expected = expected_error(levels[:, None, None].expand(4, 64, 64))
    deviation = 2 * math.sqrt(3.5)  # its own and, equal here, the mean one
    calibrated = expected.calibrate(torch.full((1, 64, 64), 10.0))
    torch.testing.assert_close(calibrated, torch.full((1, 64, 64), 7.0 / deviation))


def test_expected_error_is_smoothed_as_scipy_does() -> None:
    maps = torch.rand(5, 64, 64, generator=torch.Generator().manual_seed(2))
    values = maps.double().numpy()
    smooth = partial(gaussian_filter, sigma=1.0, mode="mirror")  # a 64th of the side
    expected, deviation = expected_error(maps), np.sqrt(smooth(values.var(0)))
    np.testing.assert_allclose(expected.mean, smooth(values.mean(0)), atol=1e-5)
    np.testing.assert_allclose(expected.deviation, deviation + deviation.mean(), atol=1e-5)


def test_calibration_changes_the_scores_and_not_the_map(
    images: torch.Tensor, tiny: Settings
) -> None:
    network = build_network(tiny, 0, CPU).eval()
    plain = detect(network, images, tiny, CPU, progress=False)
    expected = expected_error(plain.maps)
    found = detect(network, images, tiny, CPU, expected=expected, progress=False)
    assert plain.scored is plain.maps
    assert torch.equal(found.maps, plain.maps)
    assert not torch.equal(found.scored, found.maps)


def test_map_settings_by_hand(images: torch.Tensor, tiny: Settings) -> None:
    """The absolute error alone, and a smoothed one, against NumPy and SciPy."""
    network = build_network(tiny, 0, CPU).eval()
    x0 = normalise(images[:2])
    with torch.inference_mode():
        restored = network(corrupt(x0, fixed_noise(tiny), tiny.noise))
    absolute = np.abs(restored.numpy() - x0.numpy()).mean(1) / 2
    settings = replace(tiny, anomaly_map="l1")
    found = detect(network, images[:2], settings, CPU, progress=False).maps.numpy()
    np.testing.assert_allclose(found, absolute, atol=1e-5)
    smoothed = detect(network, images[:2], replace(settings, map_sigma=2.0), CPU, progress=False)
    wanted = [
        gaussian_filter(a.astype(np.float64), 2.0, mode="mirror", truncate=8) for a in absolute
    ]
    np.testing.assert_allclose(smoothed.maps.numpy(), wanted, atol=1e-4)


def test_standardised_images_have_no_brightness(images: torch.Tensor, tiny: Settings) -> None:
    dark = images[:2] // 4
    light = 2 * dark + 30
    network = build_network(tiny, 0, CPU).eval()
    settings = replace(tiny, standardise=True)
    one, other = (detect(network, x, settings, CPU, progress=False) for x in (dark, light))
    torch.testing.assert_close(one.maps, other.maps, rtol=0, atol=1e-5)
    twice = 2 * one.reconstructions.int() + 30  # each with its own light; both are rounded
    inside = (other.reconstructions > 32) & (other.reconstructions < 253)
    assert (twice - other.reconstructions)[inside].abs().max() <= 2
    plain = [detect(network, x, tiny, CPU, progress=False).maps for x in (dark, light)]
    assert (plain[0] - plain[1]).abs().max() > 0.01


@pytest.mark.parametrize("standardise", [True, False])
def test_training_and_validation_see_standardised_images(
    images: torch.Tensor, tiny: Settings, standardise: bool
) -> None:
    settings = replace(tiny, standardise=standardise)
    losses = []
    for x in (images[:2] // 4, 2 * (images[:2] // 4) + 30):
        network = build_network(settings, 0, CPU)
        optimiser = torch.optim.AdamW(network.parameters())
        validation = training._validate(network, x, torch.arange(2), settings, torch.float32)
        noise = torch.Generator().manual_seed(0)
        step = train_step(network, optimiser, x, noise, settings, torch.float32)
        losses.append([validation, float(step)])
    assert np.allclose(*losses, rtol=0, atol=1e-5) is standardise


def test_after_epoch_sees_every_epoch_and_changes_nothing(
    images: torch.Tensor, tiny: Settings
) -> None:
    seen: list[int] = []

    def look(epoch: int, network: torch.nn.Module) -> None:
        assert not network.training
        detect(network, images[:1], tiny, CPU, progress=False)
        seen.append(epoch)

    watched = run(images, tiny, after_epoch=look)
    alone = run(images, tiny)
    assert seen == list(range(1, len(alone.history) + 1))
    assert equal_weights(watched, alone)


def test_image_scores_by_hand() -> None:
    values = torch.arange(400, dtype=torch.float32).reshape(1, 20, 20)
    scores = image_scores(values)
    assert float(scores["max"]) == 399
    assert float(scores["mean"]) == 199.5
    assert float(scores["top1%"]) == (399 + 398 + 397 + 396) / 4
