"""Saving beside the training: a quick copy while it waits, the writing in a thread.

At most one checkpoint is being written and one is waiting; a newer one takes the place of the one that waits, so a slow
storage makes checkpoints rarer, never the training slower.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from edgecloud_trainer.checkpoints import tensorfile, writer
from edgecloud_trainer.checkpoints.errors import CheckpointError, CheckpointMismatchError, SupersededError
from edgecloud_trainer.checkpoints.snapshot import Snapshot
from edgecloud_trainer.checkpoints.store import CheckpointStore, Saved


@dataclass(frozen=True)
class _Job:
    step: int
    memory: Snapshot
    tensors: Mapping[str, torch.Tensor]
    state: dict[str, Any]
    weights: frozenset[str]


class AsyncSaver:
    """Saves into a store from a thread of its own, and prunes after each checkpoint.

    on_saved(saved) is called when a checkpoint has become durable, on_error(error) when one could not be written or old
    ones not removed; both in the thread (from `save_final`: in the caller's). A storage that refuses (full, read-only,
    no rights) doesn't end the training: the last good checkpoint stays, the next one is tried at its time, and each
    kind of error is told once until a checkpoint succeeds again.

    What must end the training is kept, and raised by every later call: SupersededError, CheckpointMismatchError, and
    errors that are none of the storage's.

    All methods but `idle` belong to one thread, the training's. As a context manager it waits at the end for what is
    under way.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        on_saved: Callable[[Saved], None] | None = None,
        on_error: Callable[[CheckpointError], None] | None = None,
    ) -> None:
        self._store = store
        self._on_saved = on_saved
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._busy = False
        self._closed = False
        self._last: Saved | None = None
        self._fatal: Exception | None = None
        self._told: set[str] = set()
        self._free: list[Snapshot] = []
        self._thread: threading.Thread | None = None

    def __enter__(self) -> AsyncSaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.check()

    def submit(
        self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], *, weights: Collection[str]
    ) -> None:
        """Copy all of it and return; arguments as for `CheckpointStore.save`, and free to change afterwards."""
        self.check()
        job = self._copied(step, tensors, state, weights)
        with self._changed:
            if self._closed:
                raise RuntimeError("submit after close")
            if self._thread is None:
                # A daemon, so that a storage that hangs can't keep a process that has failed from ending.
                self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
                self._thread.start()
            self._waiting = job
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what must end the training, if it has happened."""
        with self._changed:
            if self._fatal is not None:
                raise self._fatal

    def wait(self) -> Saved | None:
        """Wait until nothing is being written or waiting; the last checkpoint that became durable, if any."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and self._waiting is None)
        self.check()
        return self._last

    def idle(self, seconds: float) -> bool:
        """Wait until nothing is being written or waiting, for so long at most; whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and self._waiting is None, seconds)

    def save_final(
        self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], *, weights: Collection[str]
    ) -> Saved:
        """Save now, and return when it is durable: the checkpoint of a stop or of the end, which must not get lost.

        One that waits is dropped, one being written is waited for. Raises CheckpointError if the storage refuses.
        """
        with self._changed:
            if self._waiting is not None:
                self._free.append(self._waiting.memory)
                self._waiting = None
            self._changed.wait_for(lambda: not self._busy)
        self.check()
        job = self._copied(step, tensors, state, weights)
        with self._changed:
            self._busy = True
        try:
            saved = self._store.save(job.step, job.tensors, job.state, weights=job.weights)
        finally:
            with self._changed:
                self._free.append(job.memory)
                self._busy = False
                self._changed.notify_all()
        self._succeeded(saved)
        try:
            self._store.prune()
        except (SupersededError, CheckpointMismatchError):
            raise
        except CheckpointError as error:
            self._tell(error)
        return saved

    def close(self, seconds: float | None = None) -> None:
        """Wait for what is under way, for so long at most, and end the thread. Raises nothing; `check` does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)

    def _copied(
        self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], weights: Collection[str]
    ) -> _Job:
        weights = frozenset(weights)
        tensorfile.checked(tensors, weights)
        plain = json.loads(writer.state_bytes(state))
        with self._changed:
            if self._waiting is not None:
                self._free.append(self._waiting.memory)
                self._waiting = None
            memory = self._free.pop() if self._free else Snapshot()
        return _Job(step, memory, memory.take(tensors), plain, weights)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not None)
                job, self._waiting = self._waiting, None
                if job is None:
                    return
                self._busy = self._fatal is None
            if self._busy:
                self._attempt(job)
            with self._changed:
                self._free.append(job.memory)
                self._busy = False
                self._changed.notify_all()

    def _attempt(self, job: _Job) -> None:
        try:
            try:
                self._succeeded(self._store.save(job.step, job.tensors, job.state, weights=job.weights))
                self._store.prune()
            except (SupersededError, CheckpointMismatchError):
                raise
            except CheckpointError as error:
                self._tell(error)
        except Exception as error:  # it belongs to the training's thread
            with self._changed:
                self._fatal = error

    def _succeeded(self, saved: Saved) -> None:
        self._last = saved
        self._told.clear()
        if self._on_saved:
            self._on_saved(saved)

    def _tell(self, error: CheckpointError) -> None:
        if error.kind not in self._told:
            self._told.add(error.kind)
            if self._on_error:
                self._on_error(error)
