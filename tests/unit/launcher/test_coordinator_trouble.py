"""A coordinator that is away, slow, wrong or lying: the training goes on, and the launcher comes back to it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecloud.launcher.client import Connection, ExchangeError, StaleConnectionError
from edgecloud.launcher.config import Endpoint
from tests.unit.launcher.harness import Coordinator, Job, Launcher, eventually

STEPS = """
    import time
    from edgecloud import worker
    step = 0
    while not worker.should_stop():
        step += 1
        worker.report(step=step)
        time.sleep(0.01)
    raise SystemExit(143)
"""


def test_refusals_are_tried_again_and_told_once(job: Job) -> None:
    job.coordinator.statuses = [401, 503, 503, 500, 403, 409, 409]
    launcher = job.launch(job.script("pass"))
    job.coordinator.wait_for(lambda poll: True, "a poll")
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1)
    lines = [line for line in launcher.stderr.splitlines() if "no word from the coordinator" in line]
    assert len(lines) == 4, lines
    assert "status 401: it does not accept the token" in lines[0]
    assert launcher.stderr.count("the coordinator answers again") == 1


def test_a_coordinator_of_an_earlier_release_is_told_nothing_that_it_does_not_know(job: Job) -> None:
    """Nor is one that takes the place of a newer one, but for the one request that it refuses."""
    job.coordinator.old = True
    job.launch(job.script(STEPS))
    job.coordinator.run(1)
    job.coordinator.wait_for(lambda poll: poll.progress, "progress")
    job.coordinator.old = False
    job.coordinator.wait_for(lambda poll: poll.asks, "word that the process asks")
    job.coordinator.old = True
    eventually(lambda: job.coordinator.errors, "a refusal")
    job.coordinator.errors.clear()
    seen = len(job.coordinator.polls)
    eventually(lambda: len(job.coordinator.polls) > seen + 2, "polls that are understood")
    job.coordinator.say("stop", 1)
    job.coordinator.wait_state("preempted", 1)


def test_that_a_process_asks_is_said_to_a_coordinator_that_was_not_ready_for_a_moment(job: Job) -> None:
    """In the first words that it takes: by these it may tell the others to stop."""
    job.launch(job.script(STEPS))
    job.coordinator.run(1)
    job.coordinator.wait_for(lambda poll: poll.asks, "word that the process asks")
    job.coordinator.statuses = [401, 429, 503]
    eventually(lambda: not job.coordinator.statuses, "the refusals")
    job.coordinator.polls.clear()
    assert job.coordinator.wait_for(lambda poll: True, "a poll").asks


@pytest.mark.parametrize("status", [401, 403])
def test_a_worker_that_is_nobodys_does_not_wait_for_ever(job: Job, status: int) -> None:
    """Its job was deleted and its Pod left behind: it had no round, and will be given none."""
    job.coordinator.statuses = [status] * 10_000
    launcher = job.launch(job.script("pass"), EDGECLOUD_ORPHAN_SECONDS="0.5")
    assert launcher.exit_code() == 143
    assert "nobody's" in launcher.stderr


def test_a_worker_waits_for_a_coordinator_that_does_not_know_it_yet(job: Job) -> None:
    job.coordinator.statuses = [401, 503] * 5_000
    job.launch(job.script("pass"), EDGECLOUD_ORPHAN_SECONDS="0.5")
    eventually(lambda: len(job.coordinator.statuses) < 9_996, "some attempts", saw=lambda: job.coordinator.statuses[:3])
    job.coordinator.statuses = []
    job.coordinator.run(1)
    job.coordinator.wait_state("succeeded", 1)


def test_the_training_outlives_the_coordinator(job: Job) -> None:
    launcher = job.launch(job.script(STEPS))
    job.coordinator.run(1)
    before = job.coordinator.wait_for(lambda poll: poll.progress, "progress").progress
    job.coordinator.close()
    eventually(lambda: "nobody listens" in launcher.stderr, "a line in the log", saw=lambda: launcher.stderr)
    job.coordinator = Coordinator(port=job.coordinator.port)
    job.coordinator.run(1)
    after = job.coordinator.wait_for(lambda poll: poll.progress, "progress again")
    assert before is not None and after.progress is not None
    assert after.progress.step > before.step
    assert (after.state, after.round) == ("running", 1)
    job.coordinator.say("stop", 1)
    job.coordinator.wait_state("preempted", 1)
    assert launcher.stderr.count("nobody listens") <= 2  # each of the two conversations says it once


def test_a_renewed_token_is_taken(job: Job) -> None:
    job.coordinator.holding = False
    job.launch(["true"])
    job.coordinator.wait_for(lambda poll: True, "a poll")
    job.file("token").write_text("another-token")
    eventually(lambda: "another-token" in job.coordinator.tokens, "the new token", saw=lambda: job.coordinator.tokens)
    job.file("token").unlink()
    job.coordinator.run(1)
    job.file("token").write_text("a-third")
    job.coordinator.wait_state("succeeded", 1)
    assert job.coordinator.tokens[-1] == "a-third"


def test_a_launcher_that_is_started_again_in_the_same_pod_is_heard(job: Job) -> None:
    first = job.launch(["true"])
    last = job.coordinator.wait_for(lambda poll: True, "a poll")
    first.close()
    job.launch(["true"])
    job.coordinator.wait_for(
        lambda poll: poll.sequence > last.sequence + 1 and poll.ack is None, "a poll of the second"
    )


def test_answers_without_end_are_no_busy_loop(job: Job) -> None:
    job.coordinator.holding = False
    job.launch(["true"])
    job.coordinator.wait_for(lambda poll: poll.ack, "an acknowledgement")
    seen = len(job.coordinator.polls)
    again = threading.Event()
    assert not again.wait(1.2)
    assert len(job.coordinator.polls) - seen <= 5


def answer_of(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP/1.1"),
        (answer_of("HTTP/1.1 200 OK\nTransfer-Encoding: chunked"), "how long it is"),
        (answer_of("HTTP/1.1 200 OK\nContent-Length: 70000"), "longer than 65536 bytes"),
        (answer_of("HTTP/1.1 200 OK\nContent-Length: 99999999999999999999"), "longer than 65536 bytes"),
        (answer_of("HTTP/1.1 200 OK\nContent-Length: 100", b"short"), "within its answer"),
        (answer_of("HTTP/1.1 200 OK\nX: " + "x" * 70000), "too long"),
        (b"", "without an answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nonsense_for_an_answer(answer: bytes, words: str) -> None:
    async def ask(port: int) -> None:
        connection = Connection(Endpoint("127.0.0.1", port, tls=False, path="/"), None)
        try:
            got = await connection.post(b"{}", "token", seconds=5)
            pytest.fail(f"taken: {got}")
        finally:
            connection.close()

    with server(answer) as port, pytest.raises(ExchangeError, match=words):
        asyncio.run(ask(port))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answer_of("HTTP/1.1 200 OK\nContent-Length: 4", b"oops"), "no directive"),
        (answer_of("HTTP/1.1 200 OK\nContent-Length: 20", b'{"action":"destroy"}'), "unknown action"),
        (answer_of("HTTP/1.0 302 Found\nContent-Length: 4", b"no!\n"), "status 302 (no!)"),
    ],
    ids=["oops", "action", "status"],
)
def test_nonsense_for_a_directive(job: Job, answer: bytes, words: str) -> None:
    with server(answer) as port:
        launcher = Launcher(job.folder, f"http://127.0.0.1:{port}", ["true"], {})
        job.launchers.append(launcher)
        eventually(lambda: words in launcher.stderr, words, saw=lambda: launcher.stderr)
        assert launcher.process.poll() is None
        launcher.terminate()
        assert launcher.exit_code() == 143


def test_an_answer_that_does_not_come() -> None:
    async def ask(port: int) -> None:
        connection = Connection(Endpoint("127.0.0.1", port, tls=False, path="/"), None)
        await connection.post(b"{}", "token", seconds=0.1)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ExchangeError, match=r"the answer took more than 0\.1 s"),
    ):
        asyncio.run(ask(listener.getsockname()[1]))


def test_a_kept_connection_that_was_closed_meanwhile_is_no_trouble() -> None:
    async def ask(port: int) -> list[object]:
        connection = Connection(Endpoint("127.0.0.1", port, tls=False, path="/"), None)
        outcomes: list[object] = []
        for _ in range(4):
            try:
                outcomes.append((await connection.post(b"{}", "token", seconds=5)).status)
            except StaleConnectionError:
                outcomes.append("stale")
        connection.close()
        return outcomes

    # The server closes after each answer without saying so.
    with server(answer_of("HTTP/1.1 200 OK\nContent-Length: 2", b"{}")) as port:
        outcomes = asyncio.run(ask(port))
    assert set(outcomes) <= {200, "stale"} and outcomes.count(200) >= 2


def test_https_is_checked_against_the_given_certificate(job: Job) -> None:
    good, other = certificate(job.folder, "good"), certificate(job.folder, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(good.with_suffix(".pem"), good.with_suffix(".key"))
    coordinator = Coordinator(tls=context)
    try:
        ca = job.file("ca.pem")
        shutil.copy(other.with_suffix(".pem"), ca)
        launcher = Launcher(job.folder, coordinator.url, ["true"], {"EDGECLOUD_CA_FILE": str(ca)})
        job.launchers.append(launcher)
        eventually(lambda: "not to be trusted" in launcher.stderr, "a refusal", saw=lambda: launcher.stderr)
        assert not coordinator.polls
        shutil.copy(good.with_suffix(".pem"), ca)  # renewed while the launcher runs
        coordinator.run(1)
        coordinator.wait_state("succeeded", 1)
        launcher.close()
    finally:
        coordinator.close()


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Reads a request, says this, and hangs up."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(65536)
                    connection.sendall(answer)
                except OSError:
                    continue

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for 127.0.0.1."""
    path = folder / name
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path.with_suffix(".key")), "-out", str(path.with_suffix(".pem"))]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *names, *files], check=True, capture_output=True)
    return path
