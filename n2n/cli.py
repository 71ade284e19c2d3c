"""The ``n2n`` command. Each command imports what it needs, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from n2n import __version__
from n2n.baselines.settings import METHODS, BaselineSettings, make_baseline_settings
from n2n.errors import N2NError
from n2n.settings import PRESETS, Settings, budget, make_settings

if TYPE_CHECKING:
    from n2n.records import Record

PRESET = click.Choice(list(PRESETS))
FOLDER = click.Path(path_type=Path, file_okay=False)
EPOCHS = click.IntRange(1)


class Group(click.Group):
    """Prints what a user has to mend in one line, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command; an `N2NError` ends the program with exit code 1."""
        try:
            return super().invoke(context)
        except N2NError as error:
            click.echo(f"n2n: {error}", err=True)
            sys.exit(1)
        except MemoryError:
            click.echo("n2n: This machine's memory is too small; end other programs.", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "n2n: interrupted; the same command continues a training of N2N from its last "
                "checkpoint, and begins anew with anything else.",
                err=True,
            )
            sys.exit(130)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Noise-to-norm reconstruction for anomaly detection: a replication.

    Images are expected at ROOT/DATASET/CATEGORY, for example data/MPDD/bracket_white or
    data/VisA/fryum (with data/VisA/split_csv/1cls.csv), or parts of your own in MVTec AD layout:
    train/good, test/good, test/DEFECT, ground_truth/DEFECT/NAME_mask.png.
    """
    if not sys.stderr.isatty():
        # In a log file every redrawing of a bar stays: one a minute tells enough
        for name in ("TQDM_DELAY", "TQDM_MININTERVAL", "TQDM_MAXINTERVAL"):
            os.environ.setdefault(name, "60")


@main.command("demo-data")
@click.argument("directory", type=FOLDER)
@click.option("--seed", default=0, show_default=True, help="Other seeds give other images.")
@click.option("--size", default=256, show_default=True, help="Pixels along each side.")
def demo_data(directory: Path, seed: int, size: int) -> None:
    """Generate the demonstration data in DIRECTORY/demo.

    Painted metal parts, drawn by a program, with defects and their pixel masks.
    """
    from n2n.demo_data import generate

    click.echo(generate(directory, seed=seed, size=size))


@main.command()
@click.argument("root", type=FOLDER)
def check(root: Path) -> None:
    """List the categories in ROOT and everything that is wrong with their images.

    Reads every image and mask, and compares the counts with the published ones. The exit code is
    1 where anything is missing, unreadable or of the wrong size.
    """
    from n2n.data import EXPECTED_COUNTS
    from n2n.data import check as check_data

    published = {category: dataset for dataset, category in EXPECTED_COUNTS}
    reports = check_data(root)
    click.echo(f"{'category':<28}{'train':>7}{'good':>7}{'anomalous':>11}  state")
    for report in reports:
        name = f"{report.dataset}/{report.category}"
        state = "as published" if report.expected else "own data, readable"
        if not report.expected and (theirs := published.get(report.category)):
            state += (
                f"; if it is a part of {theirs}, rename the folder {report.dataset} to {theirs}"
            )
        if report.problems:
            state = f"{len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}"
        if count := len(report.passed_over):
            endings = sorted({Path(name).suffix or "no ending" for name in report.passed_over})
            state += (
                f"; {count} other file{'s' if count > 1 else ''} passed over: {', '.join(endings)}"
            )
        counts = f"{report.train:>7}{report.test_good:>7}{report.test_anomalous:>11}"
        click.echo(f"{name:<28}{counts}  {state}")
    problems = [problem for report in reports for problem in report.problems]
    for problem in problems:
        click.echo(f"  - {problem}", err=True)
    if problems:
        sys.exit(1)


@main.command()
@click.option("--data", type=FOLDER, required=True, envvar="N2N_DATA", help="Root of the images.")
@click.option("--dataset", required=True, help="Folder below the root: MPDD, VisA, demo, ...")
@click.option("--category", required=True, help="Folder below the data set: bracket_white, ...")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."
)
@click.option(
    "--method",
    default="n2n",
    show_default=True,
    help=f"n2n, or a baseline: {', '.join(METHODS)}.",
)
@click.option(
    "--backbone",
    help="Of a baseline: efficientnet-lite0, resnet18, wide-resnet50-2; of draem textures-3, "
    "textures-dtd.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="torchvision's file for the backbone; of draem the folder of textures.",
)
@click.option(
    "--preset",
    type=PRESET,
    default="replication",
    show_default=True,
    help="paper: every value as printed; replication: what the tables use; improved: beyond the "
    "paper; demo: minutes.",
)
@click.option("--noise", type=float, help="The coefficient lambda of Eq. (1).")
@click.option("--no-attention", is_flag=True, help="The ablation of Table 5.")
@click.option("--epochs", type=EPOCHS, help="At most so many; the learning rate falls over them.")
@click.option("--batch-size", type=int, help="Images per step.")
@click.option("--width", type=int, help="Channels at full resolution.")
@click.option("--image-size", type=int, help="Pixels along each side.")
@click.option("--learning-rate", type=float, help="The initial one.")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Any other setting, repeatable."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--precision", default="auto", show_default=True,
    help="Of the training: auto (float32), float32, bfloat16. Scores are always float32.",
)  # fmt: skip
@click.option(
    "--compile/--no-compile",
    "compile_network",
    default=None,
    help="Default: on a GPU, where it can.",
)
@click.option(
    "--trace",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Also measure detection after each N epochs, and the first, the second and the last; a "
    "diagnostic, nothing is chosen by it.",
)
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True)
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option("--runs-per-gpu", type=click.IntRange(1), hidden=True)  # the Snakefile's
@click.pass_context
def run(
    context: click.Context,
    data: Path,
    dataset: str,
    category: str,
    seed: int,
    method: str,
    backbone: str | None,
    weights: Path | None,
    preset: str,
    noise: float | None,
    no_attention: bool,
    epochs: int | None,
    batch_size: int | None,
    width: int | None,
    image_size: int | None,
    learning_rate: float | None,
    changes: tuple[str, ...],
    device: str,
    precision: str,
    compile_network: bool | None,
    trace: int,
    results: Path,
    quiet: bool,
    runs_per_gpu: int | None,
) -> None:
    """Train and measure one category, and write its run record.

    A run of n2n that was interrupted continues from its checkpoint, one of another method starts
    again. A record that is complete is shown, not run again.
    """
    if runs_per_gpu is not None:
        from n2n.gpus import gpu_slot

        context.with_resource(gpu_slot(runs_per_gpu))
    from n2n.plan import Run
    from n2n.runs import make_record

    named: dict[str, Any] = {"image_size": image_size, "epochs": epochs, "batch_size": batch_size}
    given = dict(_parse_setting(text) for text in changes)
    ours = {
        "--noise": noise, "--no-attention": no_attention or None, "--width": width,
        "--learning-rate": learning_rate, "--trace": trace or None, "--compile": compile_network,
        "--preset": None if preset == "replication" else preset,
    }  # fmt: skip
    settings: Settings | BaselineSettings
    if method == "n2n":
        if backbone or weights:
            raise N2NError("--backbone and --weights belong to the baselines; n2n uses none.")
        named |= {
            "noise": noise, "attention": False if no_attention else None, "width": width,
            "learning_rate": learning_rate, **budget(epochs),
        }  # fmt: skip
        settings = make_settings(preset, **(named | given))
    else:
        settings = make_baseline_settings(method, **(named | {"backbone": backbone} | given))
        if foreign := [option for option, value in ours.items() if value is not None]:
            raise N2NError(f"{foreign[0]} belongs to n2n; {method} does not know it.")
    file = None if weights is None else str(weights)
    record = make_record(
        Run(dataset, category, settings, seed, trace, precision, file),
        data,
        results=results,
        device=device,
        compile_network=compile_network,
        progress=not quiet,
    )
    _show(record)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", type=FOLDER, envvar="N2N_DATA", help="Root of the images.")
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dry-run", is_flag=True, help="Only list the runs and which of them are done.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def study(
    file: Path, data: Path | None, results: Path, device: str, dry_run: bool, quiet: bool
) -> None:
    """Make the run records that a study FILE lists and that are not there yet.

    The shipped studies are in studies/. A study that was interrupted goes on where it was; a run
    that fails is named at the end and stops no other.
    """
    from n2n.plan import read_study

    plan = read_study(file)
    missing = set(plan.missing(results))
    if dry_run:
        for run in plan.runs:
            state = "missing" if run in missing else "done"
            click.echo(f"{state:<9}{run.key.folder(results)}")
        click.echo(f"{len(plan.runs) - len(missing)} of {len(plan.runs)} runs are done")
        return
    if data is None:
        raise N2NError("Name the root of the images with --data or the variable N2N_DATA.")
    from n2n.study import run_study

    failures = run_study(plan, data, results, device=device, progress=not quiet)
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
    if failures:
        sys.exit(1)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True)
def status(file: Path, results: Path) -> None:
    """Say how far a study FILE is, and how much time it still needs."""
    from n2n.plan import read_study
    from n2n.progress import overview

    _must_exist(results)
    click.echo(overview(read_study(file), results))


@main.command(hidden=True)  # the Snakefile's
@click.argument("name")
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--parameters", default="{}", help="Of the notebook, as JSON.")
@click.option("--title", help="Replaces the notebook's heading.")
@click.option("--runs-per-gpu", type=click.IntRange(1), default=1, show_default=True)
@click.option("--no-gpu", is_flag=True, help="Do not wait for a GPU.")
def notebook(
    name: str, output: Path, parameters: str, title: str | None, runs_per_gpu: int, no_gpu: bool
) -> None:
    """Execute the notebook NAME through papermill into the file OUTPUT, on a GPU of its own."""
    import contextlib
    import json

    from n2n.gpus import gpu_slot
    from n2n.notebooks import execute_notebook

    try:
        values = json.loads(parameters)
    except ValueError as error:
        raise N2NError(f"--parameters {parameters} is not JSON: {error}") from error
    with contextlib.nullcontext() if no_gpu else gpu_slot(runs_per_gpu):
        execute_notebook(name, output, values, title)


@main.command(hidden=True)  # the Snakefile's
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True)
def book(results: Path) -> None:
    """Bind the executed notebooks and the tables of the records."""
    from n2n.book import build_book

    click.echo(f"\nThe book is ready. Open {build_book(results)}")


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--run",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="A run's folder, or its weights.pt.",
)
@click.option("--out", type=FOLDER, required=True, help="Where to write.")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--precision", default="float32", show_default=True,
    help="float32; float16 and bfloat16 (faster where the device has them; scores differ a little, "
    "with bfloat16 more); auto.",
)  # fmt: skip
@click.option(
    "--threshold", type=float,
    help="Images with a score above it are anomalous. Default: the largest score of the normal "
    "training images that were held out, so that a single odd one raises it.",
)  # fmt: skip
def detect(
    images: tuple[Path, ...],
    source: Path,
    out: Path,
    device: str,
    precision: str,
    threshold: float | None,
) -> None:
    """Score IMAGES with a trained network.

    Writes for each image a heat map and an overlay of the predicted pixels, both squares of the
    size that the network sees, and scores.csv.
    """
    from n2n.inference import detect_files

    table = detect_files(
        images, source, out, device=device, precision=precision, threshold=threshold
    )
    click.echo(table.to_string(index=False, float_format="%.4f"))
    click.echo(f"written to {out}")


@main.command()
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True)
@click.option("--out", type=FOLDER, required=True, help="Where to write.")
@click.option(
    "--preset", type=PRESET,
    default="replication", show_default=True, help="Whose runs to show.",
)  # fmt: skip
@click.option("--beside", type=FOLDER, help="Another results folder, to set side by side.")
def tables(results: Path, out: Path, preset: str, beside: Path | None) -> None:
    """Write Tables 1-5 as CSV and Markdown: paper, ours, difference, verdict."""
    from n2n.analysis.tables import beside as set_beside
    from n2n.analysis.tables import compare_all, summary, write_tables

    _must_exist(results)
    if beside is not None:
        _must_exist(beside)
        if beside.resolve() == results.resolve():
            raise N2NError(f"--beside is {results} itself; name another results folder.")
    cells = compare_all(results, preset)
    for path in write_tables(cells, out, preset):
        click.echo(path)
    if beside is not None:
        both = {str(results): cells, str(beside): compare_all(beside, preset)}
        click.echo(set_beside(both, preset).to_string(index=False))
    click.echo(summary(cells).drop(columns="shows").to_string(index=False))


@main.command()
def audit() -> None:
    """Recompute every average and claimed difference of the paper from its printed cells."""
    from n2n.paper import audit as audit_paper

    checks = audit_paper()
    failed = checks[~checks["holds"]]
    for row in failed.itertuples():
        click.echo(
            f"- {row.what}: printed {row.printed}, recomputed {row.recomputed}. {row.remark}"
        )
    click.echo(f"{len(checks)} checks, {len(failed)} do not hold.")


@main.command()
@click.option(
    "--data",
    type=FOLDER,
    envvar="N2N_DATA",
    help="Root of MPDD and VisA; without it, the demonstration.",
)
@click.option("--epochs", type=EPOCHS, help="A smaller budget for each run.")
@click.option("--seeds", default="0", show_default=True, help="Separated by commas.")
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True)
@click.option("--device", default="auto", show_default=True)
def replicate(
    data: Path | None, epochs: int | None, seeds: str, results: Path, device: str
) -> None:
    """Run all notebooks through papermill and build the book.

    In the project's folder; the tables show every record in the results folder.
    """
    from n2n.book import replicate as run_all

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
        if not all(0 <= number < 2**32 for number in numbers):
            raise ValueError
    except ValueError as error:
        raise N2NError(
            f"--seeds {seeds} must be whole numbers from 0 to 2^32 - 1, separated by commas."
        ) from error
    page = run_all(data, results=results, seeds=numbers, epochs=epochs, device=device)
    click.echo(f"\nThe book is ready. Open {page}")


def _must_exist(results: Path) -> None:
    """Refuse a misspelt folder, which would look like one without any record."""
    if not results.is_dir():
        raise N2NError(f"There is no results folder {results}; name the one with the records.")


def _show(record: Record) -> None:
    for level in ("image", "pixel"):
        if record.metric(level) != record.metric(level):
            click.echo(f"{level:<6} AUROC is not defined: all test images are of one kind")
            continue
        low, high = record.interval(level)
        click.echo(
            f"{level:<6} AUROC {100 * record.metric(level):6.2f} %  "
            f"(95 % interval {100 * low:.2f} to {100 * high:.2f})"
        )
    click.echo(f"record {record.folder}")


def _parse_setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with the value as JSON where it is JSON, else as text."""
    import json

    name, equals, value = text.partition("=")
    if not equals:
        raise N2NError(f"--set {text} is not of the form NAME=VALUE.")
    try:
        given = json.loads(value)
    except ValueError:
        given = value
    if given is None:
        raise N2NError(f"--set {text} gives no value; leave it out for the preset's.")
    return name.replace("-", "_"), given
