"""Ranks that meet: real processes with a real store."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

LIMIT_SECONDS = 5.0
RANK = """
import datetime, json, os, sys
import torch
from edgecloud_trainer import devices, group, settings
if "LIMIT" in os.environ:
    group.TIMEOUT = datetime.timedelta(seconds=float(os.environ["LIMIT"]))
said = settings.read()
print("ready", flush=True)
code = 1
try:
    group.join(said, devices.choose(said))
    if "DATA" in os.environ:
        group.agree(said, {}, data=os.environ["DATA"])
    print(json.dumps(group.gather_objects(said.rank, said)), flush=True)
    code = 0
except Exception as error:
    print(repr(error), flush=True)
finally:
    group.leave()
os._exit(code)  # as a training process ends: what torch leaves to its destructors may abort
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(rank: int, port: int, **more: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "EDGECLOUD_TRAINER": json.dumps({"trainer": {"data": {"name": "digits"}, "precision": "fp32"}}), **more,
    }  # fmt: skip
    # Unbuffered: what readline() had taken on beyond its line would be lost to communicate().
    process = subprocess.Popen(
        [sys.executable, "-c", RANK], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("first", [0, 1])
def test_a_rank_may_take_longer_to_come_than_an_exchange_may_take(first: int) -> None:
    port = free_port()
    early = start(first, port, LIMIT=str(LIMIT_SECONDS))
    late = None
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            early.wait(LIMIT_SECONDS + 1)
        late = start(1 - first, port, LIMIT=str(LIMIT_SECONDS))
        assert [one.communicate(timeout=60)[0] for one in (early, late)] == [b"[0, 1]\n"] * 2
    finally:
        for one in filter(None, (early, late)):
            one.kill()
            one.communicate()


@pytest.mark.parametrize("other", ["b" * 64, "a" * 64])
def test_ranks_with_different_images_are_refused(other: str) -> None:
    """Also where nothing has to be exact: every rank would train on its own images, and the job succeed."""
    port = free_port()
    ranks = [start(0, port, DATA="a" * 64), start(1, port, DATA=other)]
    try:
        said = [one.communicate(timeout=60)[0] for one in ranks]
    finally:
        for one in ranks:
            one.kill()
            one.communicate()
    assert [one.returncode for one in ranks] == ([0, 0] if other[0] == "a" else [1, 1]), said
    assert [b"the workers see different images" in one for one in said] == [other[0] != "a"] * 2


def test_a_port_that_is_taken_ends_rank_0_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = start(0, other.getsockname()[1])
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert b"EADDRINUSE" in said
