"""Every choice that decides a number, in one place, and four named sets of them.

`paper` takes each value as printed, literally. `replication` departs from it only where the
literal reading is contradictory or leaves a value open; the reason stands beside each departure,
the evidence in the book's ledger of decisions. `improved` goes beyond the paper. `demo` is
`replication` made small for two cores.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from n2n.errors import N2NError

ImageScore = Literal["max", "mean", "top1%"]  # of the anomaly map's pixels; see n2n.detection
Resize = Literal["bilinear", "bicubic", "box", "nearest"]  # filters of Pillow
InputFilter = Literal["mean", "nearest"]  # which makes the smaller inputs; see n2n.network
MaskRule = Literal["half", "any", "nearest"]  # which reduced pixels a mask covers; see n2n.decoding
IMAGE_SCORES: tuple[str, ...] = get_args(ImageScore)
OF_MNET = (  # settings that the U-Net does not know
    "attention", "attention_gate", "attention_identity", "global_residual", "levels", "blocks",
    "scaled_inputs", "input_filter", "shared_lift", "added_inputs", "skip_convolution",
    "convolutions", "head_size", "padding", "tanh",
)  # fmt: skip


def check_kind(name: str, value: object, kind: Any) -> None:
    """Refuse a value of another type, a word that is not a choice, and what is not finite."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin is Literal:
        holds, rule = value in choices, f"one of {', '.join(choices)}"
    elif origin is tuple:
        holds = isinstance(value, tuple) and all(_is_number(item) for item in value)
        rule = "a list of numbers"
    elif kind is float:
        holds, rule = _is_number(value), "a number"
    elif kind is int:
        holds = isinstance(value, int) and not isinstance(value, bool)
        rule = "a whole number"
    else:
        holds, rule = isinstance(value, kind), "true or false" if kind is bool else "a word"
    if not holds:
        if kind is float and isinstance(value, str):
            if re.fullmatch(r"\d+e-\d+", value):
                rule += f"; YAML needs a point in it, {value.replace('e', '.0e')}"
            elif re.fullmatch(r"-?\.\d+", value):
                rule += f"; write it as {value.replace('.', '0.')}"
        raise N2NError(f"The setting {name}={value} must be {rule}.")


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


@dataclass(frozen=True)
class Settings:
    """What one run is made of, apart from its data and its seed.

    Raises:
        N2NError: from the constructor, where a value is outside its range.
    """

    preset: str = "replication"

    # Input (Section 4.2)
    image_size: int = 256  # pixels; both sides, the aspect ratio is not kept
    resize: Resize = "bilinear"  # not given; all but nearest are antialiased

    # Corruption, Eq. (1), on images normalised by mean 0.5 and deviation 0.5, that is on [-1, 1]
    standardise: bool = False  # True: each channel of each image gets this mean and deviation
    channels_together: bool = False  # True: standardised, but by one mean and one deviation
    contrast: float = 1.0  # what normalised images are multiplied by; else not the paper's
    noise: float = 0.3  # lambda
    noise_mean: float = 0.5
    noise_std: float = 0.5
    noise_grain: int = 1  # pixels between values that are drawn; above 1 not the paper's
    noise_octaves: int = 1  # noises that are added up, each of half the grain of the one before
    fresh_noise: bool = True  # drawn anew in each epoch; False: each training image keeps its own

    # Network (Section 3.2); its width, like its depth, is not given
    network: Literal["mnet", "unet"] = "mnet"  # unet: a plain one, for comparison
    width: int = 32  # channels at full resolution; doubles at each halving
    levels: int = 4  # resolutions, each half of the one before; as many as the maps of 3.2.2
    blocks: int = 1  # residual attention modules in a row
    convolutions: int = 2  # of 3x3 pixels in a module
    scaled_inputs: bool = True  # False: the image enters at full size alone
    input_filter: InputFilter = "mean"  # of 2x2 pixels; nearest: one of them, noise and all
    shared_lift: bool = True  # False: each size of the image has a first convolution of its own
    added_inputs: bool = False  # True: smaller inputs are added to the features, not joined to them
    attention: bool = True  # False: Table 5's ablation
    attention_gate: bool = True  # False: without the module's squeeze and excitation
    attention_identity: bool = True  # False: without the module's residual connection
    global_residual: bool = False  # True: the input is added to the output, as in SRMNet
    skip_convolution: bool = True  # False: skip connections hand on what they get
    head_size: int = 3  # pixels; of the convolutions before SKFF
    padding: Literal["zeros", "reflect"] = "zeros"  # what 3x3 convolutions see beyond the border
    tanh: bool = False  # True: of the output, which is then inside [-1, 1]

    # Loss and anomaly map, Eq. (2)-(9)
    loss: Literal["zhao", "pytorch-msssim"] = "zhao"  # the second trains with a scalar MS-SSIM
    loss_range: Literal["unit", "normalised"] = "unit"  # [0, 1] or [-1, 1]; see `normalise`
    alpha: float = 0.84  # not given; Zhao et al. 2017, Section III-D
    sigmas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last is sigma_M; Zhao et al. 2017
    c1: float = 0.01  # as printed; the usual constant is 0.01 squared
    c2: float = 0.03  # as printed; the usual constant is 0.03 squared
    border: Literal["reflect", "zero"] = "reflect"

    # Optimisation (Section 4.2)
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-6  # eta_min
    t_max: int = 100  # epochs from the largest to the smallest learning rate
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.01  # not given; the default of AdamW in PyTorch
    batch_size: int = 4  # not given
    augmentation: Literal["none", "flips"] = "none"  # none mentioned; flips: along either axis
    epochs: int = 100  # at most
    patience: int = 20  # epochs without a lower loss
    monitor: Literal["validation", "training"] = "validation"  # 'the loss'
    validation_fraction: float = 0.2
    checkpoint: Literal["best", "last"] = "best"
    weight_average: float = 0.0  # decay, per step, of a running mean of the weights, kept for them

    # Detection (Section 3.3, last sentence); see DETECTION
    noise_at_test: bool = True  # False: test images stay clean
    mean_at_test: bool = False  # True: the mean of the noise in place of a draw
    noise_draws: int = 1  # anomaly maps averaged over this many draws of the noise
    anomaly_map: Literal["eq9", "l1"] = "eq9"  # l1: the absolute error alone, mean of the channels
    map_sigma: float = 0.0  # pixels; a Gaussian over the anomaly map; 0 leaves it as it is
    calibration: Literal["none", "scores"] = "none"  # scores: taken from the calibrated map
    image_score: ImageScore = "top1%"  # not given; chosen, see the ledger
    mask_rule: MaskRule = "half"  # which pixels of a reduced mask are anomalous; not given

    def __post_init__(self) -> None:
        """Refuse values with which no run could succeed; 0 for 0.0 is the same setting."""
        for name, kind in _kinds():
            check_kind(name, getattr(self, name), kind)
            if kind is float:
                object.__setattr__(self, name, float(getattr(self, name)))
        inside = not self.standardise and self.contrast <= 1  # images on [-1, 1]
        rules = {
            "image_size": (
                self.image_size >= 64 and self.image_size % (16 if self.levels > 4 else 8) == 0,
                "a multiple of 8, of 16 with five levels, and at least 64",
            ),
            "contrast": (
                self.contrast == 1 or (self.contrast > 0 and not self.standardise),
                "positive, and 1 where each image is standardised",
            ),
            "channels_together": (
                self.standardise or not self.channels_together,
                "off where images are not standardised",
            ),
            "noise": (0 <= self.noise <= 1, "between 0 and 1"),
            "noise_std": (self.noise_std >= 0, "zero or more"),
            "noise_grain": (
                1 <= self.noise_grain <= self.image_size / 8,
                "from 1 to an eighth of the image size",
            ),
            "noise_octaves": (
                1 <= self.noise_octaves <= self.noise_grain.bit_length(),
                "at least 1, and not so many that the last one's grain is below a pixel",
            ),
            "width": (self.width >= 4 and self.width % 4 == 0, "a multiple of 4, at least 4"),
            "network": (
                self.network == "mnet"
                or all(getattr(self, name) == getattr(Settings, name) for name in OF_MNET),
                f"mnet where {', '.join(OF_MNET[:-1])} or {OF_MNET[-1]} is changed",
            ),
            "levels": (2 <= self.levels <= 5, "from 2 to 5"),
            "blocks": (self.blocks >= 1, "at least 1"),
            "attention": (
                self.attention
                or (self.attention_gate and self.attention_identity and self.convolutions == 2),
                "on where a part of its module is changed",
            ),
            "scaled_inputs": (
                self.scaled_inputs
                or (self.input_filter == "mean" and self.shared_lift and not self.added_inputs),
                "on where it is changed how smaller inputs are made or enter",
            ),
            "convolutions": (self.convolutions >= 1, "at least 1"),
            "head_size": (self.head_size in (1, 3), "1 or 3"),
            "shared_lift": (
                self.shared_lift or not self.added_inputs,
                "on where inputs are added, as each size then has a first convolution of its own",
            ),
            "tanh": (
                not self.tanh or (inside and not self.global_residual),
                "off where the input is added to the output, or images go beyond [-1, 1]",
            ),
            "mean_at_test": (
                not self.mean_at_test or (self.test_noise > 0 and self.noise_draws == 1),
                "off where test images stay clean or get several draws",
            ),
            "alpha": (0 <= self.alpha <= 1, "between 0 and 1"),
            "sigmas": (
                len(self.sigmas) > 0 and all(0 < s <= self.image_size / 8 for s in self.sigmas),
                "positive and at most an eighth of the image size",
            ),
            # With zero Eq. (3) and (4) are 0/0 where both images are black, or flat
            "c1": (self.c1 > 0, "positive"),
            "c2": (self.c2 > 0, "positive"),
            "learning_rate": (self.learning_rate > 0, "positive"),
            "min_learning_rate": (self.min_learning_rate >= 0, "zero or more"),
            "betas": (
                len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
                "two numbers from 0 to below 1",
            ),
            "weight_decay": (self.weight_decay >= 0, "zero or more"),
            "t_max": (self.t_max >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "patience": (self.patience >= 1, "at least 1"),
            "weight_average": (0 <= self.weight_average < 1, "from 0 to below 1"),
            "validation_fraction": (0 < self.validation_fraction < 1, "between 0 and 1"),
            "noise_draws": (
                self.noise_draws == 1 or (self.noise_draws > 1 and self.test_noise > 0),
                "at least 1, and 1 where test images get no noise",
            ),
            "map_sigma": (
                0 <= self.map_sigma <= self.image_size / 8,
                "between 0 and an eighth of the image size",
            ),
            "loss": (
                self.loss == "zhao" or (self.image_size > 160 and inside),
                "zhao for images of 160 pixels or less, which pytorch-msssim halves four times, "
                "and for those that go beyond [-1, 1], its range",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise N2NError(f"The setting {name}={getattr(self, name)} must be {rule}.")

    @property
    def test_noise(self) -> float:
        """The lambda of Eq. (1) at test time."""
        return self.noise if self.noise_at_test else 0.0

    @property
    def noise_grains(self) -> tuple[int, ...]:
        """Pixels between the values of each noise that is added up, the coarsest first."""
        return tuple(self.noise_grain // 2**octave for octave in range(self.noise_octaves))

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values for a run record."""
        return dataclasses.asdict(self)


@functools.cache
def _kinds() -> list[tuple[str, Any]]:
    """The name and the type of each setting; to look them up takes longer than to check them."""
    return list(get_type_hints(Settings).items())


# What a trained network is used and judged with; the others decide how it is trained.
DETECTION = {
    "noise_at_test", "mean_at_test", "noise_draws", "anomaly_map", "map_sigma", "calibration",
    "image_score", "mask_rule",
}  # fmt: skip

PRESETS: dict[str, Settings] = {
    # Literal: an initial learning rate equal to eta_min keeps it constant; the loss is taken on
    # the values that the network sees; 500 epochs over a schedule of 100. The image score is not
    # given; the largest value is the common one.
    "paper": Settings(
        preset="paper",
        loss_range="normalised",
        learning_rate=1e-6,
        t_max=100,
        epochs=500,
        image_score="max",
    ),
    # - learning_rate 1e-3: with 1e-6 the network is far from its end after 100 epochs.
    # - epochs 100 = t_max: after 100 epochs the printed schedule would raise the rate again.
    # - image_score top1%: the best of the three on synthetic defects.
    # - loss_range unit: on [-1, 1] Eq. (2) turns negative where two greys lie on either side of 0.
    "replication": Settings(),
    # Beyond the paper, and apart from its tables:
    # - calibration: an image score that knows what error to expect where; of all that was tried at
    #   full size, the best on the synthetic defects of the development categories, taken together.
    "improved": Settings(preset="improved", calibration="scores"),
    # Two cores, a few minutes for the whole book.
    "demo": Settings(
        preset="demo", image_size=128, width=16, epochs=40, t_max=40, learning_rate=2e-3
    ),
}


def make_settings(preset: str = "replication", /, **changes: Any) -> Settings:
    """The settings of a preset with some values replaced; ``None`` leaves a value alone.

    Raises:
        N2NError: where the preset or a setting is unknown, or a value is out of range.
    """
    if preset not in PRESETS:
        raise N2NError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    changes = {name: value for name, value in changes.items() if value is not None}
    known = {field.name for field in dataclasses.fields(Settings)} - {"preset"}
    if unknown := sorted(set(changes) - known):
        raise N2NError(
            f"There is no setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}."
        )
    for name in ("sigmas", "betas"):
        if isinstance(changes.get(name), list):
            changes[name] = tuple(changes[name])
    return dataclasses.replace(PRESETS[preset], **changes)


BUDGET = frozenset({"epochs", "t_max"})  # the settings that `budget` makes


def budget(epochs: int | None) -> dict[str, int | None]:
    """The settings of a run of so many epochs, over which the learning rate falls; see `t_max`."""
    return {"epochs": epochs, "t_max": epochs}


def settings_from_dict(values: dict[str, Any]) -> Settings:
    """The settings that `Settings.as_dict` wrote."""
    others = {name: value for name, value in values.items() if name != "preset"}
    return make_settings(values["preset"], **others)


def changes(settings: Settings, base: Settings | None = None) -> dict[str, Any]:
    """The settings that differ from the base's, by default from their preset's, by name."""
    there = (base or PRESETS[settings.preset]).as_dict()
    return {
        name: value
        for name, value in settings.as_dict().items()
        if name != "preset" and value != there[name]
    }


def of_training(settings: Settings) -> Settings:
    """What decides the trained network: its use and the preset's name are those of `Settings()`."""
    plain = {name: getattr(PRESETS["replication"], name) for name in DETECTION}
    return dataclasses.replace(settings, preset="replication", **plain)


def fills(run: Settings, wanted: Settings) -> bool:
    """Whether a run has these settings, whatever its preset is called and its `budget`."""
    wanted = dataclasses.replace(wanted, preset=run.preset)
    shorter: dict[str, Any] = budget(run.epochs)
    return run in (wanted, dataclasses.replace(wanted, **shorter))


def command_options(settings: Settings) -> list[str]:
    """The options of ``n2n run`` that give these settings, not yet quoted for a shell."""
    options = ["--preset", settings.preset]
    for name, value in changes(settings).items():
        options += ["--set", f"{name}={json.dumps(value, separators=(',', ':'))}"]
    return options


def variant(settings: Settings) -> str:
    """The preset and whatever departs from it, as a folder's name: ``replication_noise-0.2``."""
    changed = [
        f"{name.replace('_', '-')}-{_short(value)}" for name, value in changes(settings).items()
    ]
    return "_".join([settings.preset, *changed])


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "+".join(short_number(item) for item in value)
    return short_number(value) if isinstance(value, float) else str(value)


def short_number(value: float) -> str:
    """A number for a folder's name: six digits where they tell it from others, else all."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
