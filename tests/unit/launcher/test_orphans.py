"""Nothing outlives its round, its launcher or its launcher's parent: daemons, sessions of their own, held pipes."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from tests.unit.launcher.harness import PYTHON, Job, alive, descendants, eventually, kill

DAEMON = """
    import os, signal, sys, time
    def daemon(name):
        # Twice forked, in a session of its own, deaf to SIGTERM, with the output pipe still open.
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                path = os.path.join({folder!r}, name)
                open(path + ".new", "w").write(str(os.getpid()))
                os.rename(path + ".new", path)
                time.sleep(600)
            os._exit(0)
        os.wait()
        while not os.path.exists(os.path.join({folder!r}, name)):
            time.sleep(0.005)
    daemon("daemon-" + os.environ["EDGECLOUD_ROUND"])
"""


def daemon(job: Job, then: str) -> list[str]:
    return job.script(DAEMON.format(folder=str(job.folder)) + "\n    " + then)


@pytest.mark.parametrize(("then", "state"), [("pass", "succeeded"), ("sys.exit(1)", "failed")])
def test_a_daemon_does_not_outlive_its_round(job: Job, then: str, state: str) -> None:
    launcher = job.launch(daemon(job, then))
    job.coordinator.run(1)
    pid = int(job.wait_file("daemon-1"))
    if state == "succeeded":
        job.coordinator.wait_state("succeeded", 1)
        assert not alive(pid)
        assert descendants(launcher.pid) == []
    else:
        job.coordinator.wait_state("failed", 1)
    job.coordinator.run(2)
    job.coordinator.wait_state(state, 2)
    assert not alive(pid)


def test_a_daemon_does_not_outlive_the_launchers_end(job: Job) -> None:
    launcher = job.launch(daemon(job, "time.sleep(600)"))
    job.coordinator.run(1)
    pid = int(job.wait_file("daemon-1"))
    job.coordinator.say("exit", 1, exit_code=0)
    assert launcher.exit_code() == 0
    assert not alive(pid)


def test_orphans_are_reaped_while_the_round_goes_on(job: Job) -> None:
    launcher = job.launch(
        job.script("""
        import os, time
        from edgecloud import worker
        for _ in range(20):
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            os.wait()
        worker.report(step=1)
        time.sleep(600)
    """)
    )
    job.coordinator.run(1)
    job.coordinator.wait_for(lambda poll: poll.progress, "progress")
    eventually(lambda: len(descendants(launcher.pid)) == 1, "only the program", saw=lambda: descendants(launcher.pid))


def test_the_processes_die_with_a_killed_launcher(job: Job) -> None:
    launcher = job.launch(
        job.script(f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(os.path.join({str(job.folder)!r}, "pid"), "w").write(str(os.getpid()))
        time.sleep(600)
    """)
    )
    job.coordinator.run(1)
    pid = int(job.wait_file("pid"))
    kill(launcher.pid)
    eventually(lambda: not alive(pid), "the process is gone")


@pytest.mark.parametrize("told", [True, False])
def test_everything_dies_with_the_parent(job: Job, told: bool) -> None:
    # A parent between us and the launcher, that can be killed.
    parent_script = job.script(
        f"""
        import os, subprocess, sys, time
        environment = dict(os.environ, EDGECLOUD_PARENT_DEATH="1")
        if {told}:
            environment["EDGECLOUD_PARENT_PID"] = str(os.getpid())
        child = subprocess.Popen(sys.argv[1:], env=environment)
        open({str(job.file("launcher"))!r}, "w").write(str(child.pid))
        time.sleep(600)
        """,
        "parent.py",
    )
    command = daemon(job, "time.sleep(600)")
    launcher = launch_below(job, parent_script, command)
    job.coordinator.run(1)
    pids = [int(job.wait_file("daemon-1")), int(job.wait_file("launcher"))]
    pids += descendants(pids[1])
    kill(launcher.pid)
    eventually(
        lambda: not any(alive(pid) for pid in pids), "all are gone", saw=lambda: [pid for pid in pids if alive(pid)]
    )
    eventually(lambda: job.file("termination").exists(), "a last message")
    assert launcher.last_message["exitCode"] == 137


def test_a_parent_that_is_gone_already_is_noticed(job: Job) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    launcher = job.launch(["true"], EDGECLOUD_PARENT_DEATH="1", EDGECLOUD_PARENT_PID=str(gone.pid))
    assert launcher.exit_code() == 137
    assert launcher.last_message["exitCode"] == 137


def launch_below(job: Job, parent: list[str], command: list[str]):  # type: ignore[no-untyped-def]
    from tests.unit.launcher.harness import Launcher

    launcher = Launcher(
        job.folder, job.coordinator.url, command, {}, start=[*parent, PYTHON, "-m", "edgecloud.launcher"]
    )
    job.launchers.append(launcher)
    return launcher


def test_a_stopped_process_is_killed_all_the_same(job: Job) -> None:
    job.launch(
        job.script("""
        import os, signal
        from edgecloud import worker
        worker.report(step=1)
        os.kill(os.getpid(), signal.SIGSTOP)
    """)
    )
    job.coordinator.run(1)
    job.coordinator.wait_for(lambda poll: poll.progress, "progress")
    started = time.monotonic()
    job.coordinator.say("stop", 1, grace_seconds=0.2)
    job.coordinator.wait_state("preempted", 1)
    assert time.monotonic() - started < 3


def test_the_command_line_helps(job: Job) -> None:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        from tests.unit.launcher.harness import SOURCES

        return subprocess.run(
            [PYTHON, "-m", "edgecloud.launcher", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            check=False,
            text=True,
            timeout=20,
        )

    help_text = run("--help")
    assert help_text.returncode == 0
    assert "EDGECLOUD_COORDINATOR" in help_text.stdout and "exit codes:" in help_text.stdout
    assert run().returncode == 2
    unknown = run("--verbose", "--", "true")
    assert (unknown.returncode, "unknown option --verbose" in unknown.stderr) == (2, True)
    missing = run("--", "true")
    assert missing.returncode == 2
    assert missing.stderr == "edgecloud-launcher: EDGECLOUD_ADDRESS is not set\n"
