"""A folder of images by class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data.dataset import Contents, Progress
from edgecloud_trainer.data.decode import Encoded, Spool, decode_all
from edgecloud_trainer.data.layout import Layout, arrange
from edgecloud_trainer.data.source import File, Source, key_of, read_file


def folder_source(root: Path, files: Sequence[File]) -> Source:
    """The images in a folder whose files are listed already.

    Raises:
        DataError: they aren't laid out as train/CLASS/FILE or CLASS/FILE.
    """
    layout = arrange([file.name for file in files], str(root))
    return Source(
        name=root.resolve().name or str(root),
        key=key_of("folder", root, files),
        read=partial(_read, root, files, layout),
    )


def _read(root: Path, files: Sequence[File], layout: Layout, scratch: Path, progress: Progress) -> Contents:
    positions = [position for items in layout.splits.values() for _, position in items]
    paths = [root / files[position].name for position in positions]
    encoded: list[Encoded] = [(str(path), partial(read_file, path, MAX_FILE_BYTES)) for path in paths]
    done = 0
    with Spool(scratch) as spool:
        for count in decode_all(encoded, spool):
            done += count
            progress(done, len(paths))
    return spooled(spool, layout, {position: arrival for arrival, position in enumerate(positions)})


def spooled(spool: Spool, layout: Layout, arrival: dict[int, int]) -> Contents:
    """The contents of a full spool, laid out; `arrival` gives the place in the spool for a position in the names."""
    shape = spool.finish()
    return Contents(
        classes=layout.classes,
        shape=shape,
        parts={
            split: spool.part(
                np.array([arrival[position] for _, position in items], np.int64),
                np.array([label for label, _ in items], np.int64),
                shape,
            )
            for split, items in layout.splits.items()
        },
    )
