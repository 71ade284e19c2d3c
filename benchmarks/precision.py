"""What half precision does to the numbers: ``N2N_DATA=ROOT python -m benchmarks.precision``.

Every run of the tables whose weights are on this machine detects its test images in float32 and in
bfloat16.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from benchmarks.common import name_of, now, provenance, write_table
from n2n.data import load_category
from n2n.detection import detect
from n2n.device import choose_device
from n2n.experiment import WEIGHTS, load_network
from n2n.measurement import aurocs
from n2n.records import find_records
from n2n.sensitivity import changes
from n2n.settings import PRESETS, settings_from_dict

REPLICATION = PRESETS["replication"]
OF_THE_TABLES = {"noise", "attention", "epochs", "t_max"}  # what their cells and budgets change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--size", type=int, help="ignored: the size is that of the run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    root = os.environ.get("N2N_DATA")
    rows = []
    for record in find_records(options.results) if root else []:
        if record.key.method != "n2n" or not (record.folder / WEIGHTS).exists():
            continue
        if (
            not set(changes(settings_from_dict(record.content["settings"]), REPLICATION))
            <= OF_THE_TABLES
        ):
            continue
        network, chosen, _, _ = load_network(record.folder, device)
        images = load_category(
            Path(str(root)), record.key.dataset, record.key.category, chosen.image_size,
            cache=options.results / "work" / "images", progress=False,
        )  # fmt: skip
        found, seconds = {}, {}
        for precision in (torch.float32, torch.bfloat16):
            began = now(device)
            detected = detect(network, images.test, chosen, device, precision, progress=False)
            seconds[precision] = now(device) - began
            found[precision] = aurocs(images, detected)
        full, half = found[torch.float32], found[torch.bfloat16]
        rows.append(
            {
                "run": f"{record.key.category}, {record.key.variant}, seed {record.key.seed}",
                **{
                    f"{name.replace('_', ' ')}, change": f"{100 * (half[name] - full[name]):+.3f}"
                    for name in full
                },
                "float32 s": f"{seconds[torch.float32]:.1f}",
                "bfloat16 s": f"{seconds[torch.bfloat16]:.1f}",
            }
        )
    if not rows:
        print("No weights or no N2N_DATA here: nothing to compare.")
        return
    write_table(
        f"precision_{name_of(device)}",
        "Half precision against single precision",
        "Change of AUROC in points from float32 to bfloat16, the same weights and test images.",
        rows,
        provenance(device),
    )


if __name__ == "__main__":
    main()
