"""Storage that is full, or can't be written: through the whole stack, on small file systems of our own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edgecloud_trainer import results
from edgecloud_trainer.events import EventLog
from tests.e2e.local import job_dict, program, wait_for
from tests.e2e.test_trainer import job, run, scalars, until_saved

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at the folder, for as long as the test lasts."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"this machine lets nobody mount: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_that_is_cleared(tmp_path: Path) -> None:
    """Training goes on without a checkpoint, says so, and saves when there is room again."""
    with mounted(tmp_path / "work/checkpoints", "size=48m") as folder:
        (folder / "ballast").write_bytes(b"x" * (48 << 20))
        with run(tmp_path / "work", job(epochs=15)) as training:
            log = tmp_path / "work/logs/worker-0.log"
            wait_for(
                "a word on it", lambda: log.exists() and "no checkpoint" in log.read_text(), within=120,
                seen=training.output,
            )  # fmt: skip
            (folder / "ballast").unlink()
            assert training.end(within=240) == 0, training.output()
            assert training.status.restarts == 0
            assert training.status.checkpoint and training.status.checkpoint.step == 210
        assert "free space there" in log.read_text()


def test_a_disk_that_stays_full(tmp_path: Path) -> None:
    full = job(epochs=2)
    full["spec"]["restartPolicy"] = {"maxRestarts": 0}
    with mounted(tmp_path / "work/checkpoints", "size=64k"), run(tmp_path / "work", full) as training:
        assert training.end(within=240) == 1, training.output()
        failure = training.status.last_failure
        assert failure and "cannot save the checkpoint" in failure.message
        assert "free space there, keep fewer (storage.keepCheckpoints)" in failure.message


def test_curves_on_a_full_disk_have_a_gap(tmp_path: Path) -> None:
    """Lines are lost, whole ones; those that can be written later are. Going on from a checkpoint needs no room."""
    with mounted(tmp_path / "results", "size=64k") as folder:
        (folder / "ballast").write_bytes(b"x" * (48 << 10))
        metrics, events = results.MetricsLog(folder, start=0), EventLog(folder, start=0)
        for step in range(1, 1001):
            metrics.write(step=step, seconds=step, loss=float(step))
            events.write(step=step, loss=float(step))
        events.flush()
        metrics.close()
        events.close()
        before = len(results.read_metrics(folder))
        assert 10 < before < 1000
        metrics, events = results.MetricsLog(folder, start=10), EventLog(folder, start=10)
        assert [line["step"] for line in results.read_metrics(folder)] == list(range(1, 11))
        (folder / "more").write_bytes(b"x" * (folder / "ballast").stat().st_blksize)
        for step in range(11, 1001):
            metrics.write(step=step, seconds=step, loss=float(step))
            events.write(step=step, loss=float(step))
        events.flush()
        (folder / "ballast").unlink()
        metrics.write(step=1001, seconds=0.0, loss=0.0)
        events.flush()
        events.write(step=1001, loss=0.0)
        metrics.close()
        events.close()
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
        steps = [json.loads(line)["step"] for line in (folder / results.METRICS).read_text().splitlines()]
        assert steps == [*range(1, len(steps)), 1001] and len(steps) < 1000
        assert 1001 in scalars(folder / "tensorboard", "train/loss")


def test_a_result_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    with mounted(tmp_path / "results", "size=16k") as folder:
        (folder / "ballast").write_bytes(b"x" * (12 << 10))
        with pytest.raises(OSError, match="No space"):
            results.write_json(folder / "evaluation.json", {"confusion": [0] * 10000})
        assert [path.name for path in folder.iterdir()] == ["ballast"]


def test_full_results_do_not_end_the_training(tmp_path: Path) -> None:
    with mounted(tmp_path / "work/results", "size=1m") as folder:
        (folder / "ballast").write_bytes(b"x" * (1 << 20))
        with run(tmp_path / "work", job(epochs=15, tensorboard=True)) as training:
            log = tmp_path / "work/logs/worker-0.log"
            wait_for(
                "a word on it", lambda: log.exists() and "misses what comes now" in log.read_text(), within=120,
                seen=training.output,
            )  # fmt: skip
            until_saved(training, 10)
            (folder / "ballast").unlink()
            assert training.end(within=240) == 0, training.output()
            assert training.status.restarts == 0
        steps = [line["step"] for line in results.read_metrics(folder)]
        assert steps[0] > 1 and steps[-1] == 210


def test_no_room_for_the_data_may_pass(tmp_path: Path) -> None:
    """Tried again, unlike data that are no good."""
    full = job(epochs=2)
    full["spec"]["restartPolicy"] = {"maxRestarts": 1}
    with mounted(tmp_path / "work/data", "size=64k"), run(tmp_path / "work", full) as training:
        assert training.end(within=240) == 1, training.output()
        failure = training.status.last_failure
        assert failure and (failure.reason, failure.exit_code) == ("ProgramError", 1)
        assert "free some space" in failure.message
        assert training.status.restarts == 1


def test_a_stop_on_a_full_disk(tmp_path: Path) -> None:
    """It is asked for once, and comes to its end, though job.yaml can't say so. The next run goes on all the same."""
    work, counting = tmp_path / "work", job_dict("full", program("counts", 150))
    with mounted(work, "size=256k"), mounted(work / "checkpoints", "size=1m"):
        with run(work, counting) as first:
            first.wait_steps(3)

            def full() -> bool:
                with suppress(OSError), (work / "ballast").open("ab", buffering=0) as ballast:
                    while ballast.write(b"x" * 4096):
                        pass
                return "job.yaml can't be written: No space left" in first.stderr()

            wait_for("a word on it", full, seen=first.output)
            first.process.send_signal(signal.SIGINT)
            assert first.end(within=15) == 130, first.output()
            assert first.stderr().count("can't be written") == 1 and "Traceback" not in first.stderr()
        (work / "ballast").unlink()
        with run(work, counting) as second:
            assert second.end() == 0, second.output()
            steps = [line["step"] for line in second.trace() if line["rank"] == 1]
            assert steps == list(range(1, 151)), "stopped at a checkpoint: nothing was done twice"


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path) -> None:
    with mounted(tmp_path / "work", "size=16k") as work:
        (work / "ballast").write_bytes(b"x" * (16 << 10))
        with run(work, job_dict("full", program("counts", 5))) as refused:
            assert refused.end() == 2, refused.output()
            assert ".lock can't be written: No space left on device; name another folder" in refused.stderr()
            assert "Traceback" not in refused.stderr()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It ends before anything is started, not after hours of training."""
    with mounted(tmp_path / "work/checkpoints", "ro"), run(tmp_path / "work", job(epochs=2)) as training:
        assert training.end() == 2, training.output()
        assert "work/checkpoints can't be written; name another folder with --workdir" in training.stderr()
