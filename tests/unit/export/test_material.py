"""The images that a network is converted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.export.errors import ExportError
from edgecloud_trainer.export.material import own_images
from tests.unit.data.server import Site, serving
from tests.unit.export.made import card
from tests.unit.trainer.pictures import pack, tree


def test_others_than_the_network_was_trained_on(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", tree({"ant": 5, "bee": 5})).read_bytes()
    with serving(Site({"/a.tar": archive})) as site:
        about = card(data=DataSpec(source=f"{site.url}/a.tar?signature=abc"))
        with pytest.raises(ExportError) as caught:
            own_images(about, tmp_path / "cache", lambda done, total: None)
    assert str(caught.value).startswith(f"{site.url}/a.tar holds other images than the network was trained on: put ")
