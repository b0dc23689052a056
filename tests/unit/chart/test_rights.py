"""Rights that are granted beside rights that are used: what counts as a difference."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.rights import JOBS, NEVER_ASKED, OWN, USER, Right, differences, granted, used
from tests.unit.chart.helm import needs_helm, rendered

PODS = Right(JOBS, "", "pods", "get")


def test_differences() -> None:
    other = Right(JOBS, "", "pods", "watch")
    assert differences({PODS}, {PODS}, set()) == []
    assert differences({PODS} | NEVER_ASKED, {PODS}, {PODS}) == []  # refused for a moment, and granted
    assert differences({PODS}, set(), {other}) == [
        f"asked for, and not granted: {other}",
        f"granted, and never used: {PODS}",
    ]


def test_what_a_log_says(tmp_path: Path) -> None:
    allow, forbid = ({"authorization.k8s.io/decision": word} for word in ("allow", "forbid"))
    about = {"resource": "trainingjobs", "subresource": "status", "namespace": "team", "apiGroup": "edgecloud.io"}
    lease = {"resource": "leases", "namespace": "edgecloud-system", "apiGroup": "coordination.k8s.io"}
    entries = [
        {"user": {"username": USER}, "verb": "update", "objectRef": about, "annotations": allow},
        {"user": {"username": USER}, "verb": "delete", "objectRef": about, "annotations": forbid},
        {"user": {"username": USER}, "verb": "get", "objectRef": lease, "annotations": allow},
        {"user": {"username": USER}, "verb": "get", "requestURI": "/openid/v1/jwks"},
        {"user": {"username": "somebody"}, "verb": "get", "objectRef": lease, "annotations": allow},
        {"user": {}, "verb": "get", "objectRef": lease},
    ]
    log = tmp_path / "a.log"
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    status = Right(JOBS, "edgecloud.io", "trainingjobs/status", "update")
    held = Right(OWN, "coordination.k8s.io", "leases", "get")
    assert used([log]) == ({status, held}, {Right(JOBS, "edgecloud.io", "trainingjobs/status", "delete")})


@needs_helm
def test_the_charts_rights() -> None:
    roles = [each for each in rendered() if "trainingjobs" not in each["metadata"]["name"]]
    given = granted(roles)
    assert PODS in given
    assert Right(OWN, "", "secrets", "update") in given
    assert Right(JOBS, "", "secrets", "get") not in given
