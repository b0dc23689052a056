"""`choose` and `prune` against a model of what should be left, with random damage."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer.checkpoints import SupersededError
from tests.unit.core.profile import tries
from tests.unit.trainer_checkpoints.material import SHARED_MEMORY, is_genuine, names, save, store

FILES: Final = ("manifest.json", "state.json", "tensors.safetensors")


@cache
def written(step: int, round: int) -> dict[str, bytes]:
    """The files of a checkpoint, as a store wrote them."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        path = save(store(Path(folder), round), step).path
        return {name: (path / name).read_bytes() for name in FILES}


@dataclass(frozen=True)
class Damage:
    """What happens to one file of a checkpoint."""

    kind: str
    file: str
    where: int
    bits: int

    def do(self, path: Path) -> bool:
        """Do it; whether the checkpoint is still whole."""
        file = path / self.file
        before = file.read_bytes()
        match self.kind:
            case "truncate":
                os.truncate(file, self.where % len(before))
                return False
            case "flip":
                data = bytearray(before)
                data[self.where % len(data)] ^= self.bits
                file.write_bytes(data)
                return self.file == "manifest.json" and _equal(before, bytes(data))
            case "append":
                file.write_bytes(before + b" ")
                return self.file == "manifest.json"  # JSON may end with spaces
            case "delete":
                file.unlink()
                return False
            case "link":
                file.rename(path.parent / f"outside-{path.name}-{self.file}")
                file.symlink_to(path.parent / f"outside-{path.name}-{self.file}")
                return False
            case "pipe":
                file.unlink()
                os.mkfifo(file)
                return False
            case "garbage":
                (path / "core.4711").write_bytes(b"\0" * self.where)
                return True
        raise AssertionError(self.kind)


def _equal(before: bytes, after: bytes) -> bool:
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


damages = st.none() | st.builds(
    Damage,
    kind=st.sampled_from(["truncate", "flip", "flip", "append", "delete", "link", "pipe", "garbage"]),
    file=st.sampled_from(FILES),
    where=st.integers(0, 2000),
    bits=st.integers(1, 255),
)
checkpoints = st.dictionaries(
    st.integers(0, 12),  # step
    st.tuples(st.integers(1, 4), damages, st.sampled_from(["", "", "", ".old1", "left"])),
    max_size=6,
)
clutter = st.sets(
    st.sampled_from(["step-", "step-x", "step-007", "notes", ".step-3.1.4194998", "step-99", ".done.1.4194998"])
)


@tries(150)
@given(checkpoints, clutter, st.integers(3, 4), st.integers(1, 3))
def test_the_newest_that_verifies(
    saved: dict[int, tuple[int, Damage | None, str]], others: set[str], own: int, keep: int
) -> None:
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as room:
        folder = Path(room)
        for name in others:
            (folder / name).mkdir()
        whole: set[tuple[int, int, bool]] = set()
        seen = 0
        for step, (round, damage, place) in saved.items():
            hidden = f".step-{step}.{round}.4194999{place.removeprefix('left')}"
            path = folder / (hidden if place else f"step-{step}")
            path.mkdir()
            for name, data in written(step, round).items():
                (path / name).write_bytes(data)
            intact = damage is None or damage.do(path)
            if intact:
                whole.add((round, step, not place))
            readable = intact or (damage is not None and damage.file != "manifest.json")
            seen = max(seen, round if readable or place else 0)
        chosen = _check(folder, whole, seen, own)
        if chosen:
            _check_prune(folder, whole, chosen, own, keep)


def _check(folder: Path, whole: set[tuple[int, int, bool]], seen: int, own: int) -> tuple[int, int] | None:
    reader = store(folder, own)
    before = names(folder)
    if seen > own:
        for attempt in (reader.choose, reader.prune, lambda: save(reader, 1)):
            with pytest.raises(SupersededError):
                attempt()
        assert names(folder) == before
        return None
    loaded = reader.choose()
    if not whole:
        assert loaded is None
        return None
    assert loaded is not None and is_genuine(loaded)
    assert (loaded.round, loaded.step) == max(whole)[:2]
    assert loaded.path == folder / f"step-{loaded.step}", "one that had lost its place has it again"
    assert reader.rejected == loaded.rejected
    for name in before:
        if name.startswith("step-") and name[5:].isdigit() and (name == "step-0" or name[5] != "0"):
            newer = name == "step-99" or not any(step == int(name[5:]) for _, step, visible in whole if visible)
            told = any(line.startswith(f"{name} is not used: ") for line in loaded.rejected)
            assert told <= newer
    again = store(folder, own).choose()
    assert again is not None and (again.round, again.step, again.path) == (loaded.round, loaded.step, loaded.path)
    return loaded.round, loaded.step


def _check_prune(folder: Path, whole: set[tuple[int, int, bool]], chosen: tuple[int, int], own: int, keep: int) -> None:
    visible = {(round, step) for round, step, shown in whole if shown} | {chosen}
    kept = sorted(visible, reverse=True)[:keep]
    store(folder, own, keep).prune()
    left = names(folder)
    assert not [name for name in left if name.startswith(".")]
    assert {f"step-{step}" for _, step in kept} <= set(left)
    assert not {f"step-{step}" for _, step in visible - set(kept)} & set(left)
    loaded = store(folder, own).choose()
    assert loaded is not None and (loaded.round, loaded.step) == chosen


TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
SENTENCES: Final[dict[str, Callable[[Path], object]]] = {
    "tensors.safetensors was cut short: 100 bytes, where": lambda path: os.truncate(path / TENSORS, 100),
    "tensors.safetensors is not there": lambda path: (path / TENSORS).unlink(),
    "state.json is not there": lambda path: (path / STATE).unlink(),
    "manifest.json is not there": lambda path: (path / MANIFEST).unlink(),
    "manifest.json does not match its own checksum": lambda path: (path / MANIFEST).write_bytes(b"{"),
    "manifest.json has 17825792 bytes": lambda path: (path / MANIFEST).write_bytes(b"\0" * (17 << 20)),
    "tensors.safetensors was changed: its sha256 is": lambda path: Damage("flip", TENSORS, 900, 1).do(path),
    "tensors.safetensors: its header claims": lambda path: Damage("flip", TENSORS, 3, 1).do(path),
    "state.json was changed: its sha256 is": lambda path: Damage("flip", STATE, 5, 1).do(path),
    "state.json grew": lambda path: Damage("append", STATE, 0, 0).do(path),
    "state.json is a symbolic link": lambda path: Damage("link", STATE, 0, 0).do(path),
    "state.json is no ordinary file": lambda path: Damage("pipe", STATE, 0, 0).do(path),
    "step-77 is not used: its manifest is that of step 9": lambda path: path.rename(path.with_name("step-77")),
    "step-77 is not used: it is a symbolic link where": lambda path: path.with_name("step-77").symlink_to(path),
    "step-77 is not used: it is a symbolic link": lambda path: path.with_name("step-77").symlink_to("nowhere"),
    "step-77 is not used: it is a file where a folder": lambda path: path.with_name("step-77").touch(),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_kind_of_damage_has_its_sentence(tmp_path: Path, sentence: str) -> None:
    save(store(tmp_path), 8)
    path = save(store(tmp_path), 9).path
    SENTENCES[sentence](path)
    loaded = store(tmp_path).choose()
    assert loaded is not None and is_genuine(loaded)
    assert [line for line in loaded.rejected if sentence in line] == loaded.rejected != []
    assert loaded.step == (9 if path.exists() and "step-77" in sentence else 8)


def test_when_nothing_is_left_the_reasons_still_are(tmp_path: Path) -> None:
    only = store(tmp_path)
    path = save(only, 1).path
    (path / "state.json").unlink()
    assert only.choose() is None
    assert only.rejected == ["step-1 is not used: state.json is not there"]
