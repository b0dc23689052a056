"""Stopping: agreed through the channel, by signal, by the script itself, and the launcher's own end by SIGTERM."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.launcher.harness import Job, alive, eventually, job_in

ASKS = """
    import os, sys, time
    from edgecloud import worker
    worker.should_stop()
    worker.report(step=1, **{{"rank" + os.environ["RANK"]: 1}})
    while not worker.should_stop():
        time.sleep(0.005)
    open(os.path.join({folder!r}, "saved-" + os.environ["RANK"]), "w").write("yes")
    sys.exit({code})
"""
READY = """
    open(os.path.join({folder!r}, "ready"), "w").write(str(os.getpid()))
"""


def asks(job: Job, code: int = 143) -> list[str]:
    return job.script(ASKS.format(folder=str(job.folder), code=code))


def running(job: Job, *, processes: int = 1) -> None:
    """Wait until the script reports; with several processes, until each has."""
    job.coordinator.wait_for(
        lambda poll: poll.progress and len(poll.progress.metrics) >= (processes if processes > 1 else 0), "progress"
    )


def test_an_agreed_stop_is_a_preemption(job: Job) -> None:
    launcher = job.launch(asks(job))
    job.coordinator.run(1, processes=2)
    running(job, processes=2)
    job.coordinator.say("stop", 1, grace_seconds=10.0)
    job.coordinator.wait_state("preempted", 1)
    assert job.wait_file("saved-0") == job.wait_file("saved-1") == "yes"
    job.coordinator.say("exit", 1, exit_code=143, reason="suspended")
    assert launcher.exit_code() == 143
    assert launcher.last_message == {
        "round": 1,
        "outcome": "preempted",
        "exitCode": 143,
        "reason": "suspended",
        "step": 1,
    }


def test_processes_that_end_with_0_at_an_agreed_stop_have_succeeded(job: Job) -> None:
    job.launch(asks(job, code=0))
    job.coordinator.run(1)
    running(job)
    job.coordinator.say("stop", 1)
    job.coordinator.wait_state("succeeded", 1)


def test_a_failure_while_stopping_is_a_failure(job: Job) -> None:
    job.launch(asks(job, code=3))
    job.coordinator.run(1)
    running(job)
    job.coordinator.say("stop", 1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None and failure.exit_code == 3


@pytest.mark.parametrize("code", ["0", "1", "143"])
def test_a_script_that_does_not_ask_gets_sigterm_at_once(job: Job, code: str) -> None:
    """With exit code 0 it is not complete, and with 1 it is not broken, if another rank was ended by the signal."""
    job.launch(
        job.script(f"""
        import os, signal, sys, time
        from edgecloud import worker
        if os.environ["RANK"] == "1":
            def leave(number, frame):
                while not os.path.exists({str(job.file("first"))!r}): time.sleep(0.01)
                sys.exit({code})
            signal.signal(signal.SIGTERM, leave)
        worker.report(step=int(os.environ["RANK"]))
        while True: time.sleep(0.01)
    """)
    )
    job.coordinator.run(1, processes=2)
    job.coordinator.wait_for(lambda poll: poll.progress, "progress of rank 1")
    started = time.monotonic()
    job.coordinator.say("stop", 1, grace_seconds=20.0)
    job.coordinator.wait_state("stopping", 1)
    job.file("first").write_text("")
    job.coordinator.wait_state("preempted", 1)
    assert time.monotonic() - started < 10


FOLLOWS = """
    import os, signal, sys, time
    from edgecloud import worker
    rank = os.environ["RANK"]
    signal.signal(signal.SIGTERM, lambda *_: open({told!r}, "w").write(rank) and sys.exit(1))
    worker.report(step=1, **{{"rank" + rank: 1}})
    while not (worker.should_stop() if rank == "{asker}" else os.path.exists({flag!r})):
        time.sleep(0.005)
    open({flag!r}, "w").write("stop")
    sys.exit(143)
"""


def follows(job: Job, *, asker: int) -> list[str]:
    """Rank `asker` alone asks, and tells the others through a file."""
    flag, told = str(job.file("flag")), str(job.file("told"))
    return job.script(FOLLOWS.format(asker=asker, flag=flag, told=told))


def test_a_rank_that_learns_of_the_stop_from_another_gets_no_sigterm(job: Job) -> None:
    """And whoever is on another worker than the one who asks is told so by the coordinator, which hears of it from then
    on: one that comes to listen only when who asked has left, and the others have yet to follow, is told as well."""
    job.launch(follows(job, asker=0))
    job.coordinator.run(1, processes=2)
    running(job, processes=2)
    job.coordinator.wait_for(lambda poll: poll.asks, "word that a process asks")
    job.coordinator.say("stop", 1, grace_seconds=30.0)
    job.coordinator.wait_state("preempted", 1)
    asks = [poll.asks is True for poll in job.coordinator.polls if poll.round == 1]
    assert asks == sorted(asks), "once said it stays said"
    job.file("flag").unlink()
    job.coordinator.run(2, first_rank=2)
    job.coordinator.wait_state("running", 2)
    job.coordinator.wait_for(lambda poll: poll.round == 2 and poll.progress, "progress of rank 2")
    job.coordinator.say("stop", 2, grace_seconds=30.0, asked=True)
    job.coordinator.wait_state("stopping", 2)
    assert not any(poll.asks for poll in job.coordinator.polls if poll.round == 2)
    job.file("flag").write_text("stop")
    job.coordinator.wait_state("preempted", 2)
    assert not job.file("told").exists()


def test_who_does_not_follow_gets_sigterm_before_the_grace_is_over_and_who_asked_may_save_until_then(job: Job) -> None:
    launcher = job.launch(
        job.script(f"""
        import os, signal, sys, time
        from edgecloud import worker
        told, saved = {str(job.file("told"))!r}, {str(job.file("saved"))!r}
        if os.environ["RANK"] == "0":
            signal.signal(signal.SIGTERM, lambda *_: open(told, "w").close() or sys.exit(1))
            worker.report(step=1, rank0=1)
            time.sleep(60)
        worker.should_stop()
        worker.report(step=1, rank1=1)
        while not (worker.should_stop() and os.path.exists(told)): time.sleep(0.005)
        open(saved, "w").write("yes")
        sys.exit(143)
    """)
    )
    job.coordinator.run(1, processes=2)
    running(job, processes=2)
    job.coordinator.say("stop", 1, grace_seconds=1.6)
    job.coordinator.wait_state("preempted", 1)
    assert job.wait_file("saved") == "yes"
    assert "still there though asked to stop, now by SIGTERM: rank 0\n" in launcher.stderr


def test_who_asked_and_is_gone_asks_no_more(job: Job) -> None:
    """A shell's first command asked, its second one does not."""
    first = job.script("from edgecloud import worker; worker.should_stop()", "first.py")
    second = job.script(
        "    import os, time" + READY.format(folder=str(job.folder)) + "    time.sleep(60)", "second.py"
    )
    launcher = job.launch(["sh", "-c", f"{' '.join(first)} && {' '.join(second)}"])
    job.coordinator.run(1)
    job.wait_file("ready")
    job.coordinator.say("stop", 1, grace_seconds=60.0)
    job.coordinator.wait_state("preempted", 1)
    assert "rank 0 was asked to stop, and ended with SIGTERM" in launcher.stderr


UNSHARED = ["unshare", "-Urpf", "--kill-child"]
"""Begins a command that counts processes anew, as in a container within the worker's own."""


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*UNSHARED, "true"], check=False, capture_output=True).returncode,
    reason="no PID namespace can be made here",
)
def test_who_asks_in_a_pid_namespace_of_its_own_gets_no_sigterm(job: Job) -> None:
    """Not even if the launcher knows of no process by the id that it has there."""
    told = str(job.file("told"))
    program = job.script(f"""
        import os, signal, sys, time
        from edgecloud import worker
        while os.path.exists(f"/proc/{{os.getpid()}}"):  # still the launcher's
            if child := os.fork(): sys.exit(os.waitpid(child, 0)[1] >> 8)
        signal.signal(signal.SIGTERM, lambda *_: open({told!r}, "w").close())
        worker.should_stop()
        worker.report(step=1)
        while not worker.should_stop(): time.sleep(0.01)
        time.sleep(0.1)
        sys.exit(143)
    """)
    job.launch([*UNSHARED, *program])
    job.coordinator.run(1)
    running(job)
    job.coordinator.say("stop", 1, grace_seconds=30.0)
    job.coordinator.wait_state("preempted", 1)
    assert not job.file("told").exists()


@pytest.mark.parametrize("leave", ["sys.exit(1)", "raise KeyboardInterrupt", "os.abort()"])
def test_a_rank_that_saves_is_not_killed_for_another_that_leaves_in_its_own_way(job: Job, leave: str) -> None:
    launcher = job.launch(
        job.script(f"""
        import os, signal, sys, time
        from edgecloud import worker
        first, second = {str(job.file("first"))!r}, {str(job.file("second"))!r}
        def save(number, frame):
            while os.path.exists("/proc/" + open(second).read()): time.sleep(0.01)  # until the launcher knows
            open(first, "w").write("saved")
            sys.exit(143)
        def leave(number, frame):
            {leave}
        signal.signal(signal.SIGTERM, save if os.environ["RANK"] == "0" else leave)
        if os.environ["RANK"] == "1": open(second, "w").write(str(os.getpid()))
        worker.report(step=1, **{{"rank" + os.environ["RANK"]: 1}})
        while True: time.sleep(0.01)
    """)
    )
    job.coordinator.run(1, processes=2)
    running(job, processes=2)
    job.coordinator.say("stop", 1, grace_seconds=20.0)
    job.coordinator.wait_state("preempted", 1)
    assert job.wait_file("first") == "saved"
    assert "failed" not in {poll.state for poll in job.coordinator.polls}
    assert "rank 1 was asked to stop, and ended with " in launcher.stderr


def test_what_does_not_leave_within_the_grace_is_killed(job: Job) -> None:
    job.launch(
        job.script("""
        import os, signal, time
        from edgecloud import worker
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker.report(step=1)
        time.sleep(60)
    """)
    )
    job.coordinator.run(1)
    running(job)
    job.coordinator.say("stop", 1, grace_seconds=0.3)
    job.coordinator.wait_state("preempted", 1, seconds=4)


@pytest.mark.parametrize("by", ["SIGTERM", "the channel"])
def test_an_agreed_stop_can_turn_into_a_hard_one(job: Job, by: str) -> None:
    job.launch(
        job.script(f"""
        import signal, time
        from edgecloud import worker
        worker.should_stop()
        if {by != "SIGTERM"}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker.report(step=1)
        while {by == "SIGTERM"} or not worker.told_to_end():
            time.sleep(0.01)
    """)
    )
    job.coordinator.run(1)
    running(job)
    job.coordinator.say("stop", 1, grace_seconds=60.0)
    job.coordinator.wait_state("stopping", 1)
    job.coordinator.say("wait", 1)
    job.coordinator.wait_state("idle", 1, seconds=4)  # before SIGKILL


def test_a_script_that_stops_by_itself_takes_the_others_along(job: Job) -> None:
    job.launch(
        job.script(f"""
        import os, sys, time
        if os.environ["RANK"] == "0":
            sys.exit(143)
        while not os.path.exists({str(job.file("go"))!r}):
            time.sleep(0.01)
        sys.exit(143)
    """)
    )
    job.coordinator.run(1, processes=2)
    job.coordinator.wait_state("stopping", 1)
    job.file("go").write_text("")
    job.coordinator.wait_state("preempted", 1)


def test_a_shell_that_goes_first_does_not_cost_the_program_its_checkpoint(job: Job) -> None:
    program = job.script(f"""
        import os, signal, sys, time
        def save(number, frame):
            time.sleep(0.3)
            open({str(job.file("saved"))!r}, "w").write("yes")
            sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        {READY.format(folder=str(job.folder)).strip()}
        while True:
            time.sleep(0.01)
    """)
    job.launch(["sh", "-c", f"{' '.join(program)}; echo done"])
    job.coordinator.run(1)
    pid = int(job.wait_file("ready"))
    job.coordinator.say("stop", 1)
    job.coordinator.wait_state("preempted", 1)
    assert job.wait_file("saved") == "yes"
    assert not alive(pid)


def test_sigterm_to_an_idle_launcher(job: Job) -> None:
    launcher = job.launch(["true"])
    job.coordinator.wait_for(lambda poll: True, "a poll")
    launcher.terminate()
    assert launcher.exit_code() == 143
    assert launcher.last_message == {"round": 0, "outcome": "idle", "exitCode": 143}
    job.coordinator.wait_for(lambda poll: poll.draining, "a last word")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_draining_waits_for_the_coordinators_word(job: Job, number: signal.Signals) -> None:
    launcher = job.launch(asks(job))
    job.coordinator.run(1)
    running(job)
    launcher.process.send_signal(number)
    told = job.coordinator.wait_for(lambda poll: poll.draining, "draining")
    assert told.state == "running"
    job.coordinator.say("stop", 1)
    assert launcher.exit_code() == 143
    assert launcher.last_message["outcome"] == "preempted"
    assert job.wait_file("saved-0") == "yes"
    assert job.coordinator.polls[-1].state == "preempted"


def test_what_waits_for_five_seconds(tmp_path: Path) -> None:
    """A hard stop of a process that is deaf to SIGTERM, and a SIGTERM while the coordinator is away, to a process that
    takes its grace and to one that leaves; all at once."""
    folders = tmp_path / "deaf", tmp_path / "alone", tmp_path / "slow"
    for folder in folders:
        folder.mkdir()
    with job_in(folders[0]) as deaf, job_in(folders[1]) as alone, job_in(folders[2]) as slow:
        deaf.launch(
            deaf.script("""
            import signal, time
            from edgecloud import worker
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            worker.report(step=1)
            time.sleep(60)
        """)
        )
        launcher = alone.launch(asks(alone))
        killed = slow.launch(
            slow.script("""
            import time
            from edgecloud import worker
            worker.should_stop()
            worker.report(step=1)
            time.sleep(60)
        """),
            EDGECLOUD_STOP_GRACE_SECONDS="0.5",
        )
        for job in (deaf, alone, slow):
            job.coordinator.run(1)
            running(job)
        started = time.monotonic()
        for one, its_launcher in ((alone, launcher), (slow, killed)):
            one.coordinator.close()
            its_launcher.terminate()
        deaf.coordinator.say("wait", 1)
        deaf.coordinator.wait_state("idle", 1)
        assert 4.5 < time.monotonic() - started < 10
        assert launcher.exit_code() == 143
        assert alone.wait_file("saved-0") == "yes"
        assert killed.exit_code() == 143
        assert time.monotonic() - started < 15


def test_a_draining_launcher_starts_no_round(job: Job) -> None:
    launcher = job.launch(asks(job))
    job.coordinator.run(1)
    running(job)
    launcher.terminate()
    job.coordinator.wait_for(lambda poll: poll.draining, "draining")
    job.coordinator.run(2)
    seen = len(job.coordinator.polls)
    eventually(lambda: len(job.coordinator.polls) > seen + 1, "two more polls")
    job.coordinator.say("stop", 1)
    assert launcher.exit_code() == 143
    assert launcher.last_message["round"] == 1


def test_a_second_sigterm_kills(job: Job) -> None:
    launcher = job.launch(
        job.script("""
        import signal, time
        from edgecloud import worker
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker.report(step=1)
        time.sleep(60)
    """)
    )
    job.coordinator.run(1)
    running(job)
    launcher.terminate()
    job.coordinator.wait_for(lambda poll: poll.draining, "draining")
    launcher.terminate()
    assert launcher.exit_code(seconds=4) == 143
    assert launcher.last_message["outcome"] == "preempted"


def test_exit_ends_what_still_runs(job: Job) -> None:
    launcher = job.launch(
        job.script(f"""
        import os, time
        {READY.format(folder=str(job.folder)).strip()}
        time.sleep(60)
    """)
    )
    job.coordinator.run(1)
    pid = int(job.wait_file("ready"))
    job.coordinator.say("exit", 1, exit_code=7, reason="the job was deleted")
    assert launcher.exit_code(seconds=5) == 7
    assert not alive(pid)
    assert launcher.last_message["reason"] == "the job was deleted"
