"""Whether something is there. What may not be looked at, or has too long a name, isn't: reading it then says why.

`Path.is_dir` and its like raise OSError for such a path.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_there(path: Path) -> bool:
    """Whether there is anything; not so of a link to nothing."""
    return os.path.exists(path)  # noqa: PTH110 - see above
