"""The ordinary course of things in a world, when nothing goes wrong for a while."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from edgecloud_operator.core.observed import Pod
from tests.unit.core.build import make_message
from tests.unit.core.worker import Worker
from tests.unit.core.world import World


def worker_of(world: World, place: int) -> Worker | None:
    """One of the living launchers."""
    workers = sorted(world.workers.values(), key=lambda worker: (worker.index, worker.uid))
    return workers[place % len(workers)] if workers else None


def pod_of(world: World, place: int) -> Pod | None:
    pods: Sequence[Pod] = sorted(world.pods.values(), key=lambda pod: pod.index)
    return pods[place % len(pods)] if pods else None


def everybody_talks(world: World) -> None:
    for worker in list(world.workers.values()):
        worker.say()
        if world.operator is not None:
            worker.ask()
        while worker.answers:
            worker.take()


def calm(world: World, rounds: int, *, until_end: bool = False) -> bool:
    """Nothing goes wrong for a while; true once the job is over (or, if it is to be suspended, at rest)."""
    for _ in range(rounds):
        if over(world):
            return True
        world.now += timedelta(seconds=2.5)
        for pod in list(world.pods.values()):
            world.kubelet(pod)
        for worker in list(world.workers.values()):
            worker.stops_alone()
            if worker.group and (worker.hard or worker.agreed or any(mate.agreed for mate in world.mates(worker))):
                world.program_ends(worker)
            elif worker.group:
                world.program_steps(worker, checkpoint=False)
        if until_end:
            able = [worker for worker in world.workers.values() if worker.group and world.all_there(worker)]
            for worker in able[:1]:  # one after the other, so that the operator sees some done and some not
                world.program_ends(worker)
            if (pod := world.measuring()) is not None:
                world.measurer_ends(pod, 0, make_message())
        for worker in list(world.workers.values()):
            worker.say()
        if world.operator is not None:
            world.operator.run()
        everybody_talks(world)
    return over(world)


def over(world: World) -> bool:
    """Whether nothing is left to do: nothing runs, and the job is finished, or suspended as it should be."""
    resting = world.finished or (world.job.spec.suspend and world.status.phase == "Suspended")
    return resting and not world.workers and world.measuring() is None and (world.finished or not world.pods)


def heal(world: World) -> None:
    """All faults stop: who was cut off is heard again, what was lost is cleared away, an operator is up."""
    for uid in list(world.lost):
        pod = next((pod for pod in world.pods.values() if pod.uid == uid), None)
        if pod is not None:
            world.pod_vanishes(pod)
    for worker in world.workers.values():
        worker.cut_off = False
    world.operator_starts()
