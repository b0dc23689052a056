"""Libraries that a command needs, and that are missing or don't fit: said in a sentence."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from typing import Final, NoReturn

import click

USAGE_ERROR: Final = 2
_OURS: Final = frozenset(("edgecloud", "edgecloud_trainer"))
_PROJECTS: Final = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
"""What pip calls a package, where that is not its name."""
_OF_UNIX: Final = frozenset(("fcntl", "grp", "pwd", "resource", "termios"))
_SHOWN: Final = 300


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """End the command with a sentence if a library can't be imported. extra: of edgecloud, which brings them all."""
    try:
        yield
    except ImportError as error:
        problem = sentence(error, extra)
        if problem is None:
            raise
        refuse(problem)


def require(packages: Iterable[str], extra: str) -> None:
    """End the command with a sentence if one of these is not there, without importing any. extra: as for `needs`."""
    missing = next((name for name in packages if find_spec(name) is None), None)
    if missing is not None:
        refuse(_not_installed(missing, _of_extra(extra)))


def refuse(problem: str) -> NoReturn:
    """End the command with that sentence."""
    from edgecloud.cli.display import printable  # not above: --help needs none of it

    click.echo(f"edgecloud: {printable(problem)}", err=True)
    sys.exit(USAGE_ERROR)


def sentence(error: ImportError, extra: str) -> str | None:
    """What is wrong with which library, and the remedy; None if it is none, but a mistake of ours."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if not package or (package in _OURS and find_spec(package) is not None):
            return None
        if package in _OF_UNIX:
            return f"this system is not supported (it has no {package}): use Linux, macOS or, on Windows, WSL"
        if package in sys.stdlib_module_names:
            return f"this Python came without its own module {package}: use another one"
        return _not_installed(package, _of_extra(extra) if _ours_to_bring(package) else "install it")
    package = _importing(error)
    if not package or package in _OURS:
        return None
    why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()[:_SHOWN]
    return (
        f"{package} can't be loaded ({why}): reinstall it with pip install --force-reinstall"
        f" {_PROJECTS.get(package, package)}, or install the system's library that this names"
    )


def _not_installed(package: str, remedy: str) -> str:
    return f"{package} is not installed: {remedy}"


def _of_extra(extra: str) -> str:
    return f"pip install '.[{extra}]' in EdgeCloud's folder"


def _ours_to_bring(package: str) -> bool:
    """Whether it, or its name on an index, is among what EdgeCloud and its extras ask for, if that is known."""
    asked = {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower() for line in metadata.requires("edgecloud") or ()}
    return package in _OURS or not asked or _PROJECTS.get(package, package).lower() in asked


def _importing(error: ImportError) -> str:
    """The innermost package that was being imported; error.name may be one that it asked too much of."""
    package = (error.name or "").partition(".")[0]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name not in _OURS and name not in sys.stdlib_module_names and name != "__main__":
            package = name
    return package
