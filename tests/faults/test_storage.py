"""Storage that is full, or can't be written: through the whole stack, on small file systems of our own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.local import wait_for
from tests.e2e.test_trainer import job, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at the folder, for as long as the test lasts."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"this machine lets nobody mount: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_that_is_cleared(tmp_path: Path) -> None:
    """Training goes on without a checkpoint, says so, and saves when there is room again."""
    with mounted(tmp_path / "work/checkpoints", "size=48m") as folder:
        (folder / "ballast").write_bytes(b"x" * (48 << 20))
        with run(tmp_path / "work", job(epochs=15)) as training:
            log = tmp_path / "work/logs/worker-0.log"
            wait_for(
                "a word on it", lambda: log.exists() and "no checkpoint" in log.read_text(), within=120,
                seen=training.output,
            )  # fmt: skip
            (folder / "ballast").unlink()
            assert training.end(within=240) == 0, training.output()
            assert training.status.restarts == 0
            assert training.status.checkpoint and training.status.checkpoint.step == 210
        assert "free space there" in log.read_text()


def test_a_disk_that_stays_full(tmp_path: Path) -> None:
    full = job(epochs=2)
    full["spec"]["restartPolicy"] = {"maxRestarts": 0}
    with mounted(tmp_path / "work/checkpoints", "size=64k"), run(tmp_path / "work", full) as training:
        assert training.end(within=240) == 1, training.output()
        failure = training.status.last_failure
        assert failure and "cannot save the checkpoint" in failure.message
        assert "free space there, keep fewer (storage.keepCheckpoints)" in failure.message


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It ends before anything is started, not after hours of training."""
    with mounted(tmp_path / "work/checkpoints", "ro"), run(tmp_path / "work", job(epochs=2)) as training:
        assert training.end() == 2, training.output()
        assert "work/checkpoints can't be written; name another folder with --workdir" in training.stderr()
