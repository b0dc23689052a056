"""The zipapp: the same bytes each time, old syntax, and a worker in an image that has nothing but python3."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from edgecloud.launcher import archive
from tests.unit.launcher.harness import PYTHON, SOURCES, Job, Launcher

FILES = sorted([SOURCES / "edgecloud" / "worker.py", *(SOURCES / "edgecloud" / "launcher").rglob("*.py")])


@pytest.fixture
def pyz(tmp_path: Path) -> Path:
    path = tmp_path / "launcher.pyz"
    archive.write(path)
    return path


def test_equal_sources_give_equal_bytes(pyz: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pyz"
    subprocess.run(
        [PYTHON, "-m", "edgecloud.launcher.archive", str(again)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCES),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "Asia/Tokyo",
        },
        check=True,
    )
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (pyz, again)}
    assert len(digests) == 1
    with zipfile.ZipFile(pyz) as opened:
        names = opened.namelist()
    assert names == sorted(names)
    wanted = {f"edgecloud/{path.relative_to(SOURCES / 'edgecloud').as_posix()}" for path in FILES}
    assert set(names) == wanted | {"__main__.py", "edgecloud/__init__.py"}
    assert os.access(pyz, os.X_OK)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))


def oldest_python() -> str:
    """The oldest Python from 3.8 on that is on this machine; the tests' own, if there is no other."""
    for minor in range(8, 12):
        for folder in [*os.environ["PATH"].split(":"), *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin"))]:
            found = Path(folder, f"python3.{minor}")
            if found.exists() and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                return str(found)
    return PYTHON


def test_it_runs_with_the_oldest_python_there_is(pyz: Path) -> None:
    python = oldest_python()
    seen = subprocess.run([python, "-I", str(pyz), "--help"], capture_output=True, text=True, check=True)
    assert "usage: python -m edgecloud.launcher" in seen.stdout
    modules = [f"edgecloud.launcher.{path.stem}" for path in FILES if path.parent.name == "launcher"]
    script = f"import sys; sys.path.insert(0, {str(pyz)!r}); import edgecloud.worker, {', '.join(modules)}"
    subprocess.run([python, "-I", "-W", "error", "-c", script], check=True)


def test_a_worker_out_of_the_archive(job: Job, pyz: Path) -> None:
    """The program has no EdgeCloud but the archive, and the rest of an installed package is not hidden by it."""
    installed = job.file("site") / "edgecloud"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    (installed / "other.py").write_text("HERE = True\n")
    command = job.script("""
        import edgecloud.other
        from edgecloud import worker
        worker.report(step=5, where=edgecloud.other.HERE)
        print(worker.__file__)
    """)
    environment = {"PYTHONPATH": str(job.file("site"))}
    launcher = Launcher(job.folder, job.coordinator.url, command, environment, start=[PYTHON, "-I", str(pyz)])
    job.launchers.append(launcher)
    job.coordinator.run(1)
    done = job.coordinator.wait_for(lambda poll: poll.state in ("succeeded", "failed"), "an end")
    assert done.state == "succeeded", done.failure
    assert done.progress is not None and done.progress.metrics == {"where": 1.0}
    job.coordinator.say("exit", 1)
    assert launcher.exit_code() == 0
    assert launcher.stdout.strip() == str(pyz / "edgecloud" / "worker.py")


def test_an_archive_does_not_write_itself(pyz: Path, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(pyz)!r})\nfrom edgecloud.launcher import archive\narchive.write(None)"
    )
    seen = subprocess.run([PYTHON, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert "copy the file" in seen.stderr
