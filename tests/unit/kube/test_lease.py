"""Who leads: never two at once, whatever stands still, and soon somebody again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.kube import lease
from edgecloud_operator.kube.lease import ACT_SECONDS, DURATION_SECONDS, RETRY_SECONDS, Record, Seen, Step, next_step

START = datetime(2026, 11, 26, tzinfo=UTC)


def record(holder: str = "a", version: str = "1", duration: float = DURATION_SECONDS) -> Record:
    return Record(holder=holder, duration=duration, version=version)


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (None, Step(do="create")),
        (Seen(record("me"), 0.0), Step(do="renew")),
        (Seen(record(""), 100.0), Step(do="take")),
        (Seen(record("a"), 100.0), Step(do="wait", seconds=RETRY_SECONDS)),
        (Seen(record("a"), 100.25 - DURATION_SECONDS), Step(do="wait", seconds=0.25)),
        (Seen(record("a"), 100.0 - DURATION_SECONDS), Step(do="take")),
        (Seen(record("a", duration=30.0), 75.0), Step(do="wait", seconds=RETRY_SECONDS)),
        (Seen(record("a", duration=30.0), 70.0), Step(do="take")),
        (Seen(record("a", duration=0.001), 95.0), Step(do="wait", seconds=RETRY_SECONDS)),
        (Seen(record("a", duration=1e300), 100.0 - lease.MAX_DURATION), Step(do="take")),
    ],
)
def test_what_is_done(seen: Seen | None, step: Step) -> None:
    assert next_step(seen, "me", 100.0) == step


def test_a_look_that_shows_the_same_changes_nothing() -> None:
    seen = lease.looked(None, record(), 5.0)
    assert lease.looked(seen, record(), 7.0) is seen
    assert lease.looked(seen, record(version="2"), 7.0) == Seen(record(version="2"), 7.0)


@pytest.mark.parametrize(("ago", "acts", "speaks"), [(0.0, 1, 1), (4.9, 1, 1), (5.0, 0, 1), (7.9, 0, 1), (8.0, 0, 0)])
def test_how_long_a_holder_acts(ago: float, acts: int, speaks: int) -> None:
    assert lease.may_act(100.0 - ago, 100.0) == bool(acts)
    assert lease.may_speak(100.0 - ago, 100.0) == bool(speaks)
    assert not lease.may_act(None, 100.0)
    assert not lease.may_speak(None, 100.0)


@dataclass
class Replica:
    """As the elector is, with a clock of its own. on_its_way: a write that was begun, and what it was based on."""

    name: str
    offset: float
    seen: Seen | None = None
    renewed: float | None = None
    on_its_way: tuple[float, Record | None] | None = None

    def acts(self, now: float) -> bool:
        return lease.may_act(self.renewed, now + self.offset)


@dataclass
class World:
    """A server and some replicas that look and write when they come to it."""

    replicas: list[Replica]
    now: float = 0.0
    stands: Record | None = None
    versions: int = 0
    history: list[str] = field(default_factory=list)

    def look(self, replica: Replica) -> None:
        clock = self.now + replica.offset
        replica.seen = lease.looked(replica.seen, self.stands, clock) if self.stands else None

    def begin(self, replica: Replica) -> None:
        """Look, unless the Lease is its own; and begin to write, if it is time to."""
        mine = replica.seen is not None and replica.seen.record.holder == replica.name and replica.renewed is not None
        if not mine:
            self.look(replica)
        clock = self.now + replica.offset
        if next_step(replica.seen, replica.name, clock).do != "wait":
            replica.on_its_way = (clock, replica.seen.record if replica.seen else None)

    def arrive(self, replica: Replica) -> None:
        """What it wrote arrives now, and is refused if another version stands there."""
        assert replica.on_its_way is not None
        (began, based_on), replica.on_its_way = replica.on_its_way, None
        if based_on != self.stands:
            self.look(replica)
            return
        self.versions += 1
        self.stands = record(replica.name, str(self.versions))
        self.look(replica)
        replica.renewed = began
        self.history.append(replica.name)

    def step(self, replica: Replica) -> None:
        """Whichever is next for it."""
        if replica.on_its_way is None:
            self.begin(replica)
        else:
            self.arrive(replica)

    def acting(self) -> list[str]:
        return [replica.name for replica in self.replicas if replica.acts(self.now)]


def a_world(offsets: list[float]) -> World:
    return World([Replica(f"r{number}", offset) for number, offset in enumerate(offsets)])


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=4),
    st.lists(st.tuples(st.floats(0.0, 12.0), st.integers(0, 3)), min_size=10, max_size=120),
)
def test_never_two_at_once(offsets: list[float], script: list[tuple[float, int]]) -> None:
    """Replicas sleep, look and write at any moment; a write may be on its way for any time."""
    world = a_world(offsets)
    for pause, number in script:
        world.now += pause
        world.step(world.replicas[number % len(world.replicas)])
        assert len(world.acting()) <= 1, world.history


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=3))
def test_soon_somebody_leads_again(offsets: list[float]) -> None:
    """The first one leads for a while and falls silent; the others look every second."""
    world = a_world(offsets)
    while world.now < 60.0:
        for replica in world.replicas:
            if replica is not world.replicas[0] or world.now < 20.0:
                world.begin(replica)
                if replica.on_its_way:
                    world.arrive(replica)
        assert world.now >= 20.0 or world.acting() == ["r0"]
        if world.now > 20.0 + DURATION_SECONDS + 2 * RETRY_SECONDS:
            assert world.acting() == ["r1"]
        world.now += RETRY_SECONDS


def test_given_back_it_is_taken_at_once() -> None:
    body = lease.given_back(lease.build("ns", "op", "a", START, record("a"), {}))
    seen = Seen(lease.read(body | {"metadata": {"resourceVersion": "7"}}), 100.0)
    assert next_step(seen, "b", 100.0) == Step(do="take")


def test_what_is_written() -> None:
    first = lease.build("ns", "op", "a", START, None)
    assert first["metadata"] == {"namespace": "ns", "name": "op"}
    moment = "2026-11-26T00:00:00.000000Z"
    assert first["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 8,
        "acquireTime": moment,
        "renewTime": moment,
        "leaseTransitions": 0,
    }
    stands = first | {"metadata": {"resourceVersion": "5"}}
    again = lease.build("ns", "op", "a", START + timedelta(seconds=1), lease.read(stands), stands)
    assert again["metadata"]["resourceVersion"] == "5"
    assert again["spec"]["acquireTime"] == moment
    assert again["spec"]["renewTime"] == "2026-11-26T00:00:01.000000Z"
    assert again["spec"]["leaseTransitions"] == 0
    other = lease.build("ns", "op", "b", START, lease.read(stands), stands)
    assert (other["spec"]["holderIdentity"], other["spec"]["leaseTransitions"]) == ("b", 1)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "spec", "holderIdentity", "leaseDurationSeconds", "leaseTransitions", "resourceVersion"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_a_mangled_lease_is_read(raw: Any) -> None:
    found = lease.read(raw)
    assert 0 < found.duration <= lease.MAX_DURATION
    assert len(found.holder) <= lease.MAX_HOLDER
    assert next_step(Seen(found, 0.0), "me", lease.MAX_DURATION).do in ("take", "renew")
    lease.build("ns", "op", "me", START, found, raw)


def test_the_times_leave_room() -> None:
    assert ACT_SECONDS + RETRY_SECONDS < DURATION_SECONDS
