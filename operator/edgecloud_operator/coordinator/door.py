"""Who is let in, how many of them, and how many requests they may make. Pure: time comes from outside."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_CONNECTIONS: Final = 24_000
"""Two for each of ten thousand workers, and some to spare."""
MAX_STRANGERS: Final = 1_024
"""Connections over which no token has been shown yet: those of launchers are known within milliseconds."""
MAX_OF_ADDRESS: Final = 64
"""Strangers of an address. Those that are known don't count: a few hundred Pods may share the address of their node."""
PATIENCE_SECONDS: Final = 2.0
"""How long a stranger may stay though others wait: a thousand handshakes at once take about as long."""
OF_ADDRESS_AT_ONCE: Final = 200
"""Strangers of an address, after a quiet time, that may come to nothing."""
MAX_OF_WORKER: Final = 4
"""A launcher has two, and one more for its last words."""
MAX_ADDRESSES: Final = 20_000
"""Addresses whose strangers are remembered."""
REQUESTS_A_SECOND: Final = 10.0
"""A worker polls twice in ten seconds, and reports once a second and when something happens."""
REQUESTS_AT_ONCE: Final = 40


def _nothing() -> None:
    pass


@dataclass(eq=False)
class Visit:
    """A connection that was let in: a stranger's until a worker (the uid of its Pod) has shown its token over it."""

    address: str
    since: float
    close: Callable[[], object] = _nothing
    """Ends the connection at once."""
    worker: str = ""
    inside: bool = True


class Door:
    """Lets connections in, so many in all, and few before it is known whose they are.

    A stranger's connection is there for one request, for which its address pays; who shows a worker's token is paid
    back. Where there are too many strangers, the one that has been there longest makes room, if that is long enough:
    whoever opens connections and says nothing keeps nobody out. So does a worker's own oldest one, which may have
    broken off without anybody's having noticed.
    """

    def __init__(
        self,
        limit: int = MAX_CONNECTIONS,
        *,
        strangers: int = MAX_STRANGERS,
        of_address: int = MAX_OF_ADDRESS,
        of_worker: int = MAX_OF_WORKER,
        at_once: int = OF_ADDRESS_AT_ONCE,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._limit = limit
        self._max_strangers = strangers
        self._max_of_address = of_address
        self._max_of_worker = of_worker
        self._at_once = at_once
        self._patience = patience
        self._strangers: OrderedDict[Visit, None] = OrderedDict()
        self._of_address: Counter[str] = Counter()
        self._of_worker: dict[str, list[Visit]] = {}
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        """By address, the one that came last at the end."""
        self.open = 0

    def enter(self, address: str, now: float) -> Visit | None:
        """The visit, if there is room for one more; it takes that room, perhaps from another stranger. now: seconds."""
        if self.open >= self._limit or self._of_address[address] >= self._max_of_address:
            return None
        oldest = next(iter(self._strangers)) if len(self._strangers) >= self._max_strangers else None
        if (oldest and now - oldest.since < self._patience) or not self._bucket(address).take(now):
            return None
        if oldest:
            self._send_away(oldest)
        visit = Visit(address, now)
        self._strangers[visit] = None
        self._of_address[address] += 1
        self.open += 1
        return visit

    def _bucket(self, address: str) -> Bucket:
        bucket = self._buckets.setdefault(address, Bucket(self._at_once))
        self._buckets.move_to_end(address)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return bucket

    def forgive(self, visit: Visit) -> None:
        """What a visit has cost its address is given back: whose it is could not be seen, or it is to come again."""
        if bucket := self._buckets.get(visit.address):
            bucket.left += 1.0

    def know(self, visit: Visit, worker: str) -> None:
        """A worker has shown its token: the connection is no stranger's any more."""
        if visit.worker or not visit.inside:
            return  # a proxy, perhaps, sends the requests of several workers over it
        self._forget(visit)
        visit.worker = worker
        known = self._of_worker.setdefault(worker, [])
        known.append(visit)
        if len(known) > self._max_of_worker:
            self._send_away(known[0])
        self.forgive(visit)

    def _send_away(self, visit: Visit) -> None:
        self.leave(visit)
        visit.close()

    def leave(self, visit: Visit) -> None:
        """A connection that was let in is closed."""
        if not visit.inside:
            return
        visit.inside = False
        self.open -= 1
        if not visit.worker:
            self._forget(visit)
            return
        known = self._of_worker[visit.worker]
        known.remove(visit)
        if not known:
            del self._of_worker[visit.worker]

    def _forget(self, stranger: Visit) -> None:
        del self._strangers[stranger]
        self._of_address[stranger.address] -= 1
        if not self._of_address[stranger.address]:
            del self._of_address[stranger.address]


@dataclass
class Bucket:
    """How many requests somebody may make: so many at once after a quiet time, and so many a second in the long run."""

    at_once: int = REQUESTS_AT_ONCE
    left: float = float("inf")
    at: float = float("-inf")

    def take(self, now: float) -> bool:
        """Whether a request may be made now; one that is refused counts for nothing."""
        passed = max(0.0, now - self.at)
        self.left = min(float(self.at_once), self.left + min(passed, 1e6) * REQUESTS_A_SECOND)
        self.at = max(now, self.at)
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
