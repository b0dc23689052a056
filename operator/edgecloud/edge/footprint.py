"""What a model costs before it has answered: the time to load it, and memory, in a process that does nothing else.

`python -m edgecloud.edge.footprint MODEL [MODULE:FUNCTION]` prints both as JSON. The function opens the model; without
one onnxruntime does. One that imports modules only when it opens the first model (torch takes a second for that, and
seconds to start) is timed on later ones, all in one process.
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
    """The median of a few loads, each in a process of its own if that is cheap, and the most memory that any had.

    Args:
        path: the model's file.
        opener: a function of a module, which that process can import too.

    Raises:
        FootprintError: one of them failed.
    """
    place = f"{opener.__module__}:{opener.__qualname__}"
    loads, memories = list[float](), list[Memory]()
    while len(loads) < REPEATS:
        took, memory = _in_a_process(path, place)
        loads += took
        memories.append(memory)
    return Footprint(
        load_milliseconds=float(np.median(loads)),
        memory=Memory(loaded=int(np.median([one.loaded for one in memories])), peak=max(one.peak for one in memories)),
    )


def _in_a_process(path: Path, place: str) -> tuple[list[float], Memory]:
    """Milliseconds of each load, one or more, and the memory after the first."""
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
        first, *more = map(float, said["loadMilliseconds"])
        return [first, *more], Memory.parse(said["memory"])
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
    modules = len(sys.modules)
    try:
        took, model = _timed(opener, path)
        loaded = _resident("VmRSS")
        model.logits(np.zeros((1, *model.card.network.shape), np.uint8))
        loads, peak = [took], _resident("VmHWM")
        if len(sys.modules) > modules:
            del model
            loads = [_timed(opener, path)[0] for _ in range(REPEATS)]
    except runtime.ModelFileError as error:
        sys.exit(str(error))
    memory = {"loaded": loaded, "peak": max(loaded, peak)}
    sys.stdout.write(json.dumps({"loadMilliseconds": loads, "memory": memory}) + "\n")


def _timed(opener: Callable[[Path, int], Any], path: Path) -> tuple[float, Any]:
    """Milliseconds that it takes to open a model, and the model."""
    began = time.perf_counter_ns()
    model = opener(path, 1)
    return (time.perf_counter_ns() - began) / 1e6, model


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
