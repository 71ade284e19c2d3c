"""The baselines: what is refused, and that the maps are anomalib's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.neighbors import NearestNeighbors
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from n2n.baselines import anomalib_models
from n2n.baselines.methods import fit, score
from n2n.baselines.settings import (
    METHODS,
    BaselineSettings,
    Quantity,
    make_baseline_settings,
    row_label,
)
from n2n.cli import main
from n2n.errors import N2NError
from n2n.plan import read_study
from n2n.records import find_records
from n2n.study import run_study
from tests.conftest import smooth_images

needs_anomalib = pytest.mark.skipif(
    find_spec("anomalib") is None, reason="the extra 'baselines' (anomalib) is not installed"
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask for a file from elsewhere."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection to {arguments[-1]}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return smooth_images(6)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for torchvision's file: its names and shapes, random weights."""
    anomalib_models.allow_torchvision()
    import timm

    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), file)
    return file


def small(method: str, **changes: object) -> BaselineSettings:
    """A budget of seconds: two epochs of two steps where the method trains."""
    budget = {"coreset": 0.2} if method == "patchcore" else {}
    if METHODS[method].epochs:
        budget = {"epochs": 2, "batch_size": 3}
    return make_baseline_settings(method, image_size=64, **(budget | changes))


def test_the_core_does_not_import_the_extra() -> None:
    code = (
        "import sys, n2n.cli, n2n.experiment, n2n.baselines.methods, n2n.study;"
        "print(sorted({'torchvision', 'anomalib', 'timm'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("best", {}, "no method 'best'"),
        ("best", {"noise": 0.2}, "no method 'best'"),
        ("padim", {"backbone": "vgg"}, "no backbone 'vgg'"),
        ("patchcore", {"coreset": 0.0}, "coreset=0.0 must be above 0"),
        ("padim", {"coreset": 0.1}, "no setting 'coreset' of padim"),
        ("padim", {"epochs": 3}, "no setting 'epochs' of padim"),
        ("cflow", {"epochs": 0}, "epochs=0 must be at least 1"),
        ("thumbnail", {"side": 257}, "side=257 must be at most image_size=256"),
        ("draem", {"backbone": "resnet18"}, "no backbone 'resnet18' for draem"),
        ("dagan", {"backbone": "resnet18"}, "no backbone 'resnet18' for dagan"),
        ("skip-ganomaly", {"coreset": 0.1}, "no setting 'coreset' of skip-ganomaly"),
        ("image-mean", {"quantity": "hue"}, "quantity=hue must be one of brightness, saturation"),
        ("thumbnail", {"quantity": "detail"}, "no setting 'quantity' of thumbnail"),
        ("patchcore", {"noise": 0.3}, "no setting 'noise' of patchcore"),
        ("patchcore", {"image_size": 100}, "multiple of 32"),
    ],
)
def test_refused(method: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(N2NError, match=message):
        make_baseline_settings(method, **changes)


def test_variants_bear_the_backbone() -> None:
    assert make_baseline_settings("padim").variant == "efficientnet-lite0"
    assert make_baseline_settings("image-mean", quantity="detail").variant == "own_quantity-detail"
    changed = make_baseline_settings("patchcore", backbone="resnet18", coreset=0.1)
    assert changed.variant == "resnet18_coreset-0.1"


def test_n2n_takes_no_backbone(parts: Path) -> None:
    options = [
        "--data",
        parts,
        "--dataset",
        "parts",
        "--category",
        "disc",
        "--backbone",
        "resnet18",
    ]
    outcome = CliRunner().invoke(main, ["run", *map(str, options)])
    assert outcome.exit_code == 1
    assert "belong to the baselines" in outcome.output


def test_without_the_extra_the_mend_is_named(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anomalib", "anomalib.models"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it then fails
    with pytest.raises(N2NError, match=r"pip install -e \.\[baselines\]"):
        fit(images, make_baseline_settings("padim"), 0, CPU, progress=False)


def test_the_nearest_thumbnail_is_scikit_learns(images: torch.Tensor) -> None:
    settings = make_baseline_settings("thumbnail", image_size=64, side=4)
    model = fit(images[:4], settings, 0, CPU, progress=False)
    maps, scores = score(model, images, settings, CPU, progress=False)
    cells = images.numpy().reshape(6, 3, 4, 16, 4, 16).mean((3, 5)) / 127.5 - 1
    flat = cells.reshape(6, -1)
    distance, nearest = NearestNeighbors(n_neighbors=1).fit(flat[:4]).kneighbors(flat)
    assert scores.numpy() == pytest.approx(distance[:, 0] ** 2 / 48, abs=1e-6)
    assert list(scores[:4]) == pytest.approx([0] * 4, abs=1e-6)  # they are known
    expected = ((cells[5] - cells[nearest[5, 0]]) ** 2).mean(0)
    assert maps[5, 8::16, 8::16].numpy() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(maps[:, :16, :16].amin((1, 2)), maps[:, :16, :16].amax((1, 2)))


@pytest.mark.parametrize("quantity", get_args(Quantity))
def test_the_mean_of_a_quantity_is_scipys(quantity: Quantity, images: torch.Tensor) -> None:
    settings = make_baseline_settings("image-mean", image_size=64, quantity=quantity)
    maps, scores = score(
        fit(images[:4], settings, 0, CPU, progress=False), images, settings, CPU, progress=False
    )
    colours = images.double().numpy() / 255
    expected = {
        "brightness": colours.mean(1),
        "saturation": np.ptp(colours, axis=1),
        "detail": abs(colours - gaussian_filter(colours, (0, 0, 2, 2), mode="mirror")).mean(1),
    }[quantity]
    assert maps.numpy() == pytest.approx(expected, abs=1e-6)
    means = expected.mean((1, 2))
    assert scores.numpy() == pytest.approx(abs(means - means[:4].mean()), abs=1e-6)


@needs_anomalib
@pytest.mark.parametrize("method", ["padim", "patchcore", "cflow", "fastflow", "rd4ad"])
def test_a_seed_repeats_to_the_bit(method: str, images: torch.Tensor) -> None:
    settings = small(method)

    def maps(seed: int) -> torch.Tensor:
        model = fit(images, settings, seed, CPU, progress=False)
        return score(model, images, settings, CPU, progress=False)[0]

    first = maps(0)
    assert first.shape == (6, 64, 64)
    assert torch.isfinite(first).all()
    assert torch.equal(first, maps(0))
    assert not torch.equal(first, maps(1))


def module_of_anomalib(method: str, resnet18: Path) -> Any:
    """Its Lightning module on a ResNet-18, without what changes raw maps and scores."""
    from anomalib.models import Cflow, Draem, Fastflow, Padim, Patchcore, ReverseDistillation
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Resize

    options: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}
    options["pre_processor"] = PreProcessor(transform=Resize((64, 64)))  # that of the images
    if method == "draem":
        files = anomalib_models._textures("textures-3", None)
        module = Draem(dtd_dir=files[0].parent, **options)
        module.augmenter.anomaly_source_paths = files
        return module
    options["pre_trained"] = False
    if method == "padim":
        module = Padim("resnet18", ["layer1", "layer2", "layer3"], n_features=100, **options)
    elif method == "patchcore":
        module = Patchcore("resnet18", ["layer2", "layer3"], coreset_sampling_ratio=1.0, **options)
    elif method == "cflow":
        layers = ("layer2", "layer3", "layer4")
        module = Cflow("resnet18", layers, fiber_batch_size=4, **options)
    else:
        module = {"fastflow": Fastflow, "rd4ad": ReverseDistillation}[method]("resnet18", **options)
    extractor = module.model.encoder if method in ("cflow", "rd4ad") else module.model
    extractor = extractor.feature_extractor
    if method in ("padim", "patchcore"):
        extractor = extractor.feature_extractor
    anomalib_models._load_weights(extractor, "resnet18", resnet18)
    return module


@needs_anomalib
@pytest.mark.parametrize("method", ["padim", "patchcore", "cflow", "fastflow", "rd4ad", "draem"])
@pytest.mark.filterwarnings("ignore")
def test_the_maps_are_those_of_anomalibs_engine(
    method: str, images: torch.Tensor, resnet18: Path, tmp_path: Path
) -> None:
    """Fitted and asked by its own engine on the same images, before its normalisation."""
    changes: dict[str, object] = {"backbone": "resnet18"}
    if method == "patchcore":
        changes["coreset"] = 1.0  # its selection has a test of its own
    elif method == "draem":
        images, changes = images[:2], {"epochs": 1, "batch_size": 2}
    elif method != "padim":
        changes |= {"epochs": 2, "batch_size": 3}
    settings = small(method, **changes)
    weights = None if method == "draem" else resnet18
    ours = fit(images, settings, 0, CPU, weights, progress=False)
    maps, scores = score(ours, images, settings, CPU, progress=False)

    from anomalib.data import ImageBatch
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    def collate(rows: list[tuple[torch.Tensor]]) -> Any:
        whole = torch.stack([image for (image,) in rows])
        return ImageBatch(image=anomalib_models.see(whole, settings))

    seed_everything(0, verbose=False)
    theirs = module_of_anomalib(method, resnet18)
    dataset = torch.utils.data.TensorDataset(images)
    once = method in ("padim", "patchcore")
    batches = torch.utils.data.DataLoader(
        dataset, 8 if once else settings.batch_size, shuffle=not once, collate_fn=collate
    )
    engine = Engine(
        default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, max_epochs=settings.epochs,
    )  # fmt: skip
    engine.fit(theirs, train_dataloaders=batches)
    asked = torch.utils.data.DataLoader(dataset, 8, collate_fn=collate)
    (found,) = engine.predict(theirs, dataloaders=asked)
    difference = found.anomaly_map.reshape(maps.shape) - maps
    if method == "cflow":  # whose reference is another, see below
        difference -= difference.mean()
    else:
        torch.testing.assert_close(scores, found.pred_score.flatten(), rtol=1e-4, atol=1e-4)
    assert float(difference.abs().max()) <= 1e-4 * float(maps.abs().max())


@needs_anomalib
@pytest.mark.parametrize("clusters", [600, 12])  # far from each other, or mostly to be skipped
def test_the_coreset_is_anomalibs(clusters: int) -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.randn(clusters, 40, generator=generator).repeat(600 // clusters, 1)
    patches = middles + 0.1 * torch.randn(600, 40, generator=generator)
    anomalib_models.allow_torchvision()
    from anomalib.models.components.sampling import KCenterGreedy
    from lightning.pytorch import seed_everything

    seed_everything(0, verbose=False)
    theirs = KCenterGreedy(embedding=patches, sampling_ratio=0.1).sample_coreset()
    seed_everything(0, verbose=False)
    ours = anomalib_models._coreset(patches, 0.1, progress=False)
    assert len(theirs) == 60
    assert torch.equal(ours, theirs)


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes()
        self.alive = {ref: size for ref, size in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self.alive.values()))
        return made


@needs_anomalib
def test_patchcore_holds_its_patches_once(images: torch.Tensor) -> None:
    """An image more costs the memory of its patches, their projection and their distances."""
    peaks = []
    for count in (60, 120):
        with Held() as held:
            settings = small("patchcore", coreset=0.02)
            model = fit(images[:1].expand(count, -1, -1, -1), settings, 0, CPU, progress=False)
        peaks.append(held.peak)
    patches, channels = 64, model.memory_bank.shape[1]  # of an image of 64x64; of each of them
    assert (peaks[1] - peaks[0]) / 60 < 1.25 * 4 * patches * 2 * channels


@needs_anomalib
def test_cflows_map_is_anomalibs_up_to_the_reference(images: torch.Tensor) -> None:
    """With the likeliest patch of the batch as the reference, the maps differ by a constant."""
    settings = small("cflow")
    model = fit(images, settings, 0, CPU, progress=False)
    from anomalib.models.image.cflow.anomaly_map import AnomalyMapGenerator

    ours = model.anomaly_map_generator
    assert all(math.isfinite(value) for value in ours.highest)
    generator = torch.Generator().manual_seed(1)
    sides = [8, 4, 2]
    likelihoods = [torch.randn(6 * side**2, generator=generator) for side in sides]
    ours.highest = [float(values.max()) for values in likelihoods]
    given = {"distribution": likelihoods, "height": sides, "width": sides, "image_size": (64, 64)}
    difference = ours(**given)[:, 0] - AnomalyMapGenerator(model.pool_layers)(**given)
    assert float(difference.max() - difference.min()) < 1e-5


@needs_anomalib
@pytest.mark.parametrize("method", ["cflow", "fastflow", "rd4ad"])
def test_a_score_does_not_depend_on_the_images_beside_it(method: str, images: torch.Tensor) -> None:
    settings = small(method)
    model = fit(images, settings, 0, CPU, progress=False)
    together = score(model, images, settings, CPU, progress=False)[0]
    alone = score(model, images[2:3], settings, CPU, progress=False)[0]
    torch.testing.assert_close(alone[0], together[2], rtol=1e-4, atol=1e-4)


@needs_anomalib
def test_draem_trains_on_textures_without_a_download(images: torch.Tensor, tmp_path: Path) -> None:
    settings = small("draem", epochs=1, batch_size=2)
    model = fit(images[:2], settings, 0, CPU, progress=False)
    maps, scores = score(model, images, settings, CPU, progress=False)
    again = fit(images[:2], settings, 0, CPU, progress=False)
    assert torch.equal(score(again, images, settings, CPU, progress=False)[0], maps)
    assert maps.shape == (6, 64, 64)
    assert ((maps >= 0) & (maps <= 1)).all()  # a probability
    torch.testing.assert_close(scores, maps.amax((1, 2)))
    bring = small("draem", backbone="textures-dtd", epochs=1, batch_size=2)
    with pytest.raises(N2NError, match=r"dtd-r1\.0\.1\.tar\.gz"):
        fit(images[:2], bring, 0, CPU, tmp_path, progress=False)
    Image.new("RGB", (80, 70), "red").save(tmp_path / "stand-in.jpg")
    brought = fit(images[:2], bring, 0, CPU, tmp_path, progress=False)
    assert score(brought, images[:1], bring, CPU, progress=False)[0].shape == (1, 64, 64)


@needs_anomalib
def test_a_training_that_goes_astray_is_stopped(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss

    broken = staticmethod(lambda student, teacher: teacher[0].sum() * torch.nan)
    monkeypatch.setattr(ReverseDistillationLoss, "forward", broken)
    with pytest.raises(N2NError, match="loss of rd4ad is not finite in epoch 1"):
        fit(images, small("rd4ad"), 0, CPU, progress=False)


def test_rows_say_what_stands_in_and_how_short_a_training_was() -> None:
    def label(method: str, **changes: object) -> str:
        return row_label(make_baseline_settings(method, **changes))

    assert label("padim") == "PaDiM (EfficientNet-Lite0)"
    assert label("cflow", epochs=5) == "CFLOW (EfficientNet-Lite0, 5 of 50 epochs)"
    assert label("draem", backbone="textures-dtd") == "DRAEM (DTD)"
    assert label("dagan") == "DAGAN"
    half = make_baseline_settings("fastflow", epochs=4, batch_size=8)
    assert row_label(half, "bfloat16") == (
        "FastFlow (EfficientNet-Lite0, 4 of 500 epochs, batch size 8, bfloat16)"
    )
    assert row_label(half, "bfloat16", budget=False) == "FastFlow (EfficientNet-Lite0)"
    assert make_baseline_settings("rd4ad", epochs=9).variant == "efficientnet-lite0_epochs-9"


@needs_anomalib
def test_a_file_of_weights(images: torch.Tensor, resnet18: Path, tmp_path: Path) -> None:
    """Random weights in torchvision's layout are taken; anything else is refused by name."""
    settings = make_baseline_settings("padim", backbone="resnet18", image_size=64)
    with pytest.raises(N2NError, match=r"resnet18-f37072fd\.pth; download it from"):
        fit(images, settings, 0, CPU, progress=False)
    whole = torch.load(resnet18)
    model = fit(images, settings, 0, CPU, resnet18, progress=False)
    kept = model.feature_extractor.feature_extractor.state_dict()
    assert torch.equal(kept["layer3.1.conv2.weight"], whole["layer3.1.conv2.weight"])
    other = make_baseline_settings("padim", backbone="wide-resnet50-2", image_size=64)
    with pytest.raises(N2NError, match="are not those of wide-resnet50-2"):
        fit(images, other, 0, CPU, resnet18, progress=False)
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(N2NError, match="cannot be read"):
        fit(images, settings, 0, CPU, tmp_path / "broken.pth", progress=False)


@pytest.mark.parametrize("method", ["padim", "thumbnail", "dagan"])
def test_a_file_that_is_not_needed_is_refused(method: str, images: torch.Tensor) -> None:
    with pytest.raises(N2NError, match="needs no file beside the images; leave --weights out"):
        fit(images, make_baseline_settings(method), 0, CPU, Path("x"), progress=False)


def test_cflow_is_refused_where_there_is_no_float64(images: torch.Tensor) -> None:
    with pytest.raises(N2NError, match="float64, which Apple's GPUs lack; choose --device cpu"):
        fit(images, make_baseline_settings("cflow"), 0, torch.device("mps"), progress=False)


@pytest.mark.parametrize("method", ["padim", "thumbnail"])
def test_without_a_training_there_is_no_precision(method: str, images: torch.Tensor) -> None:
    settings = make_baseline_settings(method)
    with pytest.raises(N2NError, match=f"{method} trains nothing; leave --precision out"):
        fit(images, settings, 0, CPU, precision=torch.bfloat16, progress=False)


def test_the_method_is_no_setting() -> None:
    with pytest.raises(N2NError, match="no setting 'method' of padim"):
        make_baseline_settings("padim", method="cflow")


@needs_anomalib
def test_a_study_brings_a_file_of_weights(
    parts: Path, resnet18: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path, results = tmp_path / "study.yaml", tmp_path / "results"
    block = {
        "dataset": "parts", "categories": ["disc"], "method": "padim",
        "base": {"backbone": "resnet18", "image_size": 64}, "weights": str(resnet18),
    }  # fmt: skip
    path.write_text(json.dumps({"title": "T", "purpose": "P", "runs": [block]}))  # JSON is YAML
    assert run_study(read_study(path), parts, results, device="cpu", progress=False) == []
    (record,) = find_records(results)
    assert record.key.variant == "resnet18_image-size-64"
    assert record.content["data"]["train"] == 8
    assert "--weights resnet18-f37072fd.pth" in record.content["provenance"]["command"]
    assert "anomalib" in record.content["provenance"]["packages"]
    assert list((tmp_path / "here").iterdir()) == []
    left = {path.suffix for path in results.rglob("*") if path.is_file()}
    assert left <= {".json", ".csv", ".lock", ".pt"}  # .pt: the decoded images, no checkpoint


@needs_anomalib
def test_the_file_that_the_tables_name(parts: Path, tmp_path: Path) -> None:
    """A stand-in for torchvision's WideResNet-50-2, with random weights, on the command line."""
    anomalib_models.allow_torchvision()
    import timm

    file = tmp_path / "wide_resnet50_2-95faca4d.pth"
    torch.save(timm.create_model("wide_resnet50_2", pretrained=False).state_dict(), file)
    options = [
        "--data", parts, "--dataset", "parts", "--category", "disc", "--method", "patchcore",
        "--backbone", "wide-resnet50-2", "--weights", file, "--image-size", 64, "--set",
        "coreset=0.1", "--results", tmp_path / "results", "--device", "cpu", "--quiet",
    ]  # fmt: skip
    outcome = CliRunner().invoke(main, ["run", *map(str, options)])
    assert outcome.exit_code == 0, outcome.output
    (record,) = find_records(tmp_path / "results")
    assert record.content["settings"]["backbone"] == "wide-resnet50-2"
    assert f"--weights {file.name}" in record.content["provenance"]["command"]
