"""The way to an API server, and what is said where there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgecloud_operator.kube.access import AccessError, load_access


def kubeconfig(user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "a", "cluster": {"server": "https://10.0.0.1:6443"} | cluster}],
        "users": [{"name": "a", "user": user}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }


NOTHING = "eA=="
"""Base64 of what is no certificate."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "this is no kubeconfig"),
        ("", "this is no kubeconfig"),
        ("clusters: 3", "this is no kubeconfig"),
        ("clusters: [", "this is no YAML"),
        ("{}", "current-context"),
        (yaml.safe_dump(kubeconfig({}) | {"users": 7}), "this is no kubeconfig"),
        (yaml.safe_dump(kubeconfig({}, **{"certificate-authority-data": NOTHING})), "a certificate or key"),
        (yaml.safe_dump(kubeconfig({}, **{"certificate-authority": "/no/such/file"})), "/no/such/file"),
        (
            yaml.safe_dump(kubeconfig({"client-certificate-data": NOTHING, "client-key-data": NOTHING})),
            "a certificate or key",
        ),
    ],
)
def test_a_kubeconfig_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(AccessError) as raised:
        asyncio.run(load_access())
    message = str(raised.value)
    assert message.startswith(f"no access to an API server: {file}: ") and said in message
    assert message.splitlines() == [message]


def test_a_kubeconfig_that_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(kubeconfig({"token": "secret"})))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert asyncio.run(load_access()).host == "https://10.0.0.1:6443"
