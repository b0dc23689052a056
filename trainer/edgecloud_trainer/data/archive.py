"""Which members of an archive are images, whatever it is packed with; none is ever unpacked to a disk."""

from __future__ import annotations

from collections.abc import Callable

from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data.dataset import DataError
from edgecloud_trainer.data.decode import Encoded
from edgecloud_trainer.data.files import ImageFiles, unreadable
from edgecloud_trainer.data.layout import is_clutter, is_image, may_be_class
from edgecloud_trainer.data.manifest import MAX_NAME


class ArchiveFiles(ImageFiles):
    """The images in an archive; what differs by its kind is how members are listed and read."""

    def member(
        self, path: str, size: int, unsafe: str, *, folder: bool, read: Callable[[str, str], Encoded]
    ) -> Encoded | None:
        """A member, if it is an image, or can't be one but would have to.

        Args:
            path: its name in the archive.
            size: in bytes, unpacked.
            unsafe: why it isn't read; "" if it may be.
            folder: whether it is one.
            read: called with its plain name, and its name for messages.
        """
        if unsafe:
            name = shortened(path)
            return Encoded(name, "", unreadable(DataError(f"{self.prefix}{name} {unsafe}")))
        name = plain_name(path)
        if not name:
            return None
        *around, last = name.split("/")
        if (clutter := next((place for place, part in enumerate(around) if is_clutter(part)), None)) is not None:
            if not folder and is_image(last) and not is_clutter(last) and may_be_class(around[clutter]):
                self.hidden.add("/".join(around[: clutter + 1]))
            return None
        if is_clutter(last):
            return None
        if folder:
            self.folders.add(name)
            return None
        self.names.append(name)
        if not is_image(name):
            return None
        where = f"{self.prefix}{name}"
        if size > MAX_FILE_BYTES:
            problem = DataError(f"{where} has {size} bytes, more than {MAX_FILE_BYTES}: take it out")
            return Encoded(name, where, unreadable(problem))
        return read(name, where)


def leads_out(name: str) -> bool:
    """Whether the name of an archive's member would lie outside of a folder that it is unpacked into."""
    return name.startswith("/") or ".." in name.split("/") or "\\" in name


def plain_name(name: str) -> str:
    """A member's name without empty parts and points; "" for the folder itself."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def shortened(name: str) -> str:
    """A member's name, or as much of it as is worth keeping; what is cut off leaves a mark."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
