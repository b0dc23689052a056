"""A program for test_interrupted: `prepare` killed at each of its file operations in turn, and then run again.

    python -m tests.unit.data.killed SOURCE FOLDER

For each kill it prints a line of JSON: at which operation, whether a file was there after it, and what the same command
then made of it. It ends when a run comes through without meeting its operation.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from edgecloud_trainer.data.observer import Observer
from edgecloud_trainer.data.prepare import Wish, manifest_path, prepare

OPERATIONS = frozenset(
    ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.scandir", "shutil.rmtree")
)


class Heard(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def forked(work: Any) -> int:
    """Do it in a process of its own; how that ended, as os.waitpid says it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(number: int, source: str, out: Path) -> str:
    """The operation at which it was killed; "" if there were fewer."""
    reading, writing = os.pipe()
    seen = count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and str(arguments[0]).startswith((str(out), source)) and next(seen) == number:
            os.write(writing, f"{event} {Path(str(arguments[0])).name}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        sys.addaudithook(hook)
        prepare(source, out, Wish(), Observer())

    status = forked(work)
    os.close(writing)
    with os.fdopen(reading) as said:
        where = said.read()
    assert os.WIFSIGNALED(status) == bool(where), status
    return where


def main() -> None:
    source, folder = sys.argv[1], Path(sys.argv[2])
    for number in count(1):
        out = folder / f"{number}.images"
        if not (where := killed_at(number, source, out)):
            return
        whole = out.exists()
        heard = Heard()
        if not whole:
            prepare(source, out, Wish(), heard)
        print(
            json.dumps(
                {
                    "where": where,
                    "whole": whole,
                    "notes": heard.notes,
                    "sha256": json.loads(manifest_path(out).read_text())["sha256"],
                    "file": out.read_bytes()[-4000:].hex(),
                    "partial": out.with_name(f"{out.name}.partial").exists(),
                }
            ),
            flush=True,
        )
        out.unlink()
        manifest_path(out).unlink()


if __name__ == "__main__":
    main()
