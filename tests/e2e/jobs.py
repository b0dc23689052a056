"""Jobs that the tests on a cluster train."""

from __future__ import annotations

from typing import Any

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


def example(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return loaded


def exact(name: str, *, epochs: int = 10, **spec: Any) -> dict[str, Any]:
    """A deterministic training of a minute or so, with a checkpoint at every fifth step."""
    job = example("digits")
    job["metadata"]["name"] = name
    job["spec"]["trainer"] |= {"model": "article-cnn", "epochs": epochs, "deterministic": True}
    job["spec"] |= {"storage": {"checkpointIntervalSteps": 5}, **spec}
    return job
