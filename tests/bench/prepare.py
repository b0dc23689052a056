"""Images per second of `edgecloud data prepare` beside torchvision's pass over the same files, in turns in one run.

    python -m tests.bench.prepare FOLDER --repeats 3

FOLDER holds images by class (CLASS/FILE, or train/CLASS/FILE), all of one size. Its pages are read once before, so
that nobody pays for the disk. In turns, there and back, each in a process of its own whose start isn't counted:

prepare    What the command does: list, check the layout, decode in as many threads as there are CPUs, write the spool,
           then the file with digest, statistics and names, flushed to the disk.
folder-0   torchvision's ImageFolder with ToTensor, in one process: each image decoded to a tensor, and dropped. It
           writes nothing, so it does less.
folder-2   The same behind a DataLoader with two processes and batches of 256.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SIDES = ("prepare", "folder-0", "folder-2")
BATCH = 256


# -- in a side's own process


def prepare(folder: Path) -> tuple[int, float]:
    """Images, and seconds."""
    from edgecloud_trainer.data.observer import Observer
    from edgecloud_trainer.data.prepare import Wish
    from edgecloud_trainer.data.prepare import prepare as run

    with tempfile.TemporaryDirectory(prefix="edgecloud-bench-") as name:
        began = time.perf_counter()
        manifest = run(str(folder), Path(name) / "set.images", Wish(), Observer())
        return sum(counts.images for counts in manifest.splits.values()), time.perf_counter() - began


def image_folder(folder: Path, loader: int) -> tuple[int, float]:
    """Likewise."""
    import torch
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision import datasets, transforms  # type: ignore[import-untyped]

    torch.set_num_threads(1)
    began = time.perf_counter()
    roots = [folder / split for split in ("train", "val", "test") if (folder / split).is_dir()] or [folder]
    images: ConcatDataset[Any] = ConcatDataset(
        [datasets.ImageFolder(root, transform=transforms.ToTensor()) for root in roots]
    )
    count = 0
    if loader:
        for pixels, _ in DataLoader(images, BATCH, num_workers=loader):
            count += len(pixels)
    else:
        for place in range(len(images)):
            count += images[place][0].ndim > 0
    return count, time.perf_counter() - began


def side_main(side: str, folder: Path) -> None:
    """Do it once; print images and seconds."""
    done = prepare(folder) if side == "prepare" else image_folder(folder, int(side.rpartition("-")[2]))
    print(json.dumps(done))


# -- in the bench's process


def measure(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Images per second of each side, in the order measured."""
    values: dict[str, list[float]] = {side: [] for side in SIDES}
    for repeat in range(repeats):
        # There and back, so that nobody always comes after the same one.
        for side in SIDES[:: -1 if repeat % 2 else 1]:
            command = [sys.executable, "-m", "tests.bench.prepare", str(folder), "--side", side]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            images, seconds = json.loads(done.stdout)
            values[side].append(images / seconds)
        line = "  ".join(f"{side} {values[side][-1]:,.0f}" for side in SIDES)
        print(f"{repeat + 1}/{repeats}  {line}", file=sys.stderr, flush=True)
    return values


def table(values: Mapping[str, Sequence[float]]) -> str:
    """For people: medians, and prepare over each of the others, turn by turn."""
    lines = [f"{'':<10} {'images/s':>9}  prepare / it"]
    for side, several in values.items():
        ratios = [ours / theirs for ours, theirs in zip(values["prepare"], several, strict=True)]
        spread = "" if side == "prepare" else f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        lines.append(f"{side:<10} {statistics.median(several):>9,.0f}  {spread}".rstrip())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="images by class")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="json: each single value")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.side:
        side_main(options.side, folder)
        return
    if options.repeats < 1 or not folder.is_dir():
        parser.error(f"{folder} must be a folder, and --repeats 1 or more")
    load = os.getloadavg()[0]
    cpus = len(os.sched_getaffinity(0))
    print(f"{cpus} CPUs, load {load:.2f}, Python {platform.python_version()}", file=sys.stderr)
    count = sum(len(path.read_bytes()) > 0 for path in folder.rglob("*") if path.is_file())
    print(f"{count:,} files in {folder}", file=sys.stderr)
    values = measure(folder, options.repeats)
    print(json.dumps(values) if options.output == "json" else table(values))


if __name__ == "__main__":
    main()
