"""The two conversations with the coordinator: one listens for directives, one reports. Neither ever gives up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from edgecloud.launcher.client import Connection, ExchangeError, StaleConnectionError
from edgecloud.launcher.config import Config
from edgecloud.launcher.log import Log
from edgecloud.launcher.messages import HOLD_SECONDS, Directive, compact, parse_directive

ANSWER_SECONDS = 10.0
"""How long an answer may take beyond the time it is held back."""
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0
_PACE_SECONDS = 0.5
_REMIND_SECONDS, _RELAPSE_SECONDS = 300.0, 30.0
_DISOWNED = ("status 401", "status 403")
_STATUS_WORDS = {
    400: "it does not understand the request",
    401: "it does not accept the token",
    403: "the token is not this worker's",
    404: "it does not know this job",
    503: "it is not ready yet",
}


class Backoff:
    """Growing pauses with jitter, so that a thousand workers do not come back at the same moment."""

    def __init__(self) -> None:
        self._next = FIRST_BACKOFF

    def reset(self) -> None:
        self._next = FIRST_BACKOFF

    def pause(self) -> float:
        pause = self._next * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        self._next = min(2 * self._next, LAST_BACKOFF)
        return pause


class Troubles:
    """What goes wrong in one conversation, told once for each kind of trouble, and now and then while it lasts."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._silent_until: dict[str, float] = {}
        self._told = False

    def trouble(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now >= self._silent_until.get(kind, now):
            self._silent_until[kind] = now + _REMIND_SECONDS
            self._told = True
            self._log(f"no word from the coordinator, will go on trying: {text}")

    def over(self) -> None:
        if self._told:
            self._told = False
            self._log("the coordinator answers again")
            soon = time.monotonic() + _RELAPSE_SECONDS
            self._silent_until = {kind: min(until, soon) for kind, until in self._silent_until.items()}


class Conversation:
    """A connection and the trouble with it."""

    def __init__(self, config: Config, log: Log) -> None:
        self.connection = Connection(config.coordinator, config.ca_file)
        self.troubles = Troubles(log)
        self.backoff = Backoff()


class Talk:
    """Speaks for one launcher.

    Args:
        config: where to and as whom.
        message: the launcher's PollRequest of this moment, for a given hold, but for its sequence.
        progress: the part of it that changes all the time, in any form.
        take: takes up a directive; false if it was nothing new.
        log: for trouble, once for each kind of it.
    """

    def __init__(
        self,
        config: Config,
        *,
        message: Callable[[float], dict[str, Any]],
        progress: Callable[[], object],
        take: Callable[[Directive], bool],
        log: Log,
    ) -> None:
        self.heard = time.monotonic()
        """When the coordinator was last understood."""
        self.disowned: tuple[float, float] | None = None
        """When it first and last said that this worker is nobody's, if it has said nothing else since."""
        self._config = config
        self._message = message
        self._progress = progress
        self._take = take
        self._log = log
        self._changed = asyncio.Event()
        self._report_seconds = 1.0
        self._spoken: Directive | None = None
        """What the coordinator said last, if anything: it tells which words it knows."""
        # From the clock, so that a launcher that is started anew in the same Pod is not taken for its own past.
        self._sequence = time.time_ns() // 1_000_000
        self._listening = Conversation(config, log)
        self._reporting = Conversation(config, log)

    def changed(self) -> None:
        """The launcher's state is another one: report it at once."""
        self._changed.set()

    async def listen(self) -> None:
        """Keep one poll open, for ever."""
        nothing_new = 0
        while True:
            asked = time.monotonic()
            directive = await self._try(self._listening, HOLD_SECONDS)
            if directive is None:
                await asyncio.sleep(self._listening.backoff.pause())
                continue
            # One answer without news is usual: it says what the other conversation has just heard. A row of them, each
            # sent at once, would be a loop without end.
            nothing_new = 0 if self._take_up(directive) else nothing_new + 1
            if nothing_new > 1:
                await asyncio.sleep(max(0.0, _PACE_SECONDS - (time.monotonic() - asked)))

    async def report(self) -> None:
        """Say what has changed: the state at once, progress every so often; for ever."""
        told = self._progress()
        while True:
            urgent = await occurs(self._changed, self._report_seconds)
            progress = self._progress()
            if not urgent and progress == told:
                continue
            self._changed.clear()
            directive = await self._try(self._reporting, 0.0)
            while directive is None:
                await occurs(self._changed, self._reporting.backoff.pause())
                self._changed.clear()
                progress = self._progress()
                directive = await self._try(self._reporting, 0.0)
            told = progress
            self._take_up(directive)

    async def last_words(self, seconds: float) -> None:
        """One more report before the end, if it can be had quickly."""
        task = asyncio.ensure_future(self._try(Conversation(self._config, self._log), 0.0))
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()

    def _take_up(self, directive: Directive) -> bool:
        try:
            return self._take(directive)
        except Exception as error:  # an error of ours must not silence the worker
            self._log(f"cannot take up {directive.action}: {type(error).__name__}: {error}")
            return False

    async def _try(self, conversation: Conversation, hold: float) -> Directive | None:
        """One exchange; None (and a line in the log, if it is news) if it failed."""
        try:
            directive = await self._exchange(conversation.connection, hold)
        except ExchangeError as error:
            now = time.monotonic()
            self.disowned = (self.disowned[0] if self.disowned else now, now) if error.kind in _DISOWNED else None
            conversation.troubles.trouble(error.kind, error.text)
            return None
        except Exception as error:
            conversation.troubles.trouble(type(error).__name__, f"{type(error).__name__}: {error}")
            return None
        self.heard = time.monotonic()
        self.disowned = None
        conversation.backoff.reset()
        conversation.troubles.over()
        return directive

    async def _exchange(self, connection: Connection, hold: float) -> Directive:
        for _ in range(4):
            self._sequence += 1
            message = self._message(hold)
            if self._spoken is None or self._spoken.asked is None:
                message.pop("asks", None)  # a coordinator that has never heard of it would refuse all
            body = compact({**message, "sequence": self._sequence})
            try:
                answer = await connection.post(body, self._token(), seconds=hold + ANSWER_SECONDS)
            except StaleConnectionError:
                continue
            if answer.status == 409:  # the other conversation overtook this one on the way
                continue
            if answer.status == 400:  # an older coordinator's to a word that it has never heard
                self._spoken = None
            if answer.status != 200:
                words = _STATUS_WORDS.get(answer.status, "")
                text = f"status {answer.status}{': ' + words if words else ''}{said(answer.body)}"
                raise ExchangeError(f"status {answer.status}", text)
            try:
                directive = parse_directive(answer.body)
            except ValueError as error:
                raise ExchangeError("answer", f"its answer is no directive: {error}") from None
            self._report_seconds = directive.report_seconds
            self._spoken = directive
            return directive
        raise ExchangeError("sequence", "it takes every request for an old one")

    def _token(self) -> str:
        try:
            token = self._config.token_file.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise ExchangeError("token", f"the token file {self._config.token_file} cannot be read: {error}") from None
        if not token or not token.isprintable() or " " in token:
            raise ExchangeError("token", f"the token file {self._config.token_file} holds no token")
        return token


def said(body: bytes) -> str:
    """What an answer that is no directive says, for the log."""
    text = body[:200].decode("utf-8", "replace").strip()
    return f" ({text})" if text else ""


async def occurs(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set now or within so many seconds."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiter}, timeout=seconds)
    finally:
        waiter.cancel()
    return event.is_set()
