"""The local run: `edgecloud run`, the same control loop with processes for Pods and a file for the API server."""

from edgecloud_operator.core.plan import Event
from edgecloud_operator.local.gpus import shortage, visible_gpus
from edgecloud_operator.local.run import Display, Ended, LocalRun, prepare
from edgecloud_operator.local.workdir import Workdir, WorkdirError, to_yaml

__all__ = [
    "Display",
    "Ended",
    "Event",
    "LocalRun",
    "Workdir",
    "WorkdirError",
    "prepare",
    "shortage",
    "to_yaml",
    "visible_gpus",
]
