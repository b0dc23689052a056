"""Processes that play ranks."""

from __future__ import annotations

import multiprocessing
from typing import Final

CONTEXT: Final = multiprocessing.get_context("forkserver")
"""One import of torch for all ranks: each is a fork of a process that has done nothing but that."""
CONTEXT.set_forkserver_preload(["edgecloud_trainer.group", "edgecloud_trainer.devices", "edgecloud_trainer.reduction"])
