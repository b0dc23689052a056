"""What tests of jobs on a real API server look for, again and again."""

from __future__ import annotations

from typing import Any

from tests.integration.api import Api, ApiStatusError, Space, until

PROBE = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}


def all_pods(space: Space, job: str, count: int, *, seconds: float = 60.0) -> dict[str, dict[str, Any]]:
    """The Pods of a job, once there are so many."""
    return (
        until(
            lambda: pods if len(pods := space.pods(job)) == count else {},
            f"{count} Pods of {job}",
            seconds=seconds,
            saw=lambda: (sorted(space.pods(job)), space.status(job)),
        )
        if count
        else until(lambda: [{}] if not space.pods(job) else [], f"no Pod of {job}", seconds=seconds)[0]
    )


def reaches(space: Space, job: str, phase: str, *, seconds: float = 60.0) -> dict[str, Any]:
    """The status of a job, once it is in that phase."""

    def look() -> dict[str, Any] | None:
        status = space.status(job)
        return status if status.get("phase") == phase else None

    return until(look, f"{job} is {phase}", seconds=seconds, saw=lambda: space.status(job)) or {}


def condition(space: Space, job: str, kind: str) -> dict[str, Any]:
    """A condition of a job; empty if there is none."""
    return next((one for one in space.status(job).get("conditions", ()) if one["type"] == kind), {})


def events(space: Space, job: str) -> list[dict[str, Any]]:
    """The events of a job."""
    items: list[dict[str, Any]] = space.api.call("GET", f"{space.core}/events")["items"]
    return [item for item in items if item["involvedObject"]["name"] == job]


def write_status(space: Space, job: str, **fields: Any) -> None:
    """Edit a job's status, as anybody may who has the right to. None takes a field away."""
    space.api.merge(f"{space.jobs}/{job}/status", {"status": fields})


def pod_status(space: Space, name: str, **fields: Any) -> None:
    """What a scheduler or a kubelet writes into a Pod's status."""
    space.api.merge(f"{space.core}/pods/{name}/status", {"status": fields})


def refuses(api: Api, method: str, path: str, body: Any, *, kind: str = "application/json") -> tuple[int, str]:
    """The status and the words with which the server refuses a request; (0, "") if it takes it."""
    try:
        api.call(method, path, body, kind=kind)
    except ApiStatusError as error:
        return error.code, str(error)
    return 0, ""
