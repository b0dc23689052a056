"""Files that are there or not there, also after a power cut: written, made durable, read within bounds, taken away."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from edgecloud_trainer.checkpoints.errors import DamagedError

CHUNK: Final = 1 << 20
"""Bytes read and hashed at a time: small enough to be still in the processor's cache for the hash."""

_NO_SUCH_CALL = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, durably; one that is there is left alone."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # a folder above may be closed to us
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. File systems that can't (some of FUSE, SMB) are taken as they are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Write a new file and make its bytes durable; its name is only so after `sync_folder`."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes, temporary: Path) -> None:
    """Put a file in place of what stands there, in one step: a reader sees the old or the new, never a part."""
    temporary.unlink(missing_ok=True)
    try:
        write(temporary, data)
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove(path: Path, first: str) -> None:
    """Take a folder away, with the file called `first` gone before the others, or a file or link that is in its place.

    What is left of an interrupted removal then has no `first`, and passes for what it is.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    (path / first).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process is at it as well
        shutil.rmtree(path)


def open_folder(path: Path) -> int:
    """A descriptor of a folder that is no symbolic link. DamagedError if it is none; OSError if it can't be opened."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            what = "a symbolic link" if path.is_symlink() else "a file"
            raise DamagedError(f"it is {what} where a folder belongs") from None
        raise


def open_file(folder: int, name: str) -> tuple[int, int]:
    """A descriptor and the size of an ordinary file in an open folder: no link, no pipe, no device.

    DamagedError says why it is none. Only `name` itself is opened, never what it points to, so nothing outside the
    folder is ever read.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise DamagedError(f"{name} is not there") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedError(f"{name} is a symbolic link") from None
        raise DamagedError(f"{name} cannot be opened: {error.strerror}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise DamagedError(f"{name} is no ordinary file")
    return descriptor, found.st_size


def read_small(folder: int, name: str, limit: int) -> bytes:
    """All of a file of at most `limit` bytes. DamagedError if it is larger, or can't be read."""
    descriptor, size = open_file(folder, name)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if size > limit:
            raise DamagedError(f"{name} has {size} bytes, and more than {limit} are never written")
        data = bytearray()
        try:
            while len(data) <= limit and (part := file.read(limit + 1 - len(data))):
                data += part
        except OSError as error:
            raise DamagedError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise DamagedError(f"{name} grew beyond {limit} bytes while it was read")
    return bytes(data)


def sha256_of(descriptor: int) -> str:
    """Hexadecimal sha256 of a file from its beginning; the position is moved. Raises OSError."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
