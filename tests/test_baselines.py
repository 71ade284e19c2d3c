"""The baselines: what is refused, and that the maps are anomalib's own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from n2n import baselines
from n2n.baseline_settings import BACKBONES, make_baseline_settings
from n2n.baselines import fit, run_baseline, score
from n2n.cli import main
from n2n.errors import N2NError
from n2n.records import find_records

needs_anomalib = pytest.mark.skipif(
    find_spec("anomalib") is None, reason="the extra 'baselines' (anomalib) is not installed"
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(6, 3, 8, 8, generator=generator)
    return (torch.nn.functional.interpolate(smooth, 64, mode="bilinear") * 255).to(torch.uint8)


def test_the_core_does_not_import_the_extra() -> None:
    code = (
        "import sys, n2n.cli, n2n.experiment, n2n.baselines, n2n.study;"
        "print(sorted({'torchvision', 'anomalib', 'timm'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("best", {}, "no method 'best'"),
        ("padim", {"backbone": "vgg"}, "no backbone 'vgg'"),
        ("padim", {"coreset": 0.0}, "coreset=0.0 must be above 0"),
        ("patchcore", {"noise": 0.3}, "no setting 'noise' of patchcore"),
        ("patchcore", {"image_size": 100}, "multiple of 32"),
    ],
)
def test_refused(method: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(N2NError, match=message):
        make_baseline_settings(method, **changes)


def test_variants_bear_the_backbone() -> None:
    assert make_baseline_settings("padim").variant == "efficientnet-lite0"
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


@pytest.mark.skipif(find_spec("anomalib") is not None, reason="the extra is installed")
def test_without_the_extra_the_mend_is_named(images: torch.Tensor) -> None:
    with pytest.raises(N2NError, match=r"pip install \.\[baselines\]"):
        fit(images, make_baseline_settings("padim"), 0, CPU, progress=False)


@needs_anomalib
@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_a_seed_repeats_to_the_bit(method: str, images: torch.Tensor) -> None:
    settings = make_baseline_settings(method, image_size=64, coreset=0.2)

    def maps(seed: int) -> torch.Tensor:
        model = fit(images, settings, seed, CPU, progress=False)
        return score(model, images, settings, CPU, progress=False)[0]

    first = maps(0)
    assert first.shape == (6, 64, 64)
    assert torch.isfinite(first).all()
    assert torch.equal(first, maps(0))
    assert not torch.equal(first, maps(1))


@needs_anomalib
@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_the_maps_are_those_of_anomalibs_own_loop(method: str, images: torch.Tensor) -> None:
    """Its Lightning module, step by step, without its pre- and post-processing."""
    settings = make_baseline_settings(method, image_size=64, coreset=0.2)
    ours = fit(images, settings, 0, CPU, progress=False)
    from anomalib.data import ImageBatch
    from anomalib.models import Padim, Patchcore

    backbone = BACKBONES[settings.backbone]
    torch.manual_seed(0)
    options = {"pre_processor": False, "post_processor": False, "evaluator": False}
    if method == "padim":
        theirs = Padim(
            backbone=backbone.timm, layers=list(backbone.layers), pre_trained=False,
            n_features=backbone.padim_features, visualizer=False, **options,
        )  # fmt: skip
    else:
        theirs = Patchcore(
            backbone=backbone.timm, layers=backbone.layers[1:], pre_trained=False,
            coreset_sampling_ratio=0.2, visualizer=False, **options,
        )  # fmt: skip
    baselines._load_weights(
        theirs.model.feature_extractor.feature_extractor, settings.backbone, None
    )
    if method == "padim":
        theirs.model.idx = ours.idx  # the channels that the seed drew
    else:
        theirs.model.memory_bank = ours.memory_bank  # the coreset: its first patch is drawn, too
    seen = baselines._input(images, settings.backbone)
    theirs.train()
    theirs.model.feature_extractor.eval()
    if method == "padim":
        theirs.training_step(ImageBatch(image=seen))
        theirs.model.fit()
    theirs.eval()
    with torch.inference_mode():
        found = theirs.validation_step(ImageBatch(image=seen))
    maps, scores = score(ours, images, settings, CPU, progress=False)
    torch.testing.assert_close(maps, found.anomaly_map.reshape(maps.shape), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, found.pred_score.flatten(), rtol=1e-4, atol=1e-4)


@needs_anomalib
def test_a_file_of_weights(images: torch.Tensor, tmp_path: Path) -> None:
    """Random weights in torchvision's layout are taken; anything else is refused by name."""
    settings = make_baseline_settings("padim", backbone="resnet18", image_size=64)
    with pytest.raises(N2NError, match=r"resnet18-f37072fd\.pth; download it from"):
        fit(images, settings, 0, CPU, progress=False)
    baselines._allow_torchvision()
    import timm

    whole = timm.create_model("resnet18", pretrained=False).state_dict()  # torchvision's names
    torch.save(whole, tmp_path / "resnet18.pth")
    model = fit(images, settings, 0, CPU, tmp_path / "resnet18.pth", progress=False)
    kept = model.feature_extractor.feature_extractor.state_dict()
    assert torch.equal(kept["layer3.1.conv2.weight"], whole["layer3.1.conv2.weight"])
    other = make_baseline_settings("padim", backbone="wide-resnet50-2", image_size=64)
    with pytest.raises(N2NError, match="are not those of wide-resnet50-2"):
        fit(images, other, 0, CPU, tmp_path / "resnet18.pth", progress=False)
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(N2NError, match="cannot be read"):
        fit(images, settings, 0, CPU, tmp_path / "broken.pth", progress=False)
    with pytest.raises(N2NError, match="brings its own weights"):
        fit(images, make_baseline_settings("padim"), 0, CPU, tmp_path / "x", progress=False)


@needs_anomalib
def test_a_run_writes_a_record(parts: Path, tmp_path: Path) -> None:
    settings = make_baseline_settings("padim", image_size=64)
    record = run_baseline(
        parts, "parts", "disc", settings, results=tmp_path, device="cpu", progress=False
    )
    assert record.key.method == "padim"
    assert record.content["data"]["train"] == 8
    assert 0 <= record.metric("image") <= 1
    assert [found.key for found in find_records(tmp_path)] == [record.key]
