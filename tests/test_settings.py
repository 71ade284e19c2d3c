"""The presets, the names of their variants, and what is refused."""

import dataclasses
import json
import math

import pytest

from n2n.errors import N2NError
from n2n.settings import (
    PRESETS,
    Settings,
    budget,
    make_settings,
    of_training,
    settings_from_dict,
    variant,
)

# For each setting but the preset and `loss_range` (see `every_variant`), values other than those of
# the presets; of the two calibrations one must be a preset's.
OTHERS = {
    "image_size": [64, 96],
    "resize": ["nearest", "bicubic"],
    "standardise": [True],
    "channels_together": [True],
    "contrast": [1.6, 0.5],
    "noise": [0.0, 0.2, 0.4, 1.0],
    "noise_mean": [0.0, -0.5],
    "noise_std": [0.25, 1.0, 0.7071],
    "noise_grain": [4, 8],
    "noise_octaves": [2, 3],
    "fresh_noise": [False],
    "network": ["unet"],
    "width": [8, 64],
    "attention": [False],
    "global_residual": [True],
    "levels": [3, 5],
    "blocks": [2],
    "scaled_inputs": [False],
    "input_filter": ["nearest"],
    "shared_lift": [False],
    "added_inputs": [True],
    "convolutions": [1, 3],
    "head_size": [1],
    "padding": ["reflect"],
    "attention_gate": [False],
    "skip_convolution": [False],
    "tanh": [True],
    "attention_identity": [False],
    "loss": ["pytorch-msssim"],
    "alpha": [0.0, 0.025, 1.0],
    "sigmas": [(1.5,), (0.5, 1.0, 2.0), (0.5, 1.0, 2.0, 4.0)],
    "c1": [1e-4],
    "c2": [9e-4],
    "border": ["zero"],
    "learning_rate": [1e-4, 3e-4],
    "min_learning_rate": [0.0, 1e-5],
    "t_max": [7, 300],
    "betas": [(0.9, 0.999)],
    "weight_decay": [0.0],
    "batch_size": [1, 16],
    "augmentation": ["flips"],
    "epochs": [1, 30],
    "patience": [5],
    "monitor": ["training"],
    "validation_fraction": [0.1],
    "checkpoint": ["last"],
    "weight_average": [0.9, 0.999],
    "noise_at_test": [False],
    "noise_draws": [5],
    "mean_at_test": [True],
    "anomaly_map": ["l1"],
    "map_sigma": [2.0],
    "calibration": ["scores"],
    "image_score": ["mean"],
    "mask_rule": ["any", "nearest"],
}

# What a setting goes with that would be refused alone.
NEEDED = {"noise_octaves": {"noise_grain": 16}, "channels_together": {"standardise": True}}


def every_variant() -> list[Settings]:
    changes = [
        {
            **({"loss_range": value} if value else {}),
            **{k: v for name in change for k, v in NEEDED.get(name, {}).items()},
            **change,
        }
        for value in (None, "unit", "normalised")
        for change in [{}, *({name: v} for name, vs in OTHERS.items() for v in vs)]
    ]
    return [
        make_settings(preset, **change)
        for preset in PRESETS
        for change in changes
        # pytorch-msssim halves an image four times; those of the demonstration are too small
        if not (preset == "demo" and "loss" in change)
    ]


def test_every_setting_is_varied():
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert OTHERS.keys() == fields - {"preset", "loss_range"}


def test_paper_is_as_printed():
    """Sections 3.1, 3.3 and 4.2, value by value."""
    paper = PRESETS["paper"]
    assert paper.image_size == 256
    assert paper.noise == 0.3
    assert (paper.noise_mean, paper.noise_std) == (0.5, 0.5)
    assert paper.attention
    assert paper.loss == "zhao"
    assert (paper.c1, paper.c2) == (0.01, 0.03)
    assert paper.loss_range == "normalised"
    assert paper.betas == (0.5, 0.999)
    assert paper.learning_rate == 1e-6
    assert paper.min_learning_rate == 1e-6
    assert paper.t_max == 100
    assert paper.epochs == 500
    assert paper.patience == 20
    assert paper.validation_fraction == 0.2


def departures(preset: str, base: str) -> dict[str, object]:
    other = PRESETS[base].as_dict()
    return {k: v for k, v in PRESETS[preset].as_dict().items() if v != other[k]}


def test_presets_depart_from_the_paper_only_where_they_say_so():
    assert departures("replication", "paper") == {
        "preset": "replication",
        "learning_rate": 1e-3,
        "epochs": 100,
        "loss_range": "unit",
        "image_score": "top1%",
    }
    small = departures("demo", "replication")
    assert small["preset"] == "demo"
    assert set(small) <= {"preset", "image_size", "width", "epochs", "t_max", "learning_rate"}


def test_improved_departs_in_its_ingredients_only():
    assert departures("improved", "replication") == {"preset": "improved", "calibration": "scores"}


def test_a_calibrated_score_needs_no_training_of_its_own():
    assert of_training(PRESETS["improved"]) == PRESETS["replication"]
    assert of_training(make_settings(noise=0.2, noise_draws=4)) == make_settings(noise=0.2)


@pytest.mark.parametrize("name", OTHERS)
def test_runs_share_a_network_where_its_use_alone_differs(name: str) -> None:
    """A name too many would pass a network of other settings off as that of these."""
    uses = {
        "noise_at_test", "mean_at_test", "noise_draws", "anomaly_map", "map_sigma", "calibration",
        "image_score", "mask_rule",
    }  # fmt: skip
    base = make_settings(**NEEDED.get(name, {}))
    other = dataclasses.replace(base, **{name: OTHERS[name][0]})
    assert (of_training(base) == of_training(other)) is (name in uses)


def test_a_whole_number_for_a_fraction_is_the_same_setting():
    whole, fraction = make_settings(noise=0, c1=1), make_settings(noise=0.0, c1=1.0)
    assert repr(whole) == repr(fraction)
    assert json.dumps(whole.as_dict()) == json.dumps(fraction.as_dict())
    assert variant(whole) == variant(fraction) == "replication_noise-0_c1-1"


def test_presets_carry_their_names():
    assert set(PRESETS) == {"paper", "replication", "improved", "demo"}
    for name, settings in PRESETS.items():
        assert settings.preset == name
        assert variant(settings) == name
        assert make_settings(name) == settings
    assert make_settings() == PRESETS["replication"]


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["paper"].noise = 0.2  # type: ignore[misc]


def test_changes_replace_and_none_leaves_alone():
    settings = make_settings("paper", noise=0.2, width=None, sigmas=[1.0, 2.0], attention=False)
    expected = dataclasses.replace(PRESETS["paper"], noise=0.2, sigmas=(1.0, 2.0), attention=False)
    assert settings == expected


def test_zero_and_false_are_values():
    settings = make_settings(noise=0, weight_decay=0.0, attention=False)
    assert (settings.noise, settings.weight_decay, settings.attention) == (0, 0.0, False)


def test_budget_ends_the_schedule_with_the_run():
    assert make_settings("paper", **budget(30)).t_max == 30
    assert make_settings("paper", **budget(30)).epochs == 30
    assert make_settings("paper", **budget(None)) == PRESETS["paper"]


def test_variant_names_are_unique():
    every = set(every_variant())
    assert len(every) > 200
    assert len({variant(settings) for settings in every}) == len(every)


def test_variant_names_are_folders():
    for settings in every_variant():
        name = variant(settings)
        assert name.split("_")[0] == settings.preset
        assert not set(name) & set('/\\:*?"<>| ')
        assert len(name) < 200


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"noise": 0.2}, "replication_noise-0.2"),
        ({"attention": False}, "replication_attention-off"),
        ({"sigmas": (0.5, 1.0)}, "replication_sigmas-0.5+1"),
        ({"noise": 0.2, "c1": 1e-4}, "replication_noise-0.2_c1-0.0001"),
        ({"noise": 0.3}, "replication"),
    ],
)
def test_variant_names_are_what_differs(changes, name):
    assert variant(make_settings(**changes)) == name


def test_settings_survive_a_json_record():
    for settings in every_variant():
        back = settings_from_dict(json.loads(json.dumps(settings.as_dict())))
        assert back == settings
        assert variant(back) == variant(settings)


def test_unknown_preset_is_named():
    with pytest.raises(N2NError, match=r"preset 'best'.*paper, replication, improved, demo"):
        make_settings("best")
    with pytest.raises(N2NError, match="'best'"):
        settings_from_dict({"preset": "best"})


@pytest.mark.parametrize("name", ["lambda_", "lr", "Noise"])
def test_unknown_setting_is_named(name):
    with pytest.raises(N2NError, match=f"setting '{name}'"):
        make_settings(**{name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", "256"),
        ("image_size", 256.0),
        ("noise", "much"),
        ("attention", 1),
        ("border", "mirror"),
        ("image_score", "median"),
        ("sigmas", "0.5"),
        ("sigmas", ("a",)),
        ("betas", (0.5,)),
        ("betas", (0.5, 1.0)),
        ("c1", -0.01),
        ("c2", -1.0),
        ("weight_decay", -0.1),
        ("map_sigma", 40.0),
        ("image_size", 56),
        ("image_size", 100),
        ("image_size", 0),
        ("noise", -0.1),
        ("noise", 1.1),
        ("noise", math.nan),
        ("noise_std", -0.5),
        ("noise_grain", 0),
        ("noise_grain", 33),
        ("noise_octaves", 0),
        ("noise_octaves", 2),
        ("width", 0),
        ("convolutions", 0),
        ("head_size", 2),
        ("padding", "zero"),
        ("width", 18),
        ("alpha", -0.1),
        ("alpha", 1.5),
        ("sigmas", ()),
        ("sigmas", (0.5, 0.0)),
        ("sigmas", (-1.0,)),
        ("sigmas", (33.0,)),
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("t_max", 0),
        ("batch_size", 0),
        ("epochs", 0),
        ("patience", 0),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("noise_draws", 0),
    ],
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(N2NError, match=f"setting {name}="):
        make_settings(**{name: value})
    with pytest.raises(N2NError, match=f"setting {name}="):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("attention", {"attention": False, "convolutions": 3}),
        ("scaled_inputs", {"scaled_inputs": False, "added_inputs": True}),
        ("shared_lift", {"shared_lift": False, "added_inputs": True}),
        ("tanh", {"tanh": True, "standardise": True}),
        ("mean_at_test", {"mean_at_test": True, "noise": 0.0}),
        ("contrast", {"contrast": 1.6, "standardise": True}),
        ("channels_together", {"channels_together": True}),
        ("tanh", {"tanh": True, "contrast": 1.6}),
        ("loss", {"loss": "pytorch-msssim", "standardise": True}),
        ("loss", {"loss": "pytorch-msssim", "contrast": 1.6}),
        ("network", {"network": "unet", "padding": "reflect"}),
    ],
)
def test_what_does_not_go_together_is_refused(name, changes):
    with pytest.raises(N2NError, match=f"setting {name}="):
        make_settings(**changes)


@pytest.mark.parametrize("without", [{"noise": 0.0}, {"noise_at_test": False}])
def test_without_noise_there_is_but_one_draw(without):
    with pytest.raises(N2NError, match="noise_draws=4 must be at least 1, and 1 where test images"):
        make_settings(noise_draws=4, **without)


def test_sigmas_are_bounded_by_the_image():
    """A window of four sigmas on either side must not be mirrored twice."""
    assert make_settings(image_size=64, sigmas=(8.0,)).sigmas == (8.0,)
    with pytest.raises(N2NError, match="sigmas"):
        make_settings(image_size=64, sigmas=(8.1,))
