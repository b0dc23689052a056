"""A real launcher process, a scripted coordinator on a real socket, and waits that say what they saw."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from edgecloud.protocol import Directive, PollRequest, RunOrder

SOURCES = Path(__file__).parents[3] / "operator"
PYTHON = os.environ.get("EDGECLOUD_TEST_PYTHON", sys.executable)
"""The interpreter of the launcher and of the scripts; any from 3.8 on."""
TOKEN = "a-token"
T = TypeVar("T")
PATH = "/v1/namespaces/default/trainingjobs/digits/workers/0/poll"


def eventually(look: Callable[[], T], what: str, *, seconds: float = 15.0, saw: Callable[[], object] = lambda: "") -> T:
    """What `look` returns as soon as it is true; fails after the deadline, with what was seen."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}; saw: {saw()}")
        time.sleep(0.005)


class Coordinator:
    """Answers every poll with the directive of the moment; holds a poll as long as its launcher has taken that up."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.polls: list[PollRequest] = []
        self.errors: list[str] = []
        self.tokens: list[str] = []
        self.statuses: list[int] = []
        """Statuses for the next requests, before any are answered properly."""
        self.old = False
        """Whether it is of a release that knows no `asks` and `asked`."""
        self.holding = True
        self.witnesses: list[Callable[[], object]] = []
        """What else to show when a wait was in vain."""
        self._directive = Directive(action="wait", round=0)
        self._changed = threading.Condition()
        self._sequence = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._closing = False
        self._connections: set[Any] = set()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def say(self, action: str, round: int, **more: Any) -> None:
        with self._changed:
            self._directive = Directive(action=action, round=round, **more)  # type: ignore[arg-type]
            self._changed.notify_all()

    def run(self, round: int, **order: Any) -> None:
        self.say("run", round, run=run_order(**order), report_seconds=0.1)

    def wait_for(self, wanted: Callable[[PollRequest], object], what: str, *, seconds: float = 15.0) -> PollRequest:
        """The first poll of all that were received that is as wanted."""

        def look() -> PollRequest | None:
            assert not self.errors, self.errors
            return next((poll for poll in list(self.polls) if wanted(poll)), None)

        found = eventually(look, what, seconds=seconds, saw=self._seen)
        assert found is not None
        return found

    def wait_state(self, state: str, round: int, *, seconds: float = 15.0) -> PollRequest:
        return self.wait_for(
            lambda poll: (poll.state, poll.round) == (state, round), f"{state} in round {round}", seconds=seconds
        )

    def _seen(self) -> str:
        return "\n".join([*map(summary, self.polls[-5:]), *(str(witness()) for witness in self.witnesses)])

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _answer(self, body: bytes, path: str, authorization: str) -> tuple[int, bytes]:
        with self._changed:
            self.tokens.append(authorization.removeprefix("Bearer "))
            if self.statuses:
                return self.statuses.pop(0), b'{"error":"scripted"}'
            try:
                assert path == PATH, path
                assert not (self.old and "asks" in json.loads(body)), "an unknown word"
                poll = PollRequest.parse(json.loads(body))
            except (pydantic.ValidationError, AssertionError, ValueError) as error:
                self.errors.append(str(error))
                return 400, b"{}"
            if poll.sequence <= self._sequence:
                return 409, b"{}"
            self._sequence = poll.sequence
            self.polls.append(poll)
            until = time.monotonic() + poll.hold
            while self.holding and not self._closing and self._is_known(poll) and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
            said = {name: value for name, value in self._directive.dump().items() if not (self.old and name == "asked")}
            return 200, json.dumps(said).encode()

    def _is_known(self, poll: PollRequest) -> bool:
        known = poll.ack
        return known is not None and (known.action, known.round) == (self._directive.action, self._directive.round)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        coordinator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                coordinator._connections.add(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = coordinator._answer(body, self.path, self.headers["Authorization"])
                head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
                self.wfile.write(head.encode() + answer)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    return
                finally:
                    coordinator._connections.discard(self.connection)

        return Handler


def run_order(
    *, first_rank: int = 0, world_size: int = 1, processes: int = 1, group_rank: int = 0, port: int = 0, **more: Any
) -> RunOrder:
    from edgecloud.launcher.machine import free_port

    return RunOrder(
        first_rank=first_rank,
        world_size=max(world_size, first_rank + processes),
        processes=processes,
        group_rank=group_rank,
        group_size=max(1, group_rank + 1),
        master_address="127.0.0.1",
        master_port=port or free_port("127.0.0.1"),
        **more,
    )


def summary(poll: PollRequest) -> str:
    ack = f"{poll.ack.action}({poll.ack.round})" if poll.ack else "none"
    failure = f" {poll.failure.reason}: {poll.failure.message[-200:]}" if poll.failure else ""
    return f"<{poll.state} round={poll.round} ack={ack} draining={poll.draining}{failure}>"


class Launcher:
    """A launcher process."""

    def __init__(
        self,
        folder: Path,
        url: str,
        command: Sequence[str],
        environment: Mapping[str, str | None],
        start: Sequence[str] = (PYTHON, "-m", "edgecloud.launcher"),
    ) -> None:
        self.folder = folder
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        (folder / "scratch").mkdir(exist_ok=True)
        variables: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCES),
            "PYTHONDONTWRITEBYTECODE": "1",
            "EDGECLOUD_COORDINATOR": url,
            "EDGECLOUD_TOKEN_FILE": str(token),
            "EDGECLOUD_NAMESPACE": "default",
            "EDGECLOUD_JOB": "digits",
            "EDGECLOUD_JOB_UID": "job-uid",
            "EDGECLOUD_WORKER_INDEX": "0",
            "EDGECLOUD_POD_UID": "pod-uid",
            "EDGECLOUD_ADDRESS": "127.0.0.1",
            "EDGECLOUD_NODE": "node-a",
            "EDGECLOUD_SCRATCH": str(folder / "scratch"),
            "EDGECLOUD_TERMINATION_FILE": str(folder / "termination"),
            **environment,
        }
        with (folder / "stdout").open("ab") as stdout, (folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*start, "--", *command],
                env={name: value for name, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    @property
    def last_message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((self.folder / "termination").read_bytes())
        return message

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, *, seconds: float = 15.0) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the launcher did not end within {seconds} s; it says: {self.stderr}") from None

    def testimony(self) -> str:
        """What it said, and what it and those below it do now."""
        states = [f"{pid}: {process_state(pid)}" for pid in [self.pid, *descendants(self.pid)]]
        return "\n".join([self.stderr[-1500:], self.stdout[-1500:], *states])

    def close(self) -> None:
        if self.process.poll() is None:
            for pid in [*descendants(self.pid), self.pid]:
                kill(pid)
        self.process.wait()


class Job:
    """A folder with scripts, a coordinator and launchers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coordinator = Coordinator()
        self.launchers: list[Launcher] = []

    def script(self, text: str, name: str = "train.py") -> list[str]:
        """A command that runs this Python program."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return [PYTHON, str(path)]

    def launch(self, command: Sequence[str], **environment: str | None) -> Launcher:
        launcher = Launcher(self.folder, self.coordinator.url, command, environment)
        self.launchers.append(launcher)
        self.coordinator.witnesses.append(launcher.testimony)
        return launcher

    def file(self, name: str) -> Path:
        return self.folder / name

    def wait_file(self, name: str, *, seconds: float = 15.0) -> str:
        """The contents of a file that a script writes, once there are any."""
        path = self.file(name)

        def said() -> str:
            return "\n".join(launcher.testimony() for launcher in self.launchers)

        return eventually(lambda: path.read_text() if path.exists() else "", f"file {name}", seconds=seconds, saw=said)

    def close(self) -> None:
        for launcher in self.launchers:
            launcher.close()
        self.coordinator.close()


@contextmanager
def job_in(folder: Path) -> Iterator[Job]:
    job = Job(folder)
    try:
        yield job
    finally:
        job.close()


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        for child in below.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def process_state(pid: int) -> str:
    """A line on what a process is and waits for."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        wait = Path("/proc", str(pid), "wchan").read_text()
        command = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError as error:
        return str(error)
    return f"{stat[0]} in {wait}, {stat[11]}+{stat[12]} ticks, {command[:200]}"


def alive(pid: int) -> bool:
    """Whether this process runs (a zombie does not)."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
