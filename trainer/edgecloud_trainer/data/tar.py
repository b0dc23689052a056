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
from edgecloud_trainer.data.dataset import Contents, DataError, Progress
from edgecloud_trainer.data.decode import Encoded, Spool, decode_all
from edgecloud_trainer.data.folder import spooled
from edgecloud_trainer.data.layout import arrange, is_clutter, is_image
from edgecloud_trainer.data.source import MAX_FILES, File, Source, key_of

_SKIP: Final = 1024 * 1024


def tar_source(path: Path) -> Source:
    """The images in a tar file.

    Raises:
        DataError: the file is neither a tar file nor one that is compressed.
    """
    status = path.stat()
    with path.open("rb") as raw:
        _unpacked(raw, path)
    name = path.name.split(".")[0] or path.name
    return Source(
        name=name,
        key=key_of("tar", path, [File(path.name, status.st_size, status.st_mtime_ns)]),
        read=partial(_read, path),
    )


def _read(path: Path, scratch: Path, progress: Progress) -> Contents:
    names, arrival = list[str](), dict[int, int]()
    try:
        with path.open("rb") as raw, Spool(scratch) as spool:
            size = path.stat().st_size
            for _ in decode_all(_images(path, raw, names, arrival), spool):
                progress(min(raw.tell(), size), size)
    except OSError as error:
        raise _broken(path, error) from error
    return spooled(spool, arrange(names, str(path)), arrival) if arrival else _nothing(names, path)


def _nothing(names: list[str], path: Path) -> Contents:
    arrange(names, str(path))
    raise DataError(f"{path} holds no images: a folder of images for each class is needed, as CLASS/FILE.jpg")


def _images(path: Path, raw: BinaryIO, names: list[str], arrival: dict[int, int]) -> Iterator[Encoded]:
    """Every image of the archive, in its order; all names go into `names`, an image's place into `arrival`."""
    for name, data in _members(path, raw):
        if data is not None:
            arrival[len(names)] = len(arrival)
            yield f"{path}: {name}", partial(bytes, data)
        names.append(name)


def _members(path: Path, raw: BinaryIO) -> Iterator[tuple[str, bytes | None]]:
    """Name and, of images, bytes of each file in the archive.

    Raises:
        DataError: the archive is broken, or has a member that could lead out of it, or too large a one.
    """
    source = _unpacked(raw, path)
    try:
        with tarfile.open(fileobj=cast("BinaryIO", source), mode="r:") as archive:
            count = 0
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps what it knows of each member
                count += 1
                if count > MAX_FILES:
                    raise DataError(f"{path} holds more than {MAX_FILES} files: split it")
                name = _safe(member, path)
                if not name or member.isdir() or any(is_clutter(part) for part in name.split("/")):
                    continue
                if not is_image(name):
                    yield name, None
                    continue
                if member.size > MAX_FILE_BYTES:
                    raise DataError(f"{path}: {name} has {member.size} bytes, more than {MAX_FILE_BYTES}: take it out")
                file = archive.extractfile(member)
                assert file is not None
                yield name, file.read()
        if not source.ended:
            raise DataError(f"{path} has no end, or a broken header: is it whole? Copy it again")
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} can't be read to its end ({error or type(error).__name__}): is it whole? Copy it again")


def _safe(member: tarfile.TarInfo, path: Path) -> str:
    """The member's name without ./ at its front; "" for the folder itself."""
    name = member.name.removeprefix("./").rstrip("/")
    if not (member.isreg() or member.isdir()):
        kind = "link" if member.issym() or member.islnk() else "device or pipe"
        raise DataError(
            f"{path}: {member.name} is a {kind}: pack the files themselves (tar --dereference --hard-dereference)"
        )
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise DataError(f"{path}: {member.name} leads out of the archive: pack it from within its folder (tar -C)")
    return "/".join(part for part in parts if part not in ("", "."))


def _unpacked(raw: BinaryIO, path: Path) -> _Forward:
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
            f"{path} is neither a folder nor a tar file (plain, .gz, .bz2 or .xz): "
            "give a folder of images by class, or pack one as a tar file"
        )
    return _Forward(opened, path)


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

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._at = 0
        self.ended = False
        """Whether the last block that was read is the empty one at an archive's end: tarfile takes anything for one."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_FILE_BYTES + tarfile.BLOCKSIZE:
            raise DataError(
                f"{self._path} has a header or member of {size} bytes, more than {MAX_FILE_BYTES}: pack it again"
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
