"""The launcher as one file, a zipapp: `python3 edgecloud-launcher.pyz -- COMMAND` runs it in any image with a python3.

`python -m edgecloud.launcher.archive FILE` writes it; an init container does that to bring the launcher into an image
that does not have EdgeCloud inside. Equal sources give equal bytes.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
import zipimport
from pathlib import Path

import edgecloud

_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = "from edgecloud.launcher.__main__ import leave, main\n\nleave(main())\n"
_DATE = (1980, 1, 1, 0, 0, 0)
_SHARED = "\n__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
"""Appended to edgecloud/__init__.py: the archive comes first on the processes' path, and would hide the rest of the
package from a program in an image that has it installed."""


def write(path: Path) -> None:
    """Write the archive; whoever looks at `path` meanwhile sees the old file or the new one.

    Raises:
        OSError: it cannot be written.
        RuntimeError: this launcher runs from an archive itself; copy that.
    """
    whole = content()
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_bytes(whole)
        new.chmod(0o755)
        new.replace(path)
    finally:
        if new.exists():
            new.unlink()


def content() -> bytes:
    """The archive.

    Raises:
        RuntimeError: this launcher runs from an archive itself; copy that.
    """
    files, stream = sources(), io.BytesIO()
    stream.write(_SHEBANG)
    # Stored, not deflated: the bytes do not depend on the version of zlib, and are read without it.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return stream.getvalue()


def sources() -> dict[str, bytes]:
    """What is in the archive: names to contents."""
    if running() is not None:
        raise RuntimeError("this launcher is an archive already: copy the file")
    package = Path(str(edgecloud.__file__)).parent
    found = [package / "worker.py", *package.joinpath("launcher").rglob("*.py")]
    files = {f"edgecloud/{path.relative_to(package).as_posix()}": path.read_bytes() for path in found}
    files["edgecloud/__init__.py"] = (package / "__init__.py").read_bytes() + _SHARED.encode()
    files["__main__.py"] = _MAIN.encode()
    return files


def running() -> str | None:
    """The archive that this code runs from, if it does."""
    loader = globals().get("__loader__")
    return os.path.abspath(loader.archive) if isinstance(loader, zipimport.zipimporter) else None  # noqa: PTH100


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m edgecloud.launcher.archive FILE\n")
        sys.exit(2)
    write(Path(sys.argv[1]))
