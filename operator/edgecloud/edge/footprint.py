"""What a model costs before it has answered: the time to load it, and memory, in a process that does nothing else.

`python -m edgecloud.edge.footprint MODEL [MODULE:FUNCTION]` prints both as JSON. The function opens the model; without
one onnxruntime does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from edgecloud.edge import runtime
from edgecloud.edge.report import Memory

REPEATS: Final = 3
_SECONDS: Final = 300.0
_STATUS: Final = Path("/proc/self/status")


class FootprintError(RuntimeError):
    """The process that was to load the model failed. The message says how."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """load_milliseconds: from the file, which the page cache holds, to a model that is ready; after all imports."""

    load_milliseconds: float
    memory: Memory


def footprint(path: Path, opener: Callable[[Path, int], runtime.Predictor] = runtime.open_onnx) -> Footprint:
    """The median of a few processes that load the model one after the other, and the most memory that any had.

    Args:
        path: the model's file.
        opener: a function of a module, which that process can import too.

    Raises:
        FootprintError: one of them failed.
    """
    place = f"{opener.__module__}:{opener.__qualname__}"
    runs = [_in_a_process(path, place) for _ in range(REPEATS)]
    return Footprint(
        load_milliseconds=float(np.median([one.load_milliseconds for one in runs])),
        memory=Memory(
            loaded=int(np.median([one.memory.loaded for one in runs])), peak=max(one.memory.peak for one in runs)
        ),
    )


def _in_a_process(path: Path, place: str) -> Footprint:
    # It finds the modules that this process finds, and not those in the folder that it happens to be started in.
    modules = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", "edgecloud.edge.footprint", str(path), place]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=os.environ | modules
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FootprintError(f"{path} can't be loaded in a process of its own ({error}): look at its memory") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        raise FootprintError(f"{path} can't be loaded in a process of its own: {last}")
    try:
        said = json.loads(done.stdout)
        return Footprint(load_milliseconds=float(said["loadMilliseconds"]), memory=Memory.parse(said["memory"]))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise FootprintError(f"{path}: the process that loaded it printed no figures ({error})") from error


def main() -> None:
    """Load the model, run it once, and print what that took."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m edgecloud.edge.footprint MODEL [MODULE:FUNCTION]")
    path = Path(sys.argv[1])
    module, _, name = (sys.argv[2] if len(sys.argv) == 3 else "edgecloud.edge.runtime:open_onnx").partition(":")
    opener = getattr(import_module(module), name)
    _read(path)
    began = time.perf_counter_ns()
    try:
        model: Any = opener(path, 1)
        took = (time.perf_counter_ns() - began) / 1e6
        loaded = _resident("VmRSS")
        model.logits(np.zeros((1, *model.card.network.shape), np.uint8))
    except runtime.ModelFileError as error:
        sys.exit(str(error))
    memory = {"loaded": loaded, "peak": max(loaded, _resident("VmHWM"))}
    sys.stdout.write(json.dumps({"loadMilliseconds": took, "memory": memory}) + "\n")


def _read(path: Path) -> None:
    """Bring the file into the page cache, so that loading it isn't a measurement of the disk."""
    try:
        with path.open("rb") as file:
            while file.read(2**20):
                pass
    except OSError as error:
        sys.exit(f"{path} can't be read ({error.strerror or error}): check it and its rights")


def _resident(field: str) -> int:
    """Bytes; of a process that was started by exec, so that the starter's own aren't counted."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
