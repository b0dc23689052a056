"""Kubernetes objects as an API server gives them, small."""

from __future__ import annotations

from typing import Any

from edgecloud_operator.core.names import job_labels, worker_labels, worker_name

JOB_UID = "job-uid"


def make_job(name: str = "digits", *, uid: str = JOB_UID, version: int = 1, **more: Any) -> dict[str, Any]:
    """more: spec, status, and fields of metadata."""
    spec = more.pop("spec", {"workers": 2, "program": {"command": ["python", "train.py"]}})
    status = more.pop("status", None)
    metadata = {"namespace": "team", "name": name, "uid": uid, "resourceVersion": str(version), "generation": 1}
    job = {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": metadata | more,
        "spec": spec,
    }
    return job if status is None else job | {"status": status}


def owner(uid: str = JOB_UID, **fields: Any) -> dict[str, Any]:
    default = {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "name": "digits", "uid": uid}
    return default | {"controller": True} | fields


def make_pod(
    index: int = 0, *, uid: str = "", version: int = 1, owner_uid: str | None = JOB_UID, **more: Any
) -> dict[str, Any]:
    """more: spec, status, and fields of metadata."""
    parts = {part: more.pop(part) for part in ("spec", "status") if part in more}
    metadata = {
        "namespace": "team",
        "name": worker_name("digits", index),
        "uid": uid or f"pod-{index}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-24T12:00:00Z",
        "labels": worker_labels("digits", index),
        "ownerReferences": [owner(owner_uid)] if owner_uid else [],
    }
    return {"metadata": metadata | more} | parts


def make_service(
    *, uid: str = "service", version: int = 1, owner_uid: str | None = JOB_UID, **more: Any
) -> dict[str, Any]:
    metadata = {
        "namespace": "team",
        "name": "digits",
        "uid": uid,
        "resourceVersion": str(version),
        "labels": job_labels("digits"),
        "ownerReferences": [owner(owner_uid)] if owner_uid else [],
    }
    return {"metadata": metadata | more}


def container(name: str = "worker", **state: Any) -> dict[str, Any]:
    return {"name": name, "state": state}
