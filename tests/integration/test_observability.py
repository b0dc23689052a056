"""What can be seen of an operator from outside while it works: metrics, log, probes and events."""

from __future__ import annotations

import json
import re
import signal
import ssl
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Space, until
from tests.integration.coordinator import ask
from tests.integration.kubelet import kubelet
from tests.integration.process import OperatorProcess, operator
from tests.integration.test_operator import REPORTING, reaches

pytestmark = pytest.mark.timeout(300)


class Scrape:
    """What /metrics said at one moment."""

    def __init__(self, process: OperatorProcess) -> None:
        status, text = process.ask("/metrics")
        assert status == 200, text
        self.families = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """A value; KeyError if there is none."""
        return self._values[(name, frozenset(labels.items()))]

    def by(self, name: str, label: str) -> dict[str, float]:
        """Those of a metric with one label that are not 0."""
        return {dict(labels)[label]: value for (one, labels), value in self._values.items() if one == name and value}


def settled(process: OperatorProcess) -> Scrape:
    """What is said once nothing is left to do."""

    def look() -> Scrape | None:
        scrape = Scrape(process)
        quiet = scrape("edgecloud_queue_depth") == 0 and scrape("edgecloud_work_stuck_seconds") == 0
        return scrape if quiet else None

    return until(look, "the queue is empty")


def post_garbage(pod: dict[str, Any], token: str) -> str:
    """A request at a worker's place that is no poll; the reason why it is refused."""
    said = {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}
    place = "{EDGECLOUD_NAMESPACE}/trainingjobs/{EDGECLOUD_JOB}/workers/{EDGECLOUD_WORKER_INDEX}".format(**said)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a stranger need not know whom he talks to
    where = urlsplit(said["EDGECLOUD_COORDINATOR"])
    garbage = b'{"protocol": 1, "round": "\\u001b[2J\\n forged"}'
    path = f"/v1/namespaces/{place}/poll"
    status, answer = ask("POST", where.port or 443, path, context, token=token, body=garbage)
    assert status >= 400
    return str(json.loads(answer)["reason"])


def records(process: OperatorProcess) -> list[dict[str, Any]]:
    """The log's lines, each of which is an object."""
    return [json.loads(line) for line in process.log.splitlines()]


def test_a_run_with_a_failure_is_counted_and_logged(cp: ControlPlane, space: Space, tmp_path: Path) -> None:
    options = (f"--namespaces={space.name}", "--log-format=json")
    with kubelet(space, tmp_path / "kubelet") as node, operator(cp, tmp_path, *options) as process:
        first = Scrape(process)
        assert first.by("edgecloud_rounds_total", "cause") == {}
        assert first("edgecloud_jobs", phase="Running") == 0

        space.submit("digits", program={"command": ["sleep", "8"]})
        status = reaches(space, "digits", "Running")
        running = Scrape(process)
        assert running.by("edgecloud_jobs", "phase") == {"Running": 1}
        assert (running("edgecloud_workers_ready"), running("edgecloud_workers_desired")) == (2, 2)
        assert running("edgecloud_launchers_heard") == 2
        assert running.by("edgecloud_rounds_total", "cause") == {"first": 1}
        assert running.by("edgecloud_failures_total", "reason") == {}

        pod = space.pods("digits")["digits-worker-0"]
        token = (tmp_path / "kubelet" / pod["metadata"]["uid"] / "token").read_text()
        refused = Counter([post_garbage(pod, "nobody's"), post_garbage(pod, token), post_garbage(pod, token)])
        counted = Scrape(process).by("edgecloud_refused_reports_total", "reason")
        before = running.by("edgecloud_refused_reports_total", "reason")
        assert {reason: counted[reason] - before.get(reason, 0) for reason in refused} == refused
        assert refused["malformed"] == 2

        node.kill("digits-worker-1")
        status = reaches(space, "digits", "Succeeded")
        reason = status["lastFailure"]["reason"]
        last = settled(process)
        log = records(process)

    assert last.by("edgecloud_jobs", "phase") == {"Succeeded": 1}
    assert last.by("edgecloud_jobs_finished_total", "phase") == {"Succeeded": 1}
    assert last.by("edgecloud_rounds_total", "cause") == {"first": 1, reason: 1}
    assert last.by("edgecloud_failures_total", "reason") == {reason: 1}
    assert last("edgecloud_restarts_paid_total") == status["restarts"] == 1
    assert last("edgecloud_job_start_seconds_count") == last("edgecloud_job_accept_seconds_count") == 1
    assert last("edgecloud_job_start_seconds_sum") < 60
    assert (last("edgecloud_workers_ready"), last("edgecloud_workers_desired")) == (0, 0)
    made = {
        kind: last("edgecloud_api_requests_total", verb="create", kind=kind, code="2xx") for kind in ("Pod", "Service")
    }
    assert made == {"Pod": 3, "Service": 1}
    writes = last("edgecloud_api_requests_total", verb="update", kind="TrainingJob", code="2xx")
    assert writes >= 6
    assert last("edgecloud_api_request_seconds_count", verb="update") >= writes
    assert last("edgecloud_api_requests_total", verb="list", kind="TrainingJob", code="2xx") >= 1
    assert last("edgecloud_reconcile_seconds_count", result="ok") > 5
    assert last("edgecloud_reconcile_seconds_count", result="error") == 0
    assert last("edgecloud_queue_wait_seconds_count") >= last("edgecloud_reconcile_seconds_count", result="ok")
    assert last("edgecloud_watch_age_seconds") < 300
    assert last("process_cpu_seconds_total") > first("process_cpu_seconds_total") > 0
    assert last("process_resident_memory_bytes") > 20e6

    about = [record for record in log if "job" in record]
    assert {record["job"] for record in about} == {f"{space.name}/digits"}
    assert all(isinstance(record["round"], int) for record in about)
    told = [(record["message"], record["round"]) for record in about if record["level"] == "info"]
    phases = [re.findall(r"[A-Z]\w+", text) for text, _ in told if text.startswith("phase ")]
    assert (phases[0], phases[-1]) == (["Pending"], ["Running", "Succeeded"])
    assert [phase[-1] for phase in phases[:-1]] == [phase[0] for phase in phases[1:]], "no change is left out"
    rest = [(text.partition(" (")[0], number) for text, number in told if not text.startswith("phase ")]
    assert rest == [
        ("round 1 opened with 2 workers: first", 1),
        (f"failure of worker 1 in round 1: {reason}", 1),
        ("round 1 closed", 1),
        (f"round 2 opened with 2 workers: {reason}", 2),
    ]
    assert [record.get("worker") for record in about if record["message"].startswith("failure of ")] == [1]
    (line,) = (record for record in log if "(malformed, 1 so far)" in record["message"])
    assert (line["job"], line["worker"], line["round"]) == (f"{space.name}/digits", 0, 1)
    assert not any("exception" in record for record in log)


def test_each_family_has_help_and_a_type_and_names_nobody(
    space: Space, running: OperatorProcess, tmp_path: Path
) -> None:
    """What promtool check metrics looks at, after a run; and nothing of the run stands in a label."""
    with kubelet(space, tmp_path / "kubelet"):
        space.submit("secret-name")
        reaches(space, "secret-name", "Succeeded")
    status, text = running.ask("/metrics")
    assert status == 200
    ours = [family for family in text_string_to_metric_families(text) if family.name.startswith("edgecloud_")]
    assert len(ours) > 20
    for family in ours:
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        assert re.fullmatch(r"edgecloud(_[a-z]+)+", family.name)
        for sample in family.samples:
            assert re.fullmatch(re.escape(family.name) + r"(_total|_bucket|_count|_sum)?", sample.name)
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels)
    for word in ("secret-name", space.name, *space.uids("secret-name").values(), "node-0"):
        assert word not in text


def test_an_api_server_that_is_away_makes_no_probe_fail(cp: ControlPlane, space: Space, tmp_path: Path) -> None:
    options = (f"--namespaces={space.name}", "--progress-seconds=0.5")
    with kubelet(space, tmp_path / "kubelet"), operator(cp, tmp_path, *options) as process:
        space.submit("digits", program={"command": ["python", "-c", REPORTING]})
        until(lambda: space.status("digits").get("progress", {}).get("step"), "progress")
        assert Scrape(process)("edgecloud_progress_lag_seconds_count") >= 1
        with cp.outage():
            until(lambda: Scrape(process).by("edgecloud_reconcile_seconds_count", "result").get("error"), "it notices")
            assert Scrape(process)("edgecloud_api_requests_total", verb="update", kind="TrainingJob", code="none") >= 1
            assert (process.ask("/healthz"), process.ask("/readyz")) == ((200, "ok\n"), (200, "ok\n"))
        written = Scrape(process)("edgecloud_progress_lag_seconds_count")
        until(lambda: Scrape(process)("edgecloud_progress_lag_seconds_count") > written, "it goes on")
        assert "[" + f"{space.name}/digits round 1] " in process.log


class ImpatientProcess(OperatorProcess):
    """An operator whose probe waits for 3 s where the others' wait for 5 minutes."""

    stuck_seconds = 3.0


def test_work_that_stands_still_is_shown_by_the_probe(cp: ControlPlane, space: Space, tmp_path: Path) -> None:
    """The API server freezes in the midst of requests, which end after 20 s: that is longer than 3."""
    process = ImpatientProcess(cp, tmp_path, f"--namespaces={space.name}", "--progress-seconds=0.5")
    process.start()
    try:
        with kubelet(space, tmp_path / "kubelet"):
            space.submit("digits", program={"command": ["python", "-c", REPORTING]})
            until(lambda: space.status("digits").get("progress", {}).get("step"), "progress")
            assert process.ask("/healthz") == (200, "ok\n")
            cp.apiserver.send_signal(signal.SIGSTOP)
            try:
                until(lambda: process.ask("/healthz")[0] == 503, "it is shown", saw=lambda: process.ask("/healthz"))
                assert "a job has been worked on for" in process.ask("/healthz")[1]
                assert Scrape(process)("edgecloud_work_stuck_seconds") > 3
                assert process.ask("/readyz") == (200, "ok\n")
            finally:
                cp.apiserver.send_signal(signal.SIGCONT)
            until(lambda: process.ask("/healthz") == (200, "ok\n"), "it goes on", saw=lambda: process.ask("/healthz"))
    finally:
        process.kill()


def events(space: Space, job: str) -> Counter[str]:
    """How often each event was recorded, by its words."""
    found: Counter[str] = Counter()
    for item in space.api.call("GET", f"{space.core}/events")["items"]:
        if item["involvedObject"]["name"] == job:
            found[f"{item['type']} {item['reason']}: {item['message']}"] += item["count"]
    return found


def test_events_come_on_transitions_only(cp: ControlPlane, space: Space, tmp_path: Path) -> None:
    """A failure in between, an operator that is killed in mid-run, and full lists: each thing is told once."""
    process = OperatorProcess(cp, tmp_path, f"--namespaces={space.name}")
    process.start()
    try:
        with kubelet(space, tmp_path / "kubelet") as node:
            space.submit("digits", program={"command": ["sleep", "12"]})
            reaches(space, "digits", "Running")
            node.kill("digits-worker-1")
            until(lambda: space.status("digits")["rendezvous"]["round"] == 2, "round 2")
            status = reaches(space, "digits", "Running")
            failure = status["lastFailure"]
            expected = Counter(
                {
                    "Normal Accepted: waiting for the workers": 1,
                    "Normal RoundOpened: round 1 with 2 workers": 1,
                    "Normal Running: all workers are running": 2,
                    f"Warning {failure['reason']}: worker 1 rank 1: SIGKILL in round 1": 1,
                    "Normal RoundOpened: round 2 with 2 workers": 1,
                }
            )
            until(lambda: events(space, "digits") == expected, "the events", saw=lambda: events(space, "digits"))
            process.kill()
            process.start()
            until(lambda: Scrape(process).by("edgecloud_resyncs_total", "result").get("ok"), "another full list")
            assert events(space, "digits") == expected, "an operator that comes up tells nothing again"
            reaches(space, "digits", "Succeeded")
            expected["Normal Succeeded: the job has succeeded"] = 1
            until(lambda: events(space, "digits") == expected, "the end", saw=lambda: events(space, "digits"))
            process.kill()
            process.start()
            until(lambda: Scrape(process).by("edgecloud_resyncs_total", "result").get("ok"), "another full list")
            settled(process)
            assert events(space, "digits") == expected
    finally:
        process.kill()
