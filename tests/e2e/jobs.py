"""Jobs that the tests on a cluster train."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from edgecloud_operator.core import names
from tests.e2e.local import ROOT

EXAMPLES = ROOT / "manifests/examples"
SPREAD = {
    "topologySpreadConstraints": [
        {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {names.COMPONENT_LABEL: "worker"}},
        }
    ]
}  # fmt: skip
"""One worker on each node."""
REPORTS: Final = """
import time
from edgecloud import worker
for step in range(1, 10**6):
    worker.report(step=step, total_steps=10**6)
    time.sleep(0.2)
"""


def example(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return loaded


def own_script(*, epochs: int) -> dict[str, Any]:
    """own-script.yaml with fewer epochs: how well it trains as it stands is shown on this machine."""
    job = example("own-script")
    files = job["spec"]["program"]["files"]
    files["train.py"], replaced = re.subn(r"(?m)^EPOCHS = \d+$", f"EPOCHS = {epochs}", files["train.py"])
    assert replaced == 1
    return job


def program(name: str, text: str, **spec: Any) -> dict[str, Any]:
    """A job that runs a script of its own."""
    return {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {"workers": 1, "program": {"command": ["python", "main.py"], "files": {"main.py": text}}} | spec,
    }


def reporting(name: str, **spec: Any) -> dict[str, Any]:
    """A job that outlasts its test and says each step: for what launchers and operators do, which costs no training."""
    return program(name, REPORTS, **spec)


def exact(name: str, *, epochs: int = 10, **spec: Any) -> dict[str, Any]:
    """A deterministic training of a minute or so, with a checkpoint at every fifth step."""
    job = example("digits")
    job["metadata"]["name"] = name
    job["spec"]["trainer"] |= {"model": "article-cnn", "epochs": epochs, "deterministic": True}
    job["spec"] |= {"storage": {"checkpointIntervalSteps": 5}, **spec}
    return job
