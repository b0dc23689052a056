"""Who writes a status next, and that all together stay within the bound."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud_operator.core.writes import WriteClass
from edgecloud_operator.kube.turns import BEGINNING_WRITES, SHOWN_WRITES, STATUS_BURST, STATUS_WRITES, Turns


def written(turns: Turns[str], key: str, kind: WriteClass, now: float) -> float:
    """When a key that comes now, and again whenever it is told to, gets to write."""
    while (wait := turns.wait(key, kind, now)) > 0:
        now += wait
    return now


def test_a_hundred_jobs_begin_at_once() -> None:
    turns: Turns[str] = Turns()
    assert all(turns.wait(f"job-{number}", "beginning", 0.0) < 1e-6 for number in range(100))


def test_a_training_does_not_wait_for_a_crowd_that_begins_and_is_blocked() -> None:
    turns: Turns[str] = Turns()
    crowd = [f"broken-{number}" for number in range(2000)]
    for number in range(0, 4000, 10):  # ten seconds in which each of them asks again and again
        now = number / 400
        for name in crowd[number // 2 : number // 2 + 40]:
            turns.wait(name, "beginning", now)
            turns.wait(name + "!", "shown", now)
        if number % 40 == 0:
            assert written(turns, "training", "round", now) - now < 0.5


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.2), st.integers(0, 60), st.sampled_from(("round", "beginning", "shown"))),
        max_size=300,
    )
)
def test_all_together_stay_within_the_bound(asked: list[tuple[float, int, WriteClass]]) -> None:
    turns: Turns[tuple[int, WriteClass]] = Turns()
    now, times = 0.0, dict[WriteClass, list[float]](round=[], beginning=[], shown=[])
    for pause, key, kind in asked:
        now += pause
        if turns.wait((key, kind), kind, now) == 0:
            times[kind].append(now)
    bounds: tuple[tuple[tuple[WriteClass, ...], float, float], ...] = (
        (("round", "beginning", "shown"), STATUS_WRITES, STATUS_BURST),
        (("beginning", "shown"), BEGINNING_WRITES, STATUS_BURST),
        (("shown",), SHOWN_WRITES, SHOWN_WRITES),
    )
    for kinds, rate, burst in bounds:
        made = sorted(time for kind in kinds for time in times[kind])
        for place, begin in enumerate(made):
            assert all(
                later - place + 1 <= burst + rate * (end - begin) + 1e-6
                for later, end in enumerate(made)
                if later >= place
            )
