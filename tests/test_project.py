"""The project's own files stay in step."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from n2n.notebooks import STUDY_PAGES
from n2n.settings import Settings

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def locked(file: str = "requirements.lock") -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pins = [line.split("==") for line in lines if line and line[0] not in "#-"]
    return {name.lower().replace("_", "-"): version for name, version in pins}


def test_every_direct_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["book"], *extras["test"]]:
        name = re.split(r"[<>=]", requirement)[0].lower()
        assert name in locked(), f"{name} is missing in requirements.lock; run `make lock`"


@pytest.mark.parametrize("extra", ["baselines", "cluster"])
def test_every_dependency_of_an_extra_is_locked_beside_the_others(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    file = f"requirements-{extra}.lock"
    assert "--requirement requirements.lock" in (ROOT / file).read_text().splitlines()
    added = locked(file)
    assert not added.keys() & locked().keys()
    for requirement in project["optional-dependencies"][extra]:
        name = re.split(r"[<>=]", requirement)[0].lower().replace("_", "-")
        assert name in added, f"{name} is missing; run `make lock-{extra}`"


def test_the_extras_can_be_installed_together() -> None:
    baselines, cluster = (locked(f"requirements-{name}.lock") for name in ("baselines", "cluster"))
    for name in baselines.keys() & cluster.keys():
        assert baselines[name] == cluster[name]


@pytest.mark.parametrize("file", sorted(path.name for path in ROOT.glob("*.lock")))
def test_the_lock_names_no_local_build(file: str) -> None:
    for name, version in locked(file).items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_conda_environment_installs_the_same_lock() -> None:
    text = (ROOT / "environment.yml").read_text()
    assert "- --requirement requirements.lock" in text
    assert "- --editable ." in text
    version = re.search(r"- python=(\d+\.\d+)", text)
    assert version is not None
    minimum = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert minimum == f">={version.group(1)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_source_notebooks_have_no_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_every_benchmark_can_be_started(path: Path) -> None:
    """Nothing that it imports has moved."""
    if path.stem == "triton_filter":
        pytest.importorskip("triton", reason="Triton is not installed")
    assert importlib.import_module(f"benchmarks.{path.stem}")


def test_there_is_a_notebook_for_each_table_and_page() -> None:
    names = {path.stem for path in NOTEBOOKS}
    pages = {"experiment", "baseline", *STUDY_PAGES}
    assert names == pages | {*(f"table{number}" for number in range(1, 6))}


def test_no_picture_of_the_data_sets_is_committed() -> None:
    drawn = ["book/_static/at_work.jpg"]  # by the program, of its demonstration data
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    pictures = [name for name in files if name.lower().endswith((".png", ".jpg", ".jpeg", ".pt"))]
    assert pictures == drawn, "neither images of the data sets nor weights belong in the repository"


def test_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in ("make replicate", "make replicate N2N_DATA=", "make test"):
        assert command in readme


def test_every_setting_has_a_card_in_the_ledger() -> None:
    with (ROOT / "book/decisions.csv").open(encoding="utf-8", newline="") as file:
        named = {name for row in csv.DictReader(file) for name in row["setting"].split()}
    beyond = {"preset", "network", "calibration"}  # nothing that the paper leaves open
    assert named | beyond == {field.name for field in dataclasses.fields(Settings)}
