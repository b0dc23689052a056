"""The table without a cluster is the one that kubectl prints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.columns import COLUMNS, lookup, short_duration, table
from edgecloud.api.job import TrainingJob
from tests.unit.api.strategies import resource

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)

# k8s.io/apimachinery/pkg/util/duration, HumanDuration: the values of its own test, and every limit.
HUMAN: list[tuple[timedelta, str]] = [
    (timedelta(seconds=1), "1s"),
    (timedelta(seconds=70), "70s"),
    (timedelta(seconds=190), "3m10s"),
    (timedelta(minutes=70), "70m"),
    (timedelta(hours=47), "47h"),
    (timedelta(hours=49), "2d1h"),
    (timedelta(days=8, hours=2), "8d"),
    (timedelta(days=367), "367d"),
    (timedelta(days=365 * 2 + 25, hours=2), "2y25d"),
    (timedelta(days=365 * 8 + 2, hours=3), "8y"),
    (timedelta(0), "0s"),
    (timedelta(seconds=-5), "0s"),  # a clock that is ahead; kubectl has <invalid> here
    (timedelta(seconds=0.999), "0s"),
    (timedelta(seconds=119), "119s"),
    (timedelta(seconds=120), "2m"),
    (timedelta(seconds=121), "2m1s"),
    (timedelta(minutes=9, seconds=59), "9m59s"),
    (timedelta(minutes=10), "10m"),
    (timedelta(minutes=10, seconds=59), "10m"),
    (timedelta(minutes=179), "179m"),
    (timedelta(hours=3), "3h"),
    (timedelta(hours=3, minutes=1), "3h1m"),
    (timedelta(hours=7, minutes=59), "7h59m"),
    (timedelta(hours=8), "8h"),
    (timedelta(hours=8, minutes=59), "8h"),
    (timedelta(hours=48), "2d"),
    (timedelta(days=7, hours=23), "7d23h"),
    (timedelta(days=729), "729d"),
    (timedelta(days=730), "2y"),
    (timedelta(days=365 * 8 - 1), "7y364d"),
    (timedelta(days=365 * 8), "8y"),
    (timedelta(days=365 * 100 + 300), "100y"),
]


@pytest.mark.parametrize(("length", "text"), HUMAN, ids=[text for _, text in HUMAN])
def test_durations(length: timedelta, text: str) -> None:
    assert short_duration(length.total_seconds()) == text


def human_duration(seconds: int) -> str:
    """HumanDuration, line by line."""
    if seconds < 60 * 2:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes}m" if seconds % 60 == 0 else f"{minutes}m{seconds % 60}s"
    if minutes < 60 * 3:
        return f"{minutes}m"
    hours = seconds // 3600
    if hours < 8:
        return f"{hours}h" if minutes % 60 == 0 else f"{hours}h{minutes % 60}m"
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return f"{hours // 24}d" if hours % 24 == 0 else f"{hours // 24}d{hours % 24}h"
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        days = hours // 24 % 365
        return f"{hours // 24 // 365}y" if days == 0 else f"{hours // 24 // 365}y{days}d"
    return f"{hours // 24 // 365}y"


@given(st.integers(0, 10**5) | st.integers(0, 10**6) | st.integers(0, 10**9))
def test_durations_as_kubectl_has_them(seconds: int) -> None:
    assert short_duration(seconds) == human_duration(seconds)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".a.b", 1),
        ("a.b", 1),
        (".a", {"b": 1}),
        (".a.c", None),
        (".a.b.c", None),
        (".x", None),
        (".n", None),
        (".n.x", None),
        (".z", 0),
        (".l.0", None),
    ],
)
def test_lookup(path: str, value: Any) -> None:
    assert lookup({"a": {"b": 1}, "n": None, "z": 0, "l": [1]}, path) == value


def make_job(name: str, *, age: timedelta | None = None, **status: Any) -> TrainingJob:
    metadata: dict[str, Any] = {"name": name}
    if age is not None:
        metadata["creationTimestamp"] = (NOW - age).isoformat()
    job = resource({"workers": 2, "program": {"command": ["a"]}}, metadata=metadata)
    return TrainingJob.parse(job | ({"status": status} if status else {}))


RUNNING = make_job(
    "digits",
    age=timedelta(minutes=12, seconds=7),
    phase="Running",
    restarts=1,
    rendezvous={"round": 2},
    summary={
        "workers": "2/2",
        "progress": "41%",
        "eta": "3m12s",
        "loss": "0.2131",
        "accuracy": "97.8%",
        "samplesPerSecond": "1,480",
        "reason": "WorkersRunning",
    },
)
NEW = make_job("a-job-with-a-long-name", age=timedelta(seconds=3))
UNSTAMPED = make_job("x", phase="Pending")


def test_table() -> None:
    assert table([RUNNING, NEW, UNSTAMPED], NOW) == "\n".join(
        [
            "NAME                     PHASE     WORKERS   PROGRESS   ETA     LOSS     RESTARTS   AGE",
            "digits                   Running   2/2       41%        3m12s   0.2131   1          12m",
            "a-job-with-a-long-name                                                              3s",
            "x                        Pending                                         0          <unknown>",
        ]
    )


def test_wide_table() -> None:
    assert table([RUNNING], NOW, wide=True) == "\n".join(
        [
            "NAME     PHASE     WORKERS   PROGRESS   ETA     LOSS     RESTARTS   ACCURACY   SAMPLES/S   ROUND"
            "   REASON           AGE",
            "digits   Running   2/2       41%        3m12s   0.2131   1          97.8%      1,480       2"
            "       WorkersRunning   12m",
        ]
    )


def test_without_jobs_there_are_the_heads() -> None:
    assert table([], NOW) == "NAME   PHASE   WORKERS   PROGRESS   ETA   LOSS   RESTARTS   AGE"


def test_paths_lead_where_the_models_put_things() -> None:
    dumped = RUNNING.dump()
    assert all(lookup(dumped, column.path) is not None for column in COLUMNS)
