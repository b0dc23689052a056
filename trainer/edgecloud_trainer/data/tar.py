"""A tar file (plain, .gz, .bz2, .xz) of a folder of images by class, read once from front to end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data.archive import ArchiveFiles, leads_out
from edgecloud_trainer.data.dataset import DataError
from edgecloud_trainer.data.decode import Encoded
from edgecloud_trainer.data.files import read_files
from edgecloud_trainer.data.manifest import MAX_NAME
from edgecloud_trainer.data.observer import Stage
from edgecloud_trainer.data.source import MAX_FILES, File, Source, key_of

_SKIP: Final = 1024 * 1024


def tar_source(path: Path, where: str = "") -> Source:
    """The images in a tar file.

    Args:
        path: the file.
        where: what messages call it.

    Raises:
        DataError: the file is neither a tar file nor one that is compressed.
    """
    status = path.stat()
    with path.open("rb") as raw:
        _unpacked(raw, where or str(path))
    return Source(
        name=path.name.split(".")[0] or path.name,
        kind="tar",
        location=where or str(path),
        key=key_of("tar", str(path.resolve()), [File(path.name, status.st_size, status.st_mtime_ns)]),
        read=lambda reading: read_files(TarFiles(path, where), reading),
        files=partial(TarFiles, path, where),
        single=path,
    )


class TarFiles(ArchiveFiles):
    """Those of a tar file, in its order."""

    def __init__(self, path: Path, where: str = "") -> None:
        self.where = where or str(path)
        self.prefix = f"{self.where}: "
        self.names = []
        self.folders = set()
        self._path = path
        self._at = 0
        self._size = path.stat().st_size

    def stage(self, arrived: int, fresh: int) -> Stage:
        return Stage("decoding", self._at, self._size, "bytes", fresh)

    def encoded(self) -> Iterator[Encoded]:
        try:
            with self._path.open("rb") as raw:
                for one in self._members(raw):
                    self._at = min(raw.tell(), self._size)
                    yield one
        except OSError as error:
            raise _broken(self.where, error) from error
        if not self.names:
            raise DataError(
                f"{self.where} holds no images: a folder of images for each class is needed, as CLASS/FILE.jpg"
            )

    def _members(self, raw: BinaryIO) -> Iterator[Encoded]:
        """Every image of the archive; all names of files go into `names`.

        Raises:
            DataError: the archive is broken, or has too many members.
        """
        source = _unpacked(raw, self.where)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", source), mode="r:") as archive:
                count = 0
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps what it knows of each member
                    count += 1
                    if count > MAX_FILES:
                        raise DataError(f"{self.where} holds more than {MAX_FILES} files: split it")
                    if (one := self._image(archive, member)) is not None:
                        yield one
            if not source.ended:
                raise DataError(f"{self.where} has no end, or a broken header: is it whole? Copy it again")
            # What it is compressed with has its checksum behind the last byte: unless that is read, nobody compares it.
            while data := source.read(_SKIP):
                if data.count(0) != len(data):
                    raise DataError(
                        f"{self.where}: something follows the archive's end, as when archives are put one behind the "
                        "other: pack all images as one archive, or copy it again if it is damaged"
                    )
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, OSError) as error:
            if isinstance(error, DataError):
                raise
            raise _broken(self.where, error) from error

    def _image(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Encoded | None:
        def read(name: str, where: str) -> Encoded:
            file = archive.extractfile(member)
            assert file is not None
            data = file.read()
            return Encoded(name, where, partial(bytes, data), len(data))

        return self.member(member.name, member.size, _unsafe(member), folder=member.isdir(), read=read)


def _broken(where: str, error: Exception) -> DataError:
    return DataError(f"{where} can't be read to its end ({error or type(error).__name__}): is it whole? Copy it again")


def _unsafe(member: tarfile.TarInfo) -> str:
    """Why a member isn't read; "" if it may be."""
    if not (member.isreg() or member.isdir()):
        kind = "link" if member.issym() or member.islnk() else "device or pipe"
        return f"is a {kind}: pack the files themselves (tar --dereference --hard-dereference)"
    if leads_out(member.name):
        return "leads out of the archive: pack it from within its folder (tar -C)"
    if len(member.name) > MAX_NAME:
        return f"has a name of {len(member.name)} characters, more than {MAX_NAME}: rename it"
    return ""


def _unpacked(raw: BinaryIO, where: str) -> _Forward:
    """The archive's bytes, whatever they are compressed with.

    Raises:
        DataError: it isn't a tar file.
    """
    start = raw.read(512)
    raw.seek(0)
    opened: BinaryIO = raw
    if start.startswith(b"\x1f\x8b"):
        opened = cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    elif start.startswith(b"BZh"):
        opened = cast("BinaryIO", bz2.BZ2File(raw))
    elif start.startswith(b"\xfd7zXZ\0"):
        opened = cast("BinaryIO", lzma.LZMAFile(raw))  # noqa: SIM115 (the caller closes what it reads)
    elif not _starts_tar(start):
        raise DataError(
            f"{where} is neither a folder nor a tar file (plain, .gz, .bz2 or .xz): "
            "give a folder of images by class, or pack one as a tar file"
        )
    return _Forward(opened, where)


def _starts_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return start == bytes(tarfile.BLOCKSIZE)  # an empty archive
    return True


class _Forward:
    """A file that tarfile can read but not make read backwards, or more at once than an image may have.

    A compressed file goes back by starting over; and the long names and extended headers of tar are read whole,
    however large they say they are.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where
        self._at = 0
        self.ended = False
        """Whether the last block that was read is the empty one at an archive's end: tarfile takes anything for one."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_FILE_BYTES + tarfile.BLOCKSIZE:
            raise DataError(
                f"{self._where} has a header or member of {size} bytes, more than {MAX_FILE_BYTES}: pack it again"
            )
        data = self._file.read(size)
        self._at += len(data)
        self.ended = data == bytes(tarfile.BLOCKSIZE)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        if position < self._at:
            raise tarfile.ReadError("its headers point backwards")
        while self._at < position and self.read(min(_SKIP, position - self._at)):
            pass
        return self._at
