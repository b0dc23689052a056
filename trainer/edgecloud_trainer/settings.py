"""What a training process is told: the job's spec.trainer and spec.storage, its ranks, its folders."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgecloud.api.spec import ExportSpec, StorageSpec
from edgecloud.api.trainer import OptimizerSpec, ScheduleSpec, SyncSpec, TrainerSpec

SPEC_VARIABLE: Final = "EDGECLOUD_TRAINER"
"""JSON with `trainer`, `storage` and `export`, as they stand in the job's spec."""
_THREADS: Final = "OMP_NUM_THREADS"
_NOT_IN_DIGEST: Final = ("sampleLog", "tensorboard")
_PARTS: Final = {"optimizer": OptimizerSpec, "schedule": ScheduleSpec, "sync": SyncSpec}
"""What stands for its defaults where it is left out."""


class SettingsError(ValueError):
    """The configuration is wrong: exit code 2, and no second try."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one training process."""

    trainer: TrainerSpec
    storage: StorageSpec
    export: ExportSpec | None
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    round: int
    gpus: int
    """GPUs that this worker asked for."""
    whole_gpus: int
    """Those of them that are neither slices nor shares, so that a process sees as many."""
    own_storage: bool
    """Whether each worker has storage of its own, which goes with it: then each keeps a copy of every checkpoint."""
    checkpoints: Path
    results: Path
    cache: Path
    threads: int

    @property
    def optimizer(self) -> OptimizerSpec:
        return self.trainer.optimizer or OptimizerSpec()

    @property
    def schedule(self) -> ScheduleSpec:
        return self.trainer.schedule or ScheduleSpec()

    @property
    def sync(self) -> SyncSpec:
        return self.trainer.sync or SyncSpec()

    @property
    def local(self) -> bool:
        """Whether the ranks come together every few steps only."""
        return self.sync.mode == "local"

    @property
    def digest(self) -> str:
        """Of what makes this training this one: a checkpoint of another digest is another training's."""
        return _digest(self._config)

    @property
    def digests(self) -> frozenset[str]:
        """This one's, and those of the same training with a part that says the defaults left out or written out."""
        config = self._config
        usual = {name: part().dump() for name, part in _PARTS.items()}
        said = [name for name in usual if config.get(name, usual[name]) == usual[name]]
        rest = {key: value for key, value in config.items() if key not in said}
        choices = itertools.product((False, True), repeat=len(said))
        return frozenset(
            _digest(rest | {name: usual[name] for name, written in zip(said, chosen, strict=True) if written})
            for chosen in choices
        )

    @property
    def _config(self) -> dict[str, Any]:
        return {key: value for key, value in self.trainer.dump().items() if key not in _NOT_IN_DIGEST}


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """From the environment that the launcher and torchrun's convention give.

    Raises:
        SettingsError: something is missing or wrong; the message names it.
    """
    try:
        said: dict[str, Any] = json.loads(environment[SPEC_VARIABLE])
        trainer = TrainerSpec.parse(said["trainer"])
        storage = StorageSpec.parse(said.get("storage") or {})
        export = ExportSpec.parse(said["export"]) if said.get("export") is not None else None
    except KeyError as error:
        raise SettingsError(f"{error.args[0]} is not set: the built-in trainer is started by a TrainingJob") from None
    except (ValueError, ValidationError) as error:
        raise SettingsError(f"{SPEC_VARIABLE}: {error}") from None
    world_size = int(environment.get("WORLD_SIZE", "1"))
    if world_size > trainer.shards:
        raise SettingsError(
            f"trainer.shards: {world_size} ranks need at least {world_size} shards, not {trainer.shards}:"
            " write more shards, fewer workers, or a smaller processesPerWorker (default: a worker's GPUs)"
        )
    checkpoints = Path(environment.get("EDGECLOUD_CHECKPOINT_DIR", "checkpoints"))
    return Settings(
        trainer=trainer,
        storage=storage,
        export=export,
        rank=int(environment.get("RANK", "0")),
        world_size=world_size,
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        local_world_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        round=int(environment.get("EDGECLOUD_ROUND", "1")),
        gpus=int(said.get("gpus", 0)),
        whole_gpus=int(said.get("wholeGpus", 0)),
        own_storage=bool(said.get("ownStorage", False)),
        checkpoints=checkpoints,
        results=Path(environment.get("EDGECLOUD_RESULTS_DIR", "results")),
        cache=checkpoints.parent / "data",
        threads=_threads(environment.get(_THREADS) or "1"),
    )


def _threads(said: str) -> int:
    """OpenMP takes a list, with a number for each level of nesting."""
    first = said.partition(",")[0].strip()
    if not (first.isascii() and first.isdigit() and int(first) > 0):
        raise SettingsError(f"{_THREADS}: {said!r} is no number of threads: write one from 1, or unset it")
    return int(first)
