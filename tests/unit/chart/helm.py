"""The chart, as files and as Helm renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "charts"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecloud"
HELM: Final = shutil.which("helm", path=f"{_CACHE / 'bin'}:{os.environ.get('PATH', '')}")
needs_helm: Final = pytest.mark.skipif(HELM is None, reason="no helm: make tools, or one on the PATH")

KUBERNETES: Final = "--kube-version=1.36.0"
"""For what is rendered without a cluster: a helm that was built by hand takes it to be 1.20."""

Object = dict[str, Any]


def run(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """helm with these arguments, and with values in place of a file."""
    assert HELM
    given = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [HELM, *arguments, *given],
        check=False,
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def rendered(values: Object | None = None, *arguments: str) -> list[Object]:
    """What `helm template` makes of these values."""
    return _rendered("--skip-tests", *arguments, values=values)


def rendered_test(values: Object | None = None) -> list[Object]:
    """What `helm test` makes with these values."""
    return _rendered("--show-only", "templates/test.yaml", values=values)


def _rendered(*arguments: str, values: Object | None) -> list[Object]:
    done = run("template", "edgecloud", str(CHART), "--namespace", "ours", KUBERNETES, *arguments, values=values or {})
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refused(values: Object) -> str:
    """What Helm says against these values."""
    done = run("template", "edgecloud", str(CHART), KUBERNETES, values=values)
    assert done.returncode != 0, "Helm has nothing against it"
    return done.stderr


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def only(objects: list[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = of_kind(objects, kind)
    return found


def container(objects: list[Object]) -> Object:
    """The operator's container."""
    (found,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def option(objects: list[Object], name: str) -> str | None:
    """An option of the operator's command line."""
    found = [each.removeprefix(f"--{name}=") for each in container(objects)["args"] if each.startswith(f"--{name}=")]
    assert len(found) < 2
    return found[0] if found else None
