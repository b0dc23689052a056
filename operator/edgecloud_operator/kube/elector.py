"""Holds a Lease at the API server, or waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from edgecloud_operator.kube import lease
from edgecloud_operator.kube.client import AlreadyExistsError, ApiError, ChangedError, Client, NotFoundError, path

log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 3.0
"""A renewal that takes longer is tried again: two of them fit into the time that a holder may act without one."""
SAID_SECONDS: Final = 60.0


class Elector:
    """One replica's part in the election."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        me: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        on_regained: Callable[[], None] = lambda: None,
    ) -> None:
        """me: a name that no other process has. clock: goes on while the process is stopped.

        on_regained: told before this replica speaks again, after a time in which it held the Lease and could not renew
        it: no worker was answered meanwhile.
        """
        self._client = client
        self._place = (namespace, name)
        self._me = me
        self._clock = clock
        self._on_regained = on_regained
        self._seen: lease.Seen | None = None
        self._raw: dict[str, Any] = {}
        self._renewed: float | None = None
        self._said = float("-inf")

    @property
    def acts(self) -> bool:
        """Whether this replica may write."""
        return lease.may_act(self._renewed, self._clock())

    @property
    def speaks(self) -> bool:
        """Whether this replica may answer workers."""
        return lease.may_speak(self._renewed, self._clock())

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while not await self._try():  # noqa: ASYNC110 - it is waited for at the server
            await asyncio.sleep(self._pause())
        log.info("this replica leads (Lease %s/%s)", *self._place)

    async def hold(self) -> str:
        """Renew the Lease until another one holds it; returns whose it is then.

        A server that is away changes nothing about who holds it; but meanwhile nobody acts.
        """
        while True:
            await asyncio.sleep(lease.RETRY_SECONDS)
            if not await self._try() and self._seen is not None and self._seen.record.holder not in ("", self._me):
                self._renewed = None
                return self._seen.record.holder

    async def release(self) -> None:
        """Give the Lease back, if it is ours and the server is there."""
        if not self.speaks or self._seen is None:
            return
        self._renewed = None
        record = self._seen.record
        body = lease.build(*self._place, self._me, datetime.now(UTC), record, self._raw)
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._client.request("PUT", path("Lease", *self._place), body=lease.given_back(body))

    def _pause(self) -> float:
        step = lease.next_step(self._seen, self._me, self._clock())
        return max(0.05, step.seconds) if step.do == "wait" else lease.RETRY_SECONDS

    async def _try(self) -> bool:
        """Look, and take or renew what can be; whether the Lease is ours now."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._step()
        except (ApiError, TimeoutError) as error:
            now = self._clock()
            if now - self._said >= SAID_SECONDS:
                self._said = now
                log.warning("Lease %s/%s cannot be held or seen: %s", *self._place, error or "no answer in time")
            return False

    async def _step(self) -> bool:
        ours = self._seen is not None and self._seen.record.holder == self._me and self._renewed is not None
        if not ours:
            await self._look()
        step = lease.next_step(self._seen, self._me, self._clock())
        if step.do == "wait":
            return False
        began = self._clock()
        record = self._seen.record if self._seen else None
        body = lease.build(*self._place, self._me, datetime.now(UTC), record, self._raw)
        try:
            if step.do == "create":
                made = await self._client.request("POST", path("Lease", self._place[0]), body=body)
            else:
                made = await self._client.request("PUT", path("Lease", *self._place), body=body)
        except (AlreadyExistsError, ChangedError, NotFoundError):
            await self._look()  # somebody was faster, or has deleted it
            return False
        self._take_in(made)
        if self._renewed is not None and not self.speaks:
            log.warning("Lease %s/%s is held again: workers were sent away meanwhile, and are heard anew", *self._place)
            self._on_regained()
        self._renewed = began
        return True

    async def _look(self) -> None:
        try:
            self._take_in(await self._client.request("GET", path("Lease", *self._place)))
        except NotFoundError:
            self._seen, self._raw = None, {}

    def _take_in(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._seen = lease.looked(self._seen, lease.read(raw), self._clock())
