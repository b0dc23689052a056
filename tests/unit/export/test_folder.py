"""Whose files lie in an export's folder, and that they are replaced together or not at all."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecloud.cli.export import export
from edgecloud.edge.card import Format
from edgecloud.edge.layout import EDGE_REPORT, MODELS, PAGE, REFERENCE, REPORT, SCHEMA
from edgecloud_trainer.export.errors import ExportError
from edgecloud_trainer.export.folder import LOCK, MARK, PARTIAL, check_free, put_in_place, scratch_in
from edgecloud_trainer.export.standing import read_report, whole
from tests.unit.appraisal.test_predictors import saved
from tests.unit.edge import export as exports

BESIDE = (REFERENCE, REPORT, SCHEMA, PAGE)
ONNX, INT8, PT2 = MODELS.values()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


def fill(folder: Path, formats: Iterable[Format] = ("onnx",), *, off: float = 0.0) -> list[str]:
    """What an export puts into place: the names of its models. off: makes int8 models differ."""
    exports.folder(folder, tuple(formats), off=off)
    (folder / PAGE).write_text("page")
    (folder / SCHEMA).write_text("schema")
    return [MODELS[one] for one in formats]


def exported(out: Path, *formats: Format) -> None:
    with scratch_in(out) as scratch:
        put_in_place(scratch, out, fill(scratch, formats))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", [ONNX, PT2, *BESIDE])
def test_a_file_that_no_export_has_written(name: str, out: Path) -> None:
    (out / name).write_bytes(b"{}")
    with pytest.raises(ExportError, match=rf"/{name} is there, and no export has written it: name another --out"):
        check_free(out, ("onnx", "pt2"))


def test_what_is_in_nobodys_way(out: Path) -> None:
    check_free(out / "none", ("onnx",))
    (out / PT2).touch()
    (out / "notes.txt").touch()
    check_free(out, ("onnx", "onnx-int8"))


def test_files_of_an_earlier_export_and_one_of_the_users(out: Path) -> None:
    (out / PT2).write_text("the user's")
    exported(out, "onnx", "onnx-int8")
    (out / EDGE_REPORT).touch()
    check_free(out, ("onnx", "onnx-int8"))
    with pytest.raises(ExportError, match="pt2 is there"):
        check_free(out, ("onnx", "pt2"))
    exported(out, "onnx")
    assert names(out) == {ONNX, PT2, *BESIDE}
    assert (out / PT2).read_text() == "the user's"


def test_the_command_says_so_before_it_reads_images(out: Path, tmp_path: Path) -> None:
    saved(tmp_path / "run")
    (out / ONNX).write_text("the user's")
    done = CliRunner().invoke(export, [str(tmp_path / "run"), "--out", str(out), "-q"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"edgecloud: {out / ONNX} is there, and no export has written it" in done.stderr
    assert names(out) == {ONNX}


def test_what_an_export_has_left_that_was_killed_while_it_replaced_files(out: Path) -> None:
    """It is known for an export's, all of it: also what was there before."""
    exported(out, "onnx-int8")
    (out / ONNX).mkdir()
    with scratch_in(out) as scratch, pytest.raises(IsADirectoryError):
        put_in_place(scratch, out, fill(scratch, ("pt2", "onnx")))
    (out / ONNX).rmdir()
    assert names(out) == {PT2, REFERENCE, PAGE, SCHEMA, MARK} and read_report(out) is None
    check_free(out, ("onnx", "onnx-int8", "pt2"))
    exported(out, "onnx")
    assert names(out) == {ONNX, *BESIDE}


def test_the_work_of_another_export_that_lives_is_left_alone(out: Path) -> None:
    (out / f"{PARTIAL}dead").mkdir()
    (out / f"{PARTIAL}dead" / LOCK).touch()
    (out / f"{PARTIAL}notes").mkdir()
    with scratch_in(out) as first, scratch_in(out) as second:
        assert names(out) == {first.name, second.name, f"{PARTIAL}notes"}
        for one, formats in ((first, ("onnx", "pt2")), (second, ("onnx",))):
            put_in_place(one, out, fill(one, formats))  # type: ignore[arg-type]
    assert names(out) == {ONNX, *BESIDE, f"{PARTIAL}notes"}


def test_what_is_left_without_a_lock_goes_once_it_is_old(out: Path) -> None:
    """It may be just being made. Old is what nothing was written in for long."""
    hours_ago = time.time() - 7200
    for name, folder_is_old, file_is_old in (("new", False, True), ("works", True, False), ("left", True, True)):
        left = out / f"{PARTIAL}{name}"
        left.mkdir()
        (left / ONNX).write_bytes(b"model")
        for path, old in ((left / ONNX, file_is_old), (left, folder_is_old)):
            if old:
                os.utime(path, (hours_ago, hours_ago))
    with scratch_in(out) as scratch:
        assert names(out) == {scratch.name, f"{PARTIAL}new", f"{PARTIAL}works"}


def test_exports_that_end_together(out: Path) -> None:
    """What is there afterwards is one of the two, and not some of each."""
    for turn in range(4):
        with scratch_in(out) as first, scratch_in(out) as second:
            works = [
                threading.Thread(target=put_in_place, args=(one, out, fill(one, ("onnx", "onnx-int8"), off=off)))
                for one, off in ((first, 1.0 + turn), (second, -1.0 - turn))
            ]
            for work in works:
                work.start()
            for work in works:
                work.join(60)
        report = read_report(out)
        assert report is not None and whole(out, report), json.dumps(report and report.dump())
        assert names(out) == {ONNX, INT8, *BESIDE}
