"""Full, read-only and forbidden storage, for real."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgecloud_trainer.checkpoints import AsyncSaver, CheckpointError, Saved
from tests.unit.trainer_checkpoints import writers
from tests.unit.trainer_checkpoints.conftest import MakeDisk, Start
from tests.unit.trainer_checkpoints.material import WEIGHTS, is_genuine, names, save, state_of, store, tensors_of


def fill(disk: Path, leave: int) -> Path:
    """Take all room but so many bytes."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
    return filler


def test_full_disk_does_not_end_the_training(make_disk: MakeDisk) -> None:
    disk = make_disk("3m")
    big = {"model.big": torch.ones(220_000)}
    told: list[CheckpointError] = []
    saved: list[Saved] = []
    with AsyncSaver(store(disk, keep=10), on_error=told.append, on_saved=saved.append) as saver:
        for step in range(1, 8):
            saver.submit(step, {name: tensor + step for name, tensor in big.items()}, {}, weights=list(big))
            saver.wait()
        assert [one.step for one in saved] == [1, 2, 3]
        assert [error.kind for error in told] == ["ENOSPC"]
        assert "No space left" in str(told[0]) and "storage.keepCheckpoints" in told[0].remedy
        assert names(disk) == ["step-1", "step-2", "step-3"], "what the failed tries left is gone"
        with pytest.raises(CheckpointError, match="free space there, keep fewer") as caught:
            saver.save_final(9, big, {}, weights=list(big))
        assert caught.value.kind == "ENOSPC"
        loaded = store(disk).choose()
        assert loaded is not None and loaded.step == 3 and bool((loaded.tensors["model.big"] == 4).all())

        store(disk, keep=1).prune()
        saver.save_final(9, big, {}, weights=list(big))
    assert names(disk) == ["step-3", "step-9"]


def test_probing_leaves_nothing_and_finds_a_read_only_disk(make_disk: MakeDisk) -> None:
    disk = make_disk("1m")
    store(disk / "checkpoints").probe()
    assert names(disk / "checkpoints") == []
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(CheckpointError, match="mount the storage writable") as caught:
        store(disk / "checkpoints").probe()
    assert caught.value.kind == "EROFS"


def test_full_at_every_point_of_a_save(make_disk: MakeDisk) -> None:
    disk = make_disk("256k")
    folder = disk / "checkpoints"
    old = store(folder)
    save(old, 1)
    failed = worked = 0
    for pages in range(12):
        filler = fill(disk, pages * 4096)
        try:
            save(store(folder, 2), 1 + pages % 2)
            worked += 1
        except CheckpointError as error:
            failed += 1
            assert error.kind == "ENOSPC"
            assert not [name for name in names(folder) if name.startswith(".")]
        filler.unlink()
        loaded = store(folder, 2).choose()
        assert loaded is not None and is_genuine(loaded)
    assert failed >= 3 and worked >= 1


def test_done_marker_on_a_full_disk(make_disk: MakeDisk) -> None:
    disk = make_disk("64k")
    to = store(disk)
    to.mark_done({"accuracy": 0.5})
    fill(disk, 0)
    with pytest.raises(CheckpointError, match="cannot mark the job as done"):
        to.mark_done({"accuracy": 0.9, "text": "x" * 10_000})
    assert to.done() == {"accuracy": 0.5}
    assert names(disk) == ["done.json", "filler"]


def test_read_only_storage(make_disk: MakeDisk) -> None:
    disk = make_disk("1m")
    for step in (1, 2):
        save(store(disk), step)
    save(store(disk), 3).path.rename(disk / f".step-3.1.{2**22 + 1}")  # as a kill before the last rename leaves it
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    told: list[CheckpointError] = []
    reader = store(disk, 2, keep=1)
    loaded = reader.choose()
    assert loaded is not None and is_genuine(loaded) and loaded.step == 3, "reading needs no rights to write"
    with AsyncSaver(reader, on_error=told.append) as saver:
        for step in (4, 5):
            saver.submit(step, tensors_of(step), state_of(step), weights=WEIGHTS)
            assert saver.wait() is None
        assert [error.kind for error in told] == ["EROFS"]
        assert "mount the storage writable" in str(told[0])
        with pytest.raises(CheckpointError, match="Read-only file system"):
            saver.save_final(6, tensors_of(6), state_of(6), weights=WEIGHTS)
    with pytest.raises(CheckpointError, match="cannot remove old checkpoints"):
        reader.prune()
    with pytest.raises(CheckpointError, match="mount the storage writable"):
        reader.mark_done({})


def test_no_right_to_write(start: Start, readable: Path) -> None:
    save(store(readable), 1)
    _, connection = start(writers.save_as_nobody, readable)
    kind, text = connection.recv()
    assert kind == "EACCES"
    assert "Permission denied" in text and "writable for user id 65534" in text and "fsGroup" in text
    assert names(readable) == ["step-1"]


def test_no_right_to_read(start: Start, readable: Path) -> None:
    """One that is closed is passed over; a folder that can't be listed is an error: training must not begin anew."""
    for step in (1, 2, 3):
        save(store(readable), step)
    (readable / "step-3").chmod(0o700)
    (readable / "step-2" / "tensors.safetensors").chmod(0o600)
    _, connection = start(writers.choose_as_nobody, readable)
    assert connection.recv() == (
        1,
        [
            "step-3 is not used: it cannot be read: Permission denied",
            "step-2 is not used: tensors.safetensors cannot be opened: Permission denied",
        ],
    )
    readable.chmod(0o700)
    _, connection = start(writers.choose_as_nobody, readable)
    kind, text = connection.recv()
    assert kind == "EACCES" and "cannot look for checkpoints" in text


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user of this machine may read and only we may write to."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user, to be refused as")
    with tempfile.TemporaryDirectory() as room:
        Path(room).chmod(0o755)
        yield Path(room)
