"""A trained network out of a checkpoint, for whoever wants to use it rather than train it on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from edgecloud.edge.card import ModelCard, RunCard
from edgecloud.edge.looking import is_file, is_folder
from edgecloud_trainer import models
from edgecloud_trainer.checkpoints import CheckpointError, Contents, DamagedError, Manifest, layout, load, read_manifest

MANIFEST = "manifest.json"


class RestoreError(ValueError):
    """There is no trained network there that can be used. The message says what is, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A network with its trained weights: those of the exponential mean, if the training kept one.

    model: on the CPU, float32, in evaluation mode; it takes normalised images [N, C, H, W] and gives logits. Its
    `test_time_mirror`, if it has one, says nothing here: `card.mirror` does.
    """

    model: nn.Module
    card: ModelCard
    run: RunCard
    path: Path
    """The checkpoint's folder."""
    fingerprint: Mapping[str, str]
    """Device, precision and instruction set that it was trained with; see `devices.fingerprint`."""
    rejected: tuple[str, ...] = ()
    """A sentence for each newer checkpoint that could not be used."""


def restore(path: Path) -> Restored:
    """The network of a checkpoint, or of the newest one that verifies in a workdir or a folder of checkpoints.

    Raises:
        RestoreError: there is none.
        ModelError: the network can't be built here.
    """
    rejected: list[str] = []
    for folder in _candidates(path):
        try:
            return _restored(folder, tuple(rejected))
        except (CheckpointError, OSError) as error:
            rejected.append(f"{folder} is not used: {error}")
    if rejected:
        raise RestoreError("; ".join(rejected[:3]))
    raise RestoreError(
        f"{path} holds no checkpoint: name a workdir (such as runs/NAME), its checkpoints folder, or one of those in it"
    )


def run_of(path: Path) -> Path | None:
    """The folder of the run that a model lies in: a workdir, or a job's folder on its claim; None if it is in none.

    It is one by the finished checkpoints in its `checkpoints`. Folders of that name are common, and what else a run's
    folder holds could be a user's own: `data` above all, where decoded images are kept.
    """
    for place in (Path(os.path.abspath(path)), path.resolve()):  # noqa: PTH100 - a/../b lies in no a
        for folder in place.parents:
            if _holds_checkpoints(folder / "checkpoints"):
                return folder
    return None


def _holds_checkpoints(folder: Path) -> bool:
    try:
        return any(
            isinstance(layout.parsed(one), layout.Finished) and is_file(one / MANIFEST) for one in folder.iterdir()
        )
    except OSError:
        return False


def _candidates(path: Path) -> Iterator[Path]:
    """Folders of finished checkpoints, the newest first."""
    if is_file(path / MANIFEST):
        yield path
        return
    folder = path / "checkpoints" if is_folder(path / "checkpoints") else path
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise RestoreError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    finished = [one.path for one in map(layout.parsed, entries) if isinstance(one, layout.Finished)]
    yield from sorted(finished, key=lambda one: (_age(one), one), reverse=True)


def _age(path: Path) -> tuple[int, int]:
    try:
        manifest: Manifest = read_manifest(path)
    except (DamagedError, OSError):
        return (-1, -1)  # looked at last, and then said what is wrong with it
    return manifest.round, manifest.step


def _restored(folder: Path, rejected: tuple[str, ...]) -> Restored:
    manifest, contents = read_manifest(folder), load(folder)
    card = _card(folder, contents)
    channels, height, width = card.shape
    with _modules_from_here() if ":" in card.model else nullcontext():
        model = models.build(card.model, classes=len(card.classes), channels=channels, height=height, width=width)
    try:
        model.load_state_dict(_weights(contents.tensors))
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise RestoreError(
            f"{folder}: its weights don't fit {card.model} as it is here ({first}): use the release that trained it"
        ) from error
    model.eval()
    if hasattr(model, "test_time_mirror"):
        setattr(model, "test_time_mirror", False)  # noqa: B010 - a module takes any attribute
    run = RunCard(
        step=manifest.step, round=manifest.round, weights_sha256=manifest.weights_sha256, torch=manifest.torch
    )
    return Restored(model=model, card=card, run=run, path=folder, fingerprint=_fingerprint(contents), rejected=rejected)


@contextmanager
def _modules_from_here() -> Iterator[None]:
    """Find module:function in the folder that we stand in, as `python -m` did when it was trained; a command doesn't.

    Only while a network of the user's own is built: nothing else, such as a .pt2 file, imports anything from there.
    """
    path = list(sys.path)
    if not sys.flags.safe_path:
        sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path[:] = path


def _fingerprint(contents: Contents) -> dict[str, str]:
    said = contents.state.get("fingerprint")
    return {str(name): str(value) for name, value in said.items()} if isinstance(said, dict) else {}


def _card(folder: Path, contents: Contents) -> ModelCard:
    said = contents.state.get("card")
    if said is None:
        raise RestoreError(
            f"{folder} doesn't say what network it is of, for an earlier release wrote it: train it again with this one"
        )
    try:
        return ModelCard.parse(said)
    except (ValidationError, ValueError) as error:
        raise RestoreError(f"{folder}: its card can't be read: {error}") from None


def _weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of the weights if there is one, for that is what was evaluated."""
    mean = {name.removeprefix("ema."): value for name, value in tensors.items() if name.startswith("ema.")}
    return mean or {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
