"""Rounds, with a real launcher and real processes: they start as told, end, fail, and follow each other."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.unit.launcher.harness import TOKEN, Job, alive, eventually

ENVIRONMENT = """
    import json, os, sys
    path = os.path.join({folder!r}, "environment-" + os.environ["RANK"])
    with open(path + ".new", "w") as stream:
        json.dump(dict(os.environ), stream)
    os.rename(path + ".new", path)
"""


def test_two_processes_get_torchruns_environment_and_succeed(job: Job) -> None:
    command = job.script(ENVIRONMENT.format(folder=str(job.folder)))
    launcher = job.launch(command, EDGECLOUD_MAX_RESTARTS="3", EDGECLOUD_CHECKPOINT_DIR="/checkpoints", HOME="/home/me")
    first = job.coordinator.wait_for(lambda poll: True, "a poll")
    assert (first.state, first.round, first.node, first.ack, first.port) == ("idle", 0, "node-a", None, None)
    job.coordinator.run(3, first_rank=2, world_size=4, processes=2, group_rank=1, port=29500)
    done = job.coordinator.wait_state("succeeded", 3)
    assert done.ack is not None and (done.ack.action, done.ack.round) == ("run", 3)
    assert done.port is None  # worker 0 has it
    assert set(job.coordinator.tokens) == {TOKEN}
    for local_rank, rank in ((0, 2), (1, 3)):
        seen = json.loads(job.wait_file(f"environment-{rank}"))
        wanted = {
            "RANK": str(rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "TORCHELASTIC_RESTART_COUNT": "2",
            "TORCHELASTIC_MAX_RESTARTS": "3",
            "TORCHELASTIC_RUN_ID": "job-uid",
            "EDGECLOUD_ROUND": "3",
            "EDGECLOUD_CHECKPOINT_DIR": "/checkpoints",
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/home/me",
        }
        assert {name: seen.get(name) for name in wanted} == wanted
        assert not {"EDGECLOUD_TOKEN_FILE", "EDGECLOUD_COORDINATOR", "EDGECLOUD_SCRATCH"} & set(seen)
    job.coordinator.say("exit", 3, exit_code=0)
    assert launcher.exit_code() == 0
    assert launcher.last_message == {"round": 3, "outcome": "succeeded", "exitCode": 0}
    assert list(job.file("scratch").iterdir()) == []


def test_sequences_rise_and_the_port_for_the_next_round_is_a_new_one(job: Job) -> None:
    job.launch(job.script("pass"))
    offered = job.coordinator.wait_for(lambda poll: True, "a poll").next_port
    job.coordinator.run(1, port=offered)
    done = job.coordinator.wait_state("succeeded", 1)
    assert done.port == offered != done.next_port
    sequences = [poll.sequence for poll in job.coordinator.polls]
    assert sequences == sorted(set(sequences))


@pytest.mark.parametrize(
    ("body", "code", "reason", "message"),
    [
        ("raise ValueError('no such layer')", 1, "ProgramError", "ValueError: no such layer"),
        ("import sys; print('unknown model', file=sys.stderr); sys.exit(2)", 2, "BadConfiguration", "unknown model"),
        ("import sys; sys.exit(75)", 75, "Transient", "exited with code 75 and printed nothing"),
        ("raise MemoryError", 1, "OutOfMemory", "MemoryError"),
        ("raise RuntimeError('CUDA error: out of memory')", 1, "OutOfMemory", "CUDA error: out of memory"),
        (
            "import json, os, sys\n"
            "with open(os.environ['EDGECLOUD_FAILURE_FILE'], 'w') as stream:\n"
            "    json.dump({'reason': 'NonFinite', 'message': 'loss is nan at step 7'}, stream)\n"
            "sys.exit(1)",
            1,
            "NonFinite",
            "loss is nan at step 7",
        ),
        (
            "import json, os, sys\n"
            "with open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w') as stream:\n"
            "    json.dump({'message': {'message': 'KeyError: 3', 'extraInfo': {'timestamp': '1'}}}, stream)\n"
            "print('noise'); sys.exit(1)",
            1,
            "ProgramError",
            "KeyError: 3",
        ),
    ],
)
def test_a_failure_says_why(job: Job, body: str, code: int, reason: str, message: str) -> None:
    launcher = job.launch(job.script(body))
    job.coordinator.run(1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None
    assert (failure.exit_code, failure.signal, failure.reason, failure.rank) == (code, None, reason, 0)
    assert message in failure.message
    job.coordinator.say("exit", 1, exit_code=code)
    assert launcher.exit_code() == code
    assert launcher.last_message["failure"]["reason"] == reason


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_signal_is_named(job: Job, name: str) -> None:
    job.launch(job.script(f"import os, signal; os.kill(os.getpid(), signal.{name})"))
    job.coordinator.run(1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None
    assert (failure.exit_code, failure.signal, failure.reason) == (None, name, "Killed")
    assert failure.message.startswith(f"killed by {name} (")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "no such program"),
        (["python3 train.py"], "write each by itself: [python, train.py]"),
        (["./plain-file"], "not executable"),
        (["./nonsense"], "no program for this machine"),
    ],
)
def test_a_command_that_cannot_be_started(job: Job, command: list[str], words: str) -> None:
    job.file("plain-file").write_text("x")
    job.file("nonsense").write_bytes(b"\x01\x02\x03")
    job.file("nonsense").chmod(0o755)
    if command[0].startswith("./"):
        command = [str(job.file(command[0]))]
    launcher = job.launch(command)
    job.coordinator.run(1, first_rank=4, processes=2)
    failed = job.coordinator.wait_state("failed", 1)
    assert failed.failure is not None and failed.failure.reason == "StartFailed"
    assert words in failed.failure.message and command[0] in failed.failure.message
    assert (failed.failure.local_rank, failed.failure.rank) == (0, 4)
    launcher.terminate()
    assert launcher.exit_code() == 143


def test_the_first_failure_is_told_at_once_and_the_others_are_stopped(job: Job) -> None:
    command = job.script(f"""
        import os, signal, sys, time
        folder = {str(job.folder)!r}
        if os.environ["RANK"] == "0":
            def slowly(number, frame):
                while not os.path.exists(os.path.join(folder, "go")):
                    time.sleep(0.01)
                sys.exit(1)
            signal.signal(signal.SIGTERM, slowly)
            open(os.path.join(folder, "pid"), "w").write(str(os.getpid()))
            time.sleep(60)
        while not os.path.exists(os.path.join(folder, "pid")):
            time.sleep(0.01)
        sys.exit("the second one failed")
    """)
    job.launch(command)
    job.coordinator.run(1, processes=2)
    failed = job.coordinator.wait_state("failed", 1)
    pid = int(job.wait_file("pid"))
    assert alive(pid)  # said before the other one is gone
    assert failed.failure is not None
    assert (failed.failure.rank, failed.failure.message) == (1, "the second one failed")
    job.coordinator.run(2, processes=1, first_rank=7)
    told = job.coordinator.wait_for(lambda poll: poll.ack and poll.ack.round == 2, "round 2 taken up")
    assert (told.round, told.state, alive(pid)) == (1, "failed", True)
    job.coordinator.say("wait", 1)  # an old answer that was overtaken: round 2 is to begin all the same
    seen = len(job.coordinator.polls)
    eventually(lambda: len(job.coordinator.polls) > seen + 1, "two more polls")
    job.coordinator.run(2, processes=1, first_rank=7)
    job.file("go").write_text("")
    running = job.coordinator.wait_state("running", 2)
    assert running.failure is None
    assert not alive(pid)


def test_a_newer_round_replaces_the_running_one(job: Job) -> None:
    command = job.script(f"""
        import os, time
        path = os.path.join({str(job.folder)!r}, "round-" + os.environ["EDGECLOUD_ROUND"])
        with open(path, "a") as stream:
            stream.write(str(os.getpid()) + "\\n")
        time.sleep(60)
    """)
    job.launch(command)
    job.coordinator.run(1)
    first = int(job.wait_file("round-1"))
    job.coordinator.run(4)
    second = int(job.wait_file("round-4"))
    assert not alive(first)
    # An older round, and the same once more: nothing happens.
    job.coordinator.run(3)
    job.coordinator.run(4)
    job.coordinator.say("wait", 2)
    seen = len(job.coordinator.polls)
    eventually(lambda: len(job.coordinator.polls) > seen + 3, "three more polls")
    assert alive(second)
    assert job.file("round-4").read_text().split() == [str(second)]
    assert not job.file("round-3").exists()
    assert job.coordinator.polls[-1].state == "running"


def test_wait_stops_the_processes_and_the_launcher_is_idle(job: Job) -> None:
    launcher = job.launch(
        job.script(f"""
        import os, time
        open(os.path.join({str(job.folder)!r}, "pid"), "w").write(str(os.getpid()))
        time.sleep(60)
    """)
    )
    job.coordinator.run(1)
    pid = int(job.wait_file("pid"))
    job.coordinator.say("wait", 1)
    job.coordinator.wait_state("idle", 1)
    assert not alive(pid)
    launcher.terminate()
    assert launcher.exit_code() == 143
    assert launcher.last_message["outcome"] == "idle"


def test_an_outcome_stands_until_the_next_round(job: Job) -> None:
    job.launch(job.script("import sys; sys.exit(1)"))
    job.coordinator.run(1)
    job.coordinator.wait_state("failed", 1)
    job.coordinator.say("wait", 1)
    waiting = job.coordinator.wait_for(lambda poll: poll.ack and poll.ack.action == "wait" and poll.round == 1, "wait")
    assert waiting.state == "failed" and waiting.failure is not None
    job.coordinator.run(2)
    job.coordinator.wait_state("failed", 2)


def test_a_taken_port_is_no_failure_of_the_program(job: Job) -> None:
    launcher = job.launch(job.script("pass"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        job.coordinator.run(1, port=port)
        failed = job.coordinator.wait_state("failed", 1)
        assert failed.failure is not None and failed.failure.reason == "PortTaken"
        # The other workers connect to that port, and need not be able to bind it.
        job.coordinator.run(2, port=port, group_rank=1, first_rank=1)
        job.coordinator.wait_state("succeeded", 2)
    job.coordinator.run(3, port=port)
    job.coordinator.wait_state("succeeded", 3)
    launcher.terminate()
    assert launcher.exit_code() == 0


def test_progress_is_reported_and_merged(job: Job) -> None:
    command = job.script("""
        import os, time
        from edgecloud import worker
        rank = int(os.environ["RANK"])
        if rank == 0:
            worker.report(step=1, total_steps=10, accuracy=0.5, loss=float("nan"), lr=0.1)
            worker.report(step=2, loss=0.25)
        else:
            worker.report(step=2, samples_per_second=100)
        while not worker.should_stop():
            time.sleep(0.01)
        raise SystemExit(143)
    """)
    job.launch(command)
    job.coordinator.run(1, processes=2)
    poll = job.coordinator.wait_for(
        lambda poll: poll.progress and poll.progress.samples_per_second and poll.progress.loss,
        "both processes' progress",
    )
    progress = poll.progress
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.accuracy, progress.loss) == (2, 10, 0.5, 0.25)
    assert (progress.samples_per_second, progress.metrics) == (100.0, {"lr": 0.1})
    job.coordinator.say("stop", 1)
    last = job.coordinator.wait_state("preempted", 1)
    assert last.progress is not None and last.progress.step == 2  # what was last said stands


def test_progress_comes_at_most_as_often_as_wanted(job: Job) -> None:
    job.launch(
        job.script("""
        import time
        from edgecloud import worker
        for step in range(600):
            worker.report(step=step)
            time.sleep(0.002)
    """)
    )
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1)
    running = [poll for poll in job.coordinator.polls if poll.state == "running" and poll.hold == 0]
    steps = [poll.progress.step for poll in running if poll.progress]
    assert 3 <= len(running) <= 30  # 1.2 seconds and more, a report each 0.1 s
    assert steps == sorted(steps)
    done = job.coordinator.polls[-1]
    assert done.progress is not None and done.progress.step == 599


@pytest.mark.parametrize("code", [0, 7])
def test_without_a_coordinator_the_launcher_ends_at_last(job: Job, code: int) -> None:
    launcher = job.launch(job.script(f"import sys; sys.exit({code})"), EDGECLOUD_ORPHAN_SECONDS="0.5")
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded" if code == 0 else "failed", 1)
    job.coordinator.close()
    assert launcher.exit_code() == code
    assert launcher.last_message["exitCode"] == code


def test_output_passes_through_and_goes_on_into_the_message(job: Job) -> None:
    launcher = job.launch(
        job.script("""
        import os, sys
        for line in range(30):
            print("line", line)
        sys.stdout.flush()
        print("\\x1b[31mred\\x1b[0m", "over\\rwritten \\x07bell", file=sys.stderr)
        os.write(1, b"\\xff\\xfe not UTF-8\\n")
        sys.exit(1)
    """)
    )
    job.coordinator.run(1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None
    lines = failure.message.split("\n")
    assert len(lines) == 20
    assert lines[-2:] == ["written bell", "\ufffd\ufffd not UTF-8"]
    assert lines[0] == "line 12"
    eventually(lambda: "line 0\n" in launcher.stdout, "the output", saw=lambda: launcher.stdout)
    assert "[rank" not in launcher.stdout
    assert "edgecloud-launcher: round 1: rank 0 failed (exit code 1): ProgramError" in launcher.stderr


def test_lines_of_several_processes_are_told_apart_in_the_log_file(job: Job) -> None:
    log = job.file("log")
    launcher = job.launch(
        job.script("import os; print('one'); print('two ' + os.environ['RANK'], end='')"), EDGECLOUD_LOG_FILE=str(log)
    )
    job.coordinator.run(1, first_rank=2, processes=2)
    job.coordinator.wait_state("succeeded", 1)
    job.coordinator.say("exit", 1)
    assert launcher.exit_code() == 0
    lines = log.read_text().splitlines()
    assert {"[rank 2] one", "[rank 2] two 2", "[rank 3] one", "[rank 3] two 3"} <= set(lines)
    assert all(line.startswith(("[rank ", "edgecloud-launcher: ")) for line in lines)
    assert launcher.stdout == launcher.stderr == ""


def test_a_flood_of_output_is_bounded(job: Job) -> None:
    log = job.file("log")
    launcher = job.launch(
        ["sh", "-c", "yes 'some words of a talkative program' | head -c 300000000; echo; echo the end"],
        EDGECLOUD_LOG_FILE=str(log),
        EDGECLOUD_LOG_MAX_BYTES="1000000",
    )
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1, seconds=30)
    status = Path(f"/proc/{launcher.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    assert peak < 100_000  # kB
    assert log.stat().st_size <= 1_000_000
    assert log.with_name("log.1").stat().st_size <= 1_000_000
    assert "the end" in log.read_text()
    assert sorted(path.name for path in job.folder.glob("log*")) == ["log", "log.1"]


def test_a_reader_of_stdout_that_sleeps_does_not_stop_the_polls(job: Job, tmp_path: Path) -> None:
    command = job.script("import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.flush()")
    reader, writer = os.pipe()
    pipe = tmp_path / "stdout"
    pipe.symlink_to(f"/proc/{os.getpid()}/fd/{writer}")
    job.coordinator.holding = False
    job.launch(command)
    job.coordinator.run(1)
    job.coordinator.wait_state("running", 1)
    seen = len(job.coordinator.polls)
    eventually(lambda: len(job.coordinator.polls) > seen + 3, "polls while nobody reads")
    assert job.coordinator.polls[-1].state == "running"  # the process waits, as it would for its own reader
    os.close(writer)
    total = 0
    while total < 3_000_000:
        total += len(os.read(reader, 1 << 20))
    job.coordinator.wait_state("succeeded", 1)
    os.close(reader)


def test_when_nobody_reads_stdout_any_more_the_training_goes_on(job: Job, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "stdout").symlink_to(f"/proc/{os.getpid()}/fd/{writer}")
    job.launch(job.script("import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.flush()"))
    os.close(writer)
    os.close(reader)
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1)


def test_two_processes_of_one_worker_killed_together_the_signal_is_the_cause(job: Job) -> None:
    job.launch(
        job.script(f"""
        import os, signal, socket, sys
        path = os.path.join({str(job.folder)!r}, "peer")
        if os.environ["RANK"] == "1":
            server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
            peer, _ = server.accept()
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            try:
                peer = socket.socket(socket.AF_UNIX); peer.connect(path); break
            except OSError:
                pass
        peer.recv(1)
        sys.exit("connection reset by peer")
    """)
    )
    job.coordinator.run(1, processes=2)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None and (failure.rank, failure.signal) == (1, signal.SIGKILL.name)


def test_what_an_earlier_life_left_in_the_scratch_folder_is_in_nobodys_way(job: Job) -> None:
    job.file("scratch").mkdir()
    (job.file("scratch") / "round-1").mkdir()
    for _ in range(2):
        launcher = job.launch(job.script("pass"))
        job.coordinator.run(1)
        job.coordinator.wait_state("succeeded", 1)
        launcher.close()
        job.coordinator.polls.clear()


def test_a_full_scratch_folder_is_not_the_programs_error(job: Job) -> None:
    launcher = job.launch(job.script("pass"))
    job.coordinator.wait_for(lambda poll: True, "a poll")
    job.file("scratch").rmdir()
    job.coordinator.run(1)
    failure = job.coordinator.wait_state("failed", 1).failure
    assert failure is not None and failure.reason == "Transient"
    assert "scratch" in failure.message
    job.file("scratch").mkdir()
    job.coordinator.run(2)
    job.coordinator.wait_state("succeeded", 2)
    assert launcher.process.poll() is None
