"""Schedule, optimisers, evaluation, results, seeds."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgecloud.api.trainer import OptimizerSpec, ScheduleSpec
from edgecloud.edge.intervals import wilson
from edgecloud_trainer import optimizers, results
from edgecloud_trainer.confusion import Confusion
from edgecloud_trainer.devices import GPUNotVisibleError, check_enough
from edgecloud_trainer.evaluation import Evaluation
from edgecloud_trainer.events import EventLog
from edgecloud_trainer.performance import FIRST_STEPS, Stopwatch
from edgecloud_trainer.schedule import factor
from edgecloud_trainer.settings import Settings, SettingsError, read
from edgecloud_trainer.steps import mixed


@given(
    st.sampled_from(["constant", "cosine", "triangular", "step"]), st.floats(0, 0.9), st.integers(1, 1000), st.data()
)
def test_schedule_stays_within_0_and_1(name: str, warmup: float, total: int, data: st.DataObject) -> None:
    spec = ScheduleSpec.parse({"name": name, "warmupFraction": warmup})
    step = data.draw(st.integers(0, total - 1))
    assert 0 <= factor(spec, step, total) <= 1


def test_schedules() -> None:
    triangle = ScheduleSpec.parse({"name": "triangular", "warmupFraction": 0.5})
    values = [factor(triangle, step, 100) for step in range(100)]
    assert max(values) == pytest.approx(0.99, abs=0.011)
    assert values.index(max(values)) in (49, 50)
    steps = ScheduleSpec.parse({"name": "step", "warmupFraction": 0.0})
    assert [factor(steps, step, 8) for step in range(8)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert factor(ScheduleSpec.parse({"name": "cosine"}), 99, 100) < 0.01
    usual = ScheduleSpec.parse({"name": "step"})
    drops = [step for step in range(1, 1000) if factor(usual, step, 1000) < factor(usual, step - 1, 1000)]
    assert drops == [525, 763], "of what follows the warm-up, as the field's description says"


def test_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    decayed, free = optimizers.groups(model, 0.1)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in free["params"])
    assert free["weight_decay"] == 0.0


class Scales(nn.Module):
    """What has several dimensions, and is a vector; and what is of one row or column, and is a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale = nn.LayerNorm([4, 6, 6]), nn.Parameter(torch.ones(4, 1, 1))
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3))
        self.by_channel = nn.Conv2d(4, 4, 1, groups=4, bias=False)
        self.gate = nn.Linear(4, 1, bias=False)
        self.gate.old = nn.utils.weight_norm(nn.Linear(4, 1, bias=False))  # type: ignore[no-untyped-call]
        self.steps = nn.GRU(1, 1)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_is_a_vector() -> None:
    model = Scales()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = ([names[id(p)] for p in group["params"]] for group in optimizers.groups(model, 0.1))
    assert decayed == [
        "conv.parametrizations.weight.original1", "by_channel.weight", "gate.weight", "gate.old.weight_v",
        "steps.weight_ih_l0", "steps.weight_hh_l0",
    ]  # fmt: skip
    assert free == [
        "scale", "norm.weight", "norm.bias", "conv.bias", "conv.parametrizations.weight.original0", "gate.old.weight_g",
        "steps.bias_ih_l0", "steps.bias_hh_l0",
    ]  # fmt: skip
    muon, _ = optimizers.build(model, OptimizerSpec.parse({"name": "muon"}), classes=10)
    assert [names[id(p)] for p in muon.param_groups[0]["params"]] == decayed[:-1]


def test_muons_decay_leaves_the_last_layer_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    hidden, rest = optimizers.build(model, OptimizerSpec.parse({"name": "muon", "weightDecay": 0.1}), classes=2)
    decays = {
        id(p): group["weight_decay"] for one in (hidden, rest) for group in one.param_groups for p in group["params"]
    }
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("classes", "last"), [(2, "0.weight"), (3, "2.weight")])
def test_muons_last_layer_may_have_been_made_first(classes: int, last: str) -> None:
    model = nn.Sequential(nn.Linear(5, 2), nn.Linear(9, 6), nn.Linear(6, 5))
    muon, sgd = optimizers.build(model, OptimizerSpec.parse({"name": "muon"}), classes=classes)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden, rest = ([names[id(p)] for group in one.param_groups for p in group["params"]] for one in (muon, sgd))
    assert rest == [last, "0.bias", "1.bias", "2.bias"]
    assert hidden == [name for name in ("0.weight", "1.weight", "2.weight") if name != last]


@given(st.integers(2, 24), st.integers(2, 24))
def test_muon_makes_directions_equal(rows: int, columns: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 100 + columns))
    values = torch.linalg.svdvals(optimizers.orthogonalised(matrix))
    assert float(values.max()) < 1.4


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_takes_the_form_of_momentum_that_is_asked_for(nesterov: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 2, bias=False))
    spec = {"name": "muon", "learningRate": 0.1, "momentum": 0.8, "nesterov": nesterov, "weightDecay": 0.0}
    muon, _ = optimizers.build(model, OptimizerSpec.parse(spec), classes=2)
    weight = model[0].weight
    buffer, expected = torch.zeros(4, 6), weight.detach().clone()
    for seed in range(3):
        weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        muon.step()
        buffer = 0.8 * buffer + weight.grad
        expected -= 0.1 * optimizers.orthogonalised(weight.grad + 0.8 * buffer if nesterov else buffer)
        assert torch.allclose(weight, expected, atol=1e-5)


def test_muon_goes_on_from_a_checkpoint_of_the_time_before_nesterov_was_asked_for() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    muon, _ = optimizers.build(model, OptimizerSpec.parse({"name": "muon", "nesterov": False}), classes=2)
    state = muon.state_dict()
    for group in state["param_groups"]:
        del group["nesterov"]
    optimizers.take_up(muon, state)
    assert muon.param_groups[0]["nesterov"] is True
    model[0].weight.grad = torch.ones(3, 3)
    muon.step()


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_optimisers_learn(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    images = torch.randn(64, 1, 8, 8)
    labels = (images.mean((1, 2, 3)) > 0).long()
    spec = OptimizerSpec.parse({"name": name, "learningRate": 0.02})
    built = optimizers.build(model, spec, classes=2)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(images), labels)
        for optimizer in built:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in built:
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 1023))
def test_seeds_differ(seed: int, step: int, shard: int) -> None:
    found = mixed(seed, step, shard)
    assert 0 <= found < 2**63
    assert found == mixed(seed, step, shard)
    assert len({found, mixed(seed, step + 1, shard), mixed(seed, step, shard + 1)}) == 3


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_interval_holds_the_proportion(correct: int, total: int) -> None:
    correct = min(correct, total)
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total + 1e-9
    assert correct / total - 1e-9 <= high <= 1


def evaluation() -> Evaluation:
    return Evaluation(classes=("cat", "dog"), confusion=Confusion.of(np.array([[8, 2], [1, 9]])), loss=0.5)


def test_evaluation_counts() -> None:
    said = evaluation().to_json()
    assert (said["correct"], said["total"], said["accuracy"]) == (17, 20, 0.85)
    assert said["perClass"]["cat"] == {"total": 10, "correct": 8, "accuracy": 0.8}
    assert json.loads(json.dumps(said)) == said


def test_a_class_without_images_has_no_accuracy() -> None:
    said = Evaluation(classes=("cat", "eel"), confusion=Confusion.of(np.array([[0, 2], [0, 0]])), loss=0.5).to_json()[
        "perClass"
    ]
    assert said["cat"] == {"total": 2, "correct": 0, "accuracy": 0.0}
    assert said["eel"] == {"total": 0, "correct": 0, "accuracy": None}


def test_pictures_are_pictures(tmp_path: Path) -> None:
    results.draw_confusion(evaluation(), tmp_path / "confusion.png")
    metrics = [{"step": n, "seconds": n / 2, "loss": 1 / n, "accuracy": 1 - 1 / n} for n in range(1, 40)]
    results.draw_curves([*metrics, {"step": 39, "validationAccuracy": 0.9}], tmp_path / "curves.png")
    for name in ("confusion.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [r"$\q$", "5 $ or $ 6", "two\nlines", "\x00", "x" * 255])
def test_a_class_may_have_any_name(name: str, tmp_path: Path) -> None:
    odd = Evaluation(classes=("cat", name), confusion=Confusion.of(np.array([[8, 2], [1, 9]])), loss=0.5)
    results.draw_confusion(odd, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    log = results.MetricsLog(tmp_path, start=0)
    for step in range(1, 11):
        log.write(step=step, seconds=2.0 * step, loss=float(step))
    log.close()
    with (tmp_path / results.METRICS).open("a") as handle:
        handle.write('{"step": 11, "lo')  # what a crash leaves
    again = results.MetricsLog(tmp_path, start=7)
    again.write(step=8, seconds=1.5, loss=0.0)
    again.close()
    assert [line["step"] for line in results.read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert results.read_metrics(tmp_path)[-1]["seconds"] == 14 + 1.5, "the time of training adds up"


@pytest.mark.parametrize("steps", [0, FIRST_STEPS])
def test_a_speed_that_was_not_measured_is_left_out(steps: int) -> None:
    """After a restart at the very end; 0 images a second, all of it at an efficiency of 1, would be shown."""
    watch = Stopwatch()
    for _ in range(steps):
        watch.add(samples=10, seconds=1.0, data_seconds=0.1, wait_seconds=0.2)
    assert watch.to_json(world_size=2, threads=1) == {"steps": steps, "worldSize": 2, "threads": 1}
    watch = Stopwatch()
    for _ in range(FIRST_STEPS + 2):
        watch.add(samples=10, seconds=1.0, data_seconds=0.1, wait_seconds=0.2)
    assert watch.to_json(world_size=2, threads=1) == {
        "samplesPerSecond": 10.0, "samplesPerSecondPerRank": 5.0, "steps": FIRST_STEPS + 2, "dataFraction": 0.1,
        "communicationFraction": 0.2, "scalingEfficiency": 0.8, "worldSize": 2, "threads": 1,
    }  # fmt: skip


def test_settings_say_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="EDGECLOUD_TRAINER is not set"):
        read({})
    with pytest.raises(SettingsError, match="EDGECLOUD_TRAINER"):
        read({"EDGECLOUD_TRAINER": '{"trainer": {"epochs": -1}}'})


def test_settings_say_that_there_are_too_few_shards() -> None:
    """The server counts GPUs that are written strangely as one, so that a rank may be the first to see it."""
    said = {"EDGECLOUD_TRAINER": '{"trainer": {"data": {"name": "digits"}}}'}
    assert read(said | {"WORLD_SIZE": "12"}).world_size == 12
    with pytest.raises(SettingsError, match=r"^trainer\.shards: 16 ranks need at least 16 shards, not 12: write more"):
        read(said | {"WORLD_SIZE": "16"})


@pytest.mark.parametrize(
    ("asked", "seen", "wrong"),
    [
        ({"gpus": 1, "wholeGpus": 1}, 1, SettingsError),
        ({"gpus": 2}, 1, SettingsError),  # two slices, of which a process sees one
        ({}, 1, SettingsError),  # device: cuda, and a machine's GPU that nobody asked for
        ({"gpus": 2, "wholeGpus": 2}, 1, GPUNotVisibleError),  # the node has lost one
        ({"gpus": 1, "wholeGpus": 1}, 0, GPUNotVisibleError),
        ({"gpus": 2, "wholeGpus": 2}, 2, None),
    ],
)
def test_more_processes_than_gpus_is_for_the_user_to_mend(
    asked: dict[str, int], seen: int, wrong: type[Exception] | None
) -> None:
    """The node's driver and device plugin are right, and another try comes to the same."""
    said = json.dumps({"trainer": {"data": {"name": "digits"}}, **asked})
    second = read({"EDGECLOUD_TRAINER": said, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    says = "lower processesPerWorker" if wrong is SettingsError else "device plugin"
    with pytest.raises(wrong, match=says) if wrong else nullcontext():
        check_enough(second, seen)


def test_settings_say_what_is_exported() -> None:
    def said(**more: object) -> Settings:
        return read({"EDGECLOUD_TRAINER": json.dumps({"trainer": {"data": {"name": "digits"}}, **more})})

    assert said().export is None
    export = said(export={"formats": ["onnx-int8"], "destination": "file:///there"}).export
    assert export is not None and (export.formats, export.destination) == (("onnx-int8",), "file:///there")
    assert said().digest == said(export={}).digest  # the same training
    with pytest.raises(SettingsError, match="EDGECLOUD_TRAINER"):
        said(export={"formats": ["exe"]})


def test_digest_is_of_what_makes_the_training() -> None:
    def said(**trainer: object) -> str:
        spec = {"data": {"name": "digits"}, **trainer}
        return read({"EDGECLOUD_TRAINER": json.dumps({"trainer": spec})}).digest

    assert said() == said(sampleLog=True) == said(tensorboard=True)
    assert said() != said(seed=1)
    assert said() == said(epochs=10), "a default that is written out is no other training"


def test_a_digest_of_an_earlier_release() -> None:
    """Checkpoints lie about that have it."""
    spec = {"data": {"name": "digits"}}
    plain, written = (
        read({"EDGECLOUD_TRAINER": json.dumps({"trainer": {**spec, **more}})})
        for more in ({}, {"optimizer": {"name": "sgd"}})
    )
    assert plain.digest == "a3bc9749a5d07d53c27f6c28be907a79e6a376da95faa11b83b1cf27e184f483"
    assert written.digest == "8e4dbe94c68fac40cd828fbba6e477681ddcf7a208be93de7ec2b46c4d6e954a"
    assert plain.digests == written.digests and len(plain.digests) == 8


def test_adamw_has_a_rate_of_its_own() -> None:
    """With the others' 0.1 a network ended at chance. A training that began so is another one, and not changed in its
    middle; the server fills in neither, for it would not look at the name."""

    def said(**optimizer: object) -> Settings:
        spec = {"data": {"name": "digits"}, "optimizer": optimizer}
        return read({"EDGECLOUD_TRAINER": json.dumps({"trainer": spec})})

    for name, rate in (("adamw", 0.001), ("sgd", 0.1), ("muon", 0.1)):
        one = said(name=name)
        assert one.optimizer.learning_rate == rate
        assert one.digest == said(name=name, learningRate=rate).digest
    assert said(name="adamw", learningRate=0.1).optimizer.learning_rate == 0.1
    assert said(name="adamw", learningRate=0.1).digest not in said(name="adamw").digests
    assert OptimizerSpec(name="adamw").learning_rate == 0.001
    assert "default" not in OptimizerSpec.model_json_schema(by_alias=True)["properties"]["learningRate"]


def test_tensorboard_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboardX", "tensorboardX.event_file_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"pip install '\.\[tensorboard\]'"):
        EventLog(tmp_path, start=0)


@pytest.mark.parametrize(("threads", "expected"), [("3", 3), ("2,1", 2), (" 4 , 2", 4), ("", 1), ("0", 0), ("many", 0)])
def test_openmps_number_of_threads(threads: str, expected: int) -> None:
    environment = {"EDGECLOUD_TRAINER": json.dumps({"trainer": {"data": {"name": "digits"}}})}
    environment["OMP_NUM_THREADS"] = threads
    if expected:
        assert read(environment).threads == expected
    else:
        with pytest.raises(SettingsError, match=r"^OMP_NUM_THREADS: '\w+' is no number of threads: write one from 1"):
            read(environment)
