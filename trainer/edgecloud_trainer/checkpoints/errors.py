"""What can go wrong with checkpoints, each with what to do about it."""

from __future__ import annotations

import errno
import os
from typing import Any

_SPACE = (
    "free space there, keep fewer (storage.keepCheckpoints), or take a larger claim"
    " (for an emptyDir: a larger storage.sizeLimit)"
)
_RIGHTS = (
    "make the folder writable for user id {uid}, such as by securityContext.fsGroup in podTemplate.spec;"
    " in a local run by chown"
)
_IN_THE_WAY = "a file stands where a folder belongs: move it away, or choose another storage.subPath"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "take a file system that allows files of this size",
    errno.EROFS: "mount the storage writable (no readOnly: true; a claim whose accessModes allow writing)",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EIO: "the storage itself fails: look at its events and at the node's kernel log",
    errno.ESTALE: "the network file system lost the folder: look at its server, then let the job restart",
}
_OTHERWISE = "look at the storage: its claim, its server, the node's kernel log"


class CheckpointError(Exception):
    """A checkpoint could not be written, read or found out about. `str()` gives message and remedy in one line."""

    def __init__(self, message: str, remedy: str, *, kind: str = "") -> None:
        super().__init__(f"{message}; {remedy}")
        self.message = message
        self.remedy = remedy
        self.kind = kind
        """The operating system's name of the error, such as ENOSPC; empty when it came from elsewhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Rank 0 meets the error, and every rank must raise it: it goes through pickle between processes of one job."""
        return _remade, (type(self), self.args, self.__dict__)


class DamagedError(CheckpointError):
    """This folder is no whole checkpoint: something is missing, cut short, changed, or not of our making."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "use an older checkpoint, or a copy of this one")


class NewerFormatError(DamagedError):
    """Written by a later release in a format that this one does not know."""

    def __init__(self, message: str, *, round: int) -> None:
        super().__init__(message)
        self.round = round


class CheckpointMismatchError(CheckpointError):
    """What lies in the folder belongs to another configuration."""

    def __init__(self, what: str, *, found: str, expected: str) -> None:
        super().__init__(
            f"{what} belongs to another configuration: its digest is {found}, this job's is {expected}",
            "give the changed job another name or another storage.subPath (in a local run --fresh, or another"
            " --workdir),"
            " or delete the old checkpoints",
        )
        self.found = found
        self.expected = expected


class SupersededError(CheckpointError):
    """A higher round has written here: this process is a zombie, and must stop without writing anything more."""

    def __init__(self, what: str, *, own: int, seen: int) -> None:
        super().__init__(
            f"{what} is of round {seen}, and this process of round {own}: a later round has taken over",
            f"this process stops; should no later round be running, start one above {seen}",
        )
        self.own = own
        self.seen = seen


def _remade(kind: type[CheckpointError], args: tuple[Any, ...], fields: dict[str, Any]) -> CheckpointError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


def explained(error: OSError, doing: str) -> CheckpointError:
    """The error of the operating system as one of ours: what was being done, why it failed, what helps."""
    code = error.errno or 0
    remedy = _REMEDIES.get(code, _OTHERWISE).format(uid=os.geteuid())
    return CheckpointError(
        f"{doing}: {error.strerror or error}", remedy, kind=errno.errorcode.get(code, type(error).__name__)
    )


def reason(error: DamagedError | OSError) -> str:
    """Why something could not be read, as the second half of a sentence."""
    return error.message if isinstance(error, DamagedError) else f"it cannot be read: {error.strerror or error}"
