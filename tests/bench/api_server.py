"""What the operator costs an API server, beside a client that makes the same objects and does nothing else.

    python -m tests.bench.api_server --repeats 3

One kube-apiserver and etcd. In turns: a hundred jobs of three workers are submitted, and the operator makes a Service
and three Pods for each; and the bare client makes as many Services and Pods of the same size, with as many connections
as the operator has writes in flight. Seconds from the first submission to the last Pod, medians, and their ratio.

Then fifty jobs that have all they want, and wait: the writes that the API server counts in a minute (--quiet-seconds).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud_operator.controller.children import PARALLEL_WRITES
from edgecloud_operator.core.builders import Settings, build_pod, build_service
from tests.cluster.control_plane import control_plane
from tests.integration import rights
from tests.integration.api import Api, Space, until
from tests.integration.process import OperatorProcess, operator

CRD = Path(__file__).parents[2] / "manifests/crd.yaml"
JOBS = 100
WORKERS = 3
WAITING = 50
SUBMITTERS = 8


def by_the_operator(api: Api, space: Space) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        list(pool.map(lambda number: space.submit(f"job-{number}", workers=WORKERS), range(JOBS)))
    until(lambda: count(api, space) == JOBS * WORKERS, "all Pods", seconds=300, saw=lambda: count(api, space))
    return time.perf_counter() - began


def by_a_bare_client(api: Api, space: Space) -> float:
    """The same objects, without owners: there are no jobs."""
    objects = [children(space, f"job-{number}") for number in range(JOBS)]
    began = time.perf_counter()

    def make(of_one: list[dict[str, Any]]) -> None:
        for child in of_one:
            api.call("POST", f"{space.core}/{'pods' if child['kind'] == 'Pod' else 'services'}", child)

    with ThreadPoolExecutor(PARALLEL_WRITES) as pool:
        list(pool.map(make, objects))
    assert count(api, space) == JOBS * WORKERS
    return time.perf_counter() - began


def children(space: Space, name: str) -> list[dict[str, Any]]:
    job = TrainingJob.parse(
        {
            "apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": space.name, "uid": "none"},
            "spec": {"workers": WORKERS, "program": {"command": ["sleep", "1"]}},
        }
    )  # fmt: skip
    made = [build_service(job), *(build_pod(job, index, "image", Settings()) for index in range(WORKERS))]
    for child in made:
        del child["metadata"]["ownerReferences"]
    return made


def count(api: Api, space: Space) -> int:
    """Pods, without fetching them all: the number that a list of one says remain."""
    listed = api.call("GET", f"{space.core}/pods?limit=1")
    return len(listed["items"]) + int(listed["metadata"].get("remainingItemCount") or 0)


def quiet(api: Api, space: Space, process: OperatorProcess, seconds: float) -> Counter[tuple[str, str]]:
    """Writes while fifty jobs wait for nodes that never come."""
    for number in range(WAITING):
        space.submit(f"waiting-{number}", workers=WORKERS)
    until(lambda: count(api, space) == WAITING * WORKERS, "all Pods", seconds=120)
    last: Counter[tuple[str, str]] = Counter()

    def settled() -> bool:
        nonlocal last
        before, last = last, api.writes()
        return last == before

    until(settled, "no more writes", seconds=60)
    time.sleep(seconds)  # what is measured is this time
    after = api.writes()
    after.subtract(last)
    assert process.running
    # The API server's own leases and identity go on.
    ignored = ("leases", "apiservices", "endpoints", "endpointslices")
    return Counter({key: n for key, n in after.items() if n and key[1].split("/")[0] not in ignored})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quiet-seconds", type=float, default=60.0)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    times: dict[str, list[float]] = {"operator": [], "bare client": []}
    with control_plane() as cp, tempfile.TemporaryDirectory(prefix="edgecloud-bench-") as folder:
        cp.kubectl("apply", "-f", CRD)
        cp.wait_established("trainingjobs.edgecloud.io")
        rights.give(cp)
        api = Api(cp)
        for repeat in range(options.repeats):
            for name, measure in (("operator", by_the_operator), ("bare client", by_a_bare_client)):
                space = Space(api, cp.create_namespace(f"{name.split()[0]}-{repeat}"))
                if name == "operator":
                    with operator(cp, Path(folder), f"--namespaces={space.name}"):
                        seconds = measure(api, space)
                else:
                    seconds = measure(api, space)
                times[name].append(seconds)
                if options.output == "table":
                    print(f"{repeat + 1}/{options.repeats}  {name:<12} {seconds:6.2f} s", flush=True)
        space = Space(api, cp.create_namespace("waiting"))
        with operator(cp, Path(folder), f"--namespaces={space.name}") as process:
            writes = quiet(api, space, process, options.quiet_seconds)
        api.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["operator"] / medians["bare client"]
    if options.output == "json":
        said = {f"{verb} {resource}": number for (verb, resource), number in writes.items()}
        print(json.dumps({"seconds": times, "ratio": ratio, "writes": said}, indent=2))
        return
    print(f"\n{JOBS} jobs of {WORKERS} Pods, medians: operator {medians['operator']:.2f} s, bare client"
          f" {medians['bare client']:.2f} s, ratio {ratio:.2f}")  # fmt: skip
    print(f"{WAITING} jobs that wait, writes in {options.quiet_seconds:.0f} s: {sum(writes.values())} {dict(writes)}")


if __name__ == "__main__":
    main()
