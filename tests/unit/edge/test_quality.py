"""Accuracy, parity and the gate of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecloud.edge.intervals import wilson
from edgecloud.edge.quality import accuracy, gate, parity

logits = arrays(np.float32, st.tuples(st.integers(1, 8), st.just(4)), elements=st.floats(-1000, 1000, width=32))


def test_accuracy() -> None:
    found = np.array([[1, 0], [0, 1], [0, 1], [2, 1]], np.float32)
    part, interval = accuracy(found, np.array([0, 1, 0, 0]))
    assert part == 0.75
    assert (interval.low, interval.high) == wilson(3, 4)


@given(logits)
def test_parity_with_itself(found: np.ndarray) -> None:
    said = parity(found, found)
    assert (said.images, said.agreement) == (len(found), 1.0)
    assert said.max_difference == said.mean_difference == said.relative_difference == 0


@given(logits, st.floats(-100, 100, width=32))
def test_parity_with_a_shifted_copy(found: np.ndarray, shift: float) -> None:
    said = parity((found.astype(np.float64) + shift), found)  # type: ignore[arg-type]
    assert said.max_difference == pytest.approx(abs(shift), abs=1e-9)
    assert said.mean_difference == pytest.approx(abs(shift), abs=1e-9)


def test_parity_of_known_numbers() -> None:
    said = parity(np.array([[3, 0], [0, 4]], np.float32), np.array([[3, 0], [4, 0]], np.float32))
    assert (said.agreement, said.max_difference, said.mean_difference) == (0.5, 4.0, 2.0)
    assert said.relative_difference == pytest.approx(np.sqrt(32) / 5)


@pytest.mark.parametrize(
    ("accuracy", "allowed", "passed"),
    [(0.90, 1.0, True), (0.89, 1.0, True), (0.8899, 1.0, False), (0.95, 0.0, True), (0.90, 0.0, True), (0.0, 90, True)],
)
def test_the_gate(accuracy: float, allowed: float, passed: bool) -> None:
    said = gate(accuracy, 0.90, allowed, file="model-int8.onnx")
    assert said.passed is passed
    assert said.accuracy_loss == pytest.approx(100 * (0.90 - accuracy))
    assert bool(said.message) is not passed


def test_what_a_failed_gate_says() -> None:
    said = gate(0.8542, 0.9, 1.0, file="model-int8.onnx").message
    assert said.startswith("model-int8.onnx loses 4.58 points of accuracy (90.00 % to 85.42 %), and may lose 1: ")


def test_a_loss_just_above_the_gate_does_not_read_like_the_gate() -> None:
    said = gate((1700 - 18) / 1797, 1700 / 1797, 1.0, file="model-int8.onnx")
    assert said.message.startswith(
        "model-int8.onnx loses 1.002 points of accuracy (94.60 % to 93.60 %), and may lose 1:"
    )
    assert gate((1700 - 18) / 1797, 1700 / 1797, 1.01, file="a").points == "1.00"
    assert gate(0.9, 0.9 + 1e-8, 0.0, file="a").points == "0.000001"
