"""Who waits for room: in what order they come in, and that nobody's line keeps others out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.coordinator.door import Door
from edgecloud_operator.coordinator.waiting import WAIT_SECONDS, Waiting


def test_they_come_in_in_turns_and_those_of_an_address_in_order() -> None:
    door = Door(strangers=4, of_address=3)
    inside = [visit for visit in (door.enter("x", 0.0) for _ in range(3)) if visit]
    inside += [visit for visit in [door.enter("y", 0.0)] if visit]
    line = Waiting[str](door, 10)
    for one in ("a1", "a2", "a3", "b1", "b2", "x1"):
        assert line.join(one[0], one, 0.0) is None
    assert list(line.admit(0.0)) == []
    for visit in inside[:3]:
        door.leave(visit)
    assert [one for one, _ in line.admit(0.0)] == ["a1", "b1", "x1"]
    assert (len(line), line.has("x")) == (3, False)
    door.leave(inside[3])
    assert [one for one, _ in line.admit(0.0)] == ["a2"]
    assert list(line.late(WAIT_SECONDS)) == [("b", "b2"), ("a", "a3")] and not line


def test_a_long_line_makes_room() -> None:
    line = Waiting[str](Door(strangers=0), 4)
    for one in ("a1", "a2", "a3", "a4"):
        assert line.join("a", one, 0.0) is None
    assert line.join("a", "a5", 0.0) == ("a", "a5")
    assert line.join("b", "b1", 0.0) == ("a", "a4")
    assert line.join("b", "b2", 0.0) == ("a", "a3")
    assert line.join("b", "b3", 0.0) == ("b", "b3"), "none is longer"
    assert sorted(line.clear()) == ["a1", "a2", "b1", "b2"] and not line
    assert Waiting[str](Door(), 0).join("a", "a1", 0.0) == ("a", "a1")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=80))
def test_everybody_is_let_in_or_sent_off_once(script: list[tuple[str, int]]) -> None:
    door, ended = Door(strangers=3, of_address=2, patience=0.5), list[int]()
    line = Waiting[int](door, 5)
    for number, (address, move) in enumerate(script):
        if out := line.join(address, number, number / 2):
            ended.append(out[1])
        if move == 0:
            ended += [one for _, one in line.late(number / 2)]
        if move == 1:
            ended += [one for one, _ in line.admit(number / 2)]
        assert len(line) <= 5 and len(line) + len(ended) == number + 1
    assert sorted([*ended, *line.clear()]) == list(range(len(script)))
