"""Copies of an export elsewhere: a folder, a URL, and what can never be one."""

from __future__ import annotations

import resource
from pathlib import Path

import fsspec
import pytest

from edgecloud_trainer.export.delivery import (
    DeliveryError,
    DestinationError,
    check_destination,
    deliver,
    shown,
    try_destination,
)


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


def test_a_file_that_is_missing_leaves_no_half_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeliveryError):
        deliver(folder, ("model.onnx", "none"), str(tmp_path / "there"), lambda _name: None)
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"model.onnx"}


def test_secrets_of_a_url_are_not_shown() -> None:
    assert shown("s3://key:secret@bucket/path?token=abc") == "s3://bucket/path"
    for folder in ("/a/folder", "/a/run#3?x", "file:///a/run#3?x"):
        assert shown(folder) == folder
