"""Training as in Section 4.2, resumable from a checkpoint."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from n2n.corruption import corrupt, draw_noise, fixed_noise, normalise
from n2n.device import (
    compile_errors,
    describe,
    exact_float32,
    keep_freed_memory,
    memory_errors,
    memory_format,
    out_of_memory,
    run_network,
)
from n2n.errors import N2NError, reason, write_errors
from n2n.files import write_whole
from n2n.loss import total_loss
from n2n.network import MNet, UNet
from n2n.records import commit
from n2n.settings import Settings, settings_from_dict

Reconstruct = Callable[[Tensor], Tensor]  # a network, compiled or not

BLOWN_UP = 10.0  # times the first epoch's loss; a training that is this far off does not come back
# What a checkpoint holds of a `_State` beside the states of PyTorch's objects
COUNTED = (
    "epoch", "waited", "best_loss", "best_epoch", "best_weights", "history", "commits", "devices",
)  # fmt: skip
CHECKPOINT_SECONDS = 20.0  # at most so much work is lost to an interruption, plus one epoch


@dataclass
class Trained:
    """A trained network and how it came about."""

    network: nn.Module
    history: list[dict[str, float]]  # a row per epoch: epoch, learning_rate, losses, seconds
    best_epoch: int  # counted from 1
    stopped: str  # 'early' or 'epochs'
    seconds: float  # of training, over all interruptions
    commits: list[str | None]  # of the program, in turn: more than one if another one went on
    devices: list[str | None]  # likewise
    origin: dict[str, str | None] | None = None  # the run that trained it, where it was another


def build_network(settings: Settings, seed: int, device: torch.device) -> nn.Module:
    """The untrained network of a seed, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(settings.width) if settings.network == "unet" else MNet(settings)
    network.to(device)
    return network.to(memory_format=memory_format(device))  # type: ignore[call-overload,no-any-return]


def build_optimiser(
    network: nn.Module, settings: Settings, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over all weights, its update one kernel where the device has such."""
    return torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def split_validation(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation images, drawn by the seed.

    Raises:
        N2NError: where there are too few images for both.
    """
    validation = round(count * fraction)
    if validation < 1 or count - validation < 1:
        raise N2NError(
            f"{count} training images cannot be split into training and validation; "
            "add images to train/good."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[validation:].sort().values, order[:validation].sort().values


def train(
    images: Tensor,
    settings: Settings,
    seed: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    checkpoint: Path | None = None,
    compile_network: bool = False,
    progress: bool = True,
    label: str = "training",
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Trained:
    """Train a network on normal images until the loss stops falling.

    Every epoch draws its order and its noise from the seed and its own number, so a run that
    continues from a checkpoint on the same machine ends with the numbers of an undisturbed one: on
    a CPU to the last bit.

    Args:
        images: all training images, uint8, (N, 3, S, S), validation among them.
        settings: see `Settings`.
        seed: of the initial weights, the split, the order and the noise.
        device: where to train.
        precision: of the convolutions; bfloat16 means mixed precision.
        checkpoint: file to continue from, where it exists, and to write after an epoch.
        compile_network: use ``torch.compile``.
        progress: show a bar with the losses and the remaining time on stderr.
        label: the bar's title.
        after_epoch: called with the number of epochs done and the network, in evaluation mode;
            it may look at the network and must not change it.

    Raises:
        N2NError: where there are too few images, the loss is no longer finite or has blown up, the
            memory is too small, the network cannot be compiled, or the checkpoint belongs to
            another run, is damaged, or cannot be written.
    """
    if device.type == "cpu":
        keep_freed_memory()
    fewer = f"--batch-size {settings.batch_size // 2} or " if settings.batch_size > 1 else ""
    advice = f"try {fewer}a smaller --width"
    training, validation = split_validation(len(images), settings.validation_fraction, seed)
    with memory_errors(advice):
        state = _begin(images, settings, seed, device, precision)
        if checkpoint is not None and checkpoint.exists():
            state.load(checkpoint)
        network, kept, optimiser = state.network, state.kept, state.optimiser
        step = _compiled(network, settings.batch_size) if compile_network else network
        images = images.to(device)
    saved = time.monotonic()
    with (
        memory_errors(advice), compile_errors(compile_network), exact_float32(),
        tqdm(
            total=settings.epochs, initial=state.epoch, desc=label, unit="epoch",
            disable=not progress, dynamic_ncols=True,
        ) as bar,
    ):  # fmt: skip
        while state.epoch < settings.epochs and state.waited < settings.patience:
            begin = time.monotonic()
            rate = optimiser.param_groups[0]["lr"]
            network.train()
            train_loss = _train_epoch(
                step, optimiser, images, training, settings, seed, state.epoch, precision
            )
            if state.history and train_loss > BLOWN_UP * state.history[0]["train_loss"]:
                raise _diverged(
                    f"{train_loss:.3g}, {BLOWN_UP:g} times that of the first epoch and more, in ",
                    state.epoch,
                    settings,
                    precision,
                )
            state.schedule.step()
            kept.eval()
            validation_loss = _validate(kept, images, validation, settings, precision)
            if not math.isfinite(validation_loss):
                raise _diverged("not a number in ", state.epoch, settings, precision)
            state.finish_epoch(
                {
                    "epoch": state.epoch + 1,
                    "learning_rate": rate,
                    "train_loss": train_loss,
                    "validation_loss": validation_loss,
                    "seconds": time.monotonic() - begin,
                },
                settings,
            )
            if after_epoch is not None:
                after_epoch(state.epoch, kept)
            last = state.epoch == settings.epochs or state.waited == settings.patience
            if checkpoint is not None and (last or time.monotonic() - saved > CHECKPOINT_SECONDS):
                state.save(checkpoint)
                saved = time.monotonic()
            bar.set_postfix(
                train=f"{train_loss:.4f}", validation=f"{validation_loss:.4f}", refresh=False
            )
            bar.update()

    if settings.checkpoint == "best":
        kept.load_state_dict(state.best_weights)
    kept.eval()
    return Trained(
        network=kept,
        history=state.history,
        best_epoch=state.best_epoch if settings.checkpoint == "best" else state.epoch,
        stopped="early" if state.waited >= settings.patience else "epochs",
        seconds=sum(row["seconds"] for row in state.history),
        commits=state.commits,
        devices=state.devices,
    )


def _begin(
    images: Tensor, settings: Settings, seed: int, device: torch.device, precision: torch.dtype
) -> _State:
    """A training before its first epoch: the network, what moves it, and whose it is."""
    network = build_network(settings, seed, device)
    optimiser = build_optimiser(network, settings, device)
    schedule = CosineAnnealingLR(
        optimiser, T_max=settings.t_max, eta_min=settings.min_learning_rate
    )
    identity = {
        "settings": settings.as_dict(),
        "seed": seed,
        "images": hashlib.sha256(images.cpu().contiguous().numpy().data).hexdigest(),
        "precision": str(precision),
    }
    average = None
    if settings.weight_average:
        running_mean = get_ema_multi_avg_fn(settings.weight_average)  # type: ignore[no-untyped-call]
        average = AveragedModel(network, multi_avg_fn=running_mean)
        optimiser.register_step_post_hook(lambda *_: average.update_parameters(network))
    return _State(network, average, optimiser, schedule, identity, describe(device))


def _compiled(network: nn.Module, batch_size: int) -> Reconstruct:
    """The network with one graph, for whole batches in training; for others, as it is.

    A graph takes longer to make than an epoch's last, smaller batch or a validation saves. The
    graphs of all runs of a process count toward one limit, past which PyTorch makes no more.
    """
    import torch._dynamo.config as limits  # imports for half a second, so not on a CPU

    limits.recompile_limit = 64
    compiled = torch.compile(network, dynamic=False)

    def reconstruct(x: Tensor) -> Tensor:
        return compiled(x) if len(x) == batch_size else network(x)  # type: ignore[no-any-return]

    return reconstruct


def train_step(
    network: Reconstruct,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    noise: torch.Generator | list[torch.Generator],
    settings: Settings,
    precision: torch.dtype,
) -> Tensor:
    """Corrupt a batch, reconstruct it, and follow the gradient of Eq. (9) once.

    On a GPU the host waits for nothing in here, unless a running mean of the weights is kept.

    Args:
        network: in training mode, compiled or not.
        optimiser: of its weights.
        images: uint8, (N, 3, S, S), on the network's device.
        noise: on the same device, for the batch or one for each image; goes on with every step.
        settings: see `Settings`.
        precision: of the convolutions.

    Returns:
        The loss before the step, a scalar still on the device, without its graph.
    """
    x0 = normalise(images, settings)
    if isinstance(noise, list):
        epsilon = torch.stack([draw_noise(tuple(x0.shape[1:]), settings, one) for one in noise])
    else:
        epsilon = draw_noise(tuple(x0.shape), settings, noise)
    x = corrupt(x0, epsilon, settings.noise)
    reconstruction = run_network(network, x, precision)
    loss = total_loss(reconstruction, x0, settings)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


def _train_epoch(
    network: Reconstruct,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    indices: Tensor,
    settings: Settings,
    seed: int,
    epoch: int,
    precision: torch.dtype,
) -> float:
    """One pass over the training images; the mean loss, read from the device once."""
    device = images.device
    chance = torch.Generator().manual_seed(_mix(seed, epoch))
    order = torch.randperm(len(indices), generator=chance)
    flips = torch.rand(len(indices), 2, generator=chance).to(device) < 0.5
    noise = torch.Generator(device).manual_seed(_mix(seed, epoch) + 1)
    total = torch.zeros((), device=device)
    losses: list[Tensor] = []
    shown = indices[order]
    parts = (torch.split(each, settings.batch_size) for each in (shown, shown.to(device), flips))
    for numbers, batch, flip in zip(*parts, strict=True):
        seen = images[batch]
        if settings.augmentation == "flips":
            seen = _flipped(seen, flip)
        drawn = noise if settings.fresh_noise else _noise_of_each(numbers, seed, device)
        loss = train_step(network, optimiser, seen, drawn, settings, precision)
        total += loss * len(batch)
        losses.append(loss)
    mean = float(total) / len(indices)
    if not math.isfinite(mean):
        finite = torch.stack(losses).isfinite().tolist()
        step = finite.index(False) + 1 if False in finite else len(finite)
        where = f"not a number in step {step} of {len(finite)} of "
        raise _diverged(where, epoch, settings, precision)
    return mean


def _noise_of_each(numbers: Tensor, seed: int, device: torch.device) -> list[torch.Generator]:
    """For each training image, by its number, the noise that it has in every epoch."""
    return [torch.Generator(device).manual_seed(_mix(seed, int(n)) + 1) for n in numbers]


def _flipped(images: Tensor, flip: Tensor) -> Tensor:
    """Images (N, 3, S, S), turned upside down and left to right where ``flip`` (N, 2) says so."""
    for column, axis in enumerate((2, 3)):
        images = torch.where(flip[:, column, None, None, None], images.flip(axis), images)
    return images


def _diverged(loss: str, epoch: int, settings: Settings, precision: torch.dtype) -> N2NError:
    """What to say of a loss that is lost; a checkpoint of an epoch before it stays."""
    mend = f"lower --learning-rate (now {settings.learning_rate:g})"
    if precision != torch.float32:
        mend += ", or delete its checkpoint, if there is one, and train with --precision float32"
    return N2NError(f"The loss is {loss}epoch {epoch + 1}; {mend}.")


@torch.inference_mode()
def _validate(
    network: Reconstruct,
    images: Tensor,
    indices: Tensor,
    settings: Settings,
    precision: torch.dtype,
) -> float:
    """The mean loss of the validation images under one fixed noise.

    With a fresh draw in each epoch the stopping rule would follow the noise of the noise.
    """
    device = images.device
    noise = fixed_noise(settings).to(device)
    total = torch.zeros((), device=device)
    for batch in torch.split(indices.to(device), settings.batch_size):
        x0 = normalise(images[batch], settings)
        x = corrupt(x0, noise, settings.noise)
        reconstruction = run_network(network, x, precision)
        total += total_loss(reconstruction, x0, settings) * len(batch)
    return float(total) / len(indices)


def _mix(seed: int, epoch: int) -> int:
    """A generator's seed for an epoch of a run; even, so that the next one is free."""
    return 2 * (seed * 1_000_000 + epoch)


def read_saved(path: Path, foreign: N2NError) -> Any:
    """What `torch.save` wrote into a file, on the CPU.

    Raises:
        FileNotFoundError: where there is none.
        N2NError: where it must not be read; ``foreign`` where it is no such file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise N2NError(f"{path} cannot be read ({reason(error)}); give the right to.") from error
    except Exception as error:  # a foreign file can fail in many ways
        if out_of_memory(error):
            raise
        raise foreign from error


@dataclass
class _State:
    """What an interrupted run needs to go on as if nothing had happened."""

    network: nn.Module
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    schedule: CosineAnnealingLR
    identity: dict[str, Any]
    device: str
    epoch: int = 0
    waited: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    commits: list[str | None] = field(default_factory=list)
    devices: list[str | None] = field(default_factory=list)

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and returned: the running mean, where there is one."""
        return self.network if self.average is None else self.average.module

    def finish_epoch(self, row: dict[str, float], settings: Settings) -> None:
        """Count the epoch, and keep the weights if its loss is the lowest so far."""
        self.epoch += 1
        self.history.append(row)
        for every, now in ((self.commits, commit()), (self.devices, self.device)):
            if every[-1:] != [now]:
                every.append(now)
        loss = row["validation_loss" if settings.monitor == "validation" else "train_loss"]
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.waited = loss, self.epoch, 0
            self.best_weights = {
                name: value.detach().clone() for name, value in self.kept.state_dict().items()
            }
        else:
            self.waited += 1

    def save(self, path: Path) -> None:
        """Write everything, whole or not at all."""
        state = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            **{name: getattr(self, name) for name in COUNTED},
        }
        mend = "free some space or choose another --results folder; the one before it is kept"
        with write_errors(f"The checkpoint {path}", mend, (OSError, RuntimeError)):
            write_whole(path, lambda file: torch.save(state, file))

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same run."""
        damaged = f"The checkpoint {path} cannot be read; delete it to train from the start."
        state = read_saved(path, N2NError(damaged))
        other_version = N2NError(
            f"The checkpoint {path} is of another version of this program; delete it to train "
            "from the start."
        )
        try:
            identity = state["identity"]
            # Settings that are younger than the checkpoint have their defaults, as in a record
            identity = identity | {"settings": settings_from_dict(identity["settings"]).as_dict()}
        except N2NError as error:
            raise other_version from error
        except (TypeError, KeyError, AttributeError):  # of another program
            identity = None
        if identity != self.identity:
            raise N2NError(
                f"The checkpoint {path} belongs to another run, other images or another "
                "--precision; delete it to train from the start."
            )
        try:
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            for name in COUNTED:
                setattr(self, name, state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            if out_of_memory(error):  # its moments go to the device
                raise
            raise other_version from error
