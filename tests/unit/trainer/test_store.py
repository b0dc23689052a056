"""The cache of decoded images: written once, whole or not at all, by whoever is alive."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import Dataset, imagefile, load
from edgecloud_trainer.data.locking import locked
from edgecloud_trainer.data.observer import Observer
from edgecloud_trainer.data.prepare import Wish, prepare
from tests.unit.trainer.pictures import tree, write

COUNTS = {"train/cat": 30, "train/dog": 30, "test/cat": 5, "test/dog": 5}

LOAD = """
import sys
from pathlib import Path
from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import load
read = []
dataset = load(DataSpec(source=sys.argv[1]), seed=0, cache=Path(sys.argv[2]), on_progress=lambda *a: read.append(a))
print(dataset.digest, any(total for _, total in read))
"""

HOLD = """
import sys, time
from pathlib import Path
from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import load
def hold(done, total):
    print("holds", flush=True)
    time.sleep(600)
load(DataSpec(source=sys.argv[1]), seed=0, cache=Path(sys.argv[2]), on_progress=hold)
"""

TAKE_TURNS = """
import sys
from pathlib import Path
from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import load
said = set()
def progress(done, total):
    word = "decodes" if total else "waits"
    if word not in said:
        said.add(word)
        print(word, flush=True)
        if word == "decodes":
            sys.stdin.readline()
print(load(DataSpec(source=sys.argv[1]), seed=0, cache=Path(sys.argv[2]), on_progress=progress).digest, flush=True)
"""


def start(code: str, root: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def read(root: Path, cache: Path, **options: object) -> Dataset:
    return load(DataSpec(source=str(root)), seed=0, cache=cache, **options)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "data", tree(COUNTS))


def cached(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.images"))


def test_several_processes_at_once_read_once(root: Path, tmp_path: Path) -> None:
    processes = [start(LOAD, root, tmp_path / "cache") for _ in range(4)]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert len({digest for digest, _ in said}) == 1
    assert [reader for _, reader in said].count("True") == 1
    assert len(cached(tmp_path / "cache")) == 1


def test_ten_at_once_of_which_the_reader_is_killed(root: Path, tmp_path: Path) -> None:
    """Whoever holds the lock is killed while it decodes; one of the nine others decodes then, and nobody else."""
    cache = tmp_path / "cache"
    with ExitStack() as stack:
        processes = [stack.enter_context(start(TAKE_TURNS, root, cache)) for _ in range(10)]
        for process in processes:
            stack.callback(process.kill)
        first = [line_of(process) for process in processes]
        (victim,) = [process for process, word in zip(processes, first, strict=True) if word == "decodes"]
        assert first.count("waits") == 9  # so all ten were there at once
        victim.kill()
        assert victim.wait(timeout=60) == -signal.SIGKILL
        assert not cached(cache)
        rest = [process for process in processes if process is not victim]
        for process in rest:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0].split() for process in rest]
    assert sorted(len(several) for several in said) == [1] * 8 + [2]
    assert [several[0] for several in said if len(several) == 2] == ["decodes"]
    assert len({several[-1] for several in said}) == 1 and len(said[0][-1]) == 64
    assert [path.suffix for path in sorted(cache.iterdir())] == [".images", ".lock"]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_killed_reader_leaves_nothing_in_the_way(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with start(HOLD, root, cache) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        assert list(cache.glob("*.partial"))
        seen: list[tuple[int, int]] = []

        def progress(done: int, total: int) -> None:
            seen.append((done, total))
            if total == 0:  # waiting for the holder, who will never be done
                holder.send_signal(signal.SIGKILL)

        dataset = read(root, cache, on_progress=progress)
    assert seen[0] == (0, 0)
    assert seen[-1] == (70, 70)
    assert len(dataset.train) == 60
    assert not list(cache.glob("*.partial"))


def test_what_is_left_of_other_sources_goes_in_the_end(root: Path, tmp_path: Path) -> None:
    """Unless a process is at it, or may come back to it."""
    cache, long_ago = tmp_path / "cache", time.time() - 7200
    for name, old in (("new", False), ("written", True), ("held", True), ("left", True)):
        write(cache, {f"{name}.lock": b"", f"{name}.partial/download/a.tar": b"?"})
        for path in (cache / f"{name}.partial/download", cache / f"{name}.partial"):
            os.utime(path, (long_ago, long_ago) if old else None)
        if name in ("held", "left"):
            os.utime(cache / f"{name}.partial/download/a.tar", (long_ago, long_ago))
    with locked(cache / "held.lock", lambda: None):
        read(root, cache)
    assert {path.stem for path in cache.glob("*.partial")} == {"new", "written", "held"}


def test_where_there_are_no_locks(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can be waited for: each process reads for itself, and none in what is another's."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    cache, found = tmp_path / "cache", []

    def progress(done: int, total: int) -> None:
        if not found:
            found.append(read(root, cache))

    found.append(read(root, cache, on_progress=progress))
    assert len(found) == 2 and found[0].digest == found[1].digest
    assert [path.suffix for path in sorted(cache.iterdir())] == [".images", ".lock"]
    prepare(str(root), tmp_path / "set.images", Wish(), Observer())
    assert sorted(path.name for path in tmp_path.glob("set*")) == ["set.images", "set.manifest.json"]


def test_what_is_left_where_there_are_no_locks(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can say whether its process lives: after a day without a word it doesn't."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt  # as a kill, it leaves what there is

    monkeypatch.setattr(fcntl, "flock", refused)
    cache = tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            read(root, cache, on_progress=killed)
    old, new = cache.glob("*.partial")
    long_ago = time.time() - 90_000
    for path in (*old.rglob("*"), old):
        os.utime(path, (long_ago, long_ago))
    read(root, cache)
    assert list(cache.glob("*.partial")) == [new]


def test_the_file_is_mapped_if_it_is_large(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read(root, tmp_path / "cache")
    assert not isinstance(plain.train.pixels, np.memmap)
    monkeypatch.setattr(imagefile, "MAPPED_ABOVE", 1000)
    mapped = read(root, tmp_path / "cache")
    assert isinstance(mapped.train.pixels, np.memmap)
    assert not mapped.train.pixels.flags.writeable
    assert np.array_equal(plain.train.pixels, mapped.train.pixels)
    assert np.array_equal(plain.test.pixels, mapped.test.pixels)
    assert plain.digest == mapped.digest
    split = load(DataSpec(source=str(root), validation_fraction=0.5), seed=0, cache=tmp_path / "cache")
    assert isinstance(split.train.pixels, np.memmap)


@pytest.mark.parametrize("keep", [0, 10, 3000, -1, -400])
def test_a_truncated_file_is_written_again(keep: int, root: Path, tmp_path: Path) -> None:
    before = read(root, tmp_path / "cache")
    (path,) = cached(tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:keep])
    after = read(root, tmp_path / "cache")
    assert np.array_equal(before.train.pixels, after.train.pixels)
    assert before.digest == after.digest


@pytest.mark.parametrize("position", [0, 16, 20, 24, 33, -1, -5, -40, -200])
def test_a_damaged_header_is_written_again(position: int, root: Path, tmp_path: Path) -> None:
    before = read(root, tmp_path / "cache")
    (path,) = cached(tmp_path / "cache")
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert np.array_equal(before.train.pixels, read(root, tmp_path / "cache").train.pixels)


def test_the_digest_is_of_what_is_in_it(tmp_path: Path) -> None:
    files = tree(COUNTS)
    first = read(write(tmp_path / "a", files), tmp_path / "one")
    second = read(write(tmp_path / "b", files), tmp_path / "two")
    assert first.digest == second.digest
    names = list(files)
    swapped = {**files, names[0]: files[names[-1]], names[-1]: files[names[0]]}
    renamed = {name.replace("cat", "cow"): data for name, data in files.items()}
    moved = {name.replace("test/dog/060", "train/dog/060"): data for name, data in files.items()}
    others = [
        read(write(tmp_path / f"{n}", f), tmp_path / "three").digest for n, f in enumerate((swapped, renamed, moved))
    ]
    assert len({first.digest, *others}) >= 3
