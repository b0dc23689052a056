"""A finished export, copied to where it is wanted: a folder, or a URL that fsspec can write to."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from edgecloud.api.rules import export_violations
from edgecloud.api.spec import ExportSpec
from edgecloud.edge.layout import REPORT
from edgecloud.urls import public
from edgecloud_trainer.export.errors import first_line
from edgecloud_trainer.export.folder import MARK, ours
from edgecloud_trainer.export.standing import MAX_REPORT, parsed

log = logging.getLogger(__name__)

_READ_ONLY: Final = ("http", "https", "data", "git", "github", "zip", "tar")
_LASTING: Final = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip
"""What a wrong path comes to. Whatever else befalls a share (full, stale, silent) may have passed by the end."""


class DestinationError(ValueError):
    """Nothing can ever be copied there. The message says what to write instead."""


class DeliveryError(Exception):
    """The files could not be copied this time. The message names the destination, without what may be secret in it."""


def check_destination(destination: str) -> None:
    """Find out, before anything is trained, whether there is a way to write there at all.

    Raises:
        DestinationError: it is neither an absolute path nor the URL of a folder; or fsspec doesn't know the scheme,
            lacks a package for it, or can only read from it.
    """
    for broken in export_violations(ExportSpec(destination=destination)):
        raise DestinationError(f"{'.'.join(map(str, broken.path))}: {broken.message}: {broken.remedy}")
    if _folder(destination) is not None:
        return
    import fsspec  # type: ignore[import-untyped]

    scheme = _scheme(destination) or ""
    if scheme in _READ_ONLY:
        raise DestinationError(
            f"export.destination: {shown(destination)}: {scheme} can't be written to: take file://, s3:// or another"
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise DestinationError(
            f"export.destination: {shown(destination)} can't be written to ({error}): take file://, s3:// or another"
        ) from None


def try_destination(destination: str) -> None:
    """Make the folder, and find out whether it takes files. Of a URL elsewhere only the copying tells.

    What may pass is said in the log: the files are in results/export as well, and a training is worth more than a copy.

    Raises:
        DestinationError: it never will; and see `check_destination`.
    """
    check_destination(destination)
    folder = _folder(destination)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except (OSError, ValueError) as error:  # a path with a NUL is a wrong value
        why = (error.strerror if isinstance(error, OSError) else None) or error
        if isinstance(error, OSError) and error.errno not in _LASTING:
            log.warning(
                "export.destination: %s can't be written to now (%s): training all the same; see to it before the end",
                folder,
                why,
            )
            return
        raise DestinationError(
            f"export.destination: {folder} can't be written to where rank 0 runs ({why}): write a folder of a volume"
            " that podTemplate mounts, or a URL such as s3://bucket/folder, or leave it out"
        ) from None


def deliver(folder: Path, names: Sequence[str], destination: str, on_progress: Callable[[str], None]) -> None:
    """Copy files into a folder, in this order; each is there whole or not at all.

    An export that is there already is replaced: its report goes first, and with it what else of its own has no
    successor, such as the model of a format that isn't exported any more. So with the report as the last of `names`
    nobody ever finds one there that is not of the files beside it.

    Args:
        folder: where they are.
        names: of the files.
        destination: path or URL of the folder that they go to; made if it isn't there.
        on_progress: called with the name of each.

    Raises:
        DeliveryError: one of them can't be copied now.
        DestinationError: see `check_destination`.
    """
    check_destination(destination)
    target = _folder(destination)
    try:
        place = _Store(destination) if target is None else _Folder(target)
        # As in the folder of the export itself: a mark tells the next one of files of ours that have no report yet.
        before = ours(parsed(place.read(REPORT)), place.read(MARK).decode(errors="replace"))
        place.write(MARK, "".join(f"{name}\n" for name in sorted(before.union(names))).encode())
        for name in (REPORT, *sorted(before.difference(names, (REPORT,)))):
            place.remove(name)
        for name in names:
            on_progress(name)
            place.put(folder / name, name)
        place.remove(MARK)
    except Exception as error:  # each of fsspec's file systems has errors of its own
        said = first_line(error, url="" if target is not None else destination)
        raise DeliveryError(
            f"the export can't be copied to {shown(destination)} ({said}): check the address, its rights and the"
            " network; the files are in results/export"
        ) from error


class _Folder:
    """A folder of a file system of this machine."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path

    def read(self, name: str) -> bytes:
        """A file's first bytes, so many that too many are seen; none if it isn't there, or is another user's alone."""
        try:
            with (self._path / name).open("rb") as file:
                return file.read(MAX_REPORT + 1)
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            return b""

    def write(self, name: str, data: bytes) -> None:
        with self._replacing(name) as written:
            written.write(data)

    def put(self, source: Path, name: str) -> None:
        with source.open("rb") as read, self._replacing(name) as written:
            shutil.copyfileobj(read, written)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[IO[bytes]]:
        """A new file, which takes the old one's place at the end: whoever that is of."""
        target = self._path / name
        beside = target.with_name(f".{name}.{os.getpid()}")
        try:
            with beside.open("wb") as written:
                yield written
                written.flush()
                os.fsync(written.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class _Store:
    """A store of objects, which come to be as a whole."""

    def __init__(self, url: str) -> None:
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
        self._files, root = found
        self._root = root.rstrip("/")
        self._files.makedirs(root, exist_ok=True)

    def read(self, name: str) -> bytes:
        """Likewise; none, too, if it can't be read: who may write may not always do that.

        Each store says in its own way that a file isn't there, and that it may not be read. What it is read for is
        only which files are ours; whether the store can be reached shows when the new ones are written.
        """
        try:
            with self._files.open(f"{self._root}/{name}", "rb") as file:
                return bytes(file.read(MAX_REPORT + 1))
        except Exception:
            return b""

    def write(self, name: str, data: bytes) -> None:
        self._files.pipe_file(f"{self._root}/{name}", data)

    def put(self, source: Path, name: str) -> None:
        self._files.put_file(str(source), f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            pass
        except Exception as error:  # the new files may be written over the old ones
            if isinstance(error, (PermissionError, NotImplementedError)) or self._has(name):
                log.warning("export.destination: %s can't be taken away there (%s)", name, type(error).__name__)

    def _has(self, name: str) -> bool:
        """Asked where a store has an error of its own for what isn't there."""
        try:
            self._files.invalidate_cache()
            return bool(self._files.exists(f"{self._root}/{name}"))
        except Exception:
            return True


def _folder(destination: str) -> Path | None:
    """The folder that is meant, whose name may have # and ? in it; None: it is in no file system of this machine."""
    scheme = _scheme(destination)
    if scheme not in (None, "file", "local"):
        return None
    return Path(destination if scheme is None else destination.partition("://")[2])


def _scheme(destination: str) -> str | None:
    return destination.partition("://")[0].rpartition("::")[2] if "://" in destination else None


def shown(destination: str) -> str:
    """A URL without user, password and query; a folder of this machine as it is."""
    if _folder(destination) is not None:
        return destination
    try:
        return public(destination)
    except ValueError:
        return destination.partition("://")[0] + "://..."
