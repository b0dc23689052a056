"""Processes that wait for their round: used when there is one, not missed when there is none, never left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.unit.launcher.harness import Job, alive, descendants, eventually, kill

TRAINER = Path(__file__).parents[3] / "trainer"
SCRIPT = """
    import json, os, sys, time
    ready = "--standby" in sys.argv
    if ready:
        path = os.path.join({folder!r}, "ready-" + str(os.getpid()))
        with open(path, "w") as file:
            file.write(os.environ["LOCAL_RANK"] + "/" + os.environ["LOCAL_WORLD_SIZE"])
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        os.environ.update(json.loads(line))
    from edgecloud import worker
    print("waited" if ready else "new", os.environ["RANK"])
    worker.report(step=1, waited=ready, pid=os.getpid())
    {then}
"""
HEIRS = """
    import os, sys
    sys.path.insert(0, {trainer!r})
    from edgecloud_trainer import standby
    open(os.path.join({folder!r}, "ready-" + str(os.getpid())), "w").close()
    environment = standby.wait(heirs={heirs}, fit=lambda: {fit})
    if environment is None:
        sys.exit(0)
    os.environ.update(environment)
    from edgecloud import worker
    print("rank", os.environ["RANK"], "round", os.environ["EDGECLOUD_ROUND"], flush=True)
    worker.report(step=1, pid=os.getpid(), parent=os.getppid())
    {then}
"""
"""What the trainer does: each process of a round leaves one behind that waits for the next."""
LIAR = """
    import array, json, os, socket
    end = socket.socket(fileno=0)
    line, ancillary, _, _ = end.recvmsg(65536, socket.CMSG_SPACE(8))
    if line:
        heir = array.array("i", ancillary[0][2])
        os.write(heir[0], {word})
        os.environ.update(json.loads(line))
        from edgecloud import worker
        worker.report(step=1)
"""
"""Says something wrong in its heir's place."""


def waiting(job: Job) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in job.folder.glob("ready-*")]


def slots(job: Job) -> dict[int, str]:
    """Each waiting process's local rank and how many there are, as it found them when it was started."""
    return {int(path.name.partition("-")[2]): path.read_text() for path in job.folder.glob("ready-*")}


def script(job: Job, then: str = "pass") -> list[str]:
    return job.script(SCRIPT.format(folder=str(job.folder), then=then))


def test_a_waiting_process_takes_part_in_the_round(job: Job) -> None:
    launcher = job.launch(script(job), EDGECLOUD_STANDBY="2")
    eventually(lambda: len(waiting(job)) == 2, "two that wait", saw=lambda: waiting(job))
    job.coordinator.run(1, first_rank=4, processes=2)
    done = job.coordinator.wait_state("succeeded", 1)
    assert done.progress is not None and done.progress.metrics["waited"] == 1
    assert done.progress.metrics["pid"] in waiting(job)
    assert {"[rank 4] waited 4", "[rank 5] waited 5"} == set(launcher.stdout.splitlines())


@pytest.mark.parametrize("processes", [1, 3])
def test_one_that_waits_becomes_the_local_rank_it_was_started_for(job: Job, processes: int) -> None:
    """It has taken that rank's GPU by then; a round of fewer leaves the others' alone."""
    launcher = job.launch(script(job, "print(os.getpid(), 'is', os.environ['LOCAL_RANK'])"), EDGECLOUD_STANDBY="3")
    found = eventually(
        lambda: slots(job) if sorted(slots(job).values()) == ["0/3", "1/3", "2/3"] else None, "three that wait"
    )
    job.coordinator.run(1, first_rank=6, processes=processes)
    job.coordinator.wait_state("succeeded", 1)
    said = {line.partition("] ")[2] or line for line in launcher.stdout.splitlines() if " is " in line}
    assert said == {f"{pid} is {slot[0]}" for pid, slot in found.items() if int(slot[0]) < processes}


@pytest.mark.parametrize("processes", [1, 2])
def test_one_that_was_killed_while_it_waited_is_replaced(job: Job, processes: int) -> None:
    launcher = job.launch(script(job), EDGECLOUD_STANDBY="1")
    [pid] = eventually(lambda: waiting(job), "one that waits")
    kill(pid)
    eventually(lambda: not alive(pid), "it is gone")
    job.coordinator.run(1, processes=processes)
    done = job.coordinator.wait_state("succeeded", 1)
    assert done.progress is not None and done.progress.metrics["pid"] != pid
    lines = set(launcher.stdout.splitlines())
    # What stands in for it is started in the same way, for the sake of an heir; there never was one for rank 1.
    assert lines == ({"waited 0"} if processes == 1 else {"[rank 0] waited 0", "[rank 1] new 1"})


def test_a_round_that_ends_leaves_those_who_wait_alone(job: Job) -> None:
    launcher = job.launch(script(job), EDGECLOUD_STANDBY="2")
    eventually(lambda: len(waiting(job)) == 2, "two that wait")
    job.coordinator.run(1, processes=1)
    job.coordinator.wait_state("succeeded", 1)
    assert len(descendants(launcher.pid)) == 1
    job.coordinator.run(2, processes=2)
    done = job.coordinator.wait_state("succeeded", 2)
    assert done.progress is not None
    assert set(launcher.stdout.splitlines()) == {"waited 0", "[rank 0] waited 0", "[rank 1] waited 1"}
    # The process of local rank 0 was a new one; the other's has waited all the time.
    assert sorted(slots(job).values()) == ["0/2", "0/2", "1/2"]


@pytest.mark.parametrize("end", ["exit", "SIGTERM"])
def test_nobody_who_waits_outlives_the_launcher(job: Job, end: str) -> None:
    launcher = job.launch(script(job), EDGECLOUD_STANDBY="2")
    pids = eventually(lambda: waiting(job) if len(waiting(job)) == 2 else [], "two that wait")
    if end == "exit":
        job.coordinator.say("exit", 0, exit_code=3)
    else:
        launcher.terminate()
    assert launcher.exit_code() == (3 if end == "exit" else 143)
    assert not any(alive(pid) for pid in pids)


def test_a_failure_of_one_that_waited_is_told_as_any_other(job: Job) -> None:
    job.launch(script(job, "raise ValueError('after all')"), EDGECLOUD_STANDBY="1")
    eventually(lambda: waiting(job), "one that waits")
    job.coordinator.run(1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None and failure.message.endswith("ValueError: after all")


def test_a_command_that_cannot_be_started_fails_in_its_round(job: Job) -> None:
    job.launch(["no-such-program"], EDGECLOUD_STANDBY="1")
    job.coordinator.run(1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None and failure.reason == "StartFailed"


def heirs(job: Job, then: str = "pass", *, forks: bool = True, fit: bool = True) -> list[str]:
    return job.script(HEIRS.format(trainer=str(TRAINER), folder=str(job.folder), then=then, heirs=forks, fit=fit))


def test_an_heir_waits_for_the_next_round(job: Job) -> None:
    """One start for three rounds, whose processes are all children of the launcher with output of their own."""
    launcher = job.launch(heirs(job), EDGECLOUD_STANDBY="2")
    pids = set()
    for round in (1, 2, 3):
        job.coordinator.run(round, processes=2)
        done = job.coordinator.wait_state("succeeded", round)
        assert done.progress is not None
        assert done.progress.metrics["parent"] == launcher.pid
        pids.add(done.progress.metrics["pid"])
    assert len(waiting(job)) == 2
    assert len(pids) == 3
    expected = [f"[rank {rank}] rank {rank} round {round}" for round in (1, 2, 3) for rank in (0, 1)]
    assert sorted(launcher.stdout.splitlines()) == sorted(expected)
    eventually(lambda: len(descendants(launcher.pid)) == 2, "two heirs", saw=lambda: descendants(launcher.pid))


def test_an_heir_outlives_the_kill_of_its_parent(job: Job) -> None:
    launcher = job.launch(heirs(job, "import time; time.sleep(3600)"), EDGECLOUD_STANDBY="1")
    job.coordinator.run(1)
    running = job.coordinator.wait_for(lambda poll: poll.progress is not None, "progress").progress
    assert running is not None
    first = int(running.metrics["pid"])
    [heir] = eventually(lambda: [pid for pid in descendants(launcher.pid) if pid != first], "an heir")
    os.killpg(first, signal.SIGKILL)
    job.coordinator.wait_state("failed", 1)
    job.coordinator.run(2)
    again = job.coordinator.wait_for(lambda poll: poll.round == 2 and poll.progress is not None, "round 2").progress
    assert again is not None and again.metrics["pid"] == heir


def test_an_heir_is_waited_for_that_is_slower_than_the_round(job: Job) -> None:
    """On a busy machine a program of milliseconds is over before its heir has said that it is one."""
    slow = """
        import os, sys, time
        sys.path.insert(0, {trainer!r})
        from edgecloud_trainer import standby
        settle = standby._settle
        standby._settle = lambda *given: (time.sleep(0.5), settle(*given))
        environment = standby.wait(heirs=True)
        if environment is None:
            sys.exit(0)
        os.environ.update(environment)
        from edgecloud import worker
        worker.report(step=1, pid=os.getpid())
    """
    launcher = job.launch(job.script(slow.format(trainer=str(TRAINER))), EDGECLOUD_STANDBY="1")
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1)
    (heir,) = descendants(launcher.pid)
    job.coordinator.run(2)
    again = job.coordinator.wait_for(lambda poll: poll.round == 2 and poll.progress is not None, "round 2").progress
    assert again is not None and again.metrics["pid"] == heir


@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGKILL"])
def test_no_heir_outlives_the_launcher(job: Job, how: str) -> None:
    launcher = job.launch(heirs(job), EDGECLOUD_STANDBY="2")
    job.coordinator.run(1, processes=2)
    job.coordinator.wait_state("succeeded", 1)
    pids = eventually(lambda: found if len(found := descendants(launcher.pid)) == 2 else [], "two heirs")
    if how == "exit":
        job.coordinator.say("exit", 1, exit_code=0)
    else:
        launcher.process.send_signal(signal.Signals[how])
    launcher.exit_code()
    eventually(lambda: not any(map(alive, pids)), "they are gone")


@pytest.mark.parametrize("forks", [True, False])
def test_a_program_that_has_no_heir_is_started_again(job: Job, forks: bool) -> None:
    """No fork survives CUDA, as the fork itself finds. The round after the next has a new one in any case."""
    launcher = job.launch(heirs(job, forks=forks, fit=False), EDGECLOUD_STANDBY="1")
    for round in (1, 2):
        job.coordinator.run(round)
        job.coordinator.wait_state("succeeded", round)
        assert descendants(launcher.pid) == []
    assert len(waiting(job)) == 2


@pytest.mark.parametrize("word", ['{"pid": 1}', '{"pid": "x"}', "{}", "[", "no", '{"pid": true}'])
def test_an_heir_that_lies_is_none(job: Job, word: str) -> None:
    """Signals go to the process that it names: it has to be one of the launcher's children."""
    liar = job.script(LIAR.format(word=word.encode()))
    launcher = job.launch(liar, EDGECLOUD_STANDBY="1")
    for round in (1, 2):
        job.coordinator.run(round)
        job.coordinator.wait_state("succeeded", round)
        assert descendants(launcher.pid) == []


def test_a_run_without_a_meeting_place_is_not_taken_up(job: Job) -> None:
    job.launch(script(job))
    job.coordinator.say("run", 1)
    seen = len(job.coordinator.polls)
    eventually(lambda: len(job.coordinator.polls) > seen + 2, "three more polls")
    assert job.coordinator.polls[-1].ack is None
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1)
