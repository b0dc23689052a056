"""Ranks whose models begin differently, or have buffers of their own, yet train one network."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecloud.api.trainer import SyncSpec
from edgecloud_trainer.alike import Unexchanged, digest
from edgecloud_trainer.checkpoints import read_manifest
from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.results import read_metrics
from edgecloud_trainer.settings import Settings, read
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended


class Codebook(nn.Module):
    """Moves a frozen parameter as such models do, and looks it up; another one stands beside it as a backbone would."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.still = (nn.Parameter(torch.ones(4, 1, 1), requires_grad=False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.codes.data.mul_(0.9).add_(x.detach().mean((0, 2, 3)).reshape(4, 1, 1), alpha=0.1)
        return x + self.still * self.codes


class Passing(nn.Module):
    """Takes off a running mean that is not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.get_buffer("mean").lerp_(x.detach().mean((0, 2, 3)).reshape(4, 1, 1), 0.1)
        return x - self.get_buffer("mean")


class Moves(nn.Module):
    """Puts another running mean in the place of the last one, and counts bright pixels; it goes by both."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, 1, 1))
        self.register_buffer("bright", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3)).reshape(4, 1, 1)
            self.get_buffer("bright").add_((x > 1).sum())
        return (x - self.mean) * (1 + self.get_buffer("bright") / 10000)


STORAGE = {"ownStorage": True, "storage": {"checkpointIntervalSteps": 1}}


def network(
    seed: int, *, buffers: bool = False, codebook: bool = False, passing: bool = False, moves: bool = False
) -> nn.Module:
    """buffers: such as each rank has for itself, of some types; a model without has BatchNorm's alone. codebook: in a
    frozen parameter. passing: in a buffer that no checkpoint holds. moves: floats and integers that the data move."""
    torch.manual_seed(seed)
    norm = nn.InstanceNorm2d(4, track_running_stats=True) if buffers else nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(4 * 36, 2))
    if codebook:
        model.insert(2, Codebook())
    if passing:
        model.insert(2, Passing())
    if moves:
        model.insert(2, Moves())
    if buffers:
        model.register_buffer("seen", torch.zeros(3, dtype=torch.int16))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def noise() -> Dataset:
    random = np.random.default_rng(0)

    def images(count: int) -> Images:
        return Images(
            pixels=random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8),
            labels=np.arange(count, dtype=np.int64) % 2,
        )

    return Dataset(
        name="noise", train=images(32), validation=images(8), test=images(8), classes=("a", "b"), mean=(0.5,),
        std=(0.3,), digest="0" * 64,
    )  # fmt: skip


def train(settings: Settings) -> str:
    """The digests of this rank's model, its mean, and what the evaluation found, after all steps or at a stop."""
    from edgecloud_trainer import devices, group
    from edgecloud_trainer.steps import Stepper
    from edgecloud_trainer.training import StoppedError, Training

    torch.set_num_threads(1)
    device = devices.choose(settings)
    seeds, loss = json.loads(os.environ["SEEDS"]), None
    kinds: Any = {kind.lower(): True for kind in ("BUFFERS", "CODEBOOK", "PASSING", "MOVES") if kind in os.environ}
    model = network(seeds[settings.rank], **kinds)
    if "SCALES" in os.environ:
        model.register_buffer("scale", torch.full((2,), float(os.environ["SCALES"].split()[settings.rank])))
    stepper = Stepper(settings, device, noise(), model)
    group.join(settings, device)
    training = Training(settings, device, stepper.dataset, stepper)
    if "STOP" in os.environ:
        stepper.on_shards = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    if os.environ.get("BROKEN") == str(settings.rank):
        stepper.on_shards = lambda *_: model.get_buffer("1.running_mean").fill_(float("nan"))
    with contextlib.suppress(StoppedError):
        loss = training.run().evaluation["loss"]
    assert stepper.ema is not None
    return json.dumps([digest(stepper.model.state_dict()), digest(stepper.ema.state), loss])


def ends(
    folder: Path,
    *,
    seeds: tuple[int, int],
    trainer: Mapping[str, Any],
    storage: Mapping[str, Any] = STORAGE,
    **environment: str,
) -> list[Any]:
    """What two ranks say, one after the other. storage: the settings beside the trainer's."""
    spec = {"data": {"name": "digits"}, "precision": "fp32", "batchSize": 16, "shards": 2, "emaDecay": 0.5, "epochs": 1}
    job, port = {"trainer": {**spec, **trainer}, **storage}, free_port()
    ranks = [
        Rank(
            train, rank, port, job=job, SEEDS=json.dumps(seeds), EDGECLOUD_CHECKPOINT_DIR=str(folder / f"{rank}/saved"),
            EDGECLOUD_RESULTS_DIR=str(folder / f"{rank}/results"), **environment,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    with ended(*ranks):
        return [json.loads(said) if code == 0 else said for said, code in (rank.end() for rank in ranks)]


@pytest.mark.parametrize("sync", ["every", "local"])
def test_all_take_the_weights_that_rank_0_begins_with(tmp_path: Path, sync: str) -> None:
    """Also where another rank's have something that is no number, which is left out of means and of what is sent."""
    trainer = {"epochs": 2, "sync": {"mode": sync, "everySteps": 2}}
    same = ends(tmp_path / "same", seeds=(1, 1), trainer=trainer, STOP="yes", SCALES="1 1")
    apart = ends(tmp_path / "apart", seeds=(1, 2), trainer=trainer, STOP="yes", SCALES="1 inf")
    assert same[0] == same[1] == apart[0] == apart[1]
    if sync == "local":
        on = ends(tmp_path / "apart", seeds=(1, 2), trainer=trainer, SCALES="1 inf")
        assert on[0] == on[1] and on[0][2] is not None, "so it is when they go on"


def test_what_a_forward_moves_is_alike_after_each_exchange(tmp_path: Path) -> None:
    """With `sync: local`, also where nobody else asks for it: or a training that goes on from rank 0's checkpoint would
    be another one than the undisturbed."""
    trainer = {"epochs": 2, "sync": {"mode": "local", "everySteps": 1}, "deterministic": True}
    moved = {"CODEBOOK": "yes", "MOVES": "yes"}
    found = ends(tmp_path, seeds=(1, 1), trainer=trainer, storage={}, STOP="yes", **moved)
    assert found[0] == found[1]
    assert found[0][2] is None, "stopped"


@pytest.mark.parametrize("kind", ["BUFFERS", "CODEBOOK"])
def test_buffers_are_rank_0s_on_all(tmp_path: Path, kind: str) -> None:
    """In what is evaluated, and in the copies of the checkpoint that workers with storage of their own keep."""
    for more in ({"STOP": "yes"}, {}):
        found = ends(tmp_path, seeds=(1, 1), trainer={"epochs": 2}, **{kind: "yes"}, **more)
        assert found[0] == found[1], found
        step = 2 if more else 4
        copies = [read_manifest(tmp_path / f"{rank}/saved/step-{step}").weights_sha256 for rank in (0, 1)]
        assert copies[0] == copies[1]
    # Rank 0 alone knows that the first epoch's was not done at the stop.
    metrics = read_metrics(tmp_path / "0/results")
    assert [line["step"] for line in metrics if "validationAccuracy" in line] == [2, 4]


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0s_buffers_have_to_be_finite(tmp_path: Path, rank: int) -> None:
    """All ranks hear of it at the save; what another rank has in its own is nowhere to be seen."""
    for said in ends(tmp_path, seeds=(1, 1), trainer={"epochs": 2}, BUFFERS="yes", BROKEN=str(rank)):
        assert ("NonFiniteError" in said) == (rank == 0), said


@pytest.mark.parametrize(
    ("kind", "moved"), [("BUFFERS", "1.running_mean, 1.running_var"), ("CODEBOOK", "2.codes"), ("PASSING", "2.mean")]
)
def test_a_result_that_is_to_be_exact_has_no_such_buffers(tmp_path: Path, kind: str, moved: str) -> None:
    for said in ends(tmp_path, seeds=(1, 1), trainer={"deterministic": True}, **{kind: "yes"}):
        assert "SettingsError" in said
        assert f"its buffers or frozen parameters {moved}, and of these only BatchNorm's" in said
    for rank in (0, 1):
        assert not list((tmp_path / f"{rank}/saved").glob("step-*"))


def test_nor_with_local_steps_such_as_no_checkpoint_holds(tmp_path: Path) -> None:
    trainer = {"deterministic": True, "sync": {"mode": "local", "everySteps": 2}}
    for said in ends(tmp_path, seeds=(1, 1), trainer=trainer, PASSING="yes"):
        assert "SettingsError" in said
        assert "its buffers 2.mean, which no checkpoint holds: register them with persistent=True, or leave" in said


def test_without_such_buffers_nothing_is_exchanged() -> None:
    """There is no group here that could be asked."""
    from edgecloud_trainer import devices
    from edgecloud_trainer.steps import Stepper

    said = read({"EDGECLOUD_TRAINER": json.dumps({"trainer": {"data": {"name": "digits"}, "deterministic": True}})})
    said = replace(said, world_size=2)
    local = replace(said, trainer=said.trainer.model_copy(update={"sync": SyncSpec.parse({"mode": "local"})}))
    own_pace = network(0)
    own_pace[1].momentum = None  # type: ignore[union-attr]
    for settings, model, some in (
        (said, network(0), False), (said, network(0, buffers=True), True), (said, own_pace, False),
        (local, network(0), False), (local, own_pace, True),
    ):  # fmt: skip
        other = Unexchanged(Stepper(settings, devices.choose(settings), noise(), model))
        other.remember()
        if some:
            with pytest.raises(ValueError, match="process group has not been initialized"):
                other.bring_together()
        else:
            other.bring_together()
            other.look()


def test_a_digest_is_of_bits_and_names() -> None:
    def of(name: str = "a", value: Any = 0.0, dtype: torch.dtype = torch.float32) -> str:
        return digest({name: torch.tensor(value, dtype=dtype)})

    assert of() == of() == digest({"a": torch.zeros(())})
    assert len({of(), of("b"), of(value=-0.0), of(value=[0.0]), of(dtype=torch.float64), of(dtype=torch.int32)}) == 6
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert digest({"a": image}) == digest({"a": image.to(memory_format=torch.channels_last)})
