"""Figures of one model and of two, against tables made by hand, and what has to hold of any."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecloud_trainer.appraisal import scores
from edgecloud_trainer.confusion import Confusion

logits = arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(2, 5)), elements=st.floats(-50, 50, width=32))


def test_answers_of_known_logits() -> None:
    found = scores.answers(np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)), np.array([1, 2]))
    assert found.predicted.tolist() == [0, 2]
    assert found.right.tolist() == [False, True]
    np.testing.assert_allclose(found.confidence, [0.5, 0.8], rtol=1e-6)
    np.testing.assert_allclose(found.losses, [-math.log(0.25), -math.log(0.8)], rtol=1e-6)


@given(logits, st.integers(0, 100))
def test_answers_are_those_of_torch(values: np.ndarray, seed: int) -> None:
    import torch

    labels = np.random.default_rng(seed).integers(0, values.shape[1], len(values))
    found = scores.answers(values, labels)
    tensor = torch.from_numpy(values).double()
    loss = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(found.losses, loss.numpy(), atol=1e-9)
    np.testing.assert_allclose(found.confidence, tensor.softmax(1).max(1).values.numpy(), atol=1e-9)
    assert (found.confidence >= 1 / values.shape[1] - 1e-9).all()
    assert (found.losses >= 0).all()


@given(logits, st.integers(0, 100), st.integers(1, 12))
def test_pieces_come_to_the_same(values: np.ndarray, seed: int, size: int) -> None:
    labels = np.random.default_rng(seed).integers(0, values.shape[1], len(values))
    whole = scores.answers(values, labels)
    starts = range(0, len(values), size)
    parts = scores.joined([scores.answers(values[s : s + size], labels[s : s + size]) for s in starts])
    for name in ("labels", "predicted", "confidence", "losses"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_a_hand_made_confusion() -> None:
    """Three cats, two dogs, no eel; one cat is taken for a dog, one dog for an eel."""
    found = Confusion.counted(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2]), 4)
    assert found.matrix().tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    cat, dog, eel, never = scores.by_class(found)
    assert (cat.total, cat.correct) == (3, 2)
    assert (cat.recall, cat.precision, cat.f1) == (2 / 3, 1.0, 0.8)
    assert (dog.recall, dog.precision, dog.f1) == (0.5, 0.5, 0.5)
    assert (eel.recall, eel.precision, eel.f1) == (None, 0.0, 0.0)
    assert (never.recall, never.precision, never.f1) == (None, None, None)


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@given(pairs)
def test_the_confusion_adds_up(found: list[tuple[int, int]]) -> None:
    confusion = Confusion.counted(*np.array(found).T, 4)
    assert confusion.matrix().sum() == confusion.total == len(found)
    assert np.trace(confusion.matrix()) == confusion.correct == sum(one == two for one, two in found)
    np.testing.assert_array_equal(Confusion.of(confusion.matrix()).cells, confusion.cells)
    for score in scores.by_class(confusion):
        if score.recall and score.precision and score.f1:
            assert score.f1 == pytest.approx(2 * score.recall * score.precision / (score.recall + score.precision))
        for part in (score.recall, score.precision, score.f1):
            assert part is None or 0 <= part <= 1


def test_the_mistakes_that_are_made_most_often() -> None:
    found = Confusion.of(np.array([[9, 1, 2], [0, 9, 2], [3, 0, 9]]))
    assert found.mistakes(3) == [(2, 0, 3), (0, 2, 2), (1, 2, 2)]


# Calibration


def test_a_hand_made_calibration() -> None:
    """Ten images at 0.95, nine right; ten at 0.65, five right."""
    confidence = np.array([0.95] * 10 + [0.65] * 10)
    right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    found = scores.calibration(confidence, right, bins=10)
    assert found.ece == pytest.approx((10 * 0.05 + 10 * 0.15) / 20)
    filled = {round(one.low, 1): one for one in found.bins if one.count}
    assert list(filled) == [0.6, 0.9]
    assert filled[0.6].accuracy == 0.5
    assert filled[0.6].confidence == pytest.approx(0.65)
    empty = found.bins[0]
    assert (empty.count, empty.accuracy, empty.confidence) == (0, None, None)


sure = st.lists(st.tuples(st.floats(1e-6, 1.0), st.booleans()), min_size=1, max_size=60)


@given(sure, st.integers(1, 20))
def test_calibration_of_anything(images: list[tuple[float, bool]], bins: int) -> None:
    confidence, right = np.array([one for one, _ in images]), np.array([two for _, two in images])
    found = scores.calibration(confidence, right, bins)
    assert 0 <= found.ece <= 1
    assert abs(confidence.mean() - right.mean()) <= found.ece + 1e-9, "no bins hide less than one bin does"
    assert sum(one.count for one in found.bins) == len(images)
    for one in found.bins:
        if one.confidence is not None:
            assert one.low - 1e-9 <= one.confidence <= one.high + 1e-9
    order = np.random.default_rng(0).permutation(len(images))
    assert scores.calibration(confidence[order], right[order], bins).ece == pytest.approx(found.ece)


@pytest.mark.parametrize(("confidence", "right", "ece"), [(1.0, True, 0.0), (1.0, False, 1.0), (0.5, True, 0.5)])
def test_the_ends_of_calibration(confidence: float, right: bool, ece: float) -> None:
    assert scores.calibration(np.full(7, confidence), np.full(7, right)).ece == pytest.approx(ece)


def test_the_edges_of_bins_belong_to_the_lower_one() -> None:
    found = scores.calibration(np.array([0.2, 0.4, 1.0]), np.array([True] * 3), bins=5)
    assert [one.count for one in found.bins] == [1, 1, 0, 0, 1]


# Two models

MCNEMAR = [
    (0, 0, 1.0), (1, 1, 1.0), (0, 1, 1.0), (0, 2, 0.5), (0, 5, 0.0625), (0, 6, 0.03125), (1, 5, 0.21875),
    (2, 8, 0.109375), (3, 12, 0.03515625), (5, 15, 0.041389465332), (10, 10, 1.0), (10, 25, 0.016673847800),
]  # fmt: skip
"""Twice the tail of the binomial distribution with one half: (0, 6) is 2 / 64, (2, 8) is 2 (1 + 10 + 45) / 1024, ..."""


@pytest.mark.parametrize(("one", "two", "p"), MCNEMAR)
def test_mcnemar(one: int, two: int, p: float) -> None:
    assert scores.mcnemar(one, two) == pytest.approx(p, rel=1e-9)
    assert scores.mcnemar(two, one) == scores.mcnemar(one, two)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_by_whole_numbers(one: int, two: int) -> None:
    total = one + two
    tail = sum(math.comb(total, k) for k in range(min(one, two) + 1))
    assert scores.mcnemar(one, two) == pytest.approx(min(1.0, 2 * tail / 2**total), rel=1e-9)


def test_mcnemar_of_a_million() -> None:
    """Near the normal distribution: 2,000 apart of 1,000,000 is two deviations."""
    assert scores.mcnemar(499_000, 501_000) == pytest.approx(math.erfc(1999 / 1000 / math.sqrt(2)), rel=1e-3)
    assert scores.mcnemar(0, 1_000_000) == 0.0


flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


@given(flags)
def test_two_models(images: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(one) for one in zip(*images, strict=True))
    found = scores.paired(first, second)
    assert found.total == len(images)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert -1 <= found.interval[0] <= found.difference <= found.interval[1] <= 1
    assert 0 <= found.p <= 1
    turned = scores.paired(second, first)
    assert turned.p == found.p
    assert turned.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    assert (turned.only_first, turned.only_second) == (found.only_second, found.only_first)


def test_the_interval_of_a_difference_in_the_literature() -> None:
    """Bonett and Price's formula written out for 12 and 5 of 100."""
    one, two = 13 / 102, 6 / 102
    half = 1.959964 * math.sqrt((one + two - (one - two) ** 2) / 102)
    assert scores.difference_interval(12, 5, 100) == pytest.approx((one - two - half, one - two + half))


@pytest.mark.parametrize(("total", "one", "two"), [(50, 0.1, 0.02), (200, 0.05, 0.05), (1000, 0.02, 0.004)])
def test_the_interval_holds_the_difference_as_often_as_it_says(total: int, one: float, two: float) -> None:
    random = np.random.default_rng(7)
    drawn = random.multinomial(total, [one, two, 1 - one - two], 2000)
    intervals = [scores.difference_interval(int(a), int(b), total) for a, b, _ in drawn]
    held = np.mean([low <= one - two <= high for low, high in intervals])
    assert 0.935 <= held <= 0.99


def test_the_worst_images() -> None:
    found = scores.Answers(
        labels=np.zeros(5, np.int64), predicted=np.zeros(5, np.int64), confidence=np.ones(5),
        losses=np.array([0.5, 3.0, 0.1, 3.0, 7.0]),
    )  # fmt: skip
    assert scores.worst(found, 4).tolist() == [4, 1, 3, 0]
    assert len(scores.worst(found, 99)) == 5
