"""Folders whose names say that they are splits, and folders that look like it under names of their own. Pure.

Sets come with their splits as seg_train/ and seg_test/, or as three copies in color/, gray/ and masked/. Read as
classes they would train to nothing, without a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from edgecloud_trainer.data.dataset import DataError, Split

_SPLIT_FOLDERS: Final[dict[str, Split]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""By a folder's name in lower case."""
_SPLIT_WORDS: Final[dict[str, Split]] = {
    **_SPLIT_FOLDERS, "dev": "validation", "eval": "validation", "evaluation": "validation", "holdout": "test",
}  # fmt: skip
"""What a folder's name may have in it that is a split; alone it is no split's folder."""
_FILLING: Final = frozenset(("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "folder", "split"))
"""Words that name no class."""
_PARTS: Final = frozenset(
    (
        "left", "right", "front", "back", "rear", "side", "top", "bottom", "up", "down", "near", "far", "day", "night",
        "morning", "evening", "indoor", "outdoor", "inside", "outside", "spring", "summer", "autumn", "fall", "winter",
        "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "mask", "masks", "raw", "original",
        "originals", "augmented", "aug", "cropped", "crop", "crops", "small", "large", "low", "high", "old", "new",
        "male", "female", "color", "colour", "gray", "grey", "rgb", "first", "second", "third", "one", "two",
        "three", "part", "batch",
    )
)  # fmt: skip
"""Words by which the images of a class are divided, in lower case; and so they are by numbers and single letters."""


def meant(folder: str) -> Split | None:
    """The split that a folder's name stands for."""
    return _SPLIT_FOLDERS.get(folder.lower())


def split_word(name: str) -> Split | None:
    """The split that is a word of a name, as of training_set or TrainSet."""
    return next((_SPLIT_WORDS[word] for word in _words(name) if word in _SPLIT_WORDS), None)


def same(name: str) -> str:
    """What names have in common that differ in capitals, or in how Unicode spells them."""
    return unicodedata.normalize("NFC", name).casefold()


def refuse_disguised(tops: Collection[str], homes: Iterable[Sequence[str]], where: str) -> None:
    """See to it that folders are classes.

    Args:
        tops: the folders that would be.
        homes: the folders that images lie in, below one of those, as parts of a path from there; not those themselves.
        where: what they were found in, for messages.

    Raises:
        DataError: two differ by the name of a split, several hold the same classes, or one holds those beside it.
    """
    names = sorted(tops)
    alike = {top: split_word(top) for top in names}
    below = _below(homes)
    groups: dict[tuple[str, ...], list[str]] = {}
    for top in names:
        groups.setdefault(_rest(top), []).append(top)
    for group in groups.values():
        for one in (top for top in group if alike[top]):
            for other in (top for top in group if alike[top] != alike[one]):
                # Training beside Testing and Reading is a class; but not if the same folders lie in them.
                named = alike[other] and not _SPLIT_WORDS.keys() >= {one.lower(), other.lower()}
                if named or len(below.get(one, {}).keys() & below.get(other, {}).keys()) > 1:
                    raise _splits(where, sorted((one, other)))
    if len(set(alike.values())) > 1 and all(alike.values()):
        raise _splits(where, names[:5])
    _refuse_copies(names, below, where)


def _rest(folder: str) -> tuple[str, ...]:
    """What a folder's name says beside that it is a split; numbers say nothing, for they may be years or an order."""
    words = [word for word in _words(folder) if word not in _SPLIT_WORDS and word not in _FILLING]
    return *words, "".join(letter for letter in same(folder) if not letter.isascii())


def _words(folder: str) -> list[str]:
    return [word.lower() for word in re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", folder) if word]


def _splits(where: str, folders: Sequence[str]) -> DataError:
    return DataError(
        f"{where}: {'/, '.join(folders)}/ look like splits rather than classes: call them train/, test/ and val/, with "
        "a folder for each class in them, and nothing else beside them; or rename them, if they are classes"
    )


def _refuse_copies(tops: Collection[str], below: dict[str, dict[str, str]], where: str) -> None:
    """The same classes in several folders, or once more in a folder beside them."""
    called = set(map(same, tops))
    for top, names in sorted(below.items()):
        beside = sorted((names.keys() & called) - {same(top)})
        # Numbered classes may each have numbered parts.
        if len(beside) > 1 and not all(map(_is_part, (same(top), *beside))):
            there = _some([names[name] for name in beside])
            raise DataError(
                f"{where}: {top}/ holds {there}, which are called like the classes beside it: if it is the "
                "same set once more, move it away, else rename its folders"
            )
    if not 1 < len(below) <= len(tops) < 2 * len(below):
        return
    everywhere, anywhere = set[str].intersection(*map(set, below.values())), set[str]().union(*below.values())
    if len(everywhere) > 1 and 2 * len(everywhere) >= len(anywhere) and not all(map(_is_part, everywhere)):
        folders = sorted(below)
        first = [below[folders[0]][name] for name in sorted(everywhere)]
        raise DataError(
            f"{where}: {'/, '.join(folders[:5])}/ hold the same folders ({_some(first)}), so that these "
            f"look like the classes: keep one of them, as {folders[0]}/, and move the others away; if they are the "
            f"classes, put their images straight into them, or call the others {folders[0]}-{first[0]}/ and so on"
        )


def _some(names: Sequence[str]) -> str:
    return f"{'/, '.join(names[:3])}/{' and more' if len(names) > 3 else ''}"


def _is_part(name: str) -> bool:
    """Whether a folder's name says what part of a class it holds, rather than what class."""
    words = _words(name)
    return any(map(str.isdigit, name)) or len(name) == 1 or (bool(words) and _PARTS.issuperset(words))


def _below(homes: Iterable[Sequence[str]]) -> dict[str, dict[str, str]]:
    """The folders within each one at the top that has any, by what `same` says of them.

    Of one that is alone in it, as images/ may be, those within that.
    """
    within: dict[str, set[tuple[str, ...]]] = {}
    for folder in set(map(tuple, homes)):
        within.setdefault(folder[0], set()).add(folder[1:])
    return {top: {same(folder[0]): folder[0] for folder in sorted(_shared(inner))} for top, inner in within.items()}


def _shared(folders: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Paths without what all of them begin with, as long as there is more in each."""
    while len({folder[0] for folder in folders}) == 1 and all(len(folder) > 1 for folder in folders):
        folders = {folder[1:] for folder in folders}
    return folders
