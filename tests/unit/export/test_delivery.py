"""Copies of an export elsewhere: a folder, a URL, and what can never be one."""

from __future__ import annotations

import errno
import ftplib
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from edgecloud.edge.card import Format
from edgecloud.edge.layout import EDGE_REPORT, MODELS, REFERENCE, REPORT
from edgecloud_trainer.export.delivery import (
    DeliveryError,
    DestinationError,
    check_destination,
    deliver,
    shown,
    try_destination,
)
from edgecloud_trainer.export.folder import MARK
from tests.unit.edge import export as exports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"model")
    (made / "report.json").write_bytes(b"{}")
    return made


NAMES = ("model.onnx", "report.json")


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}", "simplecache::file://{}"])
@pytest.mark.parametrize("name", ["away", "run#3", "what?x", "a%20b"])
def test_into_a_folder(form: str, name: str, folder: Path, tmp_path: Path) -> None:
    target, said = tmp_path / "far" / name, list[str]()
    target.mkdir(parents=True)
    (target / "model.onnx").write_bytes(b"an older one")
    deliver(folder, NAMES, form.format(target), said.append)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"model.onnx": b"model", "report.json": b"{}"}
    assert said == list(NAMES)
    assert {path.name for path in (tmp_path / "far").iterdir()} == {name}


def test_to_a_store_of_objects(folder: Path) -> None:
    deliver(folder, NAMES, "memory://bucket/run", lambda _name: None)
    files = fsspec.filesystem("memory")
    assert files.cat("/bucket/run/model.onnx") == b"model" and files.cat("/bucket/run/report.json") == b"{}"


@pytest.mark.parametrize("destination", ["http://host/path", "https://host/path", "nonsense://host/path"])
def test_where_nothing_can_ever_be_written(destination: str, folder: Path) -> None:
    with pytest.raises(DestinationError, match="can't be written to"):
        check_destination(destination)
    with pytest.raises(DestinationError):
        deliver(folder, NAMES, destination, lambda _name: None)


@pytest.mark.parametrize(
    "destination",
    ["", ".", "models/", "~/models", "s3:/bucket/run", "file://models", "file://", "memory://a/run#3", "memory://a?b"],
)
def test_what_names_no_folder(destination: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable of a template, above all, must not mean whatever folder the user happens to be in."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(DestinationError, match=r"^export\.destination: this is neither .*: write /folder, "):
        check_destination(destination)
    with pytest.raises(DestinationError):
        deliver(folder, NAMES, destination, lambda _name: None)
    assert not list(here.iterdir())


def test_a_folder_is_tried_before_the_training(tmp_path: Path) -> None:
    for form in ("{}", "file://{}"):
        made = tmp_path / f"made {len(form)}"
        try_destination(form.format(made))
        assert made.is_dir() and not list(made.iterdir())
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "dangling").symlink_to("none")
    for below in ("file", "file/below", "round/below", "dangling", "x" * 300, "nul\0"):
        with pytest.raises(
            DestinationError, match=r"^export\.destination: .* can't be written to .*: write a folder of"
        ):
            try_destination(str(tmp_path / below))
    try_destination("memory://bucket/run")


def test_a_share_that_is_full_before_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There may be room by the end, which is hours away; and the files are in the results in any case."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        try_destination(str(tmp_path / "share"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (said,) = caplog.messages
    assert said.startswith(f"export.destination: {tmp_path}/share can't be written to now (File too large): training")


def test_where_nothing_can_be_written_now(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for destination in (str(tmp_path / "file"), f"file://{tmp_path}/file/below"):
        with pytest.raises(DeliveryError, match=r"can't be copied to .*: check the address"):
            deliver(folder, NAMES, destination, lambda _name: None)
    assert (tmp_path / "file").read_bytes() == b""


def test_what_a_store_says_has_no_secret(folder: Path) -> None:
    with pytest.raises(DeliveryError, match=r"copied to ftp://127.0.0.1:9/run \(\w+: .*\): check") as caught:
        deliver(folder, NAMES, "ftp://bobby:hunter2@127.0.0.1:9/run", str)
    assert "hunter2" not in str(caught.value) and "bobby" not in str(caught.value)


def test_a_file_that_is_missing_leaves_no_half_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeliveryError):
        deliver(folder, ("model.onnx", "none"), str(tmp_path / "there"), lambda _name: None)
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"model.onnx", MARK}


def whole(folder: Path, *formats: Format) -> list[str]:
    """An export of these formats in a new folder: the names of its files, the report last."""
    exports.folder(folder, formats)
    return [*(MODELS[one] for one in formats), REFERENCE, REPORT]


@pytest.mark.parametrize("form", ["file://{}", "memory:/{}"])
def test_a_format_that_is_no_longer_exported(form: str, tmp_path: Path) -> None:
    """Its old model would pass for one of the new weights; what is not ours stays; and a broken-off try is known."""
    there = form.format(tmp_path / "there")
    files, root = fsspec.core.url_to_fs(there)
    before, after, other = (tmp_path / name for name in ("before", "after", "other"))
    deliver(before, whole(before, "onnx", "pt2"), there, str)
    for name in ("model-int8.onnx", "notes.txt", EDGE_REPORT):
        files.pipe_file(f"{root}/{name}", b"?")

    def broken(name: str) -> None:
        assert not files.exists(f"{root}/{REPORT}"), "of the files that are about to go"
        if name == REFERENCE:
            raise OSError(5, "gone")

    with pytest.raises(DeliveryError, match="gone"):
        deliver(other, whole(other, "onnx", "onnx-int8"), there, broken)
    assert listed(files, root) == {"model.onnx", "model-int8.onnx", "notes.txt", REFERENCE, MARK}
    names = whole(after, "onnx")
    deliver(after, names, there, str)
    assert listed(files, root) == {*names, "notes.txt"}
    assert files.cat_file(f"{root}/{REPORT}") == (after / REPORT).read_bytes()


def listed(files: Any, root: str) -> set[str]:
    return {Path(path).name for path in files.ls(root, detail=False)}


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Forbidden"), OSError("Forbidden: b/o/x"), ftplib.error_perm("550 Denied")]
)
def test_a_store_that_only_takes(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may write objects may often neither read nor delete them, which each store says in its own way."""
    there = f"memory:/{tmp_path}"
    names = whole(tmp_path, "onnx")
    deliver(tmp_path, names, there, str)

    def refused(*_: Any, **__: Any) -> None:
        raise error

    files = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(files, "rm_file", refused)
    opened = files.open
    monkeypatch.setattr(files, "open", lambda *said, **more: refused() if "rb" in said else opened(*said, **more))
    (tmp_path / "model.onnx").write_bytes(b"new")
    deliver(tmp_path, names, there, str)
    assert fsspec.filesystem("memory").cat(f"{tmp_path}/model.onnx") == b"new"


class SmbError(OSError):
    """As smbprotocol has one: Python makes no FileNotFoundError of a derived class."""


@pytest.mark.parametrize(
    "error", [ftplib.error_perm("550 No such file."), SmbError(errno.ENOENT, "[NtStatus 0xc0000034]")]
)
def test_a_store_with_errors_of_its_own_for_what_is_not_there(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FTP and SMB, to which no first copy ever came."""
    there, names = f"memory:/{tmp_path}", whole(tmp_path, "onnx")
    files = type(fsspec.filesystem("memory"))

    def own(plain: Callable[..., Any]) -> Callable[..., Any]:
        def method(*said: Any, **more: Any) -> Any:
            try:
                return plain(*said, **more)
            except FileNotFoundError:
                raise error from None

        return method

    monkeypatch.setattr(files, "open", own(files.open))
    monkeypatch.setattr(files, "rm_file", own(files.rm_file))
    for _ in range(2):
        deliver(tmp_path, names, there, str)
        assert listed(fsspec.filesystem("memory"), str(tmp_path)) == set(names)
    assert not caplog.messages


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that any user may write to, and come to."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user")
def test_over_files_of_another_user(folder: Path, everybodys: Path) -> None:
    """The folder is everybody's; what another user's training has left there can neither be read nor written."""
    ours = everybodys / "ours"
    shutil.copytree(folder, ours)
    there = everybodys / "there"
    there.mkdir()
    there.chmod(0o777)
    for name in (REPORT, MARK):
        (there / name).write_bytes(b"old")
        (there / name).chmod(0o600)
    os.seteuid(65534)
    try:
        deliver(ours, NAMES, str(there), str)
    finally:
        os.seteuid(0)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"model.onnx": b"model", "report.json": b"{}"}


def test_secrets_of_a_url_are_not_shown() -> None:
    for chain in ("", "simplecache::"):
        assert shown(f"{chain}s3://key:secret@bucket/path?token=abc") == f"{chain}s3://bucket/path"
    for folder in ("/a/folder", "/a/run#3?x", "file:///a/run#3?x"):
        assert shown(folder) == folder
