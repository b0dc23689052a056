"""Fencing: what a process of a lower round may no longer do, and that it can't win by being quick."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgecloud_trainer.checkpoints import CheckpointStore, SupersededError
from edgecloud_trainer.checkpoints.manifest import sealed
from edgecloud_trainer.checkpoints.survey import Survey
from tests.unit.trainer_checkpoints import writers
from tests.unit.trainer_checkpoints.conftest import Start
from tests.unit.trainer_checkpoints.material import DIGEST, is_genuine, names, save, store
from tests.unit.trainer_checkpoints.test_kills import said


def test_a_zombie_stops_and_changes_nothing(tmp_path: Path) -> None:
    zombie, living = store(tmp_path, 1, keep=1), store(tmp_path, 2)
    save(zombie, 5)
    save(zombie, 6)
    save(living, 5)
    before = names(tmp_path)
    for attempt in (
        zombie.choose,
        zombie.prune,
        lambda: save(zombie, 7),
        lambda: save(zombie, 5),
        lambda: zombie.mark_done({}),
    ):
        with pytest.raises(SupersededError, match="round 2, and this process of round 1") as caught:
            attempt()
        assert (caught.value.own, caught.value.seen) == (1, 2)
    assert names(tmp_path) == before == ["step-5", "step-6"]
    loaded = living.choose()
    assert loaded is not None and is_genuine(loaded)
    assert (loaded.round, loaded.step) == (2, 5), "the later round wins over the higher step"


@pytest.mark.parametrize("trace", ["damaged", "half", "newer format", "done"])
def test_any_trace_of_a_higher_round_will_do(tmp_path: Path, trace: str) -> None:
    save(store(tmp_path), 1)
    match trace:
        case "damaged":
            save(store(tmp_path, 3), 2)
            (tmp_path / "step-2" / "tensors.safetensors").unlink()
        case "half":
            (tmp_path / ".step-2.3.4711").mkdir()
        case "newer format":
            (tmp_path / "step-2").mkdir()
            (tmp_path / "step-2" / "manifest.json").write_bytes(sealed({"format": 2, "round": 3, "new": "?"}))
        case "done":
            store(tmp_path, 3).mark_done({})
    with pytest.raises(SupersededError, match="round 3"):
        store(tmp_path, 2).choose()
    assert store(tmp_path, 3).choose() is not None


def test_a_flipped_bit_makes_no_higher_round(tmp_path: Path) -> None:
    save(store(tmp_path), 1)
    save(store(tmp_path), 2)
    path = tmp_path / "step-2" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"round": 1', b'"round": 9'))
    loaded = store(tmp_path).choose()
    assert loaded is not None and loaded.step == 1
    assert loaded.rejected == [
        "step-2 is not used: manifest.json does not match its own checksum: it was changed or cut short"
    ]


def test_a_later_release_is_told_apart_from_damage(tmp_path: Path) -> None:
    save(store(tmp_path, keep=1), 1)
    save(store(tmp_path, keep=1), 2)
    path = tmp_path / "step-2" / "manifest.json"
    path.write_bytes(sealed({"format": 7, "round": 1, "new": "?"}))
    loaded = store(tmp_path, 2, keep=1).choose()
    assert loaded is not None and loaded.step == 1
    assert "format 7, and this release reads format 1" in loaded.rejected[0]
    later = store(tmp_path, 2, keep=1)
    save(later, 3)
    later.prune()
    assert names(tmp_path) == ["step-2", "step-3"], "not ours to judge"


def test_higher_round_comes_in_at_the_last_moment(tmp_path: Path) -> None:
    """Between the zombie's last look and its rename: what it has moved aside by then goes back."""
    save(store(tmp_path), 4)

    class Late(CheckpointStore):
        looks = 0

        def _survey(self) -> Survey:
            found = super()._survey()
            self.looks += 1
            if self.looks == 2:
                save(store(tmp_path, 2), 4)
            return found

    zombie = Late(tmp_path, round=1, keep=3, digest=DIGEST)
    with pytest.raises(SupersededError, match="round 2"):
        save(zombie, 4)
    assert names(tmp_path) == ["step-4"]
    loaded = store(tmp_path, 2).choose()
    assert loaded is not None and is_genuine(loaded) and loaded.round == 2


def test_cleaned_up_behind_its_back(tmp_path: Path) -> None:
    """A zombie on another machine, whose half-written folder is taken away, learns the reason and not the symptom."""

    class Cleaned(CheckpointStore):
        looks = 0

        def _survey(self) -> Survey:
            found = super()._survey()
            self.looks += 1
            if self.looks == 2:
                living = store(tmp_path, 2)
                save(living, 3)
                living.prune()
                assert names(tmp_path) == ["step-3"]
            return found

    zombie = Cleaned(tmp_path, round=1, keep=3, digest=DIGEST)
    with pytest.raises(SupersededError, match="round 2"):
        save(zombie, 4)


@pytest.mark.parametrize("seed", range(3))
def test_two_processes_of_different_rounds_at_once(start: Start, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "checkpoints"
    zombie, from_zombie = start(writers.save_forever, folder, 1, 1, 100, False)
    assert [from_zombie.recv() for _ in range(2 + 2 * seed)]
    living, from_living = start(writers.save_forever, folder, 2, 1, 100, bool(seed % 2))
    ends = said(from_zombie, time.monotonic() + 60)
    assert ends[-1][0] == "superseded"
    zombie.join()
    assert zombie.exitcode == 0
    messages = [from_living.recv() for _ in range(20)]
    living.kill()
    living.join()
    messages += said(from_living, time.monotonic() + 60)
    assert not any(what == "superseded" for what, _ in messages)
    loaded = store(folder, 3).choose()
    assert loaded is not None and is_genuine(loaded) and loaded.round == 2
    assert loaded.step >= max(step for what, step in messages if what == "saved")
    for name in names(folder):
        if name.startswith("step-"):
            assert (folder / name / "manifest.json").exists()
