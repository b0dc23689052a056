"""Checks files of TrainingJobs before anything is sent or started: what `edgecloud validate` asks, and a local run.

A document of another kind is an error here, although kubectl would apply it: what is not checked must not look checked.
Keep a ConfigMap that belongs to the job in a file of its own.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Generic, TypeVar

from pydantic import ValidationError

from edgecloud.api.base import Model
from edgecloud.documents import MAX_BYTES, Document, read_documents, too_large
from edgecloud.problems import Path, Problem, Source, bounded, described, explain, near, path_text, quoted
from edgecloud.problems.places import place_at, plain

ModelT = TypeVar("ModelT", bound=Model)

STDIN: Final = "-"
"""The file name that stands for standard input."""
MAX_ITEMS: Final = 1_000
"""Resources in one `kind: List`."""


@dataclass(frozen=True, kw_only=True)
class Result(Generic[ModelT]):
    """What a file holds: the resources that are right, and what is wrong with the others.

    file: its name. jobs: in the order of the file. problems: empty when every resource is among jobs.
    """

    file: str
    jobs: tuple[ModelT, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


def validate_files(
    paths: Iterable[str | os.PathLike[str]], model: type[ModelT], *, stdin: BinaryIO | None = None
) -> tuple[Result[ModelT], ...]:
    """Check files, each on its own; `-` is standard input.

    Only regular files are opened for reading: a FIFO or /dev/zero would hang or never end. What is read is bounded.
    """
    return tuple(_validate_file(os.fspath(path), model, stdin) for path in paths)


def validate_bytes(data: bytes, file: str, model: type[ModelT]) -> Result[ModelT]:
    """Check a file's content, whatever its bytes. file: the name for the problems."""
    documents, unreadable = read_documents(data, file)
    jobs: list[ModelT] = []
    problems: list[Problem] = []
    for document in documents:
        found, wrong = _Check(document, file, model).run()
        jobs.extend(found)
        problems.extend(wrong)
    return Result(file=file, jobs=tuple(jobs), problems=(*problems, *unreadable))


class _UnopenedError(Exception):
    """The file cannot be read at all. The arguments are message and remedy."""


def _validate_file(path: str, model: type[ModelT], stdin: BinaryIO | None) -> Result[ModelT]:
    name = "stdin" if path == STDIN else path
    try:
        data = _read_stdin(stdin) if path == STDIN else _read(path)
    except _UnopenedError as unopened:
        message, remedy = unopened.args
        return Result(file=name, problems=(Problem(file=name, line=None, path="", message=message, remedy=remedy),))
    return validate_bytes(data, name, model)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise _UnopenedError(
                    "this is no regular file", "name a file, or write - in its place and pipe the content to it"
                )
            return _bounded(file)
    except FileNotFoundError:
        raise _UnopenedError("there is no such file", "check its name") from None
    except IsADirectoryError:
        raise _UnopenedError("this is a directory", f"name the files in it: {path.rstrip('/')}/*.yaml") from None
    except PermissionError:
        raise _UnopenedError("no right to read it", "ask for the right to read it, or copy it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _UnopenedError(f"it cannot be read: {reason}", "check its name and the disk that it is on") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a FIFO without waiting for its other end, and a terminal without becoming its process."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))  # Windows has neither


def _read_stdin(stdin: BinaryIO | None) -> bytes:
    stream = stdin if stdin is not None else getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise _UnopenedError("there is no standard input", "name a file")
    try:
        return _bounded(stream)
    except (OSError, ValueError) as error:
        raise _UnopenedError(f"it cannot be read: {error}", "name a file") from None


def _bounded(file: BinaryIO) -> bytes:
    """All of a file, if it is not too large: one byte more than allowed is asked for, and no more."""
    data = file.read(MAX_BYTES + 1) or b""
    if len(data) > MAX_BYTES:
        raise _UnopenedError(*too_large())
    return data


class _Check(Generic[ModelT]):
    """The check of one document, which may be a List of resources."""

    def __init__(self, document: Document, file: str, model: type[ModelT]) -> None:
        self._document = document
        self._file = file
        self._model = model
        self._kind = place_at(model, ("kind",)).choices
        self._api_version = place_at(model, ("apiVersion",)).choices
        self._problems: list[Problem] = list(document.problems)
        self._hidden = 0

    def run(self) -> tuple[list[ModelT], tuple[Problem, ...]]:
        """The resources that are right, and the problems by line, bounded."""
        jobs = []
        for path, value in self._resources():
            before = len(self._problems)
            job = self._resource(path, value)
            if job is not None and len(self._problems) == before and not self._document.problems:
                jobs.append(job)
        ordered = sorted(self._problems, key=lambda problem: problem.line or 0)
        return jobs, bounded(ordered, hidden=self._hidden)

    def _resources(self) -> Iterator[tuple[Path, Any]]:
        """The document itself, or the items of the List that it is, as `kubectl get -o yaml` writes them."""
        lists = {"List", *(f"{kind}List" for kind in self._kind)}
        waiting: list[tuple[Path, Any]] = [((), self._document.value)]
        seen = 0
        while waiting:
            path, value = waiting.pop()
            kind = value.get("kind") if isinstance(value, dict) else None
            if not (self._kind and isinstance(kind, str) and kind in lists):
                yield path, value
                continue
            items = value.get("items")
            if not isinstance(items, list) or not items:
                self._say((*path, "items"), "a List without items", "write the resources below items:")
                continue
            seen += len(items)
            if seen > MAX_ITEMS:
                self._say((*path, "items"), f"more than {MAX_ITEMS} items", "cut the List into several documents")
                continue
            waiting.extend(((*path, "items", index), item) for index, item in reversed(list(enumerate(items))))

    def _resource(self, path: Path, value: Any) -> ModelT | None:
        if not isinstance(value, dict):
            text = self._document.text_of(path)
            needed = f"a {self._kind[0]}" if self._kind else "a mapping"
            self._say(
                path,
                f"{described(value, text)} where {needed} is needed",
                "write apiVersion:, kind:, metadata: and spec:",
            )
            return None
        corrected = self._envelope(path, value)
        if corrected is None:
            return None
        try:
            return self._model.parse(corrected)
        except ValidationError as error:
            source = Source(
                file=self._file,
                line_of=self._document.line_of,
                text_of=self._document.text_of,
                prefix=path,
                tainted=self._document.tainted,
                disturbed=self._document.disturbed,
                hint=self._model.hint,
            )
            problems, hidden = explain(error, model=self._model, value=corrected, source=source)
            self._problems.extend(problems)
            self._hidden += hidden
            return None

    def _envelope(self, path: Path, value: dict[str, Any]) -> dict[str, Any] | None:
        """Check apiVersion and kind, and give the value with the right ones, so that the rest can be checked too.

        None: a document of another kind, or with neither field, is something else; nothing more is said of it.
        """
        if not self._kind or not self._api_version:
            return value
        kind, version = self._kind[0], self._api_version[0]
        neither = "kind" not in value and "apiVersion" not in value
        if not self._kind_fits(path, value, kind):
            return None
        self._version_fits(path, value, version)
        return None if neither else {**value, "kind": kind, "apiVersion": version}

    def _kind_fits(self, path: Path, value: dict[str, Any], kind: str) -> bool:
        """Whether this is a resource of the kind, or meant to be one."""
        written = value.get("kind")
        remedy = f"write kind: {kind}"
        if "kind" not in value:
            self._say(path, "kind is missing", remedy)
            return True
        if written == kind:
            return True
        path = (*path, "kind")
        if not isinstance(written, str):
            self._say(path, f"{described(written, self._document.text_of(path))} is no kind", remedy)
            return "apiVersion" in value
        group, version = self._api_version[0].partition("/")[0], value.get("apiVersion")
        ours = isinstance(version, str) and version.startswith(f"{group}/")
        if plain(written) in (plain(kind), plain(kind) + "s") or (ours and near(written, [kind])):
            self._say(path, f"{quoted(written)} is no kind", remedy)
            return True
        message = f"{_bare(written)} is not a {kind}, and nothing else is checked here"
        self._say(path, message, f"{remedy}, or keep it in a file of its own")
        return False

    def _version_fits(self, path: Path, value: dict[str, Any], version: str) -> None:
        written = value.get("apiVersion")
        group, _, own = version.partition("/")
        remedy = f"write apiVersion: {version}"
        if "apiVersion" not in value:
            self._say(path, "apiVersion is missing", remedy)
        elif written != version:
            path = (*path, "apiVersion")
            if not isinstance(written, str):
                message = f"{described(written, self._document.text_of(path))} is no apiVersion"
            elif written.startswith(f"{group}/"):
                message = f"{_bare(written)} is a version that is not known here"
            elif written == own:
                message = f"the group is missing before {own}"
            else:
                message = f"{_bare(written)} has no {self._kind[0]}"
            self._say(path, message, remedy)

    def _say(self, path: Path, message: str, remedy: str) -> None:
        if any(path[:length] in self._document.tainted for length in range(len(path) + 1)):
            return
        line = self._document.line_of(path)
        self._problems.append(Problem(file=self._file, line=line, path=path_text(path), message=message, remedy=remedy))


def _bare(name: str) -> str:
    """A kind or version as it is, in quotes only where it is an odd one."""
    usual = name.isascii() and len(name) <= 60 and name.replace("/", "").replace(".", "").replace("-", "").isalnum()
    return name if usual else quoted(name)
