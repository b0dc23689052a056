"""`python -m edgecloud_operator.kube.smoke`, as `helm test` runs it, against a real API server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Space, until
from tests.integration.kubelet import kubelet
from tests.integration.process import OperatorProcess

SPEC = {"workers": 2, "program": {"command": ["sleep", "1"]}}


def smoke(cp: ControlPlane, space: Space, spec: Any, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgecloud_operator.kube.smoke", f"--namespace={space.name}"]
    return subprocess.Popen(
        [*command, f"--spec={json.dumps(spec)}", *options], env=cp.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> tuple[int, str]:
    text, _ = process.communicate(timeout=120)
    return process.returncode, text


def jobs(space: Space) -> list[Any]:
    found: list[Any] = space.api.call("GET", space.jobs)["items"]
    return found


def test_a_job_that_succeeds(cp: ControlPlane, space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    with kubelet(space, tmp_path / "kubelet"):
        code, text = said(smoke(cp, space, SPEC))
    assert code == 0, text
    assert "Succeeded: 2/2 workers, restarts 0" in text
    assert jobs(space) == []


def test_a_job_that_fails(cp: ControlPlane, space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    failing = {"workers": 1, "program": {"command": ["python", "-c", "raise SystemExit('no such data')"]}}
    with kubelet(space, tmp_path / "kubelet"):
        code, text = said(smoke(cp, space, {**failing, "restartPolicy": {"maxRestarts": 0}}))
    assert code == 1, text
    assert "no such data" in text
    assert jobs(space) == []


def test_a_job_that_is_refused(cp: ControlPlane, space: Space) -> None:
    code, text = said(smoke(cp, space, SPEC | {"workers": 0}))
    assert code == 1, text
    assert "Failed: 422 Invalid" in text
    assert "spec.workers" in text


def test_nobody_takes_it_up(cp: ControlPlane, space: Space) -> None:
    code, text = said(smoke(cp, space, SPEC, "--within=3"))
    assert code == 1, text
    assert "no operator has taken it up" in text
    assert jobs(space) == []


def test_stopped_it_takes_its_job_along(cp: ControlPlane, space: Space) -> None:
    process = smoke(cp, space, SPEC)
    until(lambda: jobs(space), "the job")
    process.terminate()
    code, text = said(process)
    assert code == 1, text
    assert "Stopped." in text
    assert jobs(space) == []
