"""The operator's metrics, for Prometheus: what is counted as it happens, and what is read when somebody looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client import Counter as CounterMetric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgecloud.api.status import TERMINAL
from edgecloud_operator.controller.meter import Result
from edgecloud_operator.controller.workqueue import Backlog
from edgecloud_operator.coordinator.admission import RefusalReason
from edgecloud_operator.core.measures import FAILURE_REASONS, OTHER, ROUND_CAUSES, Census, Measures, census
from edgecloud_operator.kube.informer import Looked

VERBS: Final = ("get", "list", "create", "update", "patch", "delete")
_VERB_OF: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
KIND_OF: Final = {
    "trainingjobs": "TrainingJob",
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "events": "Event",
    "leases": "Lease",
    "tokenreviews": "TokenReview",
}
"""Kinds that requests are counted by, by resource."""
CODES: Final = ("2xx", "3xx", "4xx", "5xx", "none")
"""Classes of HTTP status; none: no answer came."""

_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60, 300)
_SLOW: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What is read at each scrape, on the loop that the operator runs on."""

    backlog: Callable[[], Backlog] = Backlog
    census: Callable[[], Census] = lambda: census(())
    refused: Callable[[], Mapping[RefusalReason, int]] = Counter
    heard: Callable[[], int] = lambda: 0
    looked: Callable[[], Looked] = Looked
    leads: Callable[[], bool] = lambda: False


class Metrics:
    """Implements the control loop's Meter, and counts requests to the API server.

    Every label has a closed list of values, so that nothing that a user, a program or a stranger says adds a series.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # a time of birth for each series doubles their number
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._read = _AtScrape(self._registry)

        def counter(name: str, text: str, label: str, values: tuple[str, ...]) -> CounterMetric:
            made = CounterMetric(name, text, [label], registry=self._registry)
            for value in values:
                made.labels(value)
            return made

        def histogram(
            name: str, text: str, buckets: tuple[float, ...], label: str = "", values: tuple[str, ...] = ()
        ) -> Histogram:
            made = Histogram(name, text, [label] if label else [], registry=self._registry, buckets=buckets)
            for value in values:
                made.labels(value)
            return made

        self._reconciles = histogram(
            "edgecloud_reconcile_seconds",
            "Time to decide on a job and to make the writes of the decision, by result.",
            _QUICK,
            "result",
            get_args(Result),
        )
        self._waits = histogram(
            "edgecloud_queue_wait_seconds", "Time that a job's key waited in the queue before it was taken.", _QUICK
        )
        self._requests = CounterMetric(
            "edgecloud_api_requests",
            "Requests to the API server that have ended, by verb, kind and class of HTTP status (none: no answer).",
            ["verb", "kind", "code"],
            registry=self._registry,
        )
        self._request_seconds = histogram(
            "edgecloud_api_request_seconds",
            "Time that a request to the API server took, by verb.",
            _QUICK,
            "verb",
            VERBS,
        )
        self._rounds = counter(
            "edgecloud_rounds", "Rounds opened, by cause; a failure gives its reason.", "cause", ROUND_CAUSES
        )
        self._failures = counter(
            "edgecloud_failures", "Failures that were reckoned with, by reason.", "reason", FAILURE_REASONS
        )
        self._restarts = CounterMetric(
            "edgecloud_restarts_paid", "Failures that were paid for from a restart budget.", registry=self._registry
        )
        self._finished = counter("edgecloud_jobs_finished", "Jobs that have finished, by phase.", "phase", TERMINAL)
        self._accepts = histogram(
            "edgecloud_job_accept_seconds", "Time from a job's creation to its acceptance.", _SLOW
        )
        self._starts = histogram(
            "edgecloud_job_start_seconds",
            "Time from a job's acceptance, or resumption, until it first runs; to the second.",
            _SLOW,
        )
        self._lags = histogram(
            "edgecloud_progress_lag_seconds",
            "Time from a worker's report of the newest step to its being written to the job's status; to the second.",
            _SLOW,
        )
        self._leader = Gauge(
            "edgecloud_leader", "Whether this replica leads (1) or stands by (0).", registry=self._registry
        )

    # What happens

    def reconciled(self, result: Result, seconds: float) -> None:
        self._reconciles.labels(_listed(result, get_args(Result))).observe(seconds)

    def waited(self, seconds: float) -> None:
        self._waits.observe(seconds)

    def changed(self, measures: Measures) -> None:
        if measures.round is not None:
            self._rounds.labels(_listed(measures.round, ROUND_CAUSES)).inc()
        if measures.failure is not None:
            self._failures.labels(_listed(measures.failure, FAILURE_REASONS)).inc()
        if measures.finished is not None:
            self._finished.labels(_listed(measures.finished, TERMINAL)).inc()
        self._restarts.inc(measures.restarts)
        for histogram, seconds in (
            (self._accepts, measures.accepted_after),
            (self._starts, measures.started_after),
            (self._lags, measures.lag),
        ):
            if seconds is not None:
                histogram.observe(seconds)

    def requested(self, method: str, where: str, status: int, seconds: float) -> None:
        """A request to the API server ended. where: its path; status: of HTTP, 0 where no answer came."""
        verb, kind = request_labels(method, where)
        self._requests.labels(verb, kind, _code(status)).inc()
        self._request_seconds.labels(verb).observe(seconds)

    # What is looked at

    def read(self, readings: Readings) -> None:
        """Name the parts that are read at each scrape."""
        self._read.readings = readings
        self._leader.set_function(lambda: float(readings.leads()))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it as text, and its content type, in the format that an Accept header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # its version is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type


class _AtScrape(Collector):
    """Makes metrics of what the parts know at the moment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.readings = Readings()
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        read = self.readings
        yield from _of_queue(read.backlog())
        yield from _of_jobs(read.census())
        refused = CounterMetricFamily(
            "edgecloud_refused_reports", "Workers' requests that were refused, in whole or in part.", labels=["reason"]
        )
        counted = read.refused()
        reasons: tuple[RefusalReason, ...] = get_args(RefusalReason)
        for reason in reasons:
            refused.add_metric([reason], counted.get(reason, 0))
        refused.add_metric([OTHER], sum(times for reason, times in counted.items() if reason not in reasons))
        yield refused
        yield GaugeMetricFamily("edgecloud_launchers_heard", "Launchers heard within 15 s.", read.heard())
        yield from _of_watch(read.looked())


def _of_queue(backlog: Backlog) -> Iterator[Metric]:
    yield GaugeMetricFamily("edgecloud_queue_depth", "Jobs that wait to be decided on.", backlog.depth)
    text = "How long the first of them has waited."
    yield GaugeMetricFamily("edgecloud_queue_oldest_seconds", text, backlog.oldest)
    text = "The longest time for which a job has been worked on without a write's having ended."
    yield GaugeMetricFamily("edgecloud_work_stuck_seconds", text, backlog.stuck)


def _of_jobs(found: Census) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("edgecloud_jobs", "Jobs, by phase.", labels=["phase"])
    for phase, count in found.jobs.items():
        jobs.add_metric([phase], count)
    yield jobs
    blocked = GaugeMetricFamily("edgecloud_jobs_blocked", "Jobs that are blocked, by reason.", labels=["reason"])
    for reason, count in found.blocked.items():
        blocked.add_metric([reason], count)
    yield blocked
    text = "Jobs that run, and have reported no step for ten minutes."
    yield GaugeMetricFamily("edgecloud_jobs_stalled", text, found.stalled)
    text = "Workers wanted by the jobs that are neither finished nor suspended."
    yield GaugeMetricFamily("edgecloud_workers_desired", text, found.desired)
    text = "Workers that are there, of the jobs that are neither finished nor suspended."
    yield GaugeMetricFamily("edgecloud_workers_ready", text, found.ready)


def _of_watch(looked: Looked) -> Iterator[Metric]:
    text = "Time since the cluster was last heard of: an event of the watch's, or a list."
    yield GaugeMetricFamily("edgecloud_watch_age_seconds", text, looked.heard_ago)
    yield CounterMetricFamily(
        "edgecloud_watch_restarts", "Watches that broke off and were begun anew.", looked.restarts
    )
    yield CounterMetricFamily("edgecloud_watch_relists", "Lists that the watch made by itself.", looked.relists)
    resyncs = CounterMetricFamily("edgecloud_resyncs", "Full lists after the first, by result.", labels=["result"])
    resyncs.add_metric(["ok"], looked.resyncs)
    resyncs.add_metric(["error"], looked.failed_resyncs)
    yield resyncs


def request_labels(method: str, where: str) -> tuple[str, str]:
    """Verb, as RBAC names it, and kind of a request; what is on no list is "other"."""
    parts = where.partition("?")[0].strip("/").split("/")
    parts = parts[3:] if parts[0] == "apis" else parts[2:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    kind = KIND_OF.get(parts[0], OTHER) if parts else OTHER
    if method == "GET":
        return "list" if len(parts) == 1 and kind != OTHER else "get", kind
    return _VERB_OF.get(method, OTHER), kind


def _code(status: int) -> str:
    return _listed(f"{status // 100}xx", CODES) if status else "none"


def _listed(value: str, values: tuple[str, ...]) -> str:
    return value if value in values else OTHER
