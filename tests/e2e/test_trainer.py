"""The built-in trainer through `edgecloud run`: real ranks, real data, and results that nothing can move."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgecloud.api.job import TrainingJob
from tests.e2e.local import ROOT, Run, run, wait_for
from tests.unit.once import once

DIGITS = ROOT / "manifests/examples/digits.yaml"


def job(*, epochs: int = 4, **trainer: Any) -> dict[str, Any]:
    """A short training on the digits, with the sample log on."""
    said: dict[str, Any] = yaml.safe_load(DIGITS.read_text())
    said["spec"]["trainer"] |= {"epochs": epochs, "sampleLog": True, **trainer}
    said["spec"]["storage"] = {"checkpointIntervalSteps": 5}
    return said


EXACT = job(
    epochs=8,
    deterministic=True,
    model="dropout_net:build",
    shards=6,
    data={"name": "digits", "augment": "flip-crop"},
    emaDecay=0.9,
    precision="bf16",
    optimizer={"momentum": 0.9, "gradientClipNorm": 5.0},
)
EXACT["spec"]["restartPolicy"] = {"maxRestarts": 20}


def exact(folder: Path, *, workers: int) -> AbstractContextManager[Run]:
    """A deterministic training: batch norm, dropout, augmentation, EMA, momentum, clipping, bf16."""
    return run(folder, EXACT, "--workers", str(workers), env={"PYTHONPATH": str(ROOT / "tests/e2e/models")})


def weights(finished: Run) -> str:
    checkpoint = finished.status.checkpoint
    assert checkpoint is not None
    assert checkpoint.weights_sha256 is not None
    return checkpoint.weights_sha256


def samples(finished: Run) -> dict[int, list[int]]:
    """Sample ids by step, as the last round that did the step saw them; what a crash cut off was done again."""
    rounds: dict[int, int] = {}
    seen: dict[tuple[int, int], dict[int, list[int]]] = {}
    for file in (finished.folder / "results").glob("rank-*-samples.jsonl"):
        for text in file.read_text().splitlines():
            line = json.loads(text)
            step, number = line["step"], line["round"]
            shards = seen.setdefault((step, number), {})
            assert line["shard"] not in shards, (
                f"shard {line['shard']} of step {step} was computed twice in round {number}"
            )
            shards[line["shard"]] = line["ids"]
            rounds[step] = max(rounds.get(step, 0), number)
    return {
        step: [sample for _, ids in sorted(seen[step, number].items()) for sample in ids]
        for step, number in sorted(rounds.items())
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[int, list[int]]]:
    """Weights and sample log of a deterministic run with one worker that nothing happened to."""

    def train(file: Path) -> None:
        with exact(file.parent / "work", workers=1) as first:
            assert first.end(within=240) == 0, first.output()
            log = samples(first)
            assert list(log) == list(range(len(log)))
            file.write_text(json.dumps({"weights": weights(first), "samples": list(log.values())}))

    said = json.loads(once(tmp_path_factory, "undisturbed.json", train).read_text())
    return said["weights"], dict(enumerate(said["samples"]))


def test_the_quickstart(tmp_path: Path) -> None:
    with run(tmp_path / "work", DIGITS, "-o", "json") as digits:
        assert digits.end(within=240) == 0, digits.output()
        status = TrainingJob.parse(json.loads(digits.stdout())).status
        assert status is not None
        assert (status.phase, status.restarts) == ("Succeeded", 0)
        assert status.evaluation and status.evaluation.accuracy and status.evaluation.accuracy >= 0.97
        assert status.performance and status.performance["samplesPerSecond"] > 0
        assert status.progress and status.progress.percent == 100.0
        assert len(weights(digits)) == 64
        results = tmp_path / "work/results"
        evaluation = json.loads((results / "evaluation.json").read_text())
        assert evaluation["accuracy"] == status.evaluation.accuracy
        assert sum(map(sum, evaluation["confusion"])) == evaluation["total"]
        assert {path.name for path in results.iterdir()} >= {
            "evaluation.json", "performance.json", "metrics.jsonl", "curves.png", "confusion.png",
        }  # fmt: skip
        metrics = [json.loads(line) for line in (results / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in metrics] == list(
            range(1, status.progress.step + 1 if status.progress.step else 0)
        )
        assert len(list((tmp_path / "work/checkpoints").glob("step-*"))) == 3


def test_what_the_folder_holds(tmp_path: Path) -> None:
    """A training that is finished stays so if its status is lost; another one is refused there, or begins afresh."""
    alone = ("--workers", "1")  # nothing here depends on how many
    with run(tmp_path / "work", job(epochs=1), *alone) as first:
        assert first.end(within=240) == 0, first.output()
        evaluation = first.status.evaluation
    [decoded] = (tmp_path / "work/data").glob("digits-*.images")
    before = decoded.stat()

    (tmp_path / "work/job.yaml").unlink()
    with run(tmp_path / "work", job(epochs=1), *alone) as again:
        assert again.end(within=240) == 0, again.output()
        assert again.status.evaluation == evaluation
        assert "has finished this training" in (tmp_path / "work/logs/worker-0.log").read_text()

    (tmp_path / "work/job.yaml").unlink()
    with run(tmp_path / "work", job(epochs=2), *alone) as other:
        assert other.end(within=120) == 1, other.output()
        failure = other.status.last_failure
        assert failure and failure.reason == "BadConfiguration"
        assert other.status.restarts == 0

    with run(tmp_path / "work", job(epochs=2), "--fresh", *alone) as fresh:
        assert fresh.end(within=240) == 0, fresh.output()
        assert fresh.status.checkpoint and fresh.status.checkpoint.step == 28
    after = decoded.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "not decoded a second time"
    [aside] = tmp_path.glob("work.20*")
    assert (aside / "results/evaluation.json").exists()


# (Three workers are in the next test, beside what dies.)
@pytest.mark.parametrize("workers", [2, 4])
def test_weights_do_not_depend_on_the_workers(
    tmp_path: Path, undisturbed: tuple[str, dict[int, list[int]]], workers: int
) -> None:
    with exact(tmp_path / "work", workers=workers) as other:
        assert other.end(within=240) == 0, other.output()
        assert weights(other) == undisturbed[0]
        assert samples(other) == undisturbed[1]


@pytest.mark.timeout(600)
def test_weights_do_not_depend_on_what_died(tmp_path: Path, undisturbed: tuple[str, dict[int, list[int]]]) -> None:
    """Ten kills at random moments, of any rank, some in the midst of a checkpoint; two changes of size."""
    moments = random.Random(4)
    plan = ((2, 4), (3, 3), (2, 3))
    for place, (workers, kills) in enumerate(plan):
        with exact(tmp_path / "work", workers=workers) as part:
            for number in range(kills):
                before = part.status.restarts
                steps_of_a_new_round(part, moments.randrange(1, 7))
                victim = part.rank(moments.randrange(workers))
                if number % 3 == 2:
                    victim = part.rank(0)
                    until(part, "a checkpoint being written", lambda part=part: being_written(part))
                victim.kill()
                until(part, "the next round", lambda part=part, before=before: part.status.restarts > before)
            if place + 1 < len(plan):
                steps_of_a_new_round(part, 2)
                part.process.send_signal(signal.SIGTERM)
                assert part.end(within=60) == 143, part.output()
                continue
            assert part.end(within=240) == 0, part.output()
            assert (part.status.phase, part.status.restarts) == ("Succeeded", 10)
            assert weights(part) == undisturbed[0]
            assert samples(part) == undisturbed[1], "no sample was lost, and none seen twice"


def test_a_kill_costs_no_start(tmp_path: Path) -> None:
    """Each process leaves an heir behind before it begins, so that there is one however fast the deaths follow."""
    training = job(epochs=500)
    training["spec"]["restartPolicy"] = {"maxRestarts": 20}
    with run(tmp_path / "work", training) as part:
        for number in range(4):
            steps_of_a_new_round(part, 2)
            there = {process.pid for process in part.below()}
            part.rank(number % 2).kill()
            until(part, "the next round", lambda number=number: part.status.restarts > number)
            steps_of_a_new_round(part, 2)
            assert {part.rank(rank).pid for rank in (0, 1)} <= there


def being_written(part: Run) -> bool:
    """Whether a checkpoint is under way at this moment."""
    return any(path.name.startswith(".step-") for path in (part.folder / "checkpoints").iterdir())


def steps_of_a_new_round(part: Run, count: int) -> None:
    """Wait until rank 0 has begun so many steps in the newest round; its sample log tells of each at once."""

    def look() -> bool:
        rendezvous, file = part.status.rendezvous, part.folder / "results/rank-0-samples.jsonl"
        if rendezvous is None or not rendezvous.members or not file.exists():
            return False
        lines = [json.loads(text) for text in file.read_text().splitlines() if text.endswith("}")]
        return len({line["step"] for line in lines if line["round"] == rendezvous.round}) >= count

    until(part, f"{count} steps of a new round", look)


def until(part: Run, what: str, holds: Callable[[], bool]) -> None:
    """Wait for something in a run that is not to end before."""

    def look() -> bool:
        assert part.process.poll() is None, part.output()
        return holds()

    wait_for(what, look, within=120, seen=part.output)


def newest(part: Run) -> int:
    """The step of the newest checkpoint in the folder, of which the status tells a moment later."""
    steps = [int(path.name[5:]) for path in (part.folder / "checkpoints").glob("step-*")]
    return max(steps, default=0)


def until_saved(part: Run, more: int) -> None:
    """Wait for a checkpoint that many steps after the newest of now."""
    start = newest(part)
    until(part, f"a checkpoint {more} steps after {start}", lambda: newest(part) >= start + more)


def _saved(part: Run) -> int:
    checkpoint = part.status.checkpoint
    return (checkpoint.step or 0) if checkpoint else 0


def _step(part: Run) -> int:
    progress = part.status.progress
    return (progress.step or 0) if progress else 0


@pytest.mark.parametrize("whom", ["training process", "worker"])
def test_sigterm_to_one_stops_all_at_one_step(tmp_path: Path, whom: str) -> None:
    said = job(epochs=8)
    said["spec"]["storage"] = {"checkpointIntervalSeconds": 3600}  # so that whatever is saved was saved for the stop
    with run(tmp_path / "work", said) as training:
        wait_for("steps", lambda: _step(training) >= 10, within=120, seen=training.output)
        (training.rank(1) if whom == "training process" else training.launcher(1)).send_signal(signal.SIGTERM)
        until(training, "a checkpoint in mid-run", lambda: 10 <= _saved(training) < 100)
        assert training.end(within=240) == 0, training.output()
        assert training.status.restarts == 0
        log = samples(training)
        assert list(log) == list(range(len(log))), "exactly the next step"


def test_goes_on_above_the_rounds_of_a_lost_status(tmp_path: Path) -> None:
    """The job is applied again without its status: the checkpoints tell of rounds that it knows nothing of."""
    training = job(epochs=15, tensorboard=True)
    with run(tmp_path / "work", training) as first:
        until_saved(first, 10)
        first.rank(1).kill()
        until(first, "the next round", lambda: first.status.restarts == 1)
        until_saved(first, 1)
        first.process.send_signal(signal.SIGTERM)
        assert first.end(within=60) == 143, first.output()
    (tmp_path / "work/job.yaml").unlink()
    with run(tmp_path / "work", training) as second:
        assert second.end(within=240) == 0, second.output()
        assert (second.status.phase, second.status.restarts) == ("Succeeded", 0)
        assert second.status.rendezvous and second.status.rendezvous.round == 3
        log = samples(second)
        assert list(log) == list(range(len(log)))
        lines = [json.loads(line) for line in (tmp_path / "work/results/metrics.jsonl").read_text().splitlines()]
        times = [line["seconds"] for line in lines]
        assert times == sorted(times), "the time of training goes on where it was"
        assert scalars(tmp_path / "work/results/tensorboard", "train/loss") == {
            line["step"]: pytest.approx(line["loss"], rel=1e-5) for line in lines if "loss" in line
        }


def scalars(folder: Path, tag: str) -> dict[int, float]:
    """What TensorBoard shows of a tag: records of (length, checksum, event, checksum), a start purging what it must."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[int, float] = {}
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
        data, place = file.read_bytes(), 0
        while place + 12 <= len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.session_log.status == SessionLog.START:
                found = {step: value for step, value in found.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag:
                    found[event.step] = value.simple_value
    return found


LOCAL = job(epochs=12, sync={"mode": "local", "everySteps": 6}, emaDecay=0.9, seed=3)


def test_local_steps_are_exact_whatever_died(tmp_path: Path) -> None:
    """`sync: local`, two workers: a kill, and a stop with another run, change no bit."""
    with run(tmp_path / "undisturbed", LOCAL) as first:
        assert first.end(within=240) == 0, first.output()
        evaluation = first.status.evaluation
        assert evaluation and evaluation.accuracy and evaluation.accuracy >= 0.9
        expected = weights(first), samples(first)
    with run(tmp_path / "work", LOCAL) as second:
        until_saved(second, 18)
        second.rank(1).kill()
        until(second, "the next round", lambda: second.status.restarts == 1)
        until_saved(second, 1)
        second.process.send_signal(signal.SIGTERM)
        assert second.end(within=60) == 143, second.output()
        assert _saved(second) % 6 == 0
    with run(tmp_path / "work", LOCAL) as third:
        assert third.end(within=240) == 0, third.output()
        assert (weights(third), samples(third)) == expected


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    wild = job(optimizer={"learningRate": 1e9, "momentum": 0.0}, precision="fp32")
    wild["spec"]["restartPolicy"] = {"maxRestarts": 1}
    with run(tmp_path / "work", wild) as training:
        assert training.end(within=240) == 1, training.output()
        failure = training.status.last_failure
        assert failure and (failure.reason, failure.exit_code) == ("NonFinite", 1)
        assert "learningRate" in failure.message


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    gpu = job()
    gpu["spec"] |= {"resources": {"limits": {"nvidia.com/gpu": 1}}, "restartPolicy": {"maxRestarts": 0}}
    with run(tmp_path / "work", gpu, env={"CUDA_VISIBLE_DEVICES": ""}) as training:
        assert training.end(within=240) == 1, training.output()
        failure = training.status.last_failure
        assert failure and failure.reason == "GPUNotVisible"
        assert "trainer.device: cpu" in failure.message


def damage(newest: Path, how: str) -> None:
    file = newest / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data if how == "flipped" else data[: len(data) // 2])


def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    """Stopped three times, and each time the newest checkpoint is spoilt: the one before is taken, and it is told."""
    training = job(epochs=16)
    log = tmp_path / "work/logs/worker-0.log"
    for place, how in enumerate(("truncated", "flipped", "gone")):
        with run(tmp_path / "work", training) as part:
            until_saved(part, 10)
            part.process.send_signal(signal.SIGTERM)
            assert part.end(within=60) == 143, part.output()
        assert log.read_text().count("checkpoint passed over") == place
        damage(max((tmp_path / "work/checkpoints").glob("step-*"), key=lambda path: int(path.name[5:])), how)
    with run(tmp_path / "work", training) as last:
        assert last.end(within=240) == 0, last.output()
        assert log.read_text().count("checkpoint passed over") == 3
        seen = samples(last)
        assert list(seen) == list(range(len(seen)))
