"""Files as they lie on a disk: missing, endless, without rights, and standard input."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.documents import MAX_BYTES
from edgecloud.validation import validate_files
from tests.unit.validation.files import good


def refusal(path: str | Path, stdin: io.BufferedIOBase | None = None) -> str:
    started = time.monotonic()
    [result] = validate_files([path], TrainingJob, stdin=stdin)  # type: ignore[arg-type]
    assert time.monotonic() - started < 2
    assert result.jobs == ()
    [problem] = result.problems
    assert str(problem).isprintable()
    return str(problem)


def test_each_file_has_its_result(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(good())
    (tmp_path / "b.yaml").write_text(good("foo: 1"))
    one, two, three = validate_files(
        [tmp_path / "a.yaml", str(tmp_path / "b.yaml"), "-"], TrainingJob, stdin=io.BytesIO()
    )
    assert one.ok
    assert len(one.jobs) == 1
    assert not two.ok
    assert str(two.problems[0]).startswith(f"{tmp_path}/b.yaml:8: spec.foo: unknown field")
    assert str(three.problems[0]).startswith("stdin: there is no document in the file")


def test_standard_input() -> None:
    [result] = validate_files(["-"], TrainingJob, stdin=io.BytesIO(good().encode()))
    assert (result.file, result.ok) == ("stdin", True)


def test_standard_input_is_read_no_further_than_allowed() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            view = memoryview(buffer)  # type: ignore[arg-type]
            view[:] = b"#" * len(view)
            self.given += len(view)
            return len(view)

    endless = Endless()
    assert "larger than 1024 KiB" in refusal("-", io.BufferedReader(endless))
    assert endless.given < 2 * MAX_BYTES


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert refusal("-") == "stdin: there is no standard input: name a file"
    closed = io.BytesIO()
    closed.close()
    assert refusal("-", closed).startswith("stdin: it cannot be read: ")


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: there is no such file: check its name"
    assert refusal("") == "there is no such file: check its name"


def test_directory(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/") == f"{tmp_path}/: this is a directory: name the files in it: {tmp_path}/*.yaml"


def test_fifo_without_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo").endswith(
        "/fifo: this is no regular file: name a file, or write - in its place and pipe the content to it"
    )


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem", "/proc/self/fd"])
def test_devices(device: str) -> None:
    refusal(device)


def test_loops_and_long_names(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert os.strerror(errno.ELOOP) in refusal(tmp_path / "loop")
    assert os.strerror(errno.ENAMETOOLONG) in refusal("x" * 5000)
    assert "cannot be read" in refusal("a\0b")
    assert "no such file" in refusal("\udcff\n\x1b[31m")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_right_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch(mode=0)
    assert "no right to read it" in refusal(tmp_path / "a.yaml")


def test_a_sparse_terabyte(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**40)
    assert "larger than 1024 KiB" in refusal(tmp_path / "huge.yaml")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(good())
    before = len(list(Path("/proc/self/fd").iterdir()))
    validate_files([tmp_path, tmp_path / "a.yaml", "/dev/zero"] * 20, TrainingJob)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
