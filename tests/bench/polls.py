"""What ten thousand workers cost the operator: memory and CPU of as many open polls, over TLS, each with its own token.

    python -m tests.bench.polls --jobs 10 --workers 1000 --seconds 60

One kube-apiserver and etcd, one operator. It makes the Pods itself, and opens a round for each job; the workers are
connections of this process that say what a launcher says. Tokens are signed with the cluster's key, one for each Pod.
Memory is resident, in MiB; CPU is of one core, in percent. The polls of ten workers are the same for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import ssl
import sys
import tempfile
import time
from asyncio import sslproto
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edgecloud_operator.core.names import CA_ANNOTATION
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.integration import rights
from tests.integration.api import Api, Space, until
from tests.integration.coordinator import claims, pod_token
from tests.integration.process import OperatorProcess, operator

CRD = Path(__file__).parents[2] / "manifests/crd.yaml"
HOLD = 10.0
AT_ONCE = 200
"""Handshakes of this process under way: a thousand launchers of a real cluster have a thousand processors."""


@dataclass
class Worker:
    job: str
    job_uid: str
    index: int
    pod_uid: str
    token: str
    number: int


@dataclass
class Tally:
    answers: Counter[str]
    late: int = 0
    """Answers that took more than two seconds beyond the time that they may be held."""


def said_by(worker: Worker, number: int, sequence: int, ack: dict[str, Any] | None) -> dict[str, Any]:
    """A launcher's request."""
    said = {
        "protocol": 1,
        "jobUid": worker.job_uid,
        "podUid": worker.pod_uid,
        "sequence": sequence,
        "hold": HOLD,
        "round": number,
        "state": "running" if number else "idle",
        "address": "127.0.0.1",
        "nextPort": 20000,
        "port": 20000 if number else None,
        "ack": ack,
    }
    return {key: value for key, value in said.items() if value is not None}


async def poll(
    worker: Worker, port: int, namespace: str, context: ssl.SSLContext, gate: asyncio.Semaphore, tally: Tally
) -> None:
    """What a launcher does, without processes: it takes up what it is told, and asks again."""
    path = f"/v1/namespaces/{namespace}/trainingjobs/{worker.job}/workers/{worker.index}/poll"
    ack: dict[str, Any] | None = None
    number, sequence = 0, time.time_ns() // 1_000_000
    while True:
        try:
            async with gate:
                # From an address of its own, as Pods have: connections are bounded for each.
                own = f"127.{1 + worker.number // 60_000}.{worker.number // 250 % 250}.{1 + worker.number % 250}"
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=(own, 0))
            while True:
                sequence += 1
                data = json.dumps(said_by(worker, number, sequence, ack)).encode()
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {worker.token}\r\n"
                head += f"Content-Length: {len(data)}\r\n\r\n"
                began = time.monotonic()
                writer.write(head.encode() + data)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length"))
                said = json.loads(await reader.readexactly(int(length.split(b":")[1])))
                status = answer.split(b" ", 2)[1].decode()
                tally.answers[status if status == "200" else f"{status} {said.get('reason')}"] += 1
                tally.late += time.monotonic() - began > HOLD + 2.0
                if status == "200":
                    ack = {"action": said["action"], "round": said["round"]}
                    number = said["round"] if said["action"] == "run" else number
                else:
                    await asyncio.sleep(1.0)
        except (OSError, asyncio.IncompleteReadError) as error:
            tally.answers[type(error).__name__] += 1
            await asyncio.sleep(1.0)


def workers_of(cp: ControlPlane, space: Space, uids: dict[str, str]) -> list[Worker]:
    """One for each Pod, each with a token as the cluster signs them."""
    key: Any = load_pem_private_key((cp.folder / "service-accounts.key").read_bytes(), None)  # once: it takes a while
    pods = space.pods()
    first = next(iter(pods.values()))
    sample = pod_token(space, first, "any")
    said, head = claims(sample), jwt.get_unverified_header(sample)
    found = []
    for name, pod in pods.items():
        job, _, index = name.rpartition("-worker-")
        uid = pod["metadata"]["uid"]
        bound = said["kubernetes.io"] | {"pod": {"name": name, "uid": uid}}
        payload = said | {"aud": [f"edgecloud.io/{uids[job]}"], "kubernetes.io": bound, "exp": int(time.time()) + 86400}
        found.append(
            Worker(job, uids[job], int(index), uid, jwt.encode(payload, key, "RS256", headers=head), len(found))
        )
    return found


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def hold_open(
    workers: list[Worker], process: OperatorProcess, space: Space, ca: str, seconds: float
) -> dict[str, float]:
    tally = Tally(Counter())
    context = ssl.create_default_context(cadata=ca)
    gate = asyncio.Semaphore(AT_ONCE)
    before = process.memory_mib()
    began = time.monotonic()
    tasks = [asyncio.create_task(poll(one, process.port, space.name, context, gate, tally)) for one in workers]
    while tally.answers["200"] < len(workers):
        await asyncio.sleep(1.0)
        print(f"\r  {time.monotonic() - began:.0f} s: {dict(tally.answers)}  ", end="", file=sys.stderr)
        if time.monotonic() - began > 300:
            raise SystemExit(f"not all workers were heard: {tally.answers}")
    heard = time.monotonic() - began
    await asyncio.sleep(2 * HOLD)  # rounds are opened, directives taken up
    answered, late, spent, at = tally.answers.total(), tally.late, cpu_seconds(process.pid), time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - at
    found = {
        "workers": len(workers),
        "all heard after s": heard,
        "polls/s": (tally.answers.total() - answered) / passed,
        "CPU %": 100 * (cpu_seconds(process.pid) - spent) / passed,
        "memory MiB before": before,
        "memory MiB": process.memory_mib(),
        "late answers": tally.late - late,
    }
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(f"  answers: {dict(tally.answers)}", file=sys.stderr)
    return found


def measure(cp: ControlPlane, api: Api, jobs: int, workers: int, seconds: float) -> dict[str, float]:
    space = Space(api, cp.create_namespace(f"polls-{jobs}-{workers}"))
    with (
        tempfile.TemporaryDirectory(prefix="edgecloud-bench-") as folder,
        operator(cp, Path(folder), f"--namespaces={space.name}") as process,
    ):
        names = [f"job-{number}" for number in range(jobs)]
        uids = {name: space.submit(name, workers=workers)["metadata"]["uid"] for name in names}
        began = time.monotonic()
        until(lambda: pods_of(space) == jobs * workers, "all Pods", seconds=900, saw=lambda: pods_of(space))
        print(f"  {jobs * workers} Pods after {time.monotonic() - began:.0f} s", file=sys.stderr)
        found = workers_of(cp, space, uids)
        ca = next(iter(space.pods().values()))["metadata"]["annotations"][CA_ANNOTATION]
        return asyncio.run(hold_open(found, process, space, ca, seconds))


def pods_of(space: Space) -> int:
    listed = space.api.call("GET", f"{space.core}/pods?limit=1")
    return len(listed["items"]) + int(listed["metadata"].get("remainingItemCount") or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1000, help="of each job")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sslproto.SSLProtocol.max_size = 16 * 1024  # this process has as many connections as the operator
    with control_plane() as cp:
        cp.kubectl("apply", "-f", CRD)
        cp.wait_established("trainingjobs.edgecloud.io")
        rights.give(cp)
        api = Api(cp)
        try:
            for jobs, workers in ((1, 10), (options.jobs, options.workers)):
                found = measure(cp, api, jobs, workers, options.seconds)
                print("  ".join(f"{key} {value:,.1f}" for key, value in found.items()), flush=True)
        finally:
            api.close()


if __name__ == "__main__":
    main()
