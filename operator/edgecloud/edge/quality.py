"""How good a converted model's logits are, beside the labels and beside the original's. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecloud.edge.intervals import wilson
from edgecloud.edge.report import Gate, Interval, Parity

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SLACK = 1e-9


def accuracy(logits: Logits, labels: Labels) -> tuple[float, Interval]:
    """The part of the images [N] whose highest logit [N, classes] is that of their label, with its 95 % interval."""
    correct = int((logits.argmax(axis=1) == labels).sum())
    low, high = wilson(correct, len(labels))
    return correct / len(labels), Interval(low=low, high=high)


def parity(logits: Logits, original: Logits) -> Parity:
    """How close logits [N, classes] are to the original's; all of them finite, N from 1."""
    difference = np.abs(logits.astype(np.float64) - original)
    size = float(np.linalg.norm(original.astype(np.float64)))
    return Parity(
        images=len(logits),
        agreement=float((logits.argmax(axis=1) == original.argmax(axis=1)).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        relative_difference=float(np.linalg.norm(difference)) / size if size else 0.0,
    )


def gate(accuracy: float, original: float, max_accuracy_loss: float, *, file: str) -> Gate:
    """Whether a model may be used.

    Args:
        accuracy: of the model, from 0 to 1.
        original: of the original on the same images.
        max_accuracy_loss: percentage points.
        file: the model's, for the message.
    """
    loss = 100 * (original - accuracy)
    passed = loss <= max_accuracy_loss + _SLACK
    found = Gate(passed=passed, max_accuracy_loss=max_accuracy_loss, accuracy_loss=loss)
    if passed:
        return found
    message = (
        f"{file} loses {found.points} points of accuracy ({100 * original:.2f} % to {100 * accuracy:.2f} %), and may "
        f"lose {max_accuracy_loss:g}: calibrate it with more images, train longer, or raise the gate"
    )
    return found.model_copy(update={"message": message})
