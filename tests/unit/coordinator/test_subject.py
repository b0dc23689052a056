"""Lines about what a worker sent say which worker it was; and how many launchers are there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from edgecloud.protocol import PollRequest
from edgecloud_operator.coordinator import desk as module
from edgecloud_operator.coordinator.desk import Desk
from edgecloud_operator.subject import Subject, subject
from tests.unit.coordinator.served import finish, identity, report, run_directive, serving


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, Subject | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), subject()))


@pytest.fixture
def lines() -> Iterator[list[tuple[str, Subject | None]]]:
    handler, logger = _Kept(), logging.getLogger("edgecloud_operator.coordinator")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


def test_what_a_known_worker_is_refused_for_names_it(lines: list[tuple[str, Subject | None]]) -> None:
    who, other = identity("digits", 1), identity("other", 0)

    async def scenario() -> None:
        async with serving() as served:
            served.publish(who, run_directive(4))
            await served.post(b"{}", who, token="nobody")
            await served.post(b"\x00\n{", who)
            await served.post(b"{}", other)
            await served.post(b"{}", who, token="nobody")

    finish(scenario())
    assert [(text.split(" ")[1], about) for text, about in lines] == [
        ("(unauthorized,", None),
        ("(malformed,", Subject(job="team/digits", round=4, worker=1)),
        ("(malformed,", Subject(job="team/other", round=0, worker=0)),
        ("(unauthorized,", None),
    ]


def test_how_many_launchers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        moment = datetime(2026, 11, 24, 12, tzinfo=UTC)

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return cls.moment

    monkeypatch.setattr(module, "datetime", Clock)
    desk = Desk(lambda key: None)
    for who in (identity("digits", 0), identity("digits", 1), identity("other", 0)):
        desk.hear(who, PollRequest.parse(report(who)))
        Clock.moment += timedelta(seconds=6)
    assert desk.heard() == 2, "the first was heard 18 seconds ago"
    desk.keep_only(("team", "other"), ())
    assert desk.heard() == 1
    assert (desk.round_of(("team", "digits")), desk.round_of(("team", "nobody"))) == (0, 0)
