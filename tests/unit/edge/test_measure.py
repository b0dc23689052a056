"""The measuring Pod's program: folders and servers, good, broken and hostile; exit codes and messages."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import logging
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgecloud.edge import measure
from edgecloud.edge.fetching import FetchError, fetch
from edgecloud.edge.report import Report
from tests.unit.edge.export import folder

SECRET = "s3cr3t"


Ended = tuple[int, dict[str, Any], str]
"""Exit code, message and what was logged."""
Run = Callable[..., Ended]


def surroundings(tmp_path: Path, export: object) -> dict[str, str]:
    """The program's environment variables."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    (tmp_path / "message").unlink(missing_ok=True)
    return {
        "EDGECLOUD_EXPORT": str(export), "EDGECLOUD_NODE": "edge-1", "TMPDIR": str(tmp_path / "tmp"),
        "EDGECLOUD_TERMINATION_LOG": str(tmp_path / "message"),
    }  # fmt: skip


def ended(tmp_path: Path, code: int, printed: str, logged: str) -> Ended:
    assert list((tmp_path / "tmp").iterdir()) == [], "what was downloaded is gone again"
    text = (tmp_path / "message").read_text()
    assert len(text.encode()) < 3584
    assert json.loads(printed) == json.loads(text)
    assert SECRET not in text + printed + logged
    return code, json.loads(text), logged


def process(tmp_path: Path, export: object) -> Ended:
    """The program as a Pod starts it."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= surroundings(tmp_path, export)
    command = [sys.executable, "-m", "edgecloud.edge.measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return ended(tmp_path, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    one_load: None,
) -> Iterator[Run]:
    """The program from its first line to its exit code, in this process, with less time for latency."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", None)  # TMPDIR is looked at again
    monkeypatch.setattr(measure, "measure", functools.partial(measure.measure, seconds=0.1))
    caplog.set_level(logging.INFO)
    before = signal.getsignal(signal.SIGTERM)

    def once(export: object, **more: str) -> Ended:
        for name, value in (surroundings(tmp_path, export) | more).items():
            monkeypatch.setenv(name, value)
        caplog.clear()
        with pytest.raises(SystemExit) as caught:
            measure.main()
        assert isinstance(caught.value.code, int)
        captured = capsys.readouterr()
        return ended(tmp_path, caught.value.code, captured.out, caplog.text + captured.err)

    yield once
    signal.signal(signal.SIGTERM, before)


def test_a_folder_that_nothing_was_exported_to(tmp_path: Path) -> None:
    code, message, logged = process(tmp_path, tmp_path / "nowhere")
    assert code == 2
    assert "nowhere holds no report.json: nothing was exported there" in message["error"]
    assert message["error"] in logged


def test_a_folder(tmp_path: Path) -> None:
    export = folder(tmp_path / "export")
    code, message, _ = process(tmp_path, export)
    assert code == 0
    first, second = message["exports"]
    assert (first["format"], first["node"], first["gate"], first["accuracy"]) == ("onnx", "edge-1", "passed", 0.9)
    assert second["format"] == "onnx-int8"
    assert set(first) == {
        "format", "path", "bytes", "sha256", "accuracy", "parity", "latency", "gate", "node",
    }  # fmt: skip
    report = Report.model_validate_json((export / "report-edge.json").read_text(), by_alias=True, by_name=False)
    assert report.measured_at == "edge"
    assert report.machine.node == "edge-1"
    assert report.machine.cpu
    assert [one.macs for one in report.exports] == [180, 180], "as the export counted them"
    assert report.exports[1].ratios
    assert sorted(path.name for path in export.iterdir()) == [
        "model-int8.onnx", "model.onnx", "reference.npz", "report-edge.json", "report.json",
    ]  # fmt: skip


def test_a_gate_that_fails(tmp_path: Path, run: Run) -> None:
    export = folder(tmp_path / "export", off=3.0)
    code, message, log = run(export)
    assert code == 3
    assert [one["gate"] for one in message["exports"]] == ["passed", "failed"]
    assert "model-int8.onnx loses" in log
    assert run(export, EDGECLOUD_MAX_ACCURACY_LOSS="100")[0] == 0


def _report(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(export: Path) -> None:
        report = json.loads((export / "report.json").read_text())
        change(report)
        (export / "report.json").write_text(json.dumps(report))

    return apply


def _nothing(export: Path) -> None:
    for path in export.iterdir():
        path.unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "an empty folder": (_nothing, "holds no report.json"),
    "no models": (_report(lambda report: report.update(exports=[])), "tells of no ONNX model"),
    "only pt2": (
        _report(lambda report: [one.update(format="pt2") for one in report["exports"]]), "tells of no ONNX model",
    ),
    "a path out": (
        _report(lambda report: report["exports"][0].update(path="../../etc/passwd")), "is to be model.onnx",
    ),
    "another file": (lambda export: (export / "model.onnx").write_bytes(b"x") and None, "is another file than"),
    "a file gone": (lambda export: (export / "model-int8.onnx").unlink(), "can't be read"),
    "no images": (lambda export: (export / "reference.npz").unlink(), "reference.npz can't be read"),
    "no report": (lambda export: (export / "report.json").write_text("[]") and None, "report.json can't be used"),
    "deep": (lambda export: (export / "report.json").write_text("[" * 10**6) and None, "report.json can't be used"),
    "long names": (
        _report(lambda report: report["exports"][0].update(path="x" * 5000)), "report.json can't be used",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder(tmp_path: Path, run: Run, name: str) -> None:
    breaks, said = BROKEN[name]
    export = folder(tmp_path / "export")
    breaks(export)
    code, message, _ = run(export)
    assert code == 2
    assert said in message["error"]
    assert not (export / "report-edge.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"EDGECLOUD_EXPORT": ""}, "EDGECLOUD_EXPORT isn't set"),
        ({"EDGECLOUD_EXPORT": "/nowhere/at/all"}, "holds no report.json"),
        ({"EDGECLOUD_MAX_ACCURACY_LOSS": "nan"}, "EDGECLOUD_MAX_ACCURACY_LOSS is 'nan'"),
        ({"EDGECLOUD_MAX_ACCURACY_LOSS": "-1"}, "percentage points from 0 to 100"),
        ({"EDGECLOUD_EXPORT": f"http://user:{SECRET}@127.0.0.1/"}, "user name and password"),
        ({"EDGECLOUD_EXPORT": "gopher://host/export"}, "gopher://host/export/report.json can't be opened"),
        ({"EDGECLOUD_EXPORT": "http://[::1/x"}, "can't be read"),
        ({"EDGECLOUD_EXPORT": "http://127.0.0.1:99999/"}, "can't be"),
    ],
)
def test_wrong_settings(run: Run, more: dict[str, str], said: str) -> None:
    code, message, _ = run("/nowhere", **more)
    assert code == 2
    assert said in message["error"]


def test_a_message_that_cannot_be_written(tmp_path: Path) -> None:
    environment = os.environ | {"EDGECLOUD_EXPORT": "/nowhere", "EDGECLOUD_TERMINATION_LOG": "/proc/no/such"}
    command = [sys.executable, "-m", "edgecloud.edge.measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the result isn't in /proc/no/such" in done.stderr


# Servers


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to whoever shows the token."""

    def do_GET(self) -> None:
        if f"token={SECRET}" not in self.path:
            self.send_error(403)
            return
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@contextmanager
def serving(handler: Callable[..., Any]) -> Iterator[str]:
    """A server's address."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server(tmp_path: Path, run: Run) -> None:
    export = folder(tmp_path / "export")
    before = sorted(path.name for path in export.iterdir())
    with serving(functools.partial(Files, directory=str(tmp_path))) as address:
        code, message, _ = run(f"{address}/export/?token={SECRET}")
        assert code == 0
        assert [one["node"] for one in message["exports"]] == ["edge-1", "edge-1"]
        code, message, _ = run(f"{address}/export")
        assert (code, message["error"].split(": ")[0]) == (2, f"{address}/export/report.json answers 403")
        code, message, _ = run(f"{address}/missing?token={SECRET}")
        assert (code, "answers 404" in message["error"]) == (2, True)
        (export / "model.onnx").write_bytes((export / "model-int8.onnx").read_bytes())
        code, message, _ = run(f"{address}/export?token={SECRET}")
        assert (code, "is another file than report.json tells of" in message["error"]) == (2, True)
    assert sorted(path.name for path in export.iterdir()) == before
    code, message, _ = run(f"{address}/export?token={SECRET}")
    assert (code, "can't be reached" in message["error"]) == (75, True)


def test_an_address_that_can_not_be_asked_for_has_no_secret(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:9/export?token={SECRET} x"
    with pytest.raises(
        FetchError, match=r"^http://127.0.0.1:9/export/report.json can't be asked for \(URL can't "
    ) as why:
        fetch(url, "report.json", tmp_path / "target", most=1000)
    assert SECRET not in str(why.value)


def test_what_fsspec_opens(tmp_path: Path, run: Run) -> None:
    export = folder(tmp_path / "export")
    assert run(f"file://{export}")[0] == 0
    code, message, _ = run(f"file://{tmp_path}/nowhere")
    assert code == 2
    assert "No such file" in message["error"]


class Answers(socketserver.StreamRequestHandler):
    """Says what the test has it say, and no more."""

    said = b""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.said)


def answers(said: bytes) -> type[Answers]:
    return type("Saying", (Answers,), {"said": said})


@pytest.mark.parametrize(
    ("said", "passing", "words"),
    [
        (b"HTTP/1.1 503 no\r\n\r\n", True, "answers 503"),
        (b"HTTP/1.1 429 no\r\n\r\n", True, "answers 429"),
        (b"HTTP/1.1 410 no\r\n\r\n", False, "answers 410"),
        (b"HTTP/1.1 200 ok\r\nContent-Length: 100\r\n\r\nabc", True, "breaks off 97 bytes too early"),
        (b"HTTP/1.1 200 ok\r\n\r\n" + bytes(2000), False, "more than 1000 bytes"),
        (b"HTTP/1.1 200 ok\r\nContent-Length: 2000\r\n\r\n" + bytes(2000), False, "more than 1000 bytes"),
        (b"HTTP/1.1 302 there\r\nLocation: file:///etc/passwd\r\n\r\n", False, "answers 302"),
        (b"HTTP/1.1 302 there\r\nLocation: ftp://127.0.0.1/x\r\n\r\n", False, "answers 302"),
        (b"hello\r\n", True, "can't be reached"),
        (b"", True, "can't be reached"),
    ],
)
def test_servers_that_misbehave(tmp_path: Path, said: bytes, passing: bool, words: str) -> None:
    with serving(answers(said)) as address, pytest.raises(FetchError, match=words) as error:
        fetch(address, "report.json", tmp_path / "target", most=1000)
    assert error.value.passing is passing
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecloud.edge.fetching.TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(FetchError, match="can't be reached") as error:
            fetch(address, "report.json", tmp_path / "target", most=1000)
    assert error.value.passing


class Dripping(socketserver.StreamRequestHandler):
    """A byte now and then, so that no single wait is too long."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 ok\r\nContent-Length: 900\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b".")
                time.sleep(0.02)


def test_a_server_that_drips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecloud.edge.fetching.DEADLINE_SECONDS", 0.3)
    began = time.monotonic()
    with serving(Dripping) as address, pytest.raises(FetchError, match="comes too slowly") as error:
        fetch(address, "report.json", tmp_path / "target", most=1000)
    assert error.value.passing
    assert time.monotonic() - began < 5
    assert list(tmp_path.iterdir()) == []
