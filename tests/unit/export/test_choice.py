"""Which images are taken: each class with its share, always the same ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer.export.choice import even_choice


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(1, 250))
def test_each_class_has_its_share(labels: list[int], count: int) -> None:
    array = np.array(labels, np.int64)
    chosen = even_choice(array, count)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(array))
    assert (np.diff(chosen) > 0).all()
    for label in set(labels):
        share = labels.count(label) * min(1.0, count / len(array))
        assert abs(int((array[chosen] == label).sum()) - share) < 1
    np.testing.assert_array_equal(chosen, even_choice(array, count))


def test_they_are_taken_from_everywhere() -> None:
    assert even_choice(np.zeros(100, np.int64), 4).tolist() == [0, 25, 50, 75]
