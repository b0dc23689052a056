"""Data prepared where there is no room: nothing half-written, and the same command works when there is room again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from tests.faults.test_storage import mounted
from tests.unit.cli.command import run_edgecloud
from tests.unit.data.server import Site, serving
from tests.unit.data.tool import snapshot
from tests.unit.trainer.pictures import pack, tree, write

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")

FILES = tree({"cat": 200, "dog": 200})
"""Their pixels are 144,000 bytes."""


@pytest.mark.parametrize("room", [20, 160, 250])
def test_a_full_disk(room: int, tmp_path: Path) -> None:
    """Full while the images are decoded, or when the file is written of them."""
    source = write(tmp_path / "set", FILES)
    prepare = partial(run_edgecloud, "data", "prepare", source, "--out")
    expected = prepare(tmp_path / "b.images", "-o", "json")
    with mounted(tmp_path / "disk", "size=400k") as disk:
        (disk / "ballast").write_bytes(bytes((400 - room) << 10))
        before = snapshot(tmp_path)
        done = prepare(disk / "a.images")
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "a.images can't be written (No space left on device): free some space" in done.stderr
        assert snapshot(tmp_path) == before
        (disk / "ballast").unlink()
        done = prepare(disk / "a.images", "-o", "json")
        assert json.loads(done.stdout)["sha256"] == json.loads(expected.stdout)["sha256"]


def test_a_transfer_that_does_not_fit(tmp_path: Path) -> None:
    tar = pack(tmp_path / "set.tar", FILES).read_bytes()
    with mounted(tmp_path / "disk", "size=200k") as disk, serving(Site({"/a.tar": tar})) as site:
        before = snapshot(tmp_path)
        done = run_edgecloud("data", "prepare", f"{site.url}/a.tar", "--out", disk / "a.images")
        assert done.returncode == 2
        assert f"/a.tar has {len(tar):,} bytes, and " in done.stderr and "free some space" in done.stderr
        assert snapshot(tmp_path) == before


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    source = write(tmp_path / "set", FILES)
    with mounted(tmp_path / "disk", "ro") as disk:
        done = run_edgecloud("data", "prepare", source, "--out", disk / "a.images")
    assert done.returncode == 2
    assert "a.images can't be written (Read-only file system): give a folder to write to" in done.stderr


AS_NOBODY = """
import os, sys
from edgecloud.cli.main import cli
source, out = sys.argv[1:]
cli(["data", "prepare", source, "--out", out, "-q"], standalone_mode=False)  # loads what nobody else may read
os.chmod(os.path.join(source, "cat", "007.png"), 0)
os.setgid(65534)
os.setuid(65534)
cli(["data", "prepare", source, "--out", out, "--force"])
"""


def test_no_rights() -> None:
    """As somebody who isn't root, for whom every file may be read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        source, out = write(folder / "set", FILES), folder / "a.images"
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, source, out], capture_output=True, text=True, check=False, env=os.environ
        )
        assert done.returncode == 2, done.stderr
        assert "cat/007.png can't be read (Permission denied): check it and its rights" in done.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["a.images", "a.manifest.json", "set"]
