"""The numbers that README, introduction and findings give by hand, against the records."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

from n2n.analysis import beyond, effects, luck, mechanism, sensitivity, verdicts
from n2n.analysis.selection import own_records
from n2n.analysis.tables import compare_all, own_measurements
from n2n.analysis.thresholds import called_anomalous
from n2n.corruption import normalise, to_unit
from n2n.demo_data import draw
from n2n.loss import error_map, gaussian_filter
from n2n.records import Record
from n2n.settings import make_settings
from tests.test_metrics import delong

ROOT = Path(__file__).parents[1]
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
GUESSES = [  # at Figures 2 and 3
    "smaller inputs added", "1×1 heads", "convolutions with mirrored borders",
    "a first convolution for each size; plain skip connections",
]  # fmt: skip
MODULES = ["one 3×3 convolution a module", "three 3×3 convolutions a module"]
README, INTRO, FINDINGS = "README.md", "book/intro.md", "book/findings.md"


@functools.cache
def cells() -> pd.DataFrame:
    return own_measurements(compare_all(ROOT / "results"))


def cell(category: str, level: str = "image", column: str = "lambda=0.3") -> pd.Series:
    found = cells().set_index(["category", "level", "column"])
    return found.loc[(category, level, column)]


def runs(category: str, **chosen: str) -> list[Record]:
    return list(cell(category, **chosen)["runs"])


def by_score(category: str, score: str, **chosen: str) -> float:
    found = runs(category, **chosen)
    return 100 * mean(run.content["image_scores"][score]["auroc"] for run in found)


def hidden(category: str) -> float:
    return 100 * mean(run.content["hidden_alike"]["top1%"] for run in runs(category))


def listed(values: Sequence[object]) -> str:
    return f"{', '.join(map(str, values[:-1]))} and {values[-1]}"


def found(category: str, **chosen: str) -> str:
    return listed([called_anomalous(run)[0] for run in runs(category, **chosen)])


def agreeing(answer: str, what: str = "agrees") -> str:
    changes = verdicts.printed_effects(ROOT / "results")
    return WORDS[int(changes[what].eq(answer).sum())]


def single() -> list[Record]:
    """The tables' networks of Metal Plate in single precision, by seed."""
    replication = make_settings("replication")
    records = own_records(ROOT / "results/float32")
    return sorted((r for r in records if r.settings == replication), key=lambda r: r.key.seed)


def text(file: str) -> str:
    """A page without its line breaks and the targets of its links."""
    words = re.sub(r"\s+", " ", (ROOT / file).read_text(encoding="utf-8"))
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words).replace("**", "")


@pytest.mark.parametrize(
    ("category", "levels"),
    [
        ("metal_plate", ("image", "pixel")), ("bracket_white", ("image", "pixel")),
        ("capsules", ("image",)), ("fryum", ("image",)),
    ],
)  # fmt: skip
def test_the_readme_has_what_the_tables_have(category: str, levels: tuple[str, ...]) -> None:
    name = category.replace("_", " ").title()
    line = next(row for row in text(README).split("| |") if row.strip(" |").startswith(f"{name}, "))
    printed, ours = (part.strip() for part in line.strip(" |").split("|")[1:3])
    of_levels = [cell(category, level) for level in levels]
    assert printed == ", ".join(f"{row['paper']:.1f}" for row in of_levels)
    seeds = of_levels[0]["seeds"]
    assert re.sub(" trainings", "", ours) == (
        ", ".join(f"{row['ours']:.1f}" for row in of_levels) + f" ({seeds})"
    )


@functools.cache
def facts() -> dict[str, str]:
    return {
        "plates": found("metal_plate"),
        "plates without noise": found("metal_plate", column="lambda=0"),
        "capsules": found("capsules"),
        "agree": agreeing("yes"),
        "do not": agreeing("no"),
        "no change": agreeing("yes", "no change"),
        "single": listed([f"{100 * run.metric('image'):.1f}" for run in single()]),
        "found single": listed([called_anomalous(run)[0] for run in single()]),
        "maximum": f"{by_score('capsules', 'max'):.0f}",
        "mean": f"{by_score('capsules', 'mean'):.0f}",
        "capsules hidden": f"{hidden('capsules'):.0f}",
        "fryum hidden": f"{hidden('fryum'):.0f}",
        "attention": f"{cell('metal_plate')['ours']:.0f}",
        "no attention": f"{cell('metal_plate', column='without attention')['ours']:.0f}",
        "maximum with noise": f"{by_score('metal_plate', 'max'):.0f}",
        "mean without noise": f"{by_score('metal_plate', 'mean', column='lambda=0'):.0f}",
        "maximum without noise": f"{by_score('metal_plate', 'max', column='lambda=0'):.0f}",
    }


@pytest.mark.parametrize(
    ("sentence", "files"),
    [
        ("find {plates} of 71 bad plates", [README]),
        ("find {plates} of its 71 bad plates", [INTRO]),
        ("find {plates} of the 71 bad plates", [FINDINGS]),
        ("without it {plates without noise} are found, with it {plates} (", [FINDINGS]),
        ("finds {capsules} of the 100 bad ones", [FINDINGS]),
        ("{agree} agree with ours, {do not} do not", [README, FINDINGS]),
        ("had the paper printed zero for all 16, {no change} would agree", [README, FINDINGS]),
        ("the three have {single} %, and find {found single}.", [FINDINGS]),
        ("{maximum} by the maximum", [README, FINDINGS]),
        ("By the maximum of the map it is {maximum}, by the mean {mean}.", [INTRO]),
        ("{mean} by its mean", [README]),
        ("{mean} by the mean", [FINDINGS]),
        ("{capsules hidden} with the defects hidden", [README]),
        ("{capsules hidden} % remain", [INTRO, FINDINGS]),
        ("{fryum hidden} with the defects hidden", [README]),
        ("from {attention} to {no attention} %", [INTRO, FINDINGS]),
        ("its images fall from {maximum with noise} to {maximum without noise} %", [FINDINGS]),
        ("{mean without noise} % and the maximum {maximum without noise}", [FINDINGS]),
        ("{mean without noise} % and the largest value {maximum without noise}", [INTRO]),
    ],
)
def test_a_sentence_has_the_numbers_of_the_records(sentence: str, files: list[str]) -> None:
    for file in files:
        assert sentence.format(**facts()) in text(file), file


def test_the_method_page_has_what_the_map_reacts_to() -> None:
    side, line = 256, slice(113, 143)
    plate = torch.from_numpy(draw("plate", (0, 0, 0, 0), side)[0]).movedim(-1, 0)
    clean = normalise(plate[None])
    crossed = clean.clone()
    crossed[..., side // 2, line] -= 2 * 0.05
    copies = {
        "a tenth darker": clean - 2 * 0.1,
        "moved by a pixel": clean.roll(1, dims=3),
        "softened, σ = 1 pixel": gaussian_filter(clean, 1.0, "reflect"),
        "crossed by a line a pixel wide, 0.05 darker": crossed,
    }
    for name, copy in copies.items():
        plain = (to_unit(copy) - to_unit(clean)).abs().mean(1)
        of_eq9 = error_map(copy, clean, make_settings("replication"))
        values = [f"{of.mean():.3f} | {of.max():.2f}" for of in (plain, of_eq9)]
        assert f"| {name} | {' | '.join(values)} |" in text("book/method.md")


def test_the_method_page_has_the_shares_that_come_back() -> None:
    for side, name in ((1, "a pixel"), (3, "3×3"), (30, "30×30")):
        grey = 255 / 2 * 0.5 * 0.3 / 0.7 / side
        share = 100 * float(mechanism.shrinkage(side, 0.3))
        row = f"| {name} | {grey:.1f} | {share:.{1 if share > 99 else 0}f} % |"
        assert row in text("book/method.md")


def test_the_interval_of_metal_plate_by_delong_s_variance() -> None:
    ends = []
    for run in runs("metal_plate"):
        scores = pd.read_csv(run.folder / "scores.csv")
        area, variance = delong(scores["top1%"].to_numpy(), scores["anomalous"].to_numpy(bool))
        reach = 1.96 * variance**0.5 / (area * (1 - area))  # on the scale of the logit
        middle = np.log(area / (1 - area))
        ends.append(100 / (1 + np.exp(-(middle + np.array([-reach, reach])))))
    low, high = np.mean(ends, axis=0)
    assert f"near the end, it is {low:.1f} to {high:.2f}, a hundredth short" in text(
        "book/metrics.md"
    )


def test_how_wide_thirty_images_leave_an_interval() -> None:
    def width(area: float, images: int = 30) -> float:
        """By Hanley and McNeil, *Radiology* 143 (1982), in points."""
        one, other = area / (2 - area), 2 * area**2 / (1 + area)
        rest = (images - 1) * (one + other - 2 * area**2)
        return 100 * 2 * 1.96 * ((area * (1 - area) + rest) / images**2) ** 0.5

    enough = next(percent for percent in range(90, 100) if width(percent / 100) < 10)
    sentence = f"from an AUROC of {enough} % on (at 89.3 it is {width(0.893):.0f} wide"
    assert sentence in text("book/metrics.md")


def test_the_rate_at_which_the_rule_ends_long_trainings() -> None:
    ends = []
    for record in own_records(ROOT / "results"):
        settings = record.settings
        if settings.epochs == settings.t_max == 500 and settings.image_size == 128:
            rate = record.table("history.csv")["learning_rate"]
            ends.append(100 * rate.iloc[-1] / rate.iloc[0])
    sentence = f"while the rate is still {min(ends):.0f} to {max(ends):.0f} % of its first value"
    assert sentence in text("notebooks/dynamics.ipynb")


def test_the_processors_of_the_small_study() -> None:
    runs = sensitivity.study_runs(ROOT / "results")
    trained = runs["stage"].eq("training") | runs["variant"].eq(sensitivity.BASE_NAME)
    mpdd = runs["record"].map(lambda record: record.key.dataset).eq("MPDD")
    runs = runs[trained & mpdd & runs["level"].eq("image")]
    device = runs["record"].map(lambda record: record.content["provenance"]["device"])
    amd = device.str.contains("AMD")
    said = text("notebooks/sensitivity.ipynb")
    assert f"{amd.sum()} of the {len(amd)} trainings of this study on MPDD" in said
    assert not amd[runs["variant"].eq(sensitivity.BASE_NAME)].any()
    alone = amd.groupby(runs["variant"]).all()
    assert set(alone.index[alone]) == {
        "epochs 500", "T_max 100; epochs 500", "one filter, σ = 1.5", "α = 1",
        "each image standardised", "each image standardised; squared constants",
        "contrast raised by 1.6", *GUESSES, *MODULES,
    }  # fmt: skip


def test_what_the_noise_does_by_the_luck_of_the_networks_with_noise() -> None:
    runs = sensitivity.study_runs(ROOT / "results", make_settings("replication"))
    noisy = runs["variant"].isin([sensitivity.BASE_NAME, "λ = 0.2", "λ = 0.4"])
    runs = runs[noisy & runs["level"].eq("pixel")].set_index("category")
    by_seed = runs.loc["Bracket White"].pivot(index="seed", columns="variant", values="auroc")
    falls = by_seed["λ = 0.2"] - by_seed["λ = 0.4"]
    said = f"by {falls.min():.1f} to {falls.max():.1f} points from 0.2 to 0.4 in each of the three"
    assert said in text("notebooks/sensitivity.ipynb")
    # A table of two ways without gaps: what is left when rows and columns have given their means
    rest = by_seed - by_seed.mean()
    rest = rest.sub(rest.mean(axis=1), axis=0)
    deviation = float(np.sqrt((rest**2).to_numpy().sum() / 4))
    effect = (by_seed["λ = 0.4"] - by_seed[sensitivity.BASE_NAME]).mean()
    reach = stats.t.ppf(0.975, 4) * deviation * np.sqrt(2 / 3 + 2)
    said = f"{effect:.1f} ± {reach:.1f} for a further pair".replace("-", "−")
    assert said in text("notebooks/verdicts.ipynb")


def test_how_many_of_the_changes_hang_on_equal_luck() -> None:
    runs = sensitivity.study_runs(ROOT / "results")
    measured = effects.of_choices(runs)
    beyond = measured[luck.after_holm(measured) & measured["level"].ne("synthetic")]
    p = luck.beyond_table(runs, beyond)["Welch's p"]
    several = p[p.ne("one seed")].astype(float)
    said = f"Of the {len(several)} with several seeds {(several > 0.05).sum()} have a p above 0.05."
    assert said in text("notebooks/sensitivity.ipynb")


def test_how_many_of_the_printed_changes_exceed_luck_here() -> None:
    results = ROOT / "results"
    settings = make_settings("replication")
    measured = effects.of_choices(sensitivity.study_runs(results, settings))
    beyond = measured[(measured["low"] > 0) | (measured["high"] < 0)]
    real = {tuple(row) for row in beyond[["category", "level", "variant"]].to_numpy()}
    printed = verdicts.printed_effects(results)
    here = [(row.category, row.level, row.change) in real for row in printed.itertuples()]
    agrees = printed[here]["agrees"].value_counts()
    assert agrees.to_dict() == {"no": 4, "too wide to tell": 2, "yes": 1}
    for file in (README, FINDINGS):
        assert "seven of ours that exceed luck" in text(file)


def test_fryum_at_half_the_rate() -> None:
    (half,) = (
        record
        for record in own_records(ROOT / "results")
        if record.key.category == "fryum"
        and record.settings == make_settings("replication", learning_rate=0.0005)
    )
    low, high = (100 * end for end in half.interval("image"))
    said = f"{100 * half.metric('image'):.1f} % by the top 1 % (interval {low:.1f} to {high:.1f};"
    assert said in text("notebooks/dynamics.ipynb")
    assert f"({low:.1f} to {high:.1f}; one training)" in text(README)
    assert f"({low:.1f} to {high:.1f})" in text(FINDINGS)


def test_what_the_guesses_at_the_figures_move() -> None:
    runs = sensitivity.study_runs(ROOT / "results")
    found = effects.of_choices(runs).set_index(["variant", "category", "level"])
    alone = (found["low"] > 0) | (found["high"] < 0)
    assert not alone[GUESSES].any()
    one, three = MODULES
    module = alone[MODULES]
    shown = {place: round(found.loc[place, "effect"]) for place in module.index[module]}
    assert shown == {
        (one, "Bracket White", "pixel"): 2, (one, "Bracket White", "synthetic"): -4,
        (one, "Metal Plate", "image"): -33, (three, "Bracket White", "pixel"): -3,
    }  # fmt: skip
    plate = runs[runs["category"].eq("Metal Plate") & runs["level"].eq("image")]
    by_seed = plate.pivot(index="variant", columns="seed", values="auroc")
    apart = (by_seed.loc[one] - by_seed.loc[sensitivity.BASE_NAME])[[0, 1]]
    assert apart.round().tolist() == [-43, -18]
    assert "lose 43 and 18 points" in text("notebooks/mechanism.ipynb")


def test_no_factor_of_the_similarity_is_negative() -> None:
    runs = sensitivity.study_runs(ROOT / "results")
    counted = [
        run.content["negative_factors"]
        for run in runs.loc[runs["level"].eq("image"), "record"]
        if "negative_factors" in run.content
        and not run.settings.standardise
        and run.settings.contrast == 1
    ]
    assert not any(share for found in counted for of in found.values() for share in of.values())
    assert f"In the {len(counted)} trainings of the small study" in text("book/decisions.csv")


def test_what_standardised_images_change() -> None:
    runs = sensitivity.study_runs(ROOT / "results")
    names = {"standardised": "each image standardised", "base": sensitivity.BASE_NAME}

    def asked(category: str, variant: str, of: Callable[[Record], float]) -> float:
        kept = runs["category"].eq(category) & runs["variant"].eq(names[variant])
        kept &= runs["level"].eq("image") & runs["seed"].isin([0, 1])
        return 100 * runs.loc[kept, "record"].map(of).mean()

    def image(record: Record) -> float:
        return record.content["image_scores"]["top1%"]["auroc"]

    def hidden_too(record: Record) -> float:
        return record.content["hidden_alike"]["top1%"]

    def precision(record: Record) -> float:
        return record.metric("pixel", "ap")

    plate = {name: asked("Metal Plate", name, precision) for name in names}
    left = {name: asked("Metal Plate", name, hidden_too) for name in names}
    said = text("notebooks/sensitivity.ipynb")
    assert f"falls from {plate['base']:.0f} to {plate['standardised']:.0f} %" in said
    assert f"the images have {asked('Metal Plate', 'standardised', image):.0f} %" in said
    assert f"with {left['standardised']:.0f} %, where the base has {left['base']:.0f}" in said
    gains = [
        asked("Bracket White", "standardised", of) - asked("Bracket White", "base", of)
        for of in (image, hidden_too)
    ]
    assert gains == pytest.approx([8, 7], abs=0.8)


def test_what_standardised_images_change_at_full_size() -> None:
    wanted = make_settings("replication", standardise=True)
    every = [run for run in own_records(ROOT / "results") if run.settings == wanted]
    bracket, plate = (
        [run for run in every if run.key.category == name]
        for name in ("bracket_white", "metal_plate")
    )

    def images(run: Record) -> float:
        return 100 * run.metric("image")

    def pixels(run: Record, metric: str = "auroc") -> float:
        return 100 * run.metric("pixel", metric)

    image, pixel = mean(map(images, bracket)), mean(map(pixels, bracket))
    precision = mean(pixels(run, "ap") for run in bracket)
    hidden_too = mean(100 * run.content["hidden_alike"]["top1%"] for run in bracket)
    low, high = (100 * mean(run.interval("image")[end] for run in bracket) for end in (0, 1))
    number = WORDS[len(bracket)]
    assert f"{image:.1f}, {pixel:.1f} ({len(bracket)}), while Metal Plate falls" in text(README)
    assert f"images have {image:.0f} and pixels {pixel:.0f} ({number} trainings)" in text(INTRO)
    row = f"| each image standardised ({number} seeds) | {image:.1f} | {pixel:.1f} |"
    assert f"{row} {precision:.0f} |" in text(FINDINGS)
    by_seed = listed([f"{pixels(run):.1f}" for run in bracket])
    assert f"in an interval ({low:.1f} to {high:.1f}) that holds the printed 89.3" in text(FINDINGS)
    assert low < 89.33 < high < low + 30
    assert f"and the pixels {by_seed}" in text(FINDINGS)
    assert f"with the defects hidden {hidden_too:.0f} remain" in text(FINDINGS)
    tables = by_score("bracket_white", "top1%"), cell("bracket_white", "pixel")["ours"]
    gains = f"{image - tables[0]:.0f} points and its pixels {pixel - tables[1]:.0f}"
    assert f"images gain {gains}" in text("book/ledger.md")
    assert f"images {gains}" in text("book/decisions.csv")

    number = WORDS[len(plate)]
    image, pixel = mean(map(images, plate)), mean(map(pixels, plate))
    assert f"to {image:.0f} for images and {pixel:.1f} for pixels ({number}" in text(FINDINGS)
    tables = by_score("metal_plate", "top1%"), cell("metal_plate", "pixel")["ours"]
    costs = f"{tables[0] - image:.0f} and {tables[1] - pixel:.0f}"
    assert f"Metal Plate's lose {costs}" in text("book/ledger.md")
    assert f"costs Metal Plate’s {costs} ({number} seeds)" in text("book/decisions.csv")
    said = text("notebooks/sensitivity.ipynb")
    assert f"from {tables[0]:.1f} to {image:.1f} % by the top 1 %" in said
    assert f"from {tables[1]:.1f} to {pixel:.1f} ({number} seeds)" in said


def test_what_in_standardised_images_helps() -> None:
    """Bracket White at full size, the changes against the same seed."""
    table = beyond.ingredients(ROOT / "results", beyond.NORMALISED)
    found = table[table["category"].eq("Bracket White")].set_index("run")

    def value(column: str, row: int) -> float:
        return float(found[column].iloc[row].split(" ")[0])

    def change(column: str, row: int) -> float:
        return float(found[column].iloc[row].split("(")[1].strip("+)"))

    images, by_mean, pixels, precision = list(found.columns)[2:6]
    assert [text[0] for text in found["seeds × epochs"]] == ["3", "1", "1", "3", "1"]
    assert abs(change(images, 1)) < 0.5  # contrast
    assert change(by_mean, 1) == pytest.approx(-7, abs=0.5)
    assert change(pixels, 1) == pytest.approx(2, abs=0.5)
    assert change(by_mean, 2) == pytest.approx(9, abs=0.55)  # light
    for column in (pixels, precision):
        assert 0.4 < change(column, 2) / change(column, 3) < 0.6
    both = f"{value(images, 4):.1f} | {value(pixels, 4):.1f} | {value(precision, 4):.0f} |"
    assert f"squared constants (one seed) | {both}" in text(FINDINGS)
    for file in (README, INTRO):
        end = "besides, {:.1f}{} {:.1f} (".format(
            value(images, 4), "," if file == README else " and", value(pixels, 4)
        )
        assert end in text(file)


def test_how_much_contrast_images_have(real_data: Path) -> None:
    """And light and colour: of the training images, black to white is 1."""
    said, found = text("notebooks/sensitivity.ipynb"), {}
    for part in ("bracket_white", "metal_plate"):
        folder = real_data / "MPDD" / part / "train/good"
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}")
        images = []
        for file in folder.iterdir():
            with Image.open(file) as image:
                reduced = image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
            images.append(np.asarray(reduced) / 255)
        found[part] = np.stack(images)
    contrast = {part: images.std((1, 2)).mean() for part, images in found.items()}
    light = {part: images.mean((1, 2, 3)).std() for part, images in found.items()}
    raised = 0.25 / contrast["bracket_white"]
    assert f"a deviation of {contrast['bracket_white']:.2f} on average" in said
    assert f"were divided by {raised**2:.1f} and the noise by {raised:.1f}" in said
    assert f"Metal Plate has {contrast['metal_plate']:.2f}" in said
    scatter = f"{light['bracket_white']:.3f}, that of the plate's by {light['metal_plate']:.3f}"
    assert f"training photographs scatters by {scatter}" in said
    together = 0.25 / found["bracket_white"].std((1, 2, 3)).mean()
    assert f"leaves contrast nearly as it is ({together:.2f} times)" in said
    _, green, blue = found["bracket_white"].mean((0, 1, 2))
    assert f"their blue has a mean of {blue:.2f}, their green {green:.2f}" in said
