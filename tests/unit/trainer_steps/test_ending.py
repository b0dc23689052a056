"""Ranks that are told to end, and stand where they hear of nothing."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from edgecloud.launcher.channel import LauncherEnd
from edgecloud_trainer import devices, ending
from edgecloud_trainer.settings import Settings, read
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import WAIT_SECONDS, Rank, ended

STEPS = 8


class Course:
    done = 0

    def give_up(self) -> None:
        Path(os.environ["SAVED"]).touch()


def stands(_: Settings) -> object:
    """Steps, or not: a step is far shorter than what rank 0 waits for."""
    course = Course()
    with ending.watched(course):
        while course.done < STEPS:
            time.sleep(1.5 * ending.STANDS_SECONDS / STEPS if os.environ["RANK"] == "1" else WAIT_SECONDS)
            course.done += 1
    return course.done


def test_one_that_stands_is_ended_and_one_that_steps_ends_by_itself(tmp_path: Path) -> None:
    channels = [LauncherEnd(tmp_path / f"channel-{rank}") for rank in (0, 1)]
    ranks = [
        Rank(
            stands, rank, free_port(), EDGECLOUD_CHANNEL=str(channel.path), SAVED=str(tmp_path / f"saved-{rank}")
        )
        for rank, channel in enumerate(channels)
    ]  # fmt: skip
    with ended(*ranks):
        for channel in channels:
            channel.stop()  # alone, it leaves the rank its time
        assert ranks[0].silent_for(ending.LOOK_SECONDS)
        for channel in channels:
            channel.end()
            channel.stop()
        ranks[0].process.join(WAIT_SECONDS)
        assert ranks[0].process.exitcode == ending.FAILED
        assert ranks[1].end() == (str(STEPS), 0)
    for channel in channels:
        channel.close()
    assert [(tmp_path / f"saved-{rank}").exists() for rank in (0, 1)] == [True, False]


def test_who_hears_of_nothing() -> None:
    """gloo's exchanges fail at once, and alone there are none."""
    cpu = devices.choose(read({"EDGECLOUD_TRAINER": '{"trainer": {"data": {"name": "digits"}}}'}))
    gpu = replace(cpu, device=torch.device("cuda"))
    assert [ending.deaf(device, ranks) for device, ranks in ((cpu, 2), (gpu, 1), (gpu, 2))] == [False, False, True]
