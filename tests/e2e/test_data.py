"""Data of every kind of place in whole jobs, and `edgecloud data` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.local import run
from tests.e2e.test_trainer import job
from tests.unit.cli.command import EDGECLOUD, run_edgecloud
from tests.unit.data.server import Site, serving


def prepare(out: Path) -> dict[str, Any]:
    """The digits, with test images held back."""
    done = run_edgecloud("data", "prepare", "digits", "--out", out, "--split", "test=0.2", "-o", "json")
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)
    return manifest


def test_from_the_command_to_the_training(tmp_path: Path) -> None:
    """Prepare, verify, look at it, train on the file where it is."""
    manifest = prepare(tmp_path / "digits.images")
    assert run_edgecloud("data", "verify", tmp_path / "digits.images").stdout.endswith("ok\n")
    shown = run_edgecloud("data", "show", tmp_path / "digits.images", "--out", tmp_path / "sheet.png")
    assert shown.returncode == 0 and (tmp_path / "sheet-classes.png").stat().st_size > 5000
    training = job(epochs=3, data={"source": str(tmp_path / "digits.images")})
    training["spec"]["workers"] = 2
    with run(tmp_path / "work", training) as running:
        assert running.end(within=240) == 0, running.output()
        assert running.status.evaluation and running.status.evaluation.accuracy
    assert not list((tmp_path / "work").glob("data/*.images"))
    evaluation = json.loads((tmp_path / "work/results/evaluation.json").read_text())
    assert evaluation["total"] == manifest["splits"]["test"]["images"]


def test_two_workers_bring_a_url_once(tmp_path: Path) -> None:
    manifest = prepare(tmp_path / "digits.images")
    with serving(Site({"/digits.images": (tmp_path / "digits.images").read_bytes()})) as site:
        training = job(epochs=3, data={"source": f"{site.url}/digits.images"})
        training["spec"]["workers"] = 2
        with run(tmp_path / "work", training, env={"no_proxy": "127.0.0.1"}) as running:
            assert running.end(within=240) == 0, running.output()
        assert sum(method == "GET" for method, _, _ in site.seen) == 1
        assert sum(method == "HEAD" for method, _, _ in site.seen) >= 2
    (cached,) = (tmp_path / "work/data").glob("*.images")
    done = subprocess.run(
        [EDGECLOUD, "data", "stats", cached, "-o", "json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["sha256"] == manifest["sha256"]


def test_a_url_that_is_nothing_ends_the_job(tmp_path: Path) -> None:
    with serving(Site({})) as site:
        training = job(epochs=3, data={"source": f"{site.url}/nothing.tar"})
        with run(tmp_path / "work", training, env={"no_proxy": "127.0.0.1"}) as running:
            assert running.end(within=120) != 0, running.output()
            failure = running.status.last_failure
    assert failure is not None and failure.reason == "BadConfiguration"
    assert "/nothing.tar can't be read (its server answers 404 Not Found): check the URL" in failure.message
