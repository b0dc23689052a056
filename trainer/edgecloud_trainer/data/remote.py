"""Data at a URL: a single file is brought here and read then; of a folder, each image as it is needed."""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data.checking import check_file
from edgecloud_trainer.data.cifar import is_cifar
from edgecloud_trainer.data.dataset import Contents, DataError, TransferError
from edgecloud_trainer.data.decode import Encoded
from edgecloud_trainer.data.download import download
from edgecloud_trainer.data.files import ImageFiles, Reading, read_files
from edgecloud_trainer.data.filesystem import FileSystem, Found
from edgecloud_trainer.data.idx import is_idx
from edgecloud_trainer.data.layout import is_clutter, is_image
from edgecloud_trainer.data.npy import is_npy
from edgecloud_trainer.data.observer import Observer, Stage
from edgecloud_trainer.data.source import Source, keyed
from edgecloud_trainer.data.spool import forget

MAX_FILES: Final = 5_000_000
"""In a folder by URL."""
_THREADS: Final = 16
"""That wait for a server, more than compute."""
_MAX_ASKED: Final = 5_000
"""Files of a folder whose server is asked for the version of each, whenever a process starts: some seconds' worth."""
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 0.25
T = TypeVar("T")


def remote_source(url: str, local: Callable[[Path, str], Source], observer: Observer) -> Source:
    """The images at a URL.

    Args:
        url: of a file or a folder; of http, a folder's ends in /.
        local: the source at a path on this machine, and what messages call it.
        observer: is told that a folder is being listed.

    Raises:
        DataError: nothing is there, or nobody knows how to read it.
    """
    fs = FileSystem(url)
    found = fs.find()
    if found.is_folder:
        observer.stage(Stage("listing"))
        return _folder(fs, local)
    # A signature in the query is another one after each restart; a query may also say which file it is.
    key = keyed(("url", fs.public if found.has_etag else fs.address, found.mark))
    return Source(
        name=_name(fs.public).partition(".")[0] or "data",
        kind="tar",  # until it is here, and looked at
        location=fs.public,
        key=key,
        read=lambda reading: _file_here(fs, found, key, local, reading).read(reading),
        bring=partial(_file_here, fs, found, key, local),
    )


def _name(url: str) -> str:
    """A URL's last part, as a file's name that nobody can do harm with."""
    last = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    return re.sub(r"[^A-Za-z0-9._-]", "_", last)[-100:].lstrip(".") or "data"


def _file_here(
    fs: FileSystem, found: Found, key: str, local: Callable[[Path, str], Source], reading: Reading
) -> Source:
    if not found.version:
        forget(reading.scratch)
    folder = reading.scratch / "download"
    folder.mkdir(exist_ok=True)
    path = folder / _name(fs.public)
    sha256 = download(fs, found, path, reading.observer)
    source = local(path, fs.public)
    if source.kind == "prepared" and (problems := check_file(path, reading.observer)):
        raise DataError(f"{fs.public} {problems[0]}: copy it there again")
    return replace(source, location=fs.public, key=key, sha256=sha256)


def _folder(fs: FileSystem, local: Callable[[Path, str], Source]) -> Source:
    files: dict[str, tuple[str, Found]] = {}
    folders: set[str] = set()
    for name, path, found in fs.walk(MAX_FILES):
        if any(is_clutter(part) for part in name.split("/")):
            continue
        if found.is_folder:
            folders.add(name)
        else:
            files[name] = (path, found)
    files = _with_versions(fs, dict(sorted(files.items())))
    name = _name(fs.public)
    key = keyed(("url-folder", fs.public, *(f"{name}\0{found.mark}" for name, (_, found) in files.items())))
    if arrays := [name for name in files if _is_array(name)]:
        wanted = {name: files[name] for name in arrays}
        bring = partial(_arrays_here, fs, wanted, key, local)
        return Source(
            name=name, kind="idx", location=fs.public, key=key, bring=bring,
            read=lambda reading: bring(reading).read(reading),
        )  # fmt: skip
    return Source(
        name=name,
        kind="folder",
        location=fs.public,
        key=key,
        read=lambda reading: _read_folder(fs, files, folders, reading),
        files=partial(RemoteFiles, fs, files, folders),
    )


def _is_array(name: str) -> bool:
    return "/" not in name and (is_idx(name) or is_cifar(name) or is_npy(name))


def _with_versions(fs: FileSystem, files: dict[str, tuple[str, Found]]) -> dict[str, tuple[str, Found]]:
    """The same files, with what a web server says of each that will be read: its listing may say less, or nothing.

    Of a large folder it is what the listing says. Where that is nothing, other contents under the same names are taken
    for those of before.
    """
    wanted = [name for name in files if is_image(name) or _is_array(name)]
    if not fs.is_http or len(wanted) > _MAX_ASKED:
        return files

    def ask(name: str) -> Found:
        path, listed = files[name]
        try:
            found = _persistently(fs.at(path).find)
        except TransferError:
            raise
        except DataError:  # it is said when the file is read, or the file left out
            return listed
        return found if found.version else found._replace(version=listed.version)

    with ThreadPoolExecutor(_THREADS) as pool:
        return files | {
            name: (files[name][0], found) for name, found in zip(wanted, pool.map(ask, wanted), strict=True)
        }


def _read_folder(fs: FileSystem, files: dict[str, tuple[str, Found]], folders: set[str], reading: Reading) -> Contents:
    if not all(found.version for name, (_, found) in files.items() if is_image(name)):
        forget(reading.scratch)
    return read_files(RemoteFiles(fs, files, folders), reading)


def _arrays_here(
    fs: FileSystem,
    wanted: dict[str, tuple[str, Found]],
    key: str,
    local: Callable[[Path, str], Source],
    reading: Reading,
) -> Source:
    folder = reading.scratch / "download"
    folder.mkdir(exist_ok=True)
    for name, (path, found) in wanted.items():
        download(fs.at(path), found, folder / name, reading.observer)
    return replace(local(folder, fs.public), location=fs.public, key=key)


class RemoteFiles(ImageFiles):
    """Those of a folder by URL, sorted by name."""

    threads = _THREADS

    def __init__(self, fs: FileSystem, files: dict[str, tuple[str, Found]], folders: set[str]) -> None:
        self.where = fs.public
        self.prefix = f"{fs.public.rstrip('/')}/"
        self.names = list(files)
        self.folders = folders
        self._fs = fs
        self._images = {name: path for name, (path, _) in files.items() if is_image(name)}

    def encoded(self) -> Iterator[Encoded]:
        for name, path in self._images.items():
            yield Encoded(name, f"{self.prefix}{name}", partial(_bytes, self._fs, path))

    def stage(self, arrived: int, fresh: int) -> Stage:
        return Stage("decoding", arrived, len(self._images), images=fresh)


def _bytes(fs: FileSystem, path: str) -> bytes:
    """A whole file of at most as many bytes as an image file may have."""
    fs = fs.at(path)

    def read() -> bytes:
        data = bytearray()
        for chunk in fs.stream(path).chunks:
            data += chunk
            if len(data) > MAX_FILE_BYTES:
                raise DataError(f"{fs.public} has more than {MAX_FILE_BYTES} bytes: take it out")
        return bytes(data)

    return _persistently(read)


def _persistently(call: Callable[[], T]) -> T:
    """What a call gives, made again where its transfer breaks off."""
    pause = _PAUSE_SECONDS
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except TransferError:
            if not left:
                raise
            time.sleep(pause)
            pause *= 2
    raise AssertionError("the last try raises")
