"""A run, from its images to its record: what our method and the others have in common."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from n2n import experiment
from n2n.baselines import methods
from n2n.baselines.settings import BaselineSettings
from n2n.data import load_category
from n2n.device import choose_device, choose_precision, reset_peak_memory
from n2n.errors import N2NError
from n2n.measurement import about_data, about_run
from n2n.plan import Run
from n2n.records import (
    Record,
    finished,
    only_one,
    refuse_other_images,
    write_record,
)
from n2n.settings import Settings


def make_record(
    run: Run,
    data: str | Path | None,
    *,
    results: Path = Path("results"),
    device: str = "auto",
    compile_network: bool | None = None,
    progress: bool = True,
) -> Record:
    """Train and measure a method on one category, or return the record that is there already.

    Scores are always float32, whatever the training's precision: in half precision a pair of images
    that are nearly alike can change places.

    Args:
        run: what to run.
        data: root of the data sets; the images are in ``data/dataset/category``. None only takes
            the record that is there.
        results: folder of the records; see `n2n.records`.
        device: 'auto', 'cpu', 'cuda', ...
        compile_network: of our method: use ``torch.compile``; None does so on a GPU where it can.
        progress: show progress bars on stderr.

    Raises:
        N2NError: where something outside the program is wrong. A run of our method that was
            interrupted continues from its checkpoint when it is started again.
    """
    key = run.key
    if record := finished(key, results, run.precision, progress):
        return record
    if data is None:
        raise N2NError(
            f"There is no record {key.folder(results)}; name the root of the data sets to make it."
        )
    where = choose_device(device)
    precision = choose_precision(run.precision, where)
    run = dataclasses.replace(run, precision=str(precision).removeprefix("torch."))
    with only_one(key, results):
        if record := finished(key, results):  # by another process, just now
            return record
        began = time.monotonic()
        own_peak = reset_peak_memory(where)
        ours = run.settings if isinstance(run.settings, Settings) else Settings()
        images = load_category(
            Path(data), run.dataset, run.category, run.settings.image_size,
            resize=ours.resize, mask_rule=ours.mask_rule, cache=results / "work" / "images",
            progress=progress,
        )  # fmt: skip
        refuse_other_images(key, results, images.fingerprint)
        prepared = time.monotonic() - began
        if isinstance(run.settings, BaselineSettings):
            found = methods.measure(run, run.settings, images, where, precision, progress)
        else:
            found = experiment.measure(
                run, run.settings, images, results, where, precision,
                compile_network=compile_network, progress=progress,
            )  # fmt: skip
        about = about_run(run, where, prepared + found.seconds, own_peak, *found.packages)
        content = found.content | {
            "settings": dataclasses.asdict(run.settings),
            "data": about_data(images),
            "provenance": about | found.provenance,
        }
        return write_record(key, results, content, found.write_files)
