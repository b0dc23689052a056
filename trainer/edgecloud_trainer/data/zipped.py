"""A zip file of a folder of images by class."""

from __future__ import annotations

import contextlib
import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data.archive import ArchiveFiles, leads_out
from edgecloud_trainer.data.dataset import DataError
from edgecloud_trainer.data.decode import Encoded
from edgecloud_trainer.data.files import read_files, unreadable
from edgecloud_trainer.data.layout import is_image
from edgecloud_trainer.data.manifest import MAX_NAME
from edgecloud_trainer.data.observer import Stage
from edgecloud_trainer.data.source import File, Source, key_of

MAX_MEMBERS: Final = 5_000_000
"""zipfile holds what it knows of each in memory."""
_ENCRYPTED: Final = 0x1
_UTF8: Final = 0x800
_DOS: Final = 0


def zip_source(path: Path, where: str = "") -> Source:
    """The images in a zip file.

    Args:
        path: the file.
        where: what messages call it.

    Raises:
        DataError: it is none, or has too many members.
    """
    status = path.stat()
    open_zip(path, where).close()
    return Source(
        name=path.stem or path.name,
        kind="zip",
        location=where or str(path),
        key=key_of("zip", str(path.resolve()), [File(path.name, status.st_size, status.st_mtime_ns)]),
        read=lambda reading: read_files(ZipFiles(path, where), reading),
        files=partial(ZipFiles, path, where),
        single=path,
    )


def open_zip(path: Path, where: str = "") -> zipfile.ZipFile:
    """The archive.

    Args:
        path: the file.
        where: what messages call it.

    Raises:
        DataError: it is none, isn't whole, or has too many members.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise _broken(where or str(path), error) from error
    if len(archive.infolist()) > MAX_MEMBERS:
        archive.close()
        raise DataError(f"{where or path} holds more than {MAX_MEMBERS} files: split it, or pack it as a tar file")
    return archive


class ZipFiles(ArchiveFiles):
    """Those of a zip file, in its order."""

    def __init__(self, path: Path, where: str = "") -> None:
        self.where = where or str(path)
        self.prefix = f"{self.where}: "
        self.names = []
        self.folders = set()
        self._path = path
        self._total = 0

    def stage(self, arrived: int, fresh: int) -> Stage:
        return Stage("decoding", arrived, self._total, images=fresh)

    def encoded(self) -> Iterator[Encoded]:
        with open_zip(self._path, self.where) as archive:
            members = archive.infolist()
            self._total = sum(is_image(member.filename) for member in members)
            for member in members:
                if (one := self._image(archive, member)) is not None:
                    yield one
        if not self.names:
            raise DataError(
                f"{self.where} holds no images: a folder of images for each class is needed, as CLASS/FILE.jpg"
            )

    def _image(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Encoded | None:
        def read(name: str, where: str) -> Encoded:
            try:
                with archive.open(member) as file:
                    data = file.read(MAX_FILE_BYTES + 1)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError) as error:
                problem = DataError(f"{where} can't be unpacked ({error or type(error).__name__}): pack it again")
                return Encoded(name, where, unreadable(problem))
            except OSError as error:
                raise _broken(self.where, error) from error
            return Encoded(name, where, partial(bytes, data), len(data))

        name = _name(member, member.filename)
        return self.member(name, member.file_size, _unsafe(member), folder=name.endswith("/"), read=read)


def _name(member: zipfile.ZipInfo, name: str) -> str:
    r"""What a member is called.

    macOS writes UTF-8 without saying so, which would give classes strange names, and older Windows \ for /.
    """
    if not (member.flag_bits & _UTF8 or name.isascii()):
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/") if member.create_system == _DOS and "/" not in name else name


def _unsafe(member: zipfile.ZipInfo) -> str:
    """Why a member isn't read; "" if it may be."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link, a device or a pipe: pack the files themselves"
    if leads_out(_name(member, member.orig_filename)):
        return "leads out of the archive: pack it from within its folder"
    if len(member.filename) > MAX_NAME:
        return f"has a name of {len(member.filename)} characters, more than {MAX_NAME}: rename it"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted: pack it without a password"
    return ""


def _broken(where: str, error: Exception) -> DataError:
    return DataError(f"{where} can't be read ({error or type(error).__name__}): is it whole? Copy it again")
