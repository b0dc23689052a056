"""Saving beside the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecloud_trainer.checkpoints import AsyncSaver, CheckpointError, CheckpointStore, Saved, SupersededError, load
from tests.unit.trainer_checkpoints.material import (
    DIGEST,
    WEIGHTS,
    is_genuine,
    names,
    same,
    save,
    state_of,
    store,
    tensors_of,
)


class GatedStore(CheckpointStore):
    """A storage that takes its time: every save waits until the test lets it go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, round=1, keep=10, digest=DIGEST)
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def save(self, step: int, *arguments: Any, **more: Any) -> Saved:
        self.arrived.release()
        assert self.gate.acquire(timeout=30)
        return super().save(step, *arguments, **more)


def submit(saver: AsyncSaver, step: int, round: int = 1) -> None:
    saver.submit(step, tensors_of(step, round), state_of(step, round), weights=WEIGHTS)


def test_saves_and_prunes_and_tells(tmp_path: Path) -> None:
    told: list[Saved] = []
    with AsyncSaver(store(tmp_path, keep=2), on_saved=told.append) as saver:
        assert saver.wait() is None
        for step in (1, 2, 3):
            submit(saver, step)
            assert saver.wait() == told[-1]
    assert [saved.step for saved in told] == [1, 2, 3]
    assert names(tmp_path) == ["step-2", "step-3"]
    loaded = store(tmp_path).choose()
    assert loaded is not None and is_genuine(loaded) and loaded.weights_sha256 == told[-1].weights_sha256


def test_what_is_saved_is_what_was_submitted(tmp_path: Path) -> None:
    """The training goes on at once, in the same memory; also the second time, when the copy's memory is used again."""
    slow = GatedStore(tmp_path)
    tensors: Mapping[str, torch.Tensor] = {"a": torch.zeros(3, 4), "turned": torch.zeros(4, 3).t()}
    state = {"list": [1]}
    with AsyncSaver(slow) as saver:
        for step in (1, 2, 3):
            for tensor in tensors.values():
                tensor.fill_(step)
            state["list"] = [step]
            saver.submit(step, tensors, state, weights=["a"])
            assert slow.arrived.acquire(timeout=30)
            for tensor in tensors.values():
                tensor.fill_(-1)
            state["list"].append(-1)
            slow.gate.release()
            saver.wait()
    for step in (1, 2, 3):
        found, kept = load(tmp_path / f"step-{step}")
        assert same(found, {name: torch.full((3, 4), float(step)) for name in tensors})
        assert kept == {"list": [step]}


def test_a_newer_one_takes_the_place_of_the_one_that_waits(tmp_path: Path) -> None:
    slow = GatedStore(tmp_path)
    with AsyncSaver(slow) as saver:
        submit(saver, 1)
        assert slow.arrived.acquire(timeout=30)
        for step in (2, 3, 4):
            submit(saver, step)
        slow.gate.release(2)
        last = saver.wait()
    assert last is not None and last.step == 4
    assert names(tmp_path) == ["step-1", "step-4"]
    for step in (1, 4):
        assert same(load(tmp_path / f"step-{step}").tensors, tensors_of(step))


def test_shapes_may_change(tmp_path: Path) -> None:
    with AsyncSaver(store(tmp_path)) as saver:
        for step, shape in ((1, (2,)), (2, (3,)), (3, (2, 2))):
            dtype = torch.bfloat16 if step == 3 else torch.float32
            saver.submit(step, {"a": torch.full(shape, step, dtype=dtype)}, {}, weights=["a"])
            saver.wait()
            found = load(tmp_path / f"step-{step}").tensors["a"]
            assert found.shape == shape and found.dtype == dtype and bool((found == step).all())


def test_final_save_drops_the_one_that_waits(tmp_path: Path) -> None:
    slow = GatedStore(tmp_path)
    told: list[int] = []
    with AsyncSaver(slow, on_saved=lambda saved: told.append(saved.step)) as saver:
        submit(saver, 1)
        assert slow.arrived.acquire(timeout=30)
        submit(saver, 2)

        def release_when_dropped() -> None:  # sooner, and the saver's thread could take the second one up
            while saver._waiting is not None:
                time.sleep(0.001)
            slow.gate.release(2)

        releaser = threading.Thread(target=release_when_dropped)
        releaser.start()
        assert saver.save_final(3, tensors_of(3), state_of(3), weights=WEIGHTS).step == 3
        releaser.join()
    assert told == [1, 3]
    assert names(tmp_path) == ["step-1", "step-3"]


def test_leaving_waits_for_what_is_under_way(tmp_path: Path) -> None:
    slow = GatedStore(tmp_path)
    with pytest.raises(ZeroDivisionError), AsyncSaver(slow) as saver:
        submit(saver, 1)
        slow.gate.release()
        raise ZeroDivisionError
    assert names(tmp_path) == ["step-1"]
    with pytest.raises(RuntimeError, match="after close"):
        submit(saver, 2)


@pytest.mark.parametrize("final", [False, True])
def test_another_thread_may_wait_for_what_is_under_way(tmp_path: Path, final: bool) -> None:
    slow = GatedStore(tmp_path)
    with AsyncSaver(slow) as saver:
        assert saver.idle(0)
        save = saver.save_final if final else saver.submit
        training = threading.Thread(target=save, args=(1, tensors_of(1), state_of(1)), kwargs={"weights": WEIGHTS})
        training.start()
        assert slow.arrived.acquire(timeout=30)
        assert not saver.idle(0)
        slow.gate.release()
        assert saver.idle(30)
        training.join()
    assert names(tmp_path) == ["step-1"]


def test_leaving_does_not_wait_for_ever(tmp_path: Path) -> None:
    slow = GatedStore(tmp_path)
    saver = AsyncSaver(slow)
    submit(saver, 1)
    assert slow.arrived.acquire(timeout=30)
    saver.close(0.05)
    assert names(tmp_path) == []
    slow.gate.release()
    saver.close()
    assert names(tmp_path) == ["step-1"]


def test_a_zombie_learns_it_in_the_training(tmp_path: Path) -> None:
    saver = AsyncSaver(store(tmp_path))
    save(store(tmp_path, 2), 1)
    submit(saver, 2)
    for attempt in (
        saver.wait,
        saver.check,
        lambda: submit(saver, 3),
        lambda: saver.save_final(3, tensors_of(3), {}, weights=WEIGHTS),
    ):
        with pytest.raises(SupersededError):
            attempt()
    saver.close()
    assert names(tmp_path) == ["step-1"]
    with pytest.raises(SupersededError), AsyncSaver(store(tmp_path)) as saver:
        submit(saver, 3)


def test_an_error_that_is_no_storage_s_is_raised_in_the_training(tmp_path: Path) -> None:
    def fails(saved: Saved) -> None:
        raise ZeroDivisionError

    saver = AsyncSaver(store(tmp_path), on_saved=fails)
    submit(saver, 1)
    with pytest.raises(ZeroDivisionError):
        saver.wait()
    saver.close()


def test_what_can_not_be_saved_is_refused_at_once(tmp_path: Path) -> None:
    with AsyncSaver(store(tmp_path)) as saver:
        with pytest.raises(TypeError):
            saver.submit(1, {}, {"a": object()}, weights=[])
        with pytest.raises(ValueError, match="not among"):
            saver.submit(1, {}, {}, weights=["a"])
        submit(saver, 2)
        assert saver.wait() is not None


def test_each_kind_of_error_is_told_once_until_a_save_works(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    told: list[CheckpointError] = []
    with AsyncSaver(store(folder), on_error=told.append) as saver:
        for _ in range(2):
            folder.touch()  # a file where a folder belongs
            for step in (1, 2, 3):
                submit(saver, step)
                saver.wait()
            with pytest.raises(CheckpointError, match="move it away, or choose another"):
                saver.save_final(4, tensors_of(4), {}, weights=WEIGHTS)
            folder.unlink()
            submit(saver, 5)
            assert saver.wait() is not None
            (folder / "step-5").rename(tmp_path / f"kept-{len(told)}")
            folder.rmdir()
    assert [error.kind for error in told] == ["EEXIST", "EEXIST"]
    assert "cannot save the checkpoint of step 1" in str(told[0])
