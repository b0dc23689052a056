"""Copies of an export elsewhere: a folder, a URL, and what can never be one."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from edgecloud_trainer.export.delivery import DeliveryError, DestinationError, check_destination, deliver, shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"model")
    (made / "report.json").write_bytes(b"{}")
    return made


NAMES = ("model.onnx", "report.json")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_into_a_folder(form: str, folder: Path, tmp_path: Path) -> None:
    target, said = tmp_path / "far" / "away", list[str]()
    target.mkdir(parents=True)
    (target / "model.onnx").write_bytes(b"an older one")
    deliver(folder, NAMES, form.format(target), said.append)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"model.onnx": b"model", "report.json": b"{}"}
    assert said == list(NAMES)


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
    assert shown("/a/folder") == "/a/folder"
