"""From the names of files to splits, classes and labels. Pure, so that a folder and a tar file of it give the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from edgecloud.edge.images import SUFFIXES
from edgecloud_trainer.data.dataset import DataError, Fault, Split
from edgecloud_trainer.data.likeness import meant, refuse_disguised

MAX_CLASSES: Final = 100_000
_PLAIN: Final = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)

_NEVER_CLASSES: Final = frozenset(("train", "val", "valid", "validation", "test"))
"""Written like this they are taken for splits at once; others, such as Test, may also be classes."""
_CLUTTER: Final = frozenset(
    (
        "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "$recycle.bin",
        "system volume information", "@eadir", "#recycle", "lost+found",
    )
)  # fmt: skip
"""In lower case. @eaDir is where a Synology keeps small copies of a folder's images: they would be read beside them."""
_HIDDEN_CLUTTER: Final = frozenset(
    (
        ".git", ".svn", ".hg", ".dvc", ".idea", ".vscode", ".ipynb_checkpoints", ".cache", ".tmp", ".thumbnails",
        ".thumbs", ".@__thumb", ".trash", ".trashes", ".snapshot", ".snapshots", ".zfs", ".appledouble",
        ".picasaoriginals", ".xvpics", ".spotlight-v100", ".fseventsd", ".documentrevisions-v100", ".temporaryitems",
        ".recycle", ".sync", ".stversions", ".stfolder", ".dropbox.cache", ".syncthing", ".huggingface", ".venv",
    )
)  # fmt: skip
"""In lower case: folders that may hold images and are nobody's classes. .Trash-1000 and its like are, too."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each image belongs."""

    classes: tuple[str, ...]
    """Sorted by name."""
    splits: dict[Split, list[tuple[int, int]]]
    """(label, position in the list of names), in the order of names. `train` is always there."""


def is_clutter(name: str) -> bool:
    """Whether a file or folder name is what systems and tools leave behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


def may_be_class(folder: str) -> bool:
    """Whether a folder that is passed over as hidden may have been meant as a class, such as .net: if it has images."""
    name = folder.lower()
    return name.startswith(".") and name not in _HIDDEN_CLUTTER and not name.startswith((".trash-", "._", ".nfs"))


def refuse_classes(classes: Sequence[str], where: str) -> None:
    """See to it that classes can be told apart, and that there is something to tell.

    Args:
        classes: their names, from a file that says them or counted from 0.
        where: what they were found in, for messages.

    Raises:
        DataError: too few or too many, or one without a name, with control characters, or there twice.
    """
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{where} has {len(classes)} class(es): 2 to {MAX_CLASSES} are needed")
    seen: set[str] = set()
    for name in classes:
        if not name or not name.isprintable():
            raise DataError(f"{where}: the class name {name!r} is empty or has control characters: rename it")
        if (looks := as_it_looks(name)) in seen:
            raise DataError(f"{where} has the class {name} twice: rename one of them")
        seen.add(looks)


def as_it_looks(name: str) -> str:
    """A name as it looks: in Unicode é may be one letter, or, as macOS has it, two."""
    return unicodedata.normalize("NFC", name)


def is_image(name: str) -> bool:
    """By its suffix; a file that is called png has none."""
    stem, _, suffix = name.rpartition(".")
    return suffix.lower() in _PLAIN and bool(stem)


def arrange(
    names: Sequence[str],
    where: str,
    *,
    folders: Collection[str] = (),
    hidden: Collection[str] = (),
    left_out: list[Fault] | None = None,
) -> Layout:
    """Find out which layout the names have, and read it.

    Either train/CLASS/.../FILE with test/ and val/ beside it if there are any, or CLASS/.../FILE. The splits' folders
    may also be called training, testing, valid and validation, in capitals or not. A folder around all of it
    is allowed, and several, one in the other. Files outside of these folders are passed over unless they are images.

    Args:
        names: paths with /, without clutter, in any order.
        where: what they were found in, for messages.
        folders: paths of folders, so that one which is empty is noticed.
        hidden: paths of folders with images that have been passed over and may be classes; see `may_be_class`.
        left_out: files that have no place in such a layout are added here, instead of refused.

    Raises:
        DataError: anything in it that is neither.
    """
    paths = [name.split("/") for name in names]
    _refuse_twins(names, where)
    drop = _wrapping(paths, {*folders, *hidden})
    train = _train_folder(paths, drop, where)
    _refuse_class_called(train, paths, drop, where)
    found: dict[Split, dict[str, list[int]]] = {}
    for position in sorted(range(len(names)), key=names.__getitem__):
        path = paths[position][drop:]
        split: Split = "train"
        if len(path) > 1 and train:
            if (stands_for := meant(path[0])) is None:
                raise DataError(
                    f"{where}: {path[0]}/ stands beside {train}/, which may have test/ and val/ beside it: move it away"
                )
            split, path = stands_for, path[1:]
        if len(path) > 1 and is_image(path[-1]):
            found.setdefault(split, {}).setdefault(path[0], []).append(position)
        elif reason := _out_of_place(path):
            if left_out is None:
                raise DataError(f"{where}: {names[position]} {reason}")
            left_out.append(Fault(names[position], reason))
    _refuse_empty(found, folders, hidden, drop, paths, where, split_folders=bool(train))
    return _labelled(found, where)


def _out_of_place(path: Sequence[str]) -> str:
    """Why a file has no place in a layout; "" if it may stand beside one, or beside the folder around it."""
    if not path:
        return ""
    if len(path) > 1:
        suffixes = ", ".join(sorted(SUFFIXES))
        return f"isn't an image that can be read ({suffixes}): move it away, or convert it"
    if is_image(path[-1]):
        return f"isn't in a class folder: move it into one, as CLASS/{path[-1]}"
    return ""


def _refuse_empty(
    found: dict[Split, dict[str, list[int]]],
    folders: Collection[str],
    hidden: Collection[str],
    drop: int,
    paths: Sequence[Sequence[str]],
    where: str,
    *,
    split_folders: bool,
) -> None:
    """An empty class folder is a class that is missing, and would shift the others' numbers without a word."""
    if "train" not in found:
        return
    around = next((path[:drop] for path in paths if len(path) > drop), [])
    depth = drop + (2 if split_folders else 1)
    for folder in sorted({*folders, *hidden}):
        parts = folder.split("/")
        if len(parts) != depth or parts[:drop] != list(around) or (split_folders and meant(parts[drop]) != "train"):
            continue
        if folder in hidden:
            raise DataError(f"{where}: {folder} holds images and is hidden, by the point: rename it, or move it away")
        if parts[-1] not in found["train"]:
            raise DataError(
                f"{where}: the class folder {folder} holds no images that can be read: put some there, or remove it"
            )


def _refuse_twins(names: Sequence[str], where: str) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twin = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"{where} holds {twin} twice: pack it again")


def _wrapping(paths: Sequence[Sequence[str]], folders: Collection[str]) -> int:
    """How many folders are around everything: one is no split, and holds folders itself.

    Further ones hold nothing but one folder, which is no split either: read as a class it would be the only one.
    """
    tops = {path[0] for path in paths if len(path) > 1}
    if (
        len(tops) != 1
        or not tops.isdisjoint(_NEVER_CLASSES)
        or any(len(path) == 1 and is_image(path[0]) for path in paths)
        or not any(len(path) > 2 for path in paths)
    ):
        return 0
    images = [path for path in paths if is_image(path[-1])]
    nearest = min(map(len, images), default=0)
    drop = 1
    while nearest > drop + 2:
        around = images[0][:drop]
        tops = {path[drop] for path in paths if len(path) > drop + 1}
        tops |= {one[drop] for one in (folder.split("/") for folder in folders) if one[:drop] == around and one[drop:]}
        if len(tops) != 1 or any(map(meant, tops)):
            break
        drop += 1
    return drop


def _refuse_class_called(train: str, paths: Sequence[Sequence[str]], drop: int, where: str) -> None:
    """A class of vehicles may be called train: it holds images straight away, as the classes beside it do."""
    nested = {path[drop] for path in paths if len(path) > drop + 2 and is_image(path[-1])}
    flat = {path[drop] for path in paths if len(path) == drop + 2 and is_image(path[-1])} - nested
    others = sorted(path[drop] for path in paths if len(path) > drop + 1 and meant(path[drop]) is None)
    if train in flat and others and flat.issuperset(others):
        raise DataError(
            f"{where}: {train}/ holds images and no folders, as {others[0]}/ beside it does: if {train} is a class, "
            f"put all class folders into a folder train/, as train/{train}/; if not, move {others[0]}/ away"
        )


def _train_folder(paths: Sequence[Sequence[str]], drop: int, where: str) -> str:
    """The folder with the training images' classes in it, if the folders are splits; "" if they are classes.

    They are splits where one is called train, or where all have a split's name, or all that have folders of images.
    Among others that have such folders, Training is a class as they are; but not where Test stands beside it.

    Raises:
        DataError: two stand for the same split, or they look like splits and aren't called so, or lie within classes.
    """
    tops = {path[drop] for path in paths if len(path) > drop + 1}
    nested = {path[drop] for path in paths if len(path) > drop + 2 and is_image(path[-1])}
    only = bool(tops) and all(map(meant, tops))
    named = {meant(top) for top in nested}
    splits = only or None not in named or len(named) > 2
    likely = sorted(tops if only else nested) if splits else ()
    train = "train" if "train" in tops else next((top for top in likely if meant(top) == "train"), "")
    if train:
        _refuse_synonyms(tops, where)
        return train
    # test/CLASS/FILE without train/ is half a data set, not a class named test.
    for half in sorted(tops if only else _NEVER_CLASSES & {path[drop] for path in paths if len(path) > drop + 2}):
        raise DataError(f"{where} has {half}/ and no train/: put the training images into train/CLASS/")
    inside = {path[drop + 1]: path[drop] for path in paths if len(path) > drop + 2 and is_image(path[-1])}
    within = {split: f"{top}/{name}/" for name, top in sorted(inside.items()) if (split := meant(name))}
    if "train" in within and len(within) > 1:
        raise DataError(
            f"{where}: {' and '.join(sorted(within.values()))} are splits within a folder of one class: put train/ and "
            "test/ around the class folders, as train/CLASS/"
        )
    refuse_disguised(tops, (path[drop:-1] for path in paths if len(path) > drop + 2 and is_image(path[-1])), where)
    return ""


def _refuse_synonyms(tops: Collection[str], where: str) -> None:
    """Train/ beside train/, or test/ beside testing/: it could be either, or both."""
    seen: dict[Split, str] = {}
    for top in sorted(tops):
        if (split := meant(top)) is not None and seen.setdefault(split, top) != top:
            raise DataError(
                f"{where}: {seen[split]}/ and {top}/ both stand for {split}: put them into one, or move one away"
            )


def _labelled(found: dict[Split, dict[str, list[int]]], where: str) -> Layout:
    if "train" not in found:
        raise DataError(f"{where} holds no images: a folder of images for each class is needed, as CLASS/FILE.jpg")
    classes = tuple(sorted(found["train"]))
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(
            f"{where} has {len(classes)} class folder(s) with images ({', '.join(classes[:3])}): "
            f"2 to {MAX_CLASSES} are needed"
        )
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{where}: the name of the class folder {name!r} isn't UTF-8: rename it") from None
        if not name.isprintable():
            raise DataError(f"{where}: the name of the class folder {name!r} has control characters: rename it")
    number = {as_it_looks(name): label for label, name in enumerate(classes)}
    for split, by_class in found.items():
        seen: dict[str, str] = {}
        for name in sorted(by_class):
            if (twin := seen.setdefault(as_it_looks(name), name)) != name:
                raise DataError(
                    f"{where}: the class folders {name} and {twin} of {split} look the same and are spelt in different "
                    f"ways ({name!a} and {twin!a}): put their images into one"
                )
            if as_it_looks(name) not in number:
                raise DataError(
                    f"{where}: {split} has a class {name} that train hasn't: the splits need the same classes"
                )
    return Layout(
        classes=classes,
        splits={
            split: [(number[as_it_looks(name)], position) for name in sorted(by_class) for position in by_class[name]]
            for split, by_class in found.items()
        },
    )
