"""The images that a network is converted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.export.errors import ExportError
from edgecloud_trainer.export.material import other_images, own_images
from tests.unit.data.server import Site, serving
from tests.unit.export.made import card
from tests.unit.trainer.pictures import pack, tree, write


def test_others_than_the_network_was_trained_on(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", tree({"ant": 5, "bee": 5})).read_bytes()
    with serving(Site({"/a.tar": archive})) as site:
        about = card(data=DataSpec(source=f"{site.url}/a.tar?signature=abc"))
        with pytest.raises(ExportError) as caught:
            own_images(about, tmp_path / "cache", lambda done, total: None)
    assert str(caught.value).startswith(f"{site.url}/a.tar holds other images than the network was trained on: put ")


def test_classes_that_are_spelt_in_another_way(tmp_path: Path) -> None:
    """macOS has two letters for é, and sorts them elsewhere: the labels are the network's all the same."""
    composed = ("f", "g", "\xe9")
    files = tree({f"{split}/{one}": 2 for split in ("train", "test") for one in ("e\u0301", "f", "g")})
    about = card(classes=composed, shape=(3, 10, 12))
    found = other_images(about, str(write(tmp_path / "set", files)), tmp_path / "cache", lambda done, total: None)
    assert found.classes == composed
    assert found.train.labels.tolist() == found.test.labels.tolist() == [2, 2, 0, 0, 1, 1]
    with pytest.raises(ExportError, match="other classes than the network: number 1 is 'f' instead of 'a'"):
        other_images(card(classes=("a", "f", "g"), shape=(3, 10, 12)), str(tmp_path / "set"), tmp_path / "cache", max)
