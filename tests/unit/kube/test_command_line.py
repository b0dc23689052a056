"""The operator's command line: what is taken, and what ends with a usage message and exit code 2."""

from __future__ import annotations

from typing import Any

import click
import pytest

from edgecloud_operator.__main__ import main
from edgecloud_operator.kube.sockets import EVERY


def parsed(*arguments: str) -> dict[str, Any]:
    return main.make_context("edgecloud_operator", list(arguments)).params


@pytest.mark.parametrize(
    "address", ["https://[fd00::1]:8443", "https://edgecloud-coordinator.ours.svc:8443", "http://10.0.0.5", "https://a"]
)
def test_where_workers_reach_the_coordinator(address: str) -> None:
    assert parsed(f"--coordinator-address={address}")["coordinator_address"] == address


@pytest.mark.parametrize(
    "address",
    [
        "https://[fd00::1",
        "https://",
        "https://:8443",
        "https://a:99999",
        "a:8443",
        "",
        "https://a:8443/x",
        "https://a?x",
        "https://u:p@a",
        "https://a b:1",
        "https://a\nb",
        "https://a:0",
    ],
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(click.BadParameter, match="is not https://HOST:PORT") as raised:
        parsed(f"--coordinator-address={address}")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("said", "expected"), [("1000660000", 1000660000), (str(2**31 - 1), 2**31 - 1), ("none", None), ("", None)]
)
def test_the_user_id_of_jobs(said: str, expected: int | None) -> None:
    assert parsed(f"--worker-user={said}")["worker_user"] == expected
    assert parsed()["worker_user"] == 1000


@pytest.mark.parametrize("said", ["0", "-1", "root", str(2**31), "1" * 5000, "1.5", "²"])
def test_a_user_id_that_is_none(said: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a user id from 1 to 2147483647 nor none"):
        parsed(f"--worker-user={said}")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (":8443", (EVERY, 8443)),
        ("0.0.0.0:8443", ("0.0.0.0", 8443)),
        ("[fd00::1]:8443", ("fd00::1", 8443)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_where_it_listens(said: str, expected: tuple[str, int]) -> None:
    assert parsed(f"--listen={said}")["listen"] == expected
