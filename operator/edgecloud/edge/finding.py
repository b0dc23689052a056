"""The files that somebody means: models in an export's folder, images by name, folder or pattern."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from glob import has_magic
from pathlib import Path

from edgecloud.edge.card import Format
from edgecloud.edge.images import SUFFIXES
from edgecloud.edge.layout import MODELS
from edgecloud.edge.looking import is_folder, is_there
from edgecloud.edge.runtime import ModelFileError


def model_file(path: Path, format: Format | None = None) -> Path:
    """A model's file: the one named, or that of a format in an export's folder.

    Args:
        path: a file, an export's folder, or the workdir of a job that has exported.
        format: in a folder, which; None: fp32 ONNX.

    Raises:
        ModelFileError: the folder has none.
    """
    if not is_folder(path):
        return path
    name = MODELS[format or "onnx"]
    folders = (path, path / "results" / "export")
    for folder in folders:
        if is_there(folder / name):
            return folder / name
    for folder in folders:
        if there := sorted(one for one in MODELS.values() if is_there(folder / one)):
            raise ModelFileError(f"{folder} has no {name}, only {', '.join(there)}: name one of them")
    raise ModelFileError(
        f"{path} is a folder without {name}: name an export's folder, or make one with edgecloud export"
    )


def hold_against_format(path: Path, found: Format, wanted: Format | None) -> None:
    """Refuse a model that is of another format than was asked for.

    Args:
        path: its file.
        found: what its card says.
        wanted: None: any.

    Raises:
        ModelFileError: it is another one.
    """
    if wanted not in (None, found):
        raise ModelFileError(
            f"{path} is of the format {found}, and --format says {wanted}: name the other file, or leave --format out"
        )


def image_files(places: Iterable[str]) -> Iterator[Path]:
    """The files that are meant: a folder stands for all images below it, a pattern for what it fits.

    What is neither there nor a pattern comes as it is, so that whoever reads it says so. In a folder links to folders
    are not followed, and names that begin with a dot are left out.
    """
    for place in places:
        path = Path(place)
        if is_folder(path):
            yield from _below(path)
        elif os.path.lexists(path) or not (found := _fitting(path)):
            yield path
        else:
            yield from (one for name in found for one in (_below(name) if is_folder(name) else (name,)))


def _fitting(pattern: Path) -> list[Path]:
    """What a pattern fits, in order; `**` goes through folders, and not through links to them."""
    plain = 0
    while plain < len(pattern.parts) and not has_magic(pattern.parts[plain]):
        plain += 1
    start, rest = Path(*pattern.parts[:plain]), pattern.parts[plain:]
    if not rest:
        return []
    try:
        found = sorted(start.glob(str(Path(*rest))))
    except (ValueError, OSError):  # no pattern after all, or nothing that may be looked at
        return []
    hidden = any(part.startswith(".") for part in rest)
    return [one for one in found if hidden or not any(part.startswith(".") for part in one.relative_to(start).parts)]


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122 - quick
                yield Path(root) / name
