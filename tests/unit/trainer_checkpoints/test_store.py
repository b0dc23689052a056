"""Saving, loading, pruning and the done marker of one process."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgecloud_trainer.checkpoints import (
    CheckpointError,
    CheckpointMismatchError,
    DamagedError,
    SupersededError,
    digest,
    load,
    read_manifest,
    weights_digest,
)
from edgecloud_trainer.checkpoints.errors import NewerFormatError
from tests.unit.trainer_checkpoints.material import (
    DIGEST,
    WEIGHTS,
    is_genuine,
    names,
    same,
    save,
    state_of,
    store,
    tensors_of,
)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    to = store(tmp_path / "deep" / "checkpoints")
    saved = save(to, 7)
    assert saved.path == to.folder / "step-7"
    loaded = to.choose()
    assert loaded is not None and is_genuine(loaded)
    assert (loaded.step, loaded.round, loaded.path, loaded.rejected) == (7, 1, saved.path, [])
    assert loaded.weights_sha256 == saved.weights_sha256 == weights_digest(loaded.tensors, loaded.weights)
    assert loaded.torch == torch.__version__
    tensors, state = load(saved.path)
    assert same(tensors, tensors_of(7)) and state == state_of(7)


def test_files_are_what_their_names_say(tmp_path: Path) -> None:
    save(store(tmp_path), 3)
    folder = tmp_path / "step-3"
    assert names(folder) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert same(load_file(folder / "tensors.safetensors", backend="pread"), tensors_of(3))
    assert json.loads((folder / "state.json").read_bytes()) == state_of(3)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert (manifest["format"], manifest["step"], manifest["round"]) == (1, 3, 1)
    assert manifest["config_digest"] == DIGEST and manifest["torch"] == torch.__version__
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        said = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()
        assert entry == {"size": len(data), "sha256": said}
    modes = {stat.S_IMODE((folder / name).stat().st_mode) for name in names(folder)}
    assert len(modes) == 1, "a process of another user may read all of them, or none"


def test_an_empty_store(tmp_path: Path) -> None:
    empty = store(tmp_path / "not-there")
    assert empty.choose() is None and empty.done() is None and empty.prune() == [] and empty.rejected == []
    assert not empty.folder.exists(), "looking leaves no trace"


def test_tied_weights_are_saved_for_each_name(tmp_path: Path) -> None:
    one = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": one, "b": one, "row": one[1], "turned": one.t(), "grad": one.clone().requires_grad_()}
    store(tmp_path).save(1, tensors, {}, weights=["a"])
    found, _ = load(tmp_path / "step-1")
    assert same(found, {name: tensor.detach() for name, tensor in tensors.items()})
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())
    found["a"].zero_()
    assert same({"b": found["b"]}, {"b": one}), "each has memory of its own"


def test_digest_of_the_weights_depends_on_the_weights_only(tmp_path: Path) -> None:
    tensors = tensors_of(1)
    one = store(tmp_path / "a").save(1, tensors, {"step": 1}, weights=WEIGHTS).weights_sha256
    other = {name: tensors[name].contiguous() for name in reversed(WEIGHTS)} | {"more": torch.ones(3)}
    assert store(tmp_path / "b", 5).save(9, other, {}, weights=WEIGHTS[::-1]).weights_sha256 == one
    changed = {**tensors, "model.bias": tensors["model.bias"].nextafter(torch.tensor(9.0))}
    assert weights_digest(changed, WEIGHTS) != one
    as_int = {**tensors, "model.half": tensors["model.half"].view(torch.int16)}
    assert weights_digest(as_int, WEIGHTS) != one
    reshaped = {**tensors, "model.half": tensors["model.half"].reshape(3, 2)}
    assert weights_digest(reshaped, WEIGHTS) != one


@pytest.mark.parametrize(
    ("tensors", "state", "weights", "words"),
    [
        ({"a": torch.zeros(2)}, {}, ["b"], "weights that are not among the tensors: b"),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, {}, ["a"], "tensor 'a' cannot be saved"),
        ({"a": torch.zeros(2).to_sparse()}, {}, ["a"], "tensor 'a' cannot be saved"),
        ({"a": torch.zeros(2, device="meta")}, {}, ["a"], "tensor 'a' cannot be saved"),
        ({"__metadata__": torch.zeros(2)}, {}, [], "no name for a tensor"),
        ({"\ud800": torch.zeros(2)}, {}, [], "no name for a tensor"),
        ({}, {"a": object()}, [], "not JSON serializable"),
        ({}, {"a": "x" * (65 << 20)}, [], "make tensors of it"),
    ],
)
def test_what_can_not_be_saved_is_refused_at_once(tmp_path: Path, tensors, state, weights, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, TypeError), match=words):
        store(tmp_path / "new").save(1, tensors, state, weights=weights)
    assert not (tmp_path / "new").exists()


def test_numbers_out_of_range(tmp_path: Path) -> None:
    for step in (-1, 10**18):
        with pytest.raises(ValueError, match="is not between"):
            save(store(tmp_path), step)
    with pytest.raises(ValueError, match="at least 1"):
        store(tmp_path, keep=0)


def test_numbers_that_json_has_no_word_for_come_back(tmp_path: Path) -> None:
    store(tmp_path).save(1, {}, {"best": float("inf"), "loss": float("nan")}, weights=[])
    state = load(tmp_path / "step-1").state
    assert state["best"] == float("inf") and state["loss"] != state["loss"]


def test_the_same_step_again(tmp_path: Path) -> None:
    """By the same round, as the stop-save may do, and by a later one that went back; what is replaced is gone."""
    save(store(tmp_path), 4)
    store(tmp_path).save(4, tensors_of(4), {"again": True}, weights=WEIGHTS)
    assert load(tmp_path / "step-4").state == {"again": True}
    save(store(tmp_path, 2), 4)
    loaded = store(tmp_path, 2).choose()
    assert loaded is not None and is_genuine(loaded) and loaded.round == 2
    assert names(tmp_path) == ["step-4"]


@pytest.mark.parametrize("what", ["file", "link", "empty folder", "folder"])
def test_something_else_stands_at_the_name(tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    place = folder / "step-4"
    match what:
        case "file":
            place.touch()
        case "link":
            place.symlink_to(outside)
        case "empty folder":
            place.mkdir()
        case "folder":
            place.mkdir()
            (place / "notes").touch()
    save(store(folder), 4)
    loaded = store(folder).choose()
    assert loaded is not None and is_genuine(loaded)
    assert names(folder) == ["step-4"] and names(outside) == ["precious"]


def test_prune_keeps_the_newest_and_what_is_not_ours(tmp_path: Path) -> None:
    to = store(tmp_path, keep=2)
    for step in (1, 2, 3, 10):
        save(to, step)
    (tmp_path / "step-05").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").touch()
    assert sorted(path.name for path in to.prune()) == ["step-1", "step-2"]
    assert names(tmp_path) == [".hidden", "notes.txt", "step-05", "step-10", "step-3"]
    assert to.prune() == []


def test_prune_counts_only_what_verifies(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(store(tmp_path), step)
    (tmp_path / "step-4" / "tensors.safetensors").write_bytes(b"")
    (tmp_path / "step-3" / "state.json").unlink()
    (tmp_path / "step-2" / "manifest.json").unlink()
    (tmp_path / "step-9").mkdir()
    later = store(tmp_path, 2, keep=1)
    later.prune()
    assert names(tmp_path) == ["step-1", "step-2", "step-9"], "training has not passed the steps of the unreadable ones"
    save(later, 5)
    later.prune()
    assert names(tmp_path) == ["step-5", "step-9"]


def test_prune_leaves_everything_when_nothing_verifies(tmp_path: Path) -> None:
    for step in (1, 2):
        save(store(tmp_path), step)
        (tmp_path / f"step-{step}" / "state.json").write_text("{}")
    assert store(tmp_path, keep=1).prune() == []
    assert names(tmp_path) == ["step-1", "step-2"]


def test_prune_looks_again_at_what_it_has_verified(tmp_path: Path) -> None:
    to = store(tmp_path, keep=1)
    save(to, 1)
    save(to, 2)
    os.truncate(tmp_path / "step-2" / "tensors.safetensors", 10)
    to.prune()
    assert names(tmp_path) == ["step-1"]


def test_leftovers_go_when_their_writer_has_gone(tmp_path: Path) -> None:
    to = store(tmp_path, 3)
    save(to, 1)
    writer = subprocess.Popen(["sleep", "60"])
    try:
        mine, dead, alive = os.getpid(), 2**22 + 1, writer.pid
        for name in (f"step-9.2.{mine}", f"step-9.1.{dead}", f"step-9.3.{dead}.old1", f"step-9.2.{alive}"):
            (tmp_path / f".{name}").mkdir()
            (tmp_path / f".{name}" / "state.json").touch()
        (tmp_path / f".done.2.{dead}").touch()
        to.prune()
        assert names(tmp_path) == [f".step-9.2.{alive}", "step-1"]
        writer.kill()
        os.waitid(os.P_PID, alive, os.WEXITED | os.WNOWAIT)  # dead, but still in the process table
        to.prune()
        assert names(tmp_path) == ["step-1"]
    finally:
        writer.kill()
        writer.wait()


def test_a_number_that_another_process_has_now_keeps_no_leftover(tmp_path: Path) -> None:
    """Worker Pods number their processes alike, so the writer's number is soon another's."""
    to = store(tmp_path, 3)
    save(to, 1)
    other = subprocess.Popen(["sleep", "60"])
    try:
        left = tmp_path / f".step-9.2.{other.pid}"
        left.mkdir()
        os.utime(left, (1.7e9, 1.7e9))  # long before that process began
        to.prune()
        assert names(tmp_path) == ["step-1"]
    finally:
        other.kill()
        other.wait()


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    save(store(tmp_path), 1)
    other = store(tmp_path, 2, digest=digest({"model": "edgenet"}))
    for attempt in (other.choose, lambda: save(other, 2), other.prune, lambda: other.mark_done({})):
        with pytest.raises(CheckpointMismatchError, match="another name") as caught:
            attempt()
        assert DIGEST in str(caught.value) and other.digest in str(caught.value)
    assert names(tmp_path) == ["step-1"]


def test_digest_of_a_configuration() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1, 2), "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0}) != digest({"a": "1"})
    assert len(digest({})) == 64
    with pytest.raises(ValueError):
        digest({"a": float("nan")})


def test_done_marker(tmp_path: Path) -> None:
    to = store(tmp_path, 4)
    assert to.done() is None
    to.mark_done({"accuracy": 0.97, "perClass": [1.0, float("nan")]})
    again = store(tmp_path, 1).done()
    assert again is not None and again["accuracy"] == 0.97, (
        "a job is finished for every round, also after its status was lost"
    )
    with pytest.raises(CheckpointMismatchError, match="done"):
        store(tmp_path, digest=digest({})).done()
    to.mark_done({"accuracy": 0.98})
    assert store(tmp_path).done() == {"accuracy": 0.98}
    assert names(tmp_path) == ["done.json"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"sha256": 3}', b"\xff", b"[" * 100_000, None])
def test_damaged_done_marker_is_no_marker(tmp_path: Path, damage: bytes | None) -> None:
    to = store(tmp_path)
    to.mark_done({"accuracy": 0.97})
    path = tmp_path / "done.json"
    path.write_bytes(path.read_bytes().replace(b"0.97", b"0.99") if damage is None else damage)
    assert to.done() is None
    assert len(to.rejected) == 1 and "done.json is not used" in to.rejected[0]
    to.mark_done({"accuracy": 0.97})
    assert to.done() == {"accuracy": 0.97} and to.rejected == []


def test_errors_survive_the_way_between_ranks() -> None:
    for error in (
        CheckpointError("it is full", "free some", kind="ENOSPC"),
        DamagedError("cut short"),
        NewerFormatError("too new", round=3),
        CheckpointMismatchError("step-1", found="a", expected="b"),
        SupersededError("step-1", own=1, seen=2),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_a_manifest_speaks_for_its_folder(tmp_path: Path) -> None:
    saved = save(store(tmp_path, 2), 1)
    manifest = read_manifest(saved.path)
    assert (manifest.step, manifest.round, manifest.weights) == (1, 2, tuple(sorted(WEIGHTS)))
    assert manifest.weights_sha256 == saved.weights_sha256
