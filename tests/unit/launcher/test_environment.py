"""What a process is given, as tables."""

from __future__ import annotations

import pytest

from edgecloud.launcher.config import HELP
from edgecloud.launcher.environment import PRIVATE, Files, Worker, omp_threads, training_environment
from edgecloud.launcher.messages import RunOrder

ORDER = RunOrder(
    first_rank=4, world_size=8, processes=2, group_rank=2, group_size=4, master_address="10.0.0.7", master_port=29400
)
FILES = Files(channel="/s/channel", error="/s/error", failure="/s/failure")


def environment(base: dict[str, str], **worker: object) -> dict[str, str]:
    return training_environment(
        base,
        worker=Worker(job_uid="uid", **worker),  # type: ignore[arg-type]
        round=3,
        order=ORDER,
        local_rank=1,
        files=FILES,
    )


def test_torchruns_variables() -> None:
    assert environment({}, max_restarts=5, cpus=6.0, interface="eth0", pid_namespace="pid:[7]") == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "2",
        "GROUP_WORLD_SIZE": "4",
        "ROLE_RANK": "5",
        "ROLE_WORLD_SIZE": "8",
        "ROLE_NAME": "default",
        "MASTER_ADDR": "10.0.0.7",
        "MASTER_PORT": "29400",
        "TORCHELASTIC_RUN_ID": "uid",
        "TORCHELASTIC_RESTART_COUNT": "2",
        "TORCHELASTIC_MAX_RESTARTS": "5",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_ERROR_FILE": "/s/error",
        "PET_NNODES": "4",
        "PET_NPROC_PER_NODE": "2",
        "PET_NODE_RANK": "2",
        "PET_MASTER_ADDR": "10.0.0.7",
        "PET_MASTER_PORT": "29400",
        "OMP_NUM_THREADS": "3",
        "GLOO_SOCKET_IFNAME": "eth0",
        "PYTHONUNBUFFERED": "1",
        "EDGECLOUD_ROUND": "3",
        "EDGECLOUD_CHANNEL": "/s/channel",
        "EDGECLOUD_PID_NAMESPACE": "pid:[7]",
        "EDGECLOUD_FAILURE_FILE": "/s/failure",
    }


def test_what_the_user_set_stands_except_for_who_the_process_is() -> None:
    base = {"OMP_NUM_THREADS": "9", "GLOO_SOCKET_IFNAME": "ib0", "PYTHONUNBUFFERED": "", "RANK": "0", "HOME": "/h"}
    seen = environment(base, cpus=6.0, interface="eth0")
    assert {name: seen[name] for name in base} == {**base, "RANK": "5"}


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_the_launchers_own_variables_are_not_handed_on(name: str) -> None:
    assert name not in environment({name: "x"})
    assert f"  {name} " in HELP


def test_the_jobs_variables_are_handed_on() -> None:
    base = {"EDGECLOUD_JOB": "a", "EDGECLOUD_CHECKPOINT_DIR": "/c", "EDGECLOUD_WORKER_INDEX": "2"}
    assert base.items() <= environment(base).items()


@pytest.mark.parametrize(("before", "after"), [("", "/l.pyz"), ("/a:/b", "/l.pyz:/a:/b")])
def test_the_archive_is_on_the_path(before: str, after: str) -> None:
    assert environment({"PYTHONPATH": before}, archive="/l.pyz")["PYTHONPATH"] == after
    assert "PYTHONPATH" not in environment({})


@pytest.mark.parametrize(
    ("cpus", "processes", "threads"), [(4, 1, 4), (4, 3, 1), (0.5, 1, 1), (2.5, 1, 2), (7.5, 2, 3), (2, 8, 1)]
)
def test_omp_threads(cpus: float, processes: int, threads: int) -> None:
    assert omp_threads(cpus, processes) == threads
