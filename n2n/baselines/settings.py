"""The choices of the methods that the paper compares with; see `n2n.baselines.methods`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from n2n.errors import N2NError
from n2n.settings import check_kind, short_number

EMBEDDED = "efficientnet-lite0"


@dataclass(frozen=True)
class Backbone:
    """A feature extractor: its name in timm, and its layers at a 4th, 8th, 16th and 32nd."""

    timm: str
    layers: tuple[str, str, str, str]
    padim_features: int  # of how many channels, drawn at random, PaDiM takes the covariance
    file: str | None = None  # as torchvision publishes it


RESNET = ("layer1", "layer2", "layer3", "layer4")
BACKBONES = {
    EMBEDDED: Backbone(
        "tf_efficientnet_lite0", ("blocks.1", "blocks.2", "blocks.4", "blocks.6"), 100
    ),
    "resnet18": Backbone("resnet18", RESNET, 100, "resnet18-f37072fd.pth"),
    "wide-resnet50-2": Backbone(
        "wide_resnet50_2", RESNET, 550, "wide_resnet50_2-95faca4d.pth"
    ),
}  # fmt: skip
# Photographs that DRAEM pastes onto normal images: three that scikit-image carries, or the
# Describable Textures Dataset of its paper, which the user brings.
TEXTURES = ("textures-3", "textures-dtd")
DTD_ARCHIVE, DTD_FOLDER = "dtd-r1.0.1.tar.gz", "dtd"  # which the archive unpacks to
Quantity = Literal["brightness", "saturation", "detail"]  # see `n2n.baselines.trivial.MeanQuantity`
NOTHING = "own"  # a network that is trained from nothing but the normal images
LABELS = {
    EMBEDDED: "EfficientNet-Lite0", "resnet18": "ResNet-18", "wide-resnet50-2": "WideResNet-50-2",
    "textures-3": "3 textures", "textures-dtd": "DTD", NOTHING: "",
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables: what it sees beside the images, and for how long it trains."""

    label: str  # as the tables' columns call it
    backbones: tuple[str, ...]  # or textures; the first one is the default
    paper_backbone: str  # the one its own paper reports with; another makes another method
    epochs: int = 0  # 0: nothing is trained by gradients
    batch_size: int = 8
    # Which of `n2n.detection.image_scores` its own image score comes nearest to; '': none
    score: str = "max"
    settings: tuple[str, ...] = ()  # that no other method has
    by: Literal["anomalib", "gan", "nothing"] = (
        "anomalib"  # what fits it; see `n2n.baselines.methods.fit`
    )


METHODS = {
    "padim": Method("PaDiM", tuple(BACKBONES), "wide-resnet50-2"),
    "patchcore": Method(
        "PatchCore", tuple(BACKBONES), "wide-resnet50-2", settings=("coreset", "neighbours")
    ),
    "cflow": Method("CFLOW", tuple(BACKBONES), "wide-resnet50-2", 50),
    "fastflow": Method("FastFlow", tuple(BACKBONES), "wide-resnet50-2", 500, 32),
    "rd4ad": Method("RD4AD", tuple(BACKBONES), "wide-resnet50-2", 200, 16),
    "draem": Method("DRAEM", TEXTURES, "textures-dtd", 700),
    # 100 epochs are neither paper's: see `n2n.baselines.gans`
    "skip-ganomaly": Method("Skip-GANomaly", (NOTHING,), NOTHING, 100, score="mean", by="gan"),
    "dagan": Method("DAGAN", (NOTHING,), NOTHING, 100, score="mean", by="gan"),
    # Of no paper: what an image tells without a look at a defect; see `n2n.baselines.trivial`
    "thumbnail": Method(
        "Nearest thumbnail", (NOTHING,), NOTHING, score="mean", settings=("side",), by="nothing"
    ),
    "image-mean": Method(
        "Mean of the image", (NOTHING,), NOTHING, score="", settings=("quantity",), by="nothing"
    ),
}
# What a method has learned from: `n2n.analysis.baseline_tables.costs`
FAMILIES = (
    "N2N", *(f"features of {LABELS[backbone]}" for backbone in BACKBONES),
    "no pretrained features", "no training",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """What a run of a baseline is made of, apart from its data and its seed.

    `make_baseline_settings` knows the method's own values.
    """

    method: str
    backbone: str  # or textures, or 'own'
    image_size: int = 256
    coreset: float = 0.01  # PatchCore: share of the patches in its memory
    neighbours: int = 9  # PatchCore: for the weight of the image score
    epochs: int  # 0: of a method that trains nothing
    batch_size: int
    side: int = 8  # nearest thumbnail: pixels along each side
    quantity: Quantity = "brightness"  # mean of the image: of what

    def __post_init__(self) -> None:
        """Refuse unknown names and values out of range."""
        _check_method(self.method)
        method = METHODS[self.method]
        for name in ("image_size", "neighbours", "epochs", "batch_size", "side"):
            check_kind(name, getattr(self, name), int)
        check_kind("coreset", self.coreset, float)
        check_kind("quantity", self.quantity, Quantity)
        if self.backbone not in method.backbones:
            raise N2NError(
                f"There is no backbone {self.backbone!r} for {self.method}; choose one of "
                f"{', '.join(method.backbones)}."
            )
        if not 0 < self.coreset <= 1:
            raise N2NError(f"The setting coreset={self.coreset} must be above 0 and at most 1.")
        if self.image_size < 64 or self.image_size % 32:
            raise N2NError(
                f"The setting image_size={self.image_size} must be a multiple of 32, at least 64."
            )
        if self.side > self.image_size:
            raise N2NError(
                f"The setting side={self.side} must be at most image_size={self.image_size}."
            )
        for name, least in (
            ("epochs", bool(method.epochs)),
            ("batch_size", 1),
            ("neighbours", 1),
            ("side", 1),
        ):
            if getattr(self, name) < least:
                raise N2NError(
                    f"The setting {name}={getattr(self, name)} must be at least {least:d}."
                )

    @property
    def standard(self) -> bool:
        """Whether nothing but the budget and the backbone departs from the method's own values."""
        return self.changed().keys() <= {"epochs", "batch_size"}

    @property
    def variant(self) -> str:
        """The backbone and what departs from the defaults, as a folder's name."""
        return self.backbone + "".join(
            f"_{name.replace('_', '-')}-{_short(value)}" for name, value in self.changed().items()
        )

    def changed(self) -> dict[str, Any]:
        """The settings that are not the method's own, apart from the backbone."""
        base = asdict(make_baseline_settings(self.method))
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("method", "backbone") and value != base[name]
        }


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else short_number(value)


def family(settings: BaselineSettings) -> str:
    """Which of `FAMILIES` a run of a baseline belongs to."""
    if settings.backbone in BACKBONES:
        return f"features of {LABELS[settings.backbone]}"
    return FAMILIES[-2] if METHODS[settings.method].epochs else FAMILIES[-1]


def _check_method(name: str) -> None:
    if name == "n2n":
        raise N2NError("N2N is no baseline; its notebook is experiment.ipynb.")
    if name not in METHODS:
        raise N2NError(f"There is no method {name!r}; choose one of n2n, {', '.join(METHODS)}.")


def known_settings(method: str) -> set[str]:
    """The names of the settings that make a difference to a method."""
    names = {"backbone", "image_size", *METHODS[method].settings}
    if METHODS[method].epochs:
        names |= {"epochs", "batch_size"}
    return names


def make_baseline_settings(method: str, /, **changes: Any) -> BaselineSettings:
    """The method's own settings with some values replaced; ``None`` leaves a value alone.

    Raises:
        N2NError: where the method or a setting is unknown, or a value is out of range.
    """
    _check_method(method)
    given = {name: value for name, value in changes.items() if value is not None}
    if unknown := sorted(set(given) - known_settings(method)):
        raise N2NError(
            f"There is no setting {unknown[0]!r} of {method}; the settings are "
            f"{', '.join(sorted(known_settings(method)))}."
        )
    own = METHODS[method]
    values: dict[str, Any] = {
        "backbone": own.backbones[0], "epochs": own.epochs, "batch_size": own.batch_size,
    }  # fmt: skip
    return BaselineSettings(method=method, **(values | given))


def brought(backbone: str) -> str | None:
    """The file that the user brings for a backbone or for textures (unpacked); None for neither."""
    if backbone == "textures-dtd":
        return DTD_ARCHIVE
    return BACKBONES[backbone].file if backbone in BACKBONES else None


def command_options(settings: BaselineSettings) -> list[str]:
    """The options of ``n2n run`` that give these settings, not yet quoted for a shell."""
    options = ["--method", settings.method, "--backbone", settings.backbone]
    if file := brought(settings.backbone):
        options += ["--weights", DTD_FOLDER if file == DTD_ARCHIVE else file]
    for name, value in settings.changed().items():
        options += ["--set", f"{name}={value}"]
    return options


def row_label(run: BaselineSettings, precision: str = "float32", budget: bool = True) -> str:
    """A run's name as a row: 'FastFlow (EfficientNet-Lite0, 20 of 500 epochs, bfloat16)'.

    Other settings than the method's own are named, too, and the precision unless it is float32.
    Without the budget, the name is that of the method and what it works with alone.
    """
    method = METHODS[run.method]
    parts = [run.quantity if run.method == "image-mean" else LABELS[run.backbone]]
    if budget:
        changed = run.changed()
        changed.pop("quantity", None)
        if "epochs" in changed:
            parts.append(f"{run.epochs} of {method.epochs} epochs")
        parts += [
            f"{name.replace('_', ' ')} {_short(value)}"
            for name, value in changed.items()
            if name != "epochs"
        ]
        if precision != "float32":
            parts.append(precision)
    inside = ", ".join(part for part in parts if part)
    return f"{method.label} ({inside})" if inside else method.label
