"""A folder of images by class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data.dataset import DataError
from edgecloud_trainer.data.decode import Encoded
from edgecloud_trainer.data.files import ImageFiles, read_files, unreadable
from edgecloud_trainer.data.layout import is_image
from edgecloud_trainer.data.observer import Stage
from edgecloud_trainer.data.source import Listed, Source, key_of, read_file


def folder_source(root: Path, listed: Listed) -> Source:
    """The images in a folder whose files are listed already."""
    return Source(
        name=root.resolve().name or str(root),
        kind="folder",
        location=str(root),
        key=key_of("folder", str(root.resolve()), listed.files),
        read=lambda reading: read_files(FolderFiles(root, listed), reading),
        files=partial(FolderFiles, root, listed),
    )


class FolderFiles(ImageFiles):
    """Those of a folder, sorted by name."""

    def __init__(self, root: Path, listed: Listed) -> None:
        self.where = str(root)
        self.prefix = f"{root}/"
        self.names = [file.name for file in listed.files]
        self.folders = listed.folders
        self.hidden = listed.hidden
        self._faults = listed.faults
        self._images = [name for name in self.names if is_image(name)]

    def encoded(self) -> Iterator[Encoded]:
        for fault in self._faults:
            yield Encoded(fault.name, f"{self.prefix}{fault.name}", unreadable(DataError(fault.reason)))
        for name in self._images:
            path = f"{self.prefix}{name}"
            yield Encoded(name, path, partial(read_file, path, MAX_FILE_BYTES))

    def stage(self, arrived: int, fresh: int) -> Stage:
        return Stage("decoding", arrived, len(self._faults) + len(self._images), images=fresh)
