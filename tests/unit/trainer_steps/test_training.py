"""A whole training of one rank in this process: what goes into a checkpoint, and what must not."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecloud.api.spec import ExportSpec, StorageSpec
from edgecloud.api.trainer import DataSpec
from edgecloud_trainer import data, devices, models
from edgecloud_trainer.checkpoints import CheckpointMismatchError, CheckpointStore, flatten
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.devices import Device
from edgecloud_trainer.export.delivery import DestinationError
from edgecloud_trainer.group import MixtureError, refuse_other_data
from edgecloud_trainer.models import ModelError
from edgecloud_trainer.ready import make_ready
from edgecloud_trainer.results import read_metrics
from edgecloud_trainer.settings import Settings, SettingsError, read
from edgecloud_trainer.shards import even
from edgecloud_trainer.state import held, take_up
from edgecloud_trainer.steps import NonFiniteError, Stepper
from edgecloud_trainer.training import StoppedError, Training
from tests.unit.trainer.pictures import encoded, pixels, tree, write


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = tmp_path_factory.mktemp("data")
    return data.load(settings(cache).trainer.data, seed=0, cache=cache)


@pytest.fixture(autouse=True)
def _own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def settings(folder: Path, **trainer: Any) -> Settings:
    spec = {"data": {"name": "digits"}, "batchSize": 480, "epochs": 2, "precision": "fp32", **trainer}
    return read(
        {
            "EDGECLOUD_TRAINER": json.dumps({"trainer": spec}),
            "EDGECLOUD_CHECKPOINT_DIR": str(folder / "checkpoints"),
            "EDGECLOUD_RESULTS_DIR": str(folder / "results"),
        }
    )


def training(
    said: Settings, dataset: Dataset, device: Device | None = None, *, model: nn.Module | None = None
) -> tuple[Training, Stepper]:
    """model: another one than the article's."""
    device = device or devices.choose(said)
    torch.manual_seed(0)
    channels, height, width = dataset.shape
    if model is None:
        model = models.build("article-cnn", classes=len(dataset.classes), channels=channels, height=height, width=width)
        models.initialise(model, dataset.train.pixels, mean=dataset.mean, std=dataset.std)
    stepper = Stepper(said, device, dataset, model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return Training(said, device, dataset, stepper), stepper


def at(number: int, do: Callable[[], object]) -> Callable[..., None]:
    def told(step: int, _shards: object) -> None:
        if step == number:
            do()

    return told


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fp16(said: Settings) -> Device:
    """As on a GPU without bf16; a CPU does it too, slowly."""
    return replace(devices.choose(said), autocast=torch.float16)


def test_how_far_the_loss_is_scaled_goes_on(digits: Dataset, tmp_path: Path) -> None:
    said = settings(tmp_path)
    first, stepper = training(said, digits, fp16(said))
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 512.0})
    stepper.on_shards = at(1, stop)
    with pytest.raises(StoppedError, match="after step 3"):
        first.run()
    before = stepper.scaler.state_dict()
    assert (before["scale"], before["_growth_tracker"]) == (512.0, 3)
    second, stepper = training(said, digits, fp16(said))
    second.run()
    after = stepper.scaler.state_dict()
    assert (after["scale"], after["_growth_tracker"]) == (512.0, stepper.total_steps)


@pytest.mark.parametrize("sync", [{"mode": "every"}, {"mode": "local", "everySteps": 2}], ids=lambda sync: sync["mode"])
def test_the_mean_of_the_weights_goes_on(digits: Dataset, tmp_path: Path, sync: dict[str, Any]) -> None:
    """After a stop it is the undisturbed one, to the last bit; and it is of the trained weights."""
    said = settings(tmp_path, epochs=3, deterministic=True, emaDecay=0.999, sync=sync)
    _, whole = training(said, digits)
    begin = {name: value.clone() for name, value in whole.model.named_parameters()}
    for number in range(whole.total_steps):
        whole.step(number, even(said.trainer.shards, 1))
    first, stepper = training(said, digits)
    stepper.on_shards = at(1, stop)
    with pytest.raises(StoppedError, match=r"after step [34]"):
        first.run()
    second, stepper = training(said, digits)
    second.run()
    assert whole.ema is not None and stepper.ema is not None
    for name, value in whole.ema.state.items():
        assert torch.equal(value, stepper.ema.state[name]), name
    for name, value in whole.model.named_parameters():
        assert (whole.ema.state[name] - value).norm() < 0.7 * (begin[name] - value).norm(), name


def test_a_checkpoint_that_scaled_nothing(digits: Dataset, tmp_path: Path) -> None:
    said = settings(tmp_path)
    first, stepper = training(said, digits)
    stepper.on_shards = at(0, stop)
    with pytest.raises(StoppedError):
        first.run()
    second, stepper = training(said, digits, fp16(said))
    second.run()
    assert stepper.scaler.get_scale() == 65536.0


def test_a_scaled_loss_that_is_not_finite(digits: Dataset, tmp_path: Path) -> None:
    said = settings(tmp_path)
    one, stepper = training(said, digits, fp16(said))
    stepper.on_shards = at(1, lambda: next(stepper.model.parameters()).data.fill_(float("nan")))
    with pytest.raises(NonFiniteError):
        one.run()


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        ({"precision": "fp16", "deterministic": True}, r"precision: fp16 doesn't go with .*: write bf16 or fp32$"),
        ({"precision": "fp16", "device": "cpu"}, r"precision: fp16 needs CUDA, .*: write bf16, fp32 or auto$"),
        ({"shards": 12, "batchSize": 11}, r"shards: .* \(12 shards, batchSize 11\): write a larger"),
    ],
)
def test_a_rank_refuses_what_the_server_would(trainer: dict[str, Any], says: str, tmp_path: Path) -> None:
    """The server may have stored the job before it had the rule."""
    with pytest.raises(SettingsError, match=rf"^trainer\.{says}"):
        make_ready(settings(tmp_path, **trainer))


@pytest.mark.parametrize(("side", "augment"), [(2, "flip"), (3, "flip-crop"), (2, "flip-crop")])
def test_images_that_are_too_small_to_be_shifted(tmp_path: Path, side: int, augment: str) -> None:
    """It was a traceback in the first step."""
    images = np.zeros((4, side, side), np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=np.arange(4) % 2, x_test=images, y_test=np.arange(4) % 2)
    source = {"source": str(tmp_path / "set.npz"), "augment": augment}
    said = settings(tmp_path, data=source, model=f"{__name__}:flat", batchSize=12)
    if (side, augment) == (2, "flip-crop"):
        with pytest.raises(SettingsError, match=r"^trainer\.data\.augment: images of 2x2 pixels are too small to be"):
            make_ready(said)
    else:
        make_ready(said)


def flat(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))


@pytest.mark.parametrize("destination", ["", "models/", "file://models", "s3://models/run#3"])
def test_a_rank_refuses_a_destination_that_the_server_would(destination: str, tmp_path: Path) -> None:
    said = replace(settings(tmp_path), export=ExportSpec(destination=destination))
    with pytest.raises(DestinationError, match=r"^export\.destination: this is neither .* a folder: write /folder, "):
        make_ready(said)


def test_a_destination_is_tried_before_the_first_step_and_not_again(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    said = replace(settings(tmp_path, epochs=3), export=ExportSpec(destination=f"file://{tmp_path}/file"))
    first, stepper = training(said, digits)
    with pytest.raises(DestinationError, match=r"^export\.destination: .*/file can't be written to"):
        first.run()
    assert not list(said.checkpoints.iterdir()) and not (tmp_path / "results").exists()
    good = replace(said, export=ExportSpec(destination=str(tmp_path / "made")))
    first, stepper = training(good, digits)
    stepper.on_shards = at(0, stop)
    with pytest.raises(StoppedError):
        first.run()
    assert (tmp_path / "made").is_dir()
    again, stepper = training(said, digits)
    stepper.on_shards = at(stepper.total_steps - 3, stop)
    with pytest.raises(StoppedError):  # now it is the export's to say, which is tried again
        again.run()


def test_deterministic_takes_no_fp16(tmp_path: Path) -> None:
    auto = settings(tmp_path, precision="auto", deterministic=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "_good", lambda _device: torch.float16)
        assert devices.choose(auto).autocast is None
        assert devices.choose(settings(tmp_path, precision="auto")).autocast is torch.float16


@pytest.mark.parametrize("when", ["at its time", "at a stop", "at the end"])
def test_weights_that_are_not_finite_are_not_saved(digits: Dataset, tmp_path: Path, when: str) -> None:
    """The gradients of the last step before were not, and the loss, which was computed before that, was."""
    said = settings(tmp_path)
    said = replace(said, storage=StorageSpec.parse({"checkpointIntervalSteps": 1}))
    one, stepper = training(said, digits)
    bad = stepper.total_steps if when == "at the end" else 3
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == bad:
            list(stepper.model.parameters())[-1].data[0] = float("inf")

    stepper.optimizers[-1].register_step_post_hook(count)
    if when == "at a stop":
        stepper.on_shards = at(bad - 2, stop)
    with pytest.raises(NonFiniteError, match="a weight"):
        one.run()
    loaded = CheckpointStore(said.checkpoints, round=2, keep=3, digest=said.digest).choose()
    assert loaded is not None and loaded.step == bad - 1
    assert not (tmp_path / "results/evaluation.json").exists()


class Masked(nn.Module):
    """Looks at half of the image, as a mask of -inf, a constant buffer, says, and moves a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.zeros(64))
        self.norm = nn.BatchNorm1d(64)
        self.last = nn.Linear(64, 10)
        self.register_buffer("mask", torch.where(torch.arange(64) < 32, 0.0, float("-inf")))
        self.bars = nn.Parameter(self.mask.clone(), requires_grad=False)
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.lerp_(x.flatten(1).mean(0), 0.1)
        bars = self.mask + self.bars
        y: torch.Tensor = self.last(self.norm(64 * torch.softmax(self.score + bars, 0) * x.flatten(1)))
        return y


@pytest.mark.parametrize("sync", ["every", "local"])
def test_a_constant_infinity_is_no_trouble_of_the_training(digits: Dataset, tmp_path: Path, sync: str) -> None:
    said = settings(tmp_path, emaDecay=0.5, sync={"mode": sync, "everySteps": 2})
    said = replace(said, storage=StorageSpec.parse({"checkpointIntervalSteps": 1}))
    one, stepper = training(said, digits, model=Masked())
    finished = one.run()
    assert math.isfinite(finished.evaluation["loss"])
    assert stepper.ema is not None
    for state in (stepper.model.state_dict(), stepper.ema.state):
        assert torch.equal(state["mask"], Masked().mask)
        assert bool(torch.isfinite(state["norm.running_var"]).all())


@pytest.mark.parametrize("name", ["score", "norm.running_mean", "norm.running_var", "mean"])
@pytest.mark.parametrize("mean", [False, True])
def test_whatever_a_step_moves_is_looked_at(digits: Dataset, tmp_path: Path, name: str, mean: bool) -> None:
    _, stepper = training(settings(tmp_path, emaDecay=0.5), digits, model=Masked())
    stepper.check_weights()
    assert stepper.ema is not None
    (stepper.ema.state if mean else stepper.model.state_dict())[name][3] = float("nan")
    with pytest.raises(NonFiniteError):
        stepper.check_weights()


def test_a_checkpoint_under_way_survives_the_end_of_its_training(digits: Dataset, tmp_path: Path) -> None:
    """Another rank dies while it is being written."""
    said = replace(settings(tmp_path), storage=StorageSpec.parse({"checkpointIntervalSteps": 1}))
    one, stepper = training(said, digits)

    def break_off() -> None:
        raise RuntimeError("connection closed by peer")

    stepper.on_shards = at(1, break_off)
    with pytest.raises(RuntimeError, match="by peer"):
        one.run()
    assert (said.checkpoints / "step-1/manifest.json").exists()


def validated(said: Settings) -> list[float]:
    """The steps that metrics.jsonl has a validation of."""
    return [line["step"] for line in read_metrics(said.results) if "validationAccuracy" in line]


@pytest.mark.parametrize("sync", ["every", "local"])
@pytest.mark.parametrize("ends", ["a stop", "a crash meanwhile", "a crash afterwards"])
def test_each_epoch_is_validated_once(digits: Dataset, tmp_path: Path, sync: str, ends: str) -> None:
    """Also one at whose end, with a checkpoint but before it was validated, the training ends for now."""
    said = settings(tmp_path, sync={"mode": sync, "everySteps": 2})
    said = replace(said, storage=StorageSpec.parse({"checkpointIntervalSteps": 1}))
    dataset = replace(digits, validation=digits.test)
    first, stepper = training(said, dataset)
    assert stepper.steps_per_epoch == 2

    def break_off(model: nn.Module | None = None, _: object = None) -> None:
        if model is None or not model.training:
            raise RuntimeError("broken off")

    if ends == "a stop":
        stepper.on_shards = at(0, stop)
    elif ends == "a crash afterwards":
        stepper.on_shards = at(2, break_off)
    else:
        stepper.model.register_forward_pre_hook(break_off)
    with pytest.raises((StoppedError, RuntimeError), match=r"stopped after step 2|broken off"):
        first.run()
    assert validated(said) == ([2] if ends == "a crash afterwards" else [])
    second, _ = training(said, dataset)
    second.run()
    assert validated(said) == [2, 4]


@pytest.mark.parametrize("deterministic", [True, False])
def test_going_on_with_other_images(
    digits: Dataset, tmp_path: Path, deterministic: bool, caplog: pytest.LogCaptureFixture
) -> None:
    said = settings(tmp_path, deterministic=deterministic)
    first, stepper = training(said, digits)
    stepper.on_shards = at(0, stop)
    with pytest.raises(StoppedError):
        first.run()
    drawn = replace(digits, digest="0" * 64)
    with pytest.raises(MixtureError, match="other images"):
        training(said, drawn)[0].run()
    second, stepper = training(said, replace(drawn, held_back=()))  # with a test/ of its own
    if deterministic:
        with pytest.raises(MixtureError, match="other images"):
            second.run()
    else:
        second.run()
        assert "other images (54fec06640e8d43c) than those at hand (0000000000000000)" in caplog.text


def test_going_on_with_images_that_were_drawn_anew(digits: Dataset, tmp_path: Path) -> None:
    """One more image in a folder, and those held back for the test are others, most of them trained on by then."""
    root = write(tmp_path / "pets", tree({"cat": 12, "dog": 12}))
    before = data.load(DataSpec(source=str(root)), seed=0, cache=tmp_path / "cache")
    (root / "cat" / "!.png").write_bytes(encoded(pixels(99)))
    after = data.load(DataSpec(source=str(root), validation_fraction=0.2), seed=0, cache=tmp_path / "cache")
    assert set(after.names["test"]) - set(before.names["test"])
    assert (digits.held_back, before.held_back, after.held_back) == (("test",), ("test",), ("validation", "test"))
    with pytest.raises(MixtureError, match=r"validation and test images are held back from these .*--fresh, or a job"):
        refuse_other_data(before.digest, after.digest, settings(Path()), held_back=after.held_back)
    refuse_other_data(before.digest, before.digest, settings(Path()), held_back=before.held_back)
    own = write(tmp_path / "own", tree({"train/cat": 1, "train/dog": 1, "test/cat": 1}))
    assert data.load(DataSpec(source=str(own)), seed=0, cache=tmp_path / "cache").held_back == ()


def test_going_on_with_a_default_written_out(digits: Dataset, tmp_path: Path) -> None:
    """Or taken out again: it was another configuration."""
    first, stepper = training(settings(tmp_path), digits)
    stepper.on_shards = at(0, stop)
    with pytest.raises(StoppedError):
        first.run()
    for spec in ({"optimizer": {"name": "sgd"}, "schedule": {}}, {"sync": {}}, {}):
        again, stepper = training(settings(tmp_path, **spec), digits)
        steps: list[int] = []
        stepper.on_shards = lambda step, _, steps=steps: steps.append(step)
        again.run()
        assert steps == ([2, 3] if "schedule" in spec else [])
    other, _ = training(settings(tmp_path, optimizer={"momentum": 0.8}), digits)
    with pytest.raises(CheckpointMismatchError):
        other.run()


def network(change: str = "") -> nn.Module:
    hidden = 24 if change == "wide" else 16
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, 10))
    if change == "more":
        model.append(nn.Linear(10, 10))
    elif change == "less":
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    elif change == "frozen":
        model[1].requires_grad_(False)
    elif change == "half frozen":
        model[2].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("more", "it lacks 3.weight, 3.bias): put its code back and go on with a copy of checkpoints/ in another"),
        ("less", "there is no more 2.bias, 2.weight; other shapes: 1.weight [16, 64], now [10, 64], 1.bias [16], now"),
        ("wide", "other shapes: 1.weight [16, 64], now [24, 64], 1.bias [16], now [24], 2.weight [10, 16], now"),
        ("frozen", "other parameters are trained): put"),
        ("half frozen", "other parameters are trained): put"),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_going_on_with_another_network(digits: Dataset, tmp_path: Path, change: str, says: str, optimizer: str) -> None:
    """Its code has been changed meanwhile: a traceback, until no restart was left."""
    said = settings(tmp_path, model="own:net", optimizer={"name": optimizer})
    first, stepper = training(said, digits, model=network())
    stepper.on_shards = at(0, stop)
    with pytest.raises(StoppedError):
        first.run()
    second, _ = training(said, digits, model=network(change))
    with pytest.raises(ModelError) as caught:
        second.run()
    step = json.loads(next(said.checkpoints.glob("step-*/manifest.json")).read_text())["step"]
    assert str(caught.value).startswith(f"step-{step} is of another network than own:net makes now ({says}")
    third, _ = training(said, digits, model=network())
    third.run()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_going_on_from_a_release_that_took_scales_for_matrices(digits: Dataset, tmp_path: Path, optimizer: str) -> None:
    """What was kept of each parameter is its own in today's groups, whichever optimiser that is of."""
    said = settings(tmp_path, optimizer={"name": optimizer})
    made = (nn.Conv2d(1, 4, 3), nn.LayerNorm([4, 6, 6]), nn.Conv2d(4, 1, 1), nn.Flatten(), nn.Linear(36, 10))
    _, stepper = training(said, digits, model=nn.Sequential(*made))
    named = dict(stepper.model.named_parameters())
    tensors, rest, _ = held(stepper)
    kept = {name: torch.full_like(parameter, place + 1.0) for place, (name, parameter) in enumerate(named.items())}
    wide = [name for name in named if named[name].ndim >= 2]
    flat = [name for name in named if named[name].ndim < 2]
    grouped = [[wide[:-1]], [wide[-1:] + flat]] if optimizer == "muon" else [[wide, flat]]
    for place, groups in enumerate(grouped):
        of_then = torch.optim.SGD([{"params": [named[name] for name in group]} for group in groups])
        for name in itertools.chain(*groups):
            of_then.state[named[name]] = {"momentum_buffer": kept[name], "step": torch.tensor(1.0)}
        flattened, rest[f"optimizer{place}"] = flatten(f"optimizer{place}", of_then.state_dict())
        tensors |= flattened
    decays = [[group["weight_decay"] for group in one.param_groups] for one in stepper.optimizers]
    take_up(stepper, tensors, rest)
    assert decays == [[group["weight_decay"] for group in one.param_groups] for one in stepper.optimizers]
    found = {one: values for each in stepper.optimizers for one, values in each.state.items()}
    assert len(found) == len(named)
    assert all(torch.equal(found[named[name]]["momentum_buffer"], kept[name]) for name in named)
    assert any(named["1.weight"] is one for one in stepper.optimizers[-1].param_groups[-1]["params"])


def test_going_on_from_a_release_with_another_order(digits: Dataset, tmp_path: Path) -> None:
    """Its momentum would be another parameter's; and the code may be the same as then."""
    _, stepper = training(settings(tmp_path), digits, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    tensors, rest, _ = held(stepper)
    other = torch.optim.SGD([{"params": [one]} for one in reversed(list(stepper.model.parameters()))])
    other.state[other.param_groups[0]["params"][0]] = {"momentum_buffer": torch.zeros(10)}
    flattened, rest["optimizer0"] = flatten("optimizer0", other.state_dict())
    with pytest.raises(
        ModelError,
        match=r"in another order, as by an earlier release\): put its code back or take the image of the release",
    ):
        take_up(stepper, tensors | flattened, rest)


class Bars(nn.Linear):
    """Takes no image for the last class, once it is trained."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().forward(input.flatten(1))
        return logits if self.training else logits.index_fill(1, torch.tensor([9]), float("-inf"))


def test_a_loss_that_json_has_no_number_for(digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = settings(tmp_path, epochs=1)
    one, _ = training(said, digits, model=Bars(64, 10))
    one.run()
    for name in ("results/evaluation.json", "checkpoints/done.json"):
        assert "Infinity" not in (tmp_path / name).read_text()
    assert json.loads((said.results / "evaluation.json").read_text())["loss"] is None
    assert "the loss on the test images is not finite" in caplog.text


def test_a_checkpoint_that_says_nothing_of_its_images() -> None:
    refuse_other_data(None, "a" * 64, settings(Path(), deterministic=True))


def test_an_end_with_very_many_classes(digits: Dataset, tmp_path: Path) -> None:
    """Their confusion matrix would not fit into the mark that it is done."""
    said = settings(tmp_path, epochs=1)
    many = replace(digits, classes=tuple(f"class number {number}" for number in range(400)))
    first, _ = training(said, many)
    finished = first.run()
    written = json.loads((said.results / "evaluation.json").read_text())
    assert written["accuracy"] == finished.evaluation["accuracy"] and len(written["confusion"]) == 400
    again, _ = training(said, many)
    known = again.run().evaluation
    assert [known[name] for name in ("accuracy", "correct", "total")] == [
        written[name] for name in ("accuracy", "correct", "total")
    ]
    assert (said.checkpoints / "done.json").stat().st_size < 4096
