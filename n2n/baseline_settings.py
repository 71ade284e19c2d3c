"""The choices of the methods that the paper compares with; see `n2n.baselines`."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

from n2n.errors import N2NError

EMBEDDED = "efficientnet-lite0"


@dataclass(frozen=True)
class Backbone:
    """A feature extractor: its name in timm, and its layers at a 4th, 8th and 16th of the size."""

    timm: str
    layers: tuple[str, str, str]
    padim_features: int  # of how many channels, drawn at random, PaDiM takes the covariance
    file: str | None = None  # as torchvision publishes it


BACKBONES = {
    EMBEDDED: Backbone("tf_efficientnet_lite0", ("blocks.1", "blocks.2", "blocks.4"), 100),
    "resnet18": Backbone(
        "resnet18", ("layer1", "layer2", "layer3"), 100, "resnet18-f37072fd.pth"
    ),
    "wide-resnet50-2": Backbone(
        "wide_resnet50_2", ("layer1", "layer2", "layer3"), 550, "wide_resnet50_2-95faca4d.pth"
    ),
}  # fmt: skip
LABELS = {
    EMBEDDED: "EfficientNet-Lite0", "resnet18": "ResNet-18", "wide-resnet50-2": "WideResNet-50-2"
}  # fmt: skip
# What the methods' own papers report with; a rerun with another one gets a row of its own.
OWN_BACKBONE = {"padim": "wide-resnet50-2", "patchcore": "wide-resnet50-2"}
METHODS = {"padim": "PaDiM", "patchcore": "PatchCore"}  # as the tables' columns call them


@dataclass(frozen=True)
class BaselineSettings:
    """What a run of a baseline is made of, apart from its data and its seed."""

    method: str
    backbone: str = EMBEDDED
    image_size: int = 256
    coreset: float = 0.01  # PatchCore: share of the patches in its memory
    neighbours: int = 9  # PatchCore: for the weight of the image score

    def __post_init__(self) -> None:
        """Refuse unknown names and values out of range."""
        for value, known, what in (
            (self.method, METHODS, "method"),
            (self.backbone, BACKBONES, "backbone"),
        ):
            if value not in known:
                raise N2NError(f"There is no {what} {value!r}; choose one of {', '.join(known)}.")
        if not 0 < self.coreset <= 1:
            raise N2NError(f"The setting coreset={self.coreset} must be above 0 and at most 1.")
        if self.image_size < 64 or self.image_size % 32:
            raise N2NError(
                f"The setting image_size={self.image_size} must be a multiple of 32, at least 64."
            )

    @property
    def variant(self) -> str:
        """The backbone and what departs from the defaults, as a folder's name."""
        base = asdict(BaselineSettings(self.method))
        changed = [
            f"_{name.replace('_', '-')}-{value:g}"
            for name, value in asdict(self).items()
            if name not in ("method", "backbone") and value != base[name]
        ]
        return self.backbone + "".join(changed)


def make_baseline_settings(method: str, **changes: Any) -> BaselineSettings:
    """The defaults of a method with some values replaced; ``None`` leaves a value alone.

    Raises:
        N2NError: where the method or a setting is unknown, or a value is out of range.
    """
    known = {field.name for field in dataclasses.fields(BaselineSettings)} - {"method"}
    if unknown := sorted(set(changes) - known):
        raise N2NError(
            f"There is no setting {unknown[0]!r} of {method}; the settings are "
            f"{', '.join(sorted(known))}."
        )
    given = {name: value for name, value in changes.items() if value is not None}
    return BaselineSettings(method, **given)
