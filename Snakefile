# A study as a graph: the check of the data, a job per run, the tables, the book.
#
#   snakemake --config study=studies/demo.yaml            # to the finished book
#   snakemake -n --config study=studies/full.yaml         # what is missing
#   snakemake tables --config study=studies/mpdd.yaml data=/path/to/data results=mine --resources gpu=2
#   snakemake --workflow-profile profiles/slurm --config study=studies/full.yaml data=/path/to/data results=mine
#
# Targets: tables, table1 ... table5, baselines, runs, everything (the default: runs and book).
# Settings, by --config:
#   study         the file that lists the runs
#   data          root of the images; a study of the demonstration data needs none
#   results       folder of the records; has to be named with data, as those in results/ are of
#                 other images
#   device        of n2n run; auto takes a GPU where there is one
#   threads       CPU cores of a run
#   runs_per_gpu  1: no two runs share a GPU
#   missing       'skip' makes tables and book of the runs that are there
#
# The records belong to n2n, which writes them whole or not at all, and never to Snakemake, which
# deletes the outputs of a job that failed. A job's output is therefore an empty file beside its
# record, and a run whose record is there is no job at all.

import json
import re
import shlex
import sys
from pathlib import Path

from n2n.errors import N2NError
from n2n.notebooks import STUDY_PAGES, page_title
from n2n.plan import read_study
from n2n.records import RECORD
from n2n.settings import changes

STUDY = config.get("study", "studies/demo.yaml")
RESULTS = str(Path(config.get("results", "results")))  # as folders of runs are spelled
DATA = config.get("data")
SKIP = config.get("missing") == "skip"
DEVICE = str(config.get("device", "auto"))
ON_GPU = DEVICE not in ("cpu", "mps")
if ":" in DEVICE:
    sys.exit("n2n: each run is given a GPU here; choose among them by CUDA_VISIBLE_DEVICES")
known = {"study", "data", "results", "device", "threads", "runs_per_gpu", "missing"}
if unknown := sorted(config.keys() - known):
    sys.exit(f"n2n: --config has no {unknown[0]!r}; choose of {', '.join(sorted(known))}")
if DATA is not None and not Path(DATA).is_dir():
    sys.exit(f"n2n: there is no folder {DATA}; name the one that holds MPDD or VisA")
if DATA is not None and "results" not in config:
    sys.exit("n2n: name a folder for your records, --config results=mine")
if config.get("missing", "skip") != "skip":
    sys.exit("n2n: --config missing can only be 'skip'")
DEMO = f"{RESULTS}/demo"  # the demonstration's records stay apart, as with `make replicate`
DONE = ".done"
PAGES = "book/executed"


def home(run):
    """The results folder of a run."""
    return Path(DEMO if run.dataset == "demo" else RESULTS)


def images(run):
    """The root of a run's images; without --config data=..., the check says so."""
    return f"{DEMO}/data" if run.dataset == "demo" else str(DATA)


def is_there(run):
    """Whether a run can be a job: it is not left out while its images are not at hand."""
    if run.dataset == "demo" or DATA is None or (Path(DATA) / run.dataset / run.category).is_dir():
        return True
    return run.key.is_finished(home(run))


try:
    ALL = read_study(Path(STUDY)).runs
except N2NError as error:
    sys.exit(f"n2n: {error}")
RUNS = {str(run.key.folder(home(run))): run for run in ALL if is_there(run)}
MISSING = {folder for folder, run in RUNS.items() if not run.key.is_finished(home(run))}
if absent := sorted({f"{r.dataset}/{r.category}" for r in ALL if not is_there(r)}):
    print(f"n2n: not in {DATA}, left out: {', '.join(absent)}", file=sys.stderr)
for folder in MISSING:  # a record that was deleted is to be made again
    Path(folder, DONE).unlink(missing_ok=True)


def done(folders):
    """The files that say that runs are done: the record, or what its job leaves beside it."""
    return [
        f"{folder}/{DONE if folder in MISSING else RECORD}"
        for folder in folders
        if not (SKIP and folder in MISSING)
    ]


def of_table(number):
    """The runs that a table shows."""
    from n2n.analysis.selection import runs_in_table

    shown = set(runs_in_table(number, RUNS.values()))
    return done(folder for folder, run in RUNS.items() if run in shown)


# The first run of each category is shown as a page of the book.
SHOWN = {}
for folder, run in RUNS.items():
    if run.key.method == "n2n" and not (SKIP and folder in MISSING):
        SHOWN.setdefault(f"{run.dataset}-{run.category}", folder)
TABLES = [f"{PAGES}/table{number}.ipynb" for number in range(1, 6)]
EXPERIMENTS = [f"{PAGES}/experiment-{name}.ipynb" for name in SHOWN]


def experiment(run):
    """The parameters of the experiment's notebook."""
    return {
        "data": images(run), "dataset": run.dataset, "category": run.category, "seed": run.seed,
        "preset": run.settings.preset, "changes": changes(run.settings), "trace": run.trace,
        "precision": run.precision,
        "device": DEVICE, "results": str(home(run)),
    }  # fmt: skip


def notebook(name, output, parameters, *options):
    """The command that executes a notebook; without a slash, a Python of the environment."""
    text = json.dumps(parameters)
    return shlex.join([
        sys.executable, "-m", "n2n", "notebook", name, output, "--parameters", text, *options,
    ])  # fmt: skip


def baseline(run):
    """The command of a method without a notebook of its own."""
    return shlex.join([
        sys.executable, "-m", "n2n", "run", "--data", images(run), *run.options,
        "--results", str(home(run)), "--device", DEVICE,
        # Of an option that is there twice, the last one counts
        *(("--weights", str(Path(run.weights).expanduser())) if run.weights else ()),
        *(["--runs-per-gpu", str(config.get("runs_per_gpu", 1))] if ON_GPU else []),
    ])  # fmt: skip


def page_of(run, output):
    """The command that shows a record as a page of the book; without images, without pictures."""
    parameters = experiment(run)
    if DATA is None and run.dataset != "demo":
        parameters["data"] = None
    title = page_title(run.dataset, run.category)
    return notebook("experiment", output, parameters, "--title", title, "--no-gpu")


wildcard_constraints:
    home=f"{re.escape(RESULTS)}|{re.escape(DEMO)}",
    key=r"[^/]+/[^/]+/[^/]+/[^/]+/seed\d+",
    table="[1-5]",


localrules: everything, tables, baselines, runs, table1, table2, table3, table4, table5  # fmt: skip


rule everything:
    input:
        f"{PAGES}/book.done",
        done(RUNS),


rule runs:
    input:
        done(RUNS),


rule baselines:
    input:
        done(folder for folder, run in RUNS.items() if run.key.method != "n2n"),


rule tables:
    input:
        TABLES,
        [file for number in range(1, 6) for file in of_table(number)],


for number in range(1, 6):

    rule:
        name:
            f"table{number}"
        input:
            f"{PAGES}/table{number}.ipynb",
            of_table(number),  # a page of an earlier build does not stand for the runs


rule demonstration_data:
    output:
        directory(f"{DEMO}/data/demo"),
    shell:
        "{sys.executable} -m n2n demo-data {DEMO:q}/data"


CHECKED = str(Path(RESULTS) / "work" / "check.txt")


# A damaged image fails its own runs and no others, so the check only reports.
rule check:
    output:
        CHECKED,
    params:
        data=DATA,
    run:
        if DATA is None:
            sys.exit("n2n: name the root of the images with --config data=/path/to/data")
        shell(
            "({sys.executable} -m n2n check {params.data:q} 2>&1"
            " || echo 'n2n: runs on damaged images will fail') | tee {output:q}"
        )


def before_run(wildcards):
    demonstration = wildcards.key.startswith("demo/")
    return f"{DEMO}/data/demo" if demonstration else CHECKED


# Of the missing runs that share a network, the first, which trains it.
TRAINS = {}
for folder, run in RUNS.items():
    if folder in MISSING:
        TRAINS.setdefault(run.training, folder)


def trained_before(wildcards):
    """The run whose network this one takes over."""
    folder = f"{wildcards.home}/runs/{wildcards.key}"
    first = TRAINS.get(RUNS[folder].training, folder)
    return done([first]) if folder in MISSING and folder != first else []


def command_of(home, key):
    run = RUNS[f"{home}/runs/{key}"]
    if run.key.method != "n2n":
        return baseline(run)
    return notebook(
        "experiment",
        f"{home}/notebooks/{key}.ipynb",  # the log
        experiment(run),
        *("--runs-per-gpu", str(config.get("runs_per_gpu", 1))),
        *([] if ON_GPU else ["--no-gpu"]),
    )


rule run:
    input:
        ancient(before_run),
        trained_before,
    output:
        touch("{home}/runs/{key}/" + DONE),
    log:
        "{home}/notebooks/{key}.ipynb",  # the executed notebook, up to the cell that failed
    params:
        command=lambda wildcards: command_of(wildcards.home, wildcards.key),
    threads: int(config.get("threads", 1))
    resources:
        gpu=int(ON_GPU),
    shell:
        "{params.command}"


rule page:
    input:
        lambda wildcards: done([SHOWN[wildcards.name]]),
    output:
        PAGES + "/experiment-{name}.ipynb",
    params:
        command=lambda wildcards, output: page_of(RUNS[SHOWN[wildcards.name]], str(output)),
    shell:
        "{params.command}"


rule table:
    input:
        lambda wildcards: of_table(int(wildcards.table)),
    output:
        PAGES + "/table{table}.ipynb",
    params:
        command=lambda wildcards, output: notebook(
            f"table{wildcards.table}", str(output), {"results": RESULTS}, "--no-gpu"
        ),
    shell:
        "{params.command}"


rule study_page:
    input:
        done(RUNS),
    output:
        PAGES + "/{page}.ipynb",
    wildcard_constraints:
        page="|".join(STUDY_PAGES),
    params:
        command=lambda wildcards, output: notebook(
            wildcards.page, str(output), {"results": RESULTS}, "--no-gpu"
        ),
    shell:
        "{params.command}"


rule bound:
    input:
        TABLES,
        [f"{PAGES}/{page}.ipynb" for page in STUDY_PAGES],
        EXPERIMENTS,
    output:
        touch(f"{PAGES}/book.done"),
    run:
        for page in Path(PAGES).glob("experiment-*.ipynb"):  # of an earlier build
            if str(page) not in EXPERIMENTS:
                page.unlink()
        shell("{sys.executable} -m n2n book --results {RESULTS:q}")
