"""From what a user writes, a path, a URL or a name, to the source of the images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from edgecloud_trainer.data.cifar import cifar_source, is_cifar
from edgecloud_trainer.data.dataset import DataError
from edgecloud_trainer.data.filesystem import is_url
from edgecloud_trainer.data.folder import folder_source
from edgecloud_trainer.data.idx import idx_source, is_idx
from edgecloud_trainer.data.imagefile import is_image_file
from edgecloud_trainer.data.named import NAMES, is_known, named_source
from edgecloud_trainer.data.npy import is_npz, npy_source, npz_source
from edgecloud_trainer.data.observer import Observer
from edgecloud_trainer.data.prepared import prepared_source
from edgecloud_trainer.data.source import Source, files_below
from edgecloud_trainer.data.tar import tar_source
from edgecloud_trainer.data.zipped import zip_source

_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_NUMPY: Final = b"\x93NUMPY"


def find_source(
    text: str, observer: Observer, *, named: bool = True, skip_broken: bool = False, follow_links: bool = True
) -> Source:
    """The source that a text stands for.

    Args:
        text: a path, a URL, or, if nothing is at such a path, a named set.
        observer: is told what takes its time.
        named: whether names of sets are understood.
        skip_broken: what can't be read as a file is left for later, instead of refused.
        follow_links: also those that lead out of a folder.

    Raises:
        DataError: there is nothing, or nothing that can be read.
    """
    local = partial(local_source, skip_broken=skip_broken, follow_links=follow_links)
    if text.startswith(("file://", "local://")):
        text = text.partition("://")[2]
    if is_url(text):
        from edgecloud_trainer.data.remote import remote_source

        return remote_source(text, local, observer)
    path = expanded(text)
    if named and "/" not in text and not is_there(path):
        if is_known(text):
            return named_source(text)
        raise DataError(
            f"{text} isn't there (looked for in {Path.cwd()}), and no data set has that name: known are "
            f"{', '.join(NAMES)}"
        )
    if named and not is_there(path):
        raise DataError(f"{path} isn't there (looked for in {Path.cwd()}): check how it is written")
    return local(path)


def expanded(text: str) -> Path:
    """The path, with ~ as the home folder that it stands for; where nobody has such a home, as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_there(path: Path) -> bool:
    """Whether there is something at a path.

    Raises:
        DataError: that can't be found out, such as when the path is too long.
    """
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error


def local_source(path: Path, where: str = "", *, skip_broken: bool = False, follow_links: bool = True) -> Source:
    """The source at a path.

    Args:
        path: of a folder or a file.
        where: what messages call it, if not by its path.
        skip_broken: what can't be read as a file is left for later, instead of refused.
        follow_links: also those that lead out of a folder.

    Raises:
        DataError: there is nothing, or nothing that can be read.
    """
    try:
        if not is_there(path):
            raise DataError(f"{path} isn't there (looked for in {Path.cwd()}): write the path as the worker sees it")
        if path.is_file():
            return _file_source(path, where)
        if not path.is_dir():
            raise DataError(f"{path} is a device, a socket or a pipe: write the path of a folder or a tar file")
    except OSError as error:
        raise DataError(
            f"{where or path} can't be read ({error.strerror or error}): check it and its rights"
        ) from error
    listed = files_below(path, skip_broken=skip_broken, follow_links=follow_links)
    return (
        idx_source(path, listed.files)
        or cifar_source(path, listed.files)
        or npy_source(path, listed.files)
        or folder_source(path, listed)
    )


def _file_source(path: Path, where: str) -> Source:
    if is_image_file(path):
        return prepared_source(path, where)
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_ZIP):
        return npz_source(path, where) if is_npz(path, where) else zip_source(path, where)
    name = where.rpartition("/")[2] or path.name
    if start.startswith(_NUMPY) or is_idx(name) or is_cifar(name):
        raise DataError(f"{where or path} is only a part of a data set: give the folder with all of its files")
    return tar_source(path, where)


def inside(path: Path, source: Source) -> bool:
    """Whether a path lies in the folder that a source reads."""
    folder = Path(source.location)
    if source.kind == "named" or is_url(source.location) or not folder.is_dir():
        return False
    return path.resolve().is_relative_to(folder.resolve())
