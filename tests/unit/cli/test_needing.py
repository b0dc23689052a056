"""Libraries that are missing, or that are there and don't fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecloud.cli.needing import needs, sentence
from tests.unit.cli.command import ROOT, run_edgecloud

GOMP = "libgomp.so.1: cannot open shared object file"


def failing(code: str) -> ImportError:
    """The error of an import by a module of ours."""
    with pytest.raises(ImportError) as raised:
        exec(code, {"__name__": "edgecloud.edge.runtime"})
    own = raised.value.__traceback__
    return raised.value.with_traceback(own and own.tb_next)


def test_what_is_said_of_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in {
        "withoutlibrary": f"raise ImportError({GOMP!r})",
        "tooold": "from json import tomorrow",
        "outer": "import withoutlibrary_",
        "many": "raise ImportError('\\n\\nIMPORTANT:\\nread this')",
    }.items():
        (tmp_path / f"{name}_.py").write_text(code)
    remedy = ": reinstall it with pip install --force-reinstall {}, or install the system's library that this names"
    for code, said in (
        (
            "raise ModuleNotFoundError(name='PIL.Image')",
            "PIL is not installed: pip install '.[edge]' in EdgeCloud's folder",
        ),
        (
            "raise ModuleNotFoundError(name='fcntl')",
            "this system is not supported (it has no fcntl): use Linux, macOS or, on Windows, WSL",
        ),
        ("raise ModuleNotFoundError(name='_bz2')", "this Python came without its own module _bz2: use another one"),
        ("import nowhere_to_be_found.below", "nowhere_to_be_found is not installed: install it"),
        ("import edgecloud_trainer.nothing", None),
        ("import withoutlibrary_", f"withoutlibrary_ can't be loaded ({GOMP}){remedy.format('withoutlibrary_')}"),
        ("from decimal import decimal", "decimal can't be loaded (cannot import name 'decimal' from 'decimal' ("),
        ("import tooold_", "tooold_ can't be loaded (cannot import name 'tomorrow' from 'json' ("),
        ("import outer_", f"withoutlibrary_ can't be loaded ({GOMP})"),
        ("import many_", "many_ can't be loaded (IMPORTANT:): "),
        ("from edgecloud import nothing", None),
        ("import edgecloud.nothing", None),
    ):
        found = sentence(failing(code), "edge")
        assert (found or "").startswith(said or "") and (found is None) == (said is None), code


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="of its own"), needs("edge"):
        raise ValueError("of its own")
    with pytest.raises(ImportError), needs("edge"):
        raise failing("import edgecloud.nothing")


@pytest.mark.parametrize("command", ["predict model.onnx a.png", "evaluate model.onnx", "export runs/a"])
def test_a_library_that_can_not_be_loaded(command: str, tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text(f"raise ImportError({GOMP!r})")
    path = os.pathsep.join((str(tmp_path), str(ROOT / "operator"), str(ROOT / "trainer")))
    done = run_edgecloud(*command.split(), cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"edgecloud: numpy can't be loaded ({GOMP}): reinstall it with pip install ")
    assert len(done.stderr.splitlines()) == 1
