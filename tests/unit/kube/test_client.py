"""Paths, and what a refusal is called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.kube import client
from edgecloud_operator.kube.client import ApiError, Kind, error_of, path


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "sub", "expected"),
    [
        ("TrainingJob", None, None, "", "/apis/edgecloud.io/v1alpha1/trainingjobs"),
        ("TrainingJob", "team", "a", "status", "/apis/edgecloud.io/v1alpha1/namespaces/team/trainingjobs/a/status"),
        ("Pod", None, None, "", "/api/v1/pods"),
        ("Pod", "team", None, "", "/api/v1/namespaces/team/pods"),
        ("Service", "team", "a", "", "/api/v1/namespaces/team/services/a"),
        ("ConfigMap", "team", "../x?", "", "/api/v1/namespaces/team/configmaps/..%2Fx%3F"),
    ],
)
def test_paths(kind: Kind, namespace: str | None, name: str | None, sub: str, expected: str) -> None:
    assert path(kind, namespace, name, sub=sub) == expected


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (400, "BadRequest", client.BadRequestError),
        (401, "Unauthorized", client.UnauthorizedError),
        (403, "Forbidden", client.ForbiddenError),
        (404, "NotFound", client.NotFoundError),
        (409, "AlreadyExists", client.AlreadyExistsError),
        (409, "Conflict", client.ChangedError),
        (410, "Expired", client.ExpiredError),
        (418, "", ApiError),
        (422, "Invalid", client.InvalidError),
        (429, "TooManyRequests", client.UnavailableError),
        (500, "InternalError", client.UnavailableError),
        (503, "", client.UnavailableError),
        (504, "Timeout", client.UnavailableError),
    ],
)
def test_errors(status: int, reason: str, expected: type[ApiError]) -> None:
    said = {"kind": "Status", "reason": reason, "message": "words", "details": {"causes": []}}
    error = error_of(status, json.dumps(said).encode())
    assert type(error) is expected
    assert (error.status, error.reason, error.message, error.details) == (status, reason, "words", {"causes": []})


@given(st.integers(300, 599), st.one_of(st.binary(), st.sampled_from([b"[" * 100_000, b"null", b'{"reason":7}'])))
def test_no_answer_raises_anything_else(status: int, body: bytes) -> None:
    error = error_of(status, body)
    assert error.status == status
    assert str(error)


def test_what_a_proxy_says_is_kept() -> None:
    error: Any = error_of(502, b"<html>bad gateway</html>")
    assert "bad gateway" in error.message
