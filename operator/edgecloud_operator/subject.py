"""What is being worked on right now, so that each line of the log can say which job and round it is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A job, as namespace/name; the newest round in its status, 0 before the first; one of its workers, by index."""

    job: str
    round: int = 0
    worker: int | None = None


_subject: ContextVar[Subject | None] = ContextVar("subject", default=None)


def subject() -> Subject | None:
    """What this task is working on, if it is on a job."""
    return _subject.get()


@contextmanager
def about(key: tuple[str, str], *, round: int = 0, worker: int | None = None) -> Iterator[None]:
    """Work on a job of that namespace and name for as long as the block lasts."""
    token = _subject.set(Subject(job="/".join(key), round=round, worker=worker))
    try:
        yield
    finally:
        _subject.reset(token)
