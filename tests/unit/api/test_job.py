"""The resource as a value: read, written, read again; and the questions that a spec answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecloud.api.base import utc
from edgecloud.api.job import ObjectMeta, TrainingJob
from edgecloud.api.spec import ResourceRequirements, TrainingJobSpec
from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud.api.types import amount
from tests.unit.api import strategies
from tests.unit.api.strategies import resource

heavy = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@heavy
@given(strategies.right_specs, strategies.statuses, strategies.metadata)
def test_read_written_and_read_again(spec: dict[str, Any], status: dict[str, Any], metadata: dict[str, Any]) -> None:
    job = TrainingJob.parse(resource(spec, status=status, metadata=metadata))
    written = job.dump()
    again = TrainingJob.parse(written)
    assert again.dump() == written
    assert again.spec == job.spec
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert TrainingJob.parse(json.loads(json.dumps(written))) == again


@heavy
@given(strategies.specs)
def test_any_spec_is_read_as_it_is_written(spec: dict[str, Any]) -> None:
    parsed = TrainingJobSpec.parse(spec)
    assert TrainingJobSpec.parse(parsed.dump()) == parsed


def test_what_is_not_set_is_not_written() -> None:
    written = TrainingJob.parse(resource({"workers": 1, "program": {"command": ["a"]}})).dump()
    assert written == {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "digits", "namespace": "default", "generation": 1},
        "spec": {"workers": 1, "program": {"command": ["a"]}, "stopGraceSeconds": 30, "suspend": False},
    }


def test_kubernetes_own_structures_come_back_as_they_were() -> None:
    template = {"spec": {"x": None, "y": [None, {"z": None}], "volumes": [{"name": "a", "emptyDir": {}}], "n": 1.0}}
    spec = {"workers": 1, "program": {"command": ["a"]}, "podTemplate": template}
    assert TrainingJob.parse(resource(spec)).dump()["spec"]["podTemplate"] == template


@pytest.mark.parametrize(
    ("container", "right"),
    [
        ({"name": "worker", "env": []}, True),
        ({"name": "beside", "image": "a"}, True),
        ({"name": "pytorch", "env": []}, False),
        ({"env": []}, False),
    ],
)
def test_a_container_of_a_template_is_the_workers_or_has_an_image(container: dict[str, Any], right: bool) -> None:
    """Another would be one more container, which the server refuses with the Pod that it is in."""
    template = {"spec": {"containers": [{"name": "worker"}, container]}}
    asked = resource({"workers": 1, "trainer": {"data": {"name": "digits"}}, "podTemplate": template})
    assert TrainingJob.parse(asked, stored=True).spec.template() == template, "the server says it when it takes the Pod"
    if right:
        TrainingJob.parse(asked)
        return
    with pytest.raises(ValidationError) as raised:
        TrainingJob.parse(asked)
    (entry,) = raised.value.errors()
    assert entry["loc"] == ("spec", "podTemplate", "spec", "containers", 1)
    assert entry["ctx"]["remedy"].startswith("write name: worker")


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("command", ["python", "train.py"], "spec.program.command"),
        ("args", ["--fast"], "spec.program.args"),
        ("image", "pytorch", "spec.image"),
    ],
)
def test_what_a_template_does_not_say_of_the_container_that_trains(field: str, value: Any, where: str) -> None:
    """It would take the launcher's place, and each Pod would do all of the work."""
    template = {
        "spec": {"containers": [{"name": "beside", field: value, "image": "a"}, {"name": "worker", field: value}]}
    }
    asked = resource({"workers": 1, "program": {"command": ["a"]}, "podTemplate": template})
    assert TrainingJob.parse(asked, stored=True).spec.template() == template
    with pytest.raises(ValidationError) as raised:
        TrainingJob.parse(asked)
    (entry,) = raised.value.errors()
    assert entry["loc"] == ("spec", "podTemplate", "spec", "containers", 1, field)
    assert entry["ctx"]["remedy"].endswith(where)


@pytest.mark.parametrize(
    ("template", "read"),
    [
        ({"imagePullSecrets": [], "spec": {"x": None}, "apiVersion": "v1"}, {"spec": {"x": None}}),
        ({"metadata": 7, "spec": ["a"]}, {}),
    ],
)
def test_a_stored_template_is_read_without_what_never_counted(template: dict[str, Any], read: dict[str, Any]) -> None:
    """It was taken before the template's fields were known, and its Pods are there."""
    stored = resource({"workers": 1, "program": {"command": ["a"]}, "podTemplate": template})
    assert TrainingJob.parse(stored, stored=True).spec.template() == read
    with pytest.raises(ValidationError):
        TrainingJob.parse(stored)


def test_a_job_that_is_managed_by_nobody_is_ours() -> None:
    """One that was taken with an empty name was nobody's for good: the field cannot be changed."""
    stored = resource({"workers": 1, "program": {"command": ["a"]}, "managedBy": ""})
    assert TrainingJob.parse(stored, stored=True).spec.managed_by is None
    with pytest.raises(ValidationError, match="at least 1 character"):
        TrainingJob.parse(stored)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": "2"},
        {"workers": 2.0},
        {"workers": True},
        {"min_workers": 1},
        {"minworkers": 1},
        {"suspend": 1},
        {"program": {"command": "python train.py"}},
        {"program": {"command": ["a\0b"]}},
        {"program": {"command": ["a"], "env": [{"name": "A", "value": "\0"}]}},
        {"program": {"command": ["a"], "files": {"../a": ""}}},
        {"program": {"command": ["a"], "files": {".bashrc": ""}}},
        {"resources": {"limits": {"cpu": "2 cores"}}},
        {"resources": {"limits": {"cpu": -1}}},
        {"resources": {"limits": {"cpu": "-1"}}},
        {"podTemplate": []},
        {"podTemplate": {"imagePullSecrets": [{"name": "registry"}]}},
    ],
)
def test_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingJob.parse(resource({"workers": 1, "program": {"command": ["a"]}} | wrong))


def test_a_model_is_a_value() -> None:
    rendezvous = Rendezvous(round=1)
    with pytest.raises(ValidationError):
        rendezvous.round = 2  # type: ignore[misc]
    assert hash(rendezvous) == hash(Rendezvous(round=1))


# Times

MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.timezones() | st.just(UTC))


@given(MOMENTS)
def test_a_time_is_written_to_the_second_in_utc(moment: datetime) -> None:
    text = utc(moment)
    assert len(text) == 20 and text.endswith("Z") and text[10] == "T"
    assert datetime.fromisoformat(text) == moment.astimezone(UTC).replace(microsecond=0)
    metadata = ObjectMeta(name="a", creation_timestamp=moment)
    assert metadata.dump()["creationTimestamp"] == text
    again = ObjectMeta.parse(metadata.dump())
    assert again.dump() == metadata.dump()
    assert again.creation_timestamp is not None and again.creation_timestamp.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.999999Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00Z"),
        ("0999-01-01T00:00:00Z", "0999-01-01T00:00:00Z"),
        ("2026-01-31T12:00:00", None),  # no zone: which moment is that?
        ("2026-01-31", None),
        ("0001-01-01T00:00:00+01:00", None),  # year 0 in UTC
        ("9999-12-31T23:59:59-01:00", None),
        ("2026-02-30T00:00:00Z", None),
        ("yesterday", None),
        (1700000000, None),
    ],
)
def test_times(text: Any, written: str | None) -> None:
    value = {"name": "a", "creationTimestamp": text}
    if written is None:
        with pytest.raises(ValidationError):
            ObjectMeta.parse(value)
    else:
        assert ObjectMeta.parse(value).dump()["creationTimestamp"] == written


def test_a_status_is_compared_in_utc() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert TrainingJobStatus(start_time=noon) == TrainingJobStatus(start_time=elsewhere)


# What a spec answers


def spec(**fields: Any) -> TrainingJobSpec:
    return TrainingJobSpec.parse(fields)


POOLS = [{"name": "cloud", "workers": 2}, {"name": "edge", "workers": 1}, {"name": "pc", "workers": 3}]


@pytest.mark.parametrize(("fields", "count"), [({"workers": 3}, 3), ({"pools": POOLS}, 6), ({}, 1)])
def test_worker_count(fields: dict[str, Any], count: int) -> None:
    assert spec(**fields).worker_count() == count


def test_workers_are_numbered_through_the_pools() -> None:
    job = spec(pools=POOLS)
    found = [pool.name if (pool := job.pool_of(index)) else None for index in range(7)]
    assert found == ["cloud", "cloud", "edge", "pc", "pc", "pc", None]
    assert spec(workers=2).pool_of(0) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=16))
def test_each_pool_has_its_workers(sizes: list[int]) -> None:
    job = spec(pools=[{"name": f"p{place}", "workers": size} for place, size in enumerate(sizes)])
    names = [pool.name for index in range(job.worker_count()) if (pool := job.pool_of(index))]
    assert names == [f"p{place}" for place, size in enumerate(sizes) for _ in range(size)]


def gpus(count: Any) -> dict[str, Any]:
    return {"limits": {"nvidia.com/gpu": count}}


@pytest.mark.parametrize(
    ("fields", "processes"),
    [
        ({"workers": 1}, 1),
        ({"processesPerWorker": 3}, 3),
        ({"resources": gpus(4)}, 4),
        ({"resources": gpus("4")}, 4),
        ({"resources": gpus("+4")}, 4),
        ({"resources": gpus("4.0")}, 4),
        ({"resources": gpus("4e0")}, 4),
        ({"resources": gpus("4000m")}, 4),
        ({"resources": gpus(0)}, 1),
        ({"resources": gpus("1k")}, 64),
        ({"resources": {"requests": {"nvidia.com/gpu": 4}}}, 1),  # a limit is what gives a Pod its GPUs
        ({"resources": {"limits": {"cpu": 4}}}, 1),
        ({"resources": gpus(4), "processesPerWorker": 2}, 2),
        ({"resources": gpus(4), "pools": [{"name": "a", "workers": 1}]}, 4),
        ({"resources": gpus(4), "pools": [{"name": "a", "workers": 1, "resources": gpus(2)}]}, 2),
        ({"resources": gpus(4), "pools": [{"name": "a", "workers": 1, "resources": {"limits": {"cpu": 1}}}]}, 1),
    ],
)
def test_processes_of_a_worker(fields: dict[str, Any], processes: int) -> None:
    assert spec(**fields).processes_of(0) == processes


def test_each_pool_by_its_own_gpus() -> None:
    pools = [{"name": "big", "workers": 1, "resources": gpus(8)}, {"name": "small", "workers": 2}]
    job = spec(pools=pools, resources=gpus(1))
    assert [job.processes_of(index) for index in range(3)] == [8, 1, 1]
    assert job.resources_of(0) == ResourceRequirements.parse(gpus(8))
    assert spec(workers=1).resources_of(0) == ResourceRequirements()


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        (2, 2),
        ("2", 2),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("5.", 5),
        ("500m", "0.5"),
        ("3u", "0.000003"),
        ("3n", "0.000000003"),
        ("2k", 2000),
        ("1.5M", 1_500_000),
        ("1G", 10**9),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-3", "0.001"),
        ("1Ki", 1024),
        ("1.5Ki", 1536),
        ("2Mi", 2 * 1024**2),
        ("2Gi", 2 * 1024**3),
        ("2Ti", 2 * 1024**4),
        ("2Pi", 2 * 1024**5),
        ("2Ei", 2 * 1024**6),
        ("+1", 1),
    ],
)
def test_amounts(quantity: str | int, value: str | int) -> None:
    assert amount(quantity) == Decimal(value)


@given(st.from_regex(strategies.QUANTITY, fullmatch=True))
def test_every_quantity_has_an_amount(quantity: str) -> None:
    assert amount(quantity) >= 0
