"""The cluster's public keys, read from its API server and read again when they may have changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from edgecloud_operator.kube.client import ApiError, Client
from edgecloud_operator.kube.tokens import KeySet, read_keys

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 10.0
"""Between two readings: whoever sends tokens of made-up keys must not make us ask all the time."""
FRESH_SECONDS: Final = 600.0
"""How long keys are taken for the cluster's without asking again: one that was withdrawn is refused after this."""


async def read_cluster_keys(client: Client) -> KeySet:
    """The keys of the API server, which every ServiceAccount may read (system:service-account-issuer-discovery).

    Raises:
        ApiError: they cannot be had.
        ValueError: what was had is no set of keys.
    """
    told = await client.request("GET", "/.well-known/openid-configuration")
    return read_keys(await client.request("GET", "/openid/v1/jwks"), told.get("issuer"))


class Keys:
    """The keys of the moment."""

    def __init__(self, read: Callable[[], Awaitable[KeySet]], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._known: KeySet | None = None
        self._read_at = float("-inf")
        self._tried_at = float("-inf")

    async def current(self, kid: str) -> KeySet | None:
        """The keys, read anew if this one is not among them or the last reading is long ago; None: none could be read.

        A reading that fails leaves what was known: an API server that is away takes nobody's identity.
        """
        now = self._clock()
        known = self._known is not None and kid in self._known.keys and now - self._read_at < FRESH_SECONDS
        if not known and now - self._tried_at >= PAUSE_SECONDS:
            self._tried_at = now  # before the wait: nobody else asks meanwhile
            try:
                self._known = await self._read()
                self._read_at = now
            except (ApiError, ValueError) as error:
                log.warning("the cluster's keys, by which workers are known, could not be read: %s", error)
        return self._known
