"""What /metrics shows, that nothing from outside adds to it, and that the README says what is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from edgecloud.api.status import Phase
from edgecloud.protocol import FailureReason
from edgecloud_operator.controller.meter import Meter, Result
from edgecloud_operator.controller.workqueue import Backlog
from edgecloud_operator.coordinator.admission import RefusalReason
from edgecloud_operator.core.measures import BLOCKED_REASONS, PHASES, Census, Measures
from edgecloud_operator.kube.client import path
from edgecloud_operator.kube.informer import Looked
from edgecloud_operator.kube.metrics import CODES, KIND_OF, VERBS, Metrics, Readings, request_labels
from tests.unit.core.profile import tries

README = Path(__file__).parents[3] / "operator" / "README.md"
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def families(metrics: Metrics) -> dict[str, Any]:
    text, _ = metrics.exposition("")
    return {family.name: family for family in parse_text(text.decode())}


def series(metrics: Metrics) -> Series:
    """All that is ours, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for name, family in families(metrics).items()
        if name.startswith("edgecloud_")
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return series(metrics)[(name, tuple(sorted(labels.items())))]


# What there is


def test_the_readme_has_all_of_them() -> None:
    rows = re.findall(r"^\| `(edgecloud_\w+)` \| (\w+) \|([^|]*)\| (.+) \|$", README.read_text(), re.MULTILINE)
    metrics = Metrics()
    metrics.requested("GET", "/api/v1/pods", 200, 0.1)  # its labels are seen with the first request
    told = {name: (kind, labels.strip(), text) for name, kind, labels, text in rows}
    assert len(told) == len(rows)
    found = {}
    for name, family in families(metrics).items():
        if name.startswith("edgecloud_"):
            samples = [sample for sample in family.samples if not sample.name.endswith("_bucket")]
            labels = samples[0].labels
            full = name + "_total" if family.type == "counter" else name
            found[full] = (family.type, set(labels), family.documentation)
    assert {
        name: (kind, set(filter(None, labels.split(", "))), text) for name, (kind, labels, text) in told.items()
    } == (found)


def test_names_types_and_help() -> None:
    """What promtool check metrics looks at."""
    for name, family in families(Metrics()).items():
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram", "info"), name
        for sample in family.samples:
            assert sample.name.startswith(name)
            if family.type == "counter":
                assert sample.name == name + "_total"
            elif family.type == "gauge":
                assert not sample.name.endswith(("_total", "_count", "_sum", "_bucket")), name
        if name.startswith("edgecloud_"):
            assert not name.endswith(("_milliseconds", "_minutes", "_ms")), "base units"


def test_of_the_process() -> None:
    found = families(Metrics())
    assert found["process_cpu_seconds"].samples[0].value > 0
    assert found["process_resident_memory_bytes"].samples[0].value > 10e6
    assert "python_info" in found


def test_what_is_on_a_closed_list_is_there_from_the_start() -> None:
    found = series(Metrics())

    def values(name: str, label: str) -> set[str]:
        return {dict(labels)[label] for full, labels in found if full == name}

    assert values("edgecloud_jobs", "phase") == set(get_args(Phase))
    assert values("edgecloud_jobs_blocked", "reason") == {*BLOCKED_REASONS, "other"}
    assert values("edgecloud_jobs_finished_total", "phase") == {"Succeeded", "Failed"}
    assert values("edgecloud_refused_reports_total", "reason") == {*get_args(RefusalReason), "other"}
    assert values("edgecloud_failures_total", "reason") == {*get_args(FailureReason), "other"}
    assert values("edgecloud_rounds_total", "cause") >= {"first", "resized", *get_args(FailureReason), "other"}
    assert values("edgecloud_reconcile_seconds_count", "result") == set(get_args(Result))
    assert set(found.values()) == {0.0}


# What is counted


def test_what_happens_is_counted() -> None:
    metrics = Metrics()
    meter: Meter = metrics
    meter.reconciled("conflict", 0.02)
    meter.waited(3.0)
    meter.changed(Measures())
    meter.changed(Measures(round="Killed", failure="Killed", restarts=1, accepted_after=1.5))
    meter.changed(Measures(finished="Succeeded", started_after=42.0, lag=7.0))
    assert value(metrics, "edgecloud_reconcile_seconds_count", result="conflict") == 1
    assert value(metrics, "edgecloud_reconcile_seconds_bucket", result="conflict", le="0.025") == 1
    assert value(metrics, "edgecloud_reconcile_seconds_bucket", result="conflict", le="0.01") == 0
    assert value(metrics, "edgecloud_queue_wait_seconds_sum") == 3
    assert value(metrics, "edgecloud_rounds_total", cause="Killed") == 1
    assert value(metrics, "edgecloud_failures_total", reason="Killed") == 1
    assert value(metrics, "edgecloud_restarts_paid_total") == 1
    assert value(metrics, "edgecloud_jobs_finished_total", phase="Succeeded") == 1
    assert value(metrics, "edgecloud_job_accept_seconds_sum") == 1.5
    assert value(metrics, "edgecloud_job_start_seconds_sum") == 42
    assert value(metrics, "edgecloud_progress_lag_seconds_count") == 1
    for leads in (True, False):
        metrics.read(Readings(leads=lambda leads=leads: leads))
        assert value(metrics, "edgecloud_leader") == leads


def test_what_is_read_is_read_at_each_scrape() -> None:
    metrics = Metrics()
    refused: Counter[RefusalReason] = Counter()
    jobs = dict.fromkeys(PHASES, 0) | {"Running": 3}
    blocked = dict.fromkeys(BLOCKED_REASONS, 0) | {"Unschedulable": 2}
    metrics.read(
        Readings(
            backlog=lambda: Backlog(depth=4, oldest=2.5, idle=1, stuck=9),
            census=lambda: Census(jobs=jobs, blocked=blocked, stalled=7, desired=8, ready=6),  # type: ignore[arg-type]
            refused=lambda: refused,
            heard=lambda: 5,
            looked=lambda: Looked(heard_ago=12, restarts=1, relists=2, resyncs=3, failed_resyncs=4),
        )
    )
    for times in range(3):
        assert value(metrics, "edgecloud_refused_reports_total", reason="malformed") == times
        refused["malformed"] += 1
    assert value(metrics, "edgecloud_queue_depth") == 4
    assert value(metrics, "edgecloud_queue_oldest_seconds") == 2.5
    assert value(metrics, "edgecloud_work_stuck_seconds") == 9
    assert value(metrics, "edgecloud_jobs", phase="Running") == 3
    assert (
        value(metrics, "edgecloud_jobs_blocked", reason="Unschedulable"),
        value(metrics, "edgecloud_jobs_stalled"),
    ) == (2, 7)
    assert (value(metrics, "edgecloud_workers_desired"), value(metrics, "edgecloud_workers_ready")) == (8, 6)
    assert value(metrics, "edgecloud_launchers_heard") == 5
    assert value(metrics, "edgecloud_watch_age_seconds") == 12
    assert value(metrics, "edgecloud_watch_restarts_total") == 1
    assert value(metrics, "edgecloud_watch_relists_total") == 2
    assert value(metrics, "edgecloud_resyncs_total", result="ok") == 3
    assert value(metrics, "edgecloud_resyncs_total", result="error") == 4


@pytest.mark.parametrize(
    ("method", "where", "labels"),
    [
        ("GET", path("Pod", None), ("list", "Pod")),
        ("GET", path("Pod", "services"), ("list", "Pod")),
        ("GET", path("Service", "pods", "events"), ("get", "Service")),
        ("POST", path("Event", "team"), ("create", "Event")),
        ("PUT", path("TrainingJob", "pods", "secrets", sub="status"), ("update", "TrainingJob")),
        ("PATCH", path("Event", "team", "x"), ("patch", "Event")),
        ("DELETE", path("TrainingJob", "team", "x"), ("delete", "TrainingJob")),
        ("GET", path("ConfigMap", "namespaces", "x"), ("get", "ConfigMap")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/edgecloud/leases/operator", ("update", "Lease")),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", ("create", "TokenReview")),
        ("GET", "/openid/v1/jwks", ("get", "other")),
        ("GET", "/", ("get", "other")),
        ("OPTIONS", "/apis", ("other", "other")),
    ],
)
def test_verb_and_kind_of_a_request(method: str, where: str, labels: tuple[str, str]) -> None:
    assert request_labels(method, where) == labels


@pytest.mark.parametrize(
    ("status", "code"), [(0, "none"), (200, "2xx"), (201, "2xx"), (404, "4xx"), (503, "5xx"), (700, "other")]
)
def test_class_of_an_answer(status: int, code: str) -> None:
    metrics = Metrics()
    metrics.requested("GET", "/api/v1/pods", status, 0.2)
    assert value(metrics, "edgecloud_api_requests_total", verb="list", kind="Pod", code=code) == 1
    assert value(metrics, "edgecloud_api_request_seconds_count", verb="list") == 1


# What nobody can do

ANYTHING = st.text(max_size=30) | st.sampled_from(
    ['"', "\n", 'x"} 1\nedgecloud_forged 1\n', "\ud800", "\\", "team/digits"]
)
PATHS = ANYTHING | st.tuples(ANYTHING, ANYTHING, ANYTHING).map("/api/v1/namespaces/{0[0]}/{0[1]}/{0[2]}".format)


@tries(60)
@given(st.lists(st.tuples(ANYTHING, PATHS, st.integers(0, 10**6) | st.integers(-5, 5), ANYTHING), max_size=20))
def test_hostile_values_add_no_series(said: list[tuple[str, str, int, str]]) -> None:
    metrics, refused = Metrics(), Counter[Any]()
    metrics.read(Readings(refused=lambda: refused))
    fixed = {key for key in series(metrics) if key[0] != "edgecloud_api_requests_total"}
    anything: Any
    for method, where, status, anything in said:
        metrics.requested(method, where, status, 0.1)
        metrics.changed(Measures(round=anything, failure=anything, finished=anything))
        metrics.reconciled(anything, 0.1)
        refused[anything] += 1
    found = series(metrics)
    requests = {key for key in found if key[0] == "edgecloud_api_requests_total"}
    for _, labels in requests:
        named = dict(labels)
        assert named["verb"] in (*VERBS, "other")
        assert named["kind"] in (*KIND_OF.values(), "other")
        assert named["code"] in (*CODES, "other")
    more = set(found) - fixed - requests
    assert {dict(labels).get(label) for _, labels in more for label in dict(labels) if label != "le"} <= {"other"}
    assert value(metrics, "edgecloud_refused_reports_total", reason="other") == sum(
        times for reason, times in refused.items() if reason not in get_args(RefusalReason)
    )


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=abc", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0x", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
    ],
)
def test_the_format_is_the_one_that_was_asked_for(accept: str, content_type: str) -> None:
    metrics = Metrics()
    metrics.requested("GET", "/api/v1/pods", 200, 0.2)
    text, said = metrics.exposition(accept)
    assert said == content_type
    parse = parse_openmetrics if "openmetrics" in said else parse_text
    names = {family.name for family in parse(text.decode())}
    assert {"edgecloud_jobs", "edgecloud_rounds", "edgecloud_api_request_seconds", "process_cpu_seconds"} <= names


@tries(200)
@given(st.text(alphabet=st.sampled_from('application/openmetrics-text; version=1.0,escaping*qé"')) | st.text())
def test_no_accept_header_breaks_it(accept: str) -> None:
    text, content_type = Metrics().exposition(accept)
    assert text
    assert content_type.partition(";")[0] in ("text/plain", "application/openmetrics-text")
