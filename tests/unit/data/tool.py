"""`edgecloud data` as a user has it, and what a folder looked like before and after."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from edgecloud.cli.main import cli


def data(*arguments: str | Path) -> Result:
    """Run `edgecloud data ...` to its end, in this process."""
    return CliRunner(catch_exceptions=False).invoke(cli, ["data", *map(str, arguments)])


def prepared(source: str | Path, out: Path, *options: str) -> dict[str, Any]:
    """Prepare a source that is right; what the command prints."""
    done = data("prepare", source, "--out", out, "-o", "json", *options)
    assert done.exit_code == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def verified(source: str | Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what `verify` prints."""
    done = data("verify", source, "-o", "json", *options)
    assert done.exit_code in (0, 1), done.stderr
    return done.exit_code, json.loads(done.stdout)


def snapshot(root: Path) -> dict[str, str]:
    """Everything below a folder: kind, rights, time, and contents of what is a file; links aren't followed."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            status = path.lstat()
            contents = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
            link = os.readlink(path) if path.is_symlink() else ""
            time = 0 if path.is_dir() else status.st_mtime_ns
            found[str(path.relative_to(root))] = f"{status.st_mode:o} {time} {contents} {link}"
    return found
