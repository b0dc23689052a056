"""A preparation that is killed goes on where it was, and ends as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud_trainer.data.spool import Spool
from tests.unit.cli.command import ROOT
from tests.unit.data.tool import data, prepared, snapshot, verified
from tests.unit.trainer.pictures import encoded, pack, pixels, tree, write

ON_ONE_CPU = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from edgecloud.cli.main import main
if number := int(sys.argv.pop(1)):
    from edgecloud_trainer.data.spool import Spool
    commit = Spool.commit
    def committed(spool):
        commit(spool)
        os.kill(os.getpid(), number)
    Spool.commit = committed
main()
"""


def start(*arguments: str | Path, killed: int = 0) -> subprocess.Popen[str]:
    """On one CPU, so that it takes its time wherever this runs.

    killed: the signal that hits it when a line of the journal is written; 0: none does.
    """
    return subprocess.Popen(
        [sys.executable, "-c", ON_ONE_CPU, str(killed), "data", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def wait_for(what: str, happened: Callable[[], bool], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not happened():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that take a second: few different ones, each many times."""
    some = [encoded(pixels(seed, size=(300, 300)), "JPEG", quality=95) for seed in range(4)]
    files = {f"{name}/{number:04}.jpg": some[number % 4] for name in ("cat", "dog") for number in range(200)}
    return write(tmp_path_factory.mktemp("many") / "set", files)


@pytest.fixture(scope="module")
def undisturbed(many: Path) -> Path:
    """What `prepare` makes of a copy of them when it is left alone."""
    out = many.parent / "undisturbed.images"
    prepared(copied(many), out)
    return out


def copied(many: Path) -> Path:
    """A copy that may be spoilt, whole again and always at the same path: a prepared file names its source."""
    copy = many.parent / "copy" / "set"
    copy.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-aT", many, copy], check=True)
    return copy


def digest_of(images: Path) -> str:
    return str(json.loads(images.with_suffix(".manifest.json").read_text())["sha256"])


def killed_after_a_while(source: Path, out: Path, signal_: int) -> int:
    """How many images it had decoded when it was stopped."""
    journal = out.with_name(f"{out.name}.partial") / "journal"
    with start("prepare", source, "--out", out, killed=signal_) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if signal_ == signal.SIGINT else -signal_)
    assert ("stopped; the same command goes on from there" in said) == (signal_ == signal.SIGINT)
    assert not out.exists()
    whole = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return sum(len(json.loads(line[9:])["files"]) for line in whole)


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_what_was_decoded_is_not_decoded_again(
    signal_: signal.Signals, many: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The files that had been decoded are spoilt before the second run: it would notice if it read them."""
    source, out = copied(many), tmp_path / "a.images"
    decoded = killed_after_a_while(source, out, signal_)
    assert 0 < decoded < 400
    for path in sorted(source.rglob("*.jpg"))[:decoded]:
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = data("prepare", source, "--out", out, "-o", "json")
    assert done.exit_code == 0, done.stderr
    assert f"going on after {decoded} images that an earlier run has decoded" in done.stderr
    assert json.loads(done.stdout)["sha256"] == digest_of(undisturbed)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert verified(out)[1]["problems"] == []
    assert not list(tmp_path.glob("*.partial"))


def test_a_tar_file_is_gone_on_with(many: Path, undisturbed: Path, tmp_path: Path) -> None:
    files = {str(path.relative_to(many)): path.read_bytes() for path in many.rglob("*.jpg")}
    source = pack(tmp_path / "set.tar", files)
    decoded = killed_after_a_while(source, tmp_path / "a.images", signal.SIGKILL)
    done = data("prepare", source, "--out", tmp_path / "a.images", "-o", "json")
    assert f"going on after {decoded} images" in done.stderr
    assert json.loads(done.stdout)["sha256"] == digest_of(undisturbed)


def test_another_command_starts_over(many: Path, tmp_path: Path) -> None:
    """What one command has left isn't taken for another's; nor when the source has changed since."""
    source, out = tmp_path / "set", tmp_path / "a.images"
    subprocess.run(["cp", "-a", many, source], check=True)
    killed_after_a_while(source, out, signal.SIGKILL)
    (source / "cat" / "0000.jpg").unlink()
    done = data("prepare", source, "--out", out, "--resize", "16")
    assert done.exit_code == 0, done.stderr
    assert "a.images.partial was left by another command, or the source has changed since: starting over" in done.stderr
    assert prepared(source, tmp_path / "b.images", "--resize", "16")["sha256"] in done.stdout


def test_only_one_process_makes_a_file(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.images"
    with start("prepare", many, "--out", out) as process:
        wait_for("its folder", (tmp_path / "a.images.partial" / "journal").exists)
        done = data("prepare", many, "--out", out)
        assert done.exit_code == 2
        assert "a.images is being prepared by another process: wait for it, or name another file" in done.stderr
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.images", "a.manifest.json"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_killed_at_every_file_operation(kind: str, tmp_path: Path) -> None:
    files = tree({"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1})
    source = write(tmp_path / "set", files) if kind == "folder" else pack(tmp_path / "set.tar", files)
    folder = tmp_path / "out"
    folder.mkdir()
    prepared(source, tmp_path / "a.images")
    expected = json.loads((tmp_path / "a.manifest.json").read_text())["sha256"]
    ending = (tmp_path / "a.images").read_bytes()[-4000:].hex()
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.data.killed", source, folder], capture_output=True, text=True, check=True,
        cwd=ROOT,
    )  # fmt: skip
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    met = {kill["where"].split()[0] for kill in kills}
    assert len(kills) > 20 and {"open", "os.rename", "os.mkdir"} <= met, met
    for kill in kills:
        assert (kill["sha256"], kill["file"]) == (expected, ending), kill["where"]
        assert kill["whole"] or not kill["partial"], kill["where"]
    assert any("going on after" in note for kill in kills for note in kill["notes"])
    assert any(kill["whole"] for kill in kills)  # killed when only the cleaning up was left


@given(st.integers(0, 10**6), st.sampled_from(["journal", "spool"]), st.booleans(), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_torn_spool_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, position: int, name: str, cut: bool, other: int
) -> None:
    """Cut anywhere, or with any byte changed (a power loss), as much is kept as is whole, and the rest done again."""
    folder = tmp_path_factory.mktemp("spool")
    images = [pixels(seed, channels=1 + 2 * (seed % 2), size=(3, 4)) for seed in range(9)]

    def fill(spool: Spool) -> None:
        for seed in range(spool.resumed, 9):
            spool.append(f"{seed}.png", images[seed])
            if seed % 2:
                spool.commit()

    with Spool(folder) as spool:
        fill(spool)
    path = folder / name
    contents = bytearray(path.read_bytes())
    position %= len(contents)
    if cut:
        del contents[position:]
    else:
        contents[position] ^= other
    path.write_bytes(contents)
    with Spool(folder) as spool:
        assert spool.names == [f"{seed}.png" for seed in range(len(spool.names))]
        fill(spool)
        shape = spool.finish()
        assert shape == (3, 3, 4)
        found = spool.part(np.arange(9), np.zeros(9, np.int64), shape).take(np.arange(9))
    assert np.array_equal(found, np.stack([np.broadcast_to(image, (3, 3, 4)) for image in images]))


def test_nothing_is_left_of_a_source_that_turns_out_broken_late(tmp_path: Path) -> None:
    root = write(tmp_path / "set", tree({"cat": 50, "dog": 50}) | {"dog/zz.png": b""})
    before = snapshot(tmp_path)
    assert data("prepare", root, "--out", tmp_path / "a.images").exit_code == 2
    assert snapshot(tmp_path) == before
