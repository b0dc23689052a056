"""The folder with the tokens of a run: nobody's but the run's, and gone however that ends."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from edgecloud_operator.local.scratch import LOCK, PREFIX, scratch_folder, sweep


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(place: Path, name: str = "killed") -> Path:
    """What a run leaves that was killed."""
    folder = place / f"{PREFIX}{name}"
    (folder / "a-uid").mkdir(parents=True)
    (folder / "a-uid" / "token").write_text("secret")
    (folder / LOCK).touch()
    return folder


def test_it_is_there_for_its_run_alone(place: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == place and folder.name.startswith(PREFIX)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a-uid").mkdir()
        sweep(place)
        with scratch_folder() as other:
            assert other != folder and (folder / "a-uid").is_dir(), "a run that lives keeps what is its own"
    assert list(place.iterdir()) == []


def test_a_later_run_removes_what_a_killed_one_left(place: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            with scratch_folder() as folder:
                (folder / "token").write_text("secret")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # it must not go on as a second pytest
    os.waitpid(child, 0)
    assert [path.name for path in place.glob("*/*") if path.name != LOCK] == ["token"]
    with scratch_folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_one_that_is_swept_while_it_is_made_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, swept = fcntl.flock, []

    def sweep_before(descriptor: int, operation: int) -> None:
        if not swept:  # the lock is there, and not yet held
            swept.extend(place.iterdir())
            sweep(place)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_before)
    with scratch_folder() as folder:
        assert len(swept) == 1 and list(place.iterdir()) == [folder] != swept
        sweep(place)
        assert (folder / LOCK).exists()


def test_what_is_not_a_killed_runs_is_left(place: Path) -> None:
    """A link to a folder of the user's, one that is just being made, and whatever else has such a name."""
    mine = left(place / "mine")
    (place / f"{PREFIX}link").symlink_to(mine)
    (place / f"{PREFIX}file").write_text("")
    (place / f"{PREFIX}new").mkdir()
    (place / f"{PREFIX}linked-lock").mkdir()
    (place / f"{PREFIX}linked-lock" / LOCK).symlink_to(mine / LOCK)
    before = sorted(place.rglob("*"))
    sweep(place)
    assert sorted(place.rglob("*")) == before
    sweep(place / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user")
def test_another_users_is_left(place: Path) -> None:
    folder = left(place)
    os.chown(folder, 1, 1)
    sweep(place)
    assert (folder / "a-uid" / "token").exists()


def test_a_link_in_what_was_left_is_not_followed(place: Path) -> None:
    mine = place / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    (left(place) / "data").symlink_to(mine)
    sweep(place)
    assert [path.name for path in place.rglob("*")] == ["mine", "thesis.tex"]


def test_what_there_is_no_time_for_is_left_to_the_next_run(place: Path) -> None:
    for number in range(3):
        left(place, str(number))
    sweep(place, seconds=-1)
    assert len(list(place.iterdir())) == 3
    sweep(place)
    assert list(place.iterdir()) == []
