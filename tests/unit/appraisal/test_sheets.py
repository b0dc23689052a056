"""Contact sheets: names of classes in any alphabet that the other pictures can write."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgecloud_trainer.sheets import Cell, contact_sheet


def drawn(line: str) -> bytes:
    pixels = np.zeros((3, 8, 8), np.uint8)
    return contact_sheet([Cell(pixels=pixels, lines=(line,))], title=line).tobytes()


@pytest.mark.parametrize(("one", "other"), [("é", "è"), ("кот", "кит"), ("γάτα", "γάτο"), ("ł", "đ")])
def test_letters_that_are_not_ascii(one: str, other: str) -> None:
    """Boxes would all look alike."""
    assert drawn(one) != drawn(other)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert drawn("cat") != drawn("dog")
