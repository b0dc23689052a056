"""What the control loop learns, in whatever order lists, watches and answers come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.job import TrainingJob
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core.observed import Pod, Service
from edgecloud_operator.kube.store import Store, Stranger
from tests.unit.kube.objects import make_job, make_pod, make_service

KEY = ("team", "digits")


class Listener:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.jobs: dict[JobKey, TrainingJob] = {}
        self.pods: dict[str, Pod] = {}
        self.service: Service | None = None

    def saw_job(self, job: TrainingJob) -> None:
        self.said.append(f"job {job.metadata.resource_version}")
        self.jobs[(job.metadata.namespace, job.metadata.name)] = job

    def lost_job(self, key: JobKey) -> None:
        self.said.append("no job")
        del self.jobs[key]
        self.pods.clear()
        self.service = None

    def saw_pod(self, key: JobKey, pod: Pod) -> None:
        assert key in self.jobs
        self.said.append(f"{pod.uid} {pod.phase}{'' if pod.owned else ' foreign'}")
        self.pods[pod.uid] = pod

    def lost_pod(self, key: JobKey, uid: str) -> None:
        assert key in self.jobs
        self.said.append(f"no {uid}")
        self.pods.pop(uid, None)

    def saw_service(self, key: JobKey, service: Service | None) -> None:
        assert key in self.jobs
        self.said.append(f"service {service.uid}{'' if service.owned else ' foreign'}" if service else "no service")
        self.service = service

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return said


@pytest.fixture
def store() -> Store:
    made = Store()
    made.connect(Listener())
    return made


@pytest.fixture
def told(store: Store) -> Listener:
    assert isinstance(store._sink, Listener)
    return store._sink


def test_children_that_were_seen_before_their_job(store: Store, told: Listener) -> None:
    store.saw("Pod", make_pod(0))
    store.saw("Service", make_service())
    assert told.take() == []
    store.saw("TrainingJob", make_job())
    assert told.take() == ["job 1", "pod-0 Pending", "service service"]


def test_what_is_old_or_known_is_no_news(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job(version=5))
    store.saw("Pod", make_pod(0, version=5, status={"phase": "Running"}))
    store.saw("Service", make_service(version=5))
    told.take()
    for version in (3, 5):
        store.saw("TrainingJob", make_job(version=version))
        store.saw("Pod", make_pod(0, version=version))
        store.saw("Service", make_service(version=version, uid="service"))
    store.saw("Pod", make_pod(0, version=6, status={"phase": "Running", "qosClass": "Burstable"}))
    assert told.take() == []


def test_the_own_write_is_no_news(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job(version=5))
    told.take()
    with store.writing(KEY):
        store.saw("TrainingJob", make_job(version=6, status={"phase": "Running"}))
        store.wrote(make_job(version=6, status={"phase": "Running"}))
    store.saw("TrainingJob", make_job(version=6, status={"phase": "Running"}))
    assert told.take() == []
    job = store.job(KEY)
    assert job and job.status and job.status.phase == "Running"


def test_a_change_by_others_during_the_own_write_is_news(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job(version=5))
    told.take()
    with store.writing(KEY):
        store.saw("TrainingJob", make_job(version=6, status={"phase": "Running"}))
        store.saw("TrainingJob", make_job(version=7, status={}))
        store.wrote(make_job(version=6, status={"phase": "Running"}))
    assert told.take() == ["job 7"]


def test_a_write_that_failed_hides_nothing(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job(version=5))
    told.take()
    with pytest.raises(OSError, match="lost"), store.writing(KEY):
        store.saw("TrainingJob", make_job(version=6))
        raise OSError("lost")
    assert told.take() == ["job 6"]


def test_a_status_that_somebody_wiped_is_news(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job(version=5, status={"phase": "Running"}))
    store.saw("TrainingJob", make_job(version=6))
    assert told.take() == ["job 5", "job 6"]


def test_the_dead_stay_dead(store: Store, told: Listener) -> None:
    """An answer, or a list, from before the end comes in after it."""
    store.saw("TrainingJob", make_job())
    store.saw("Pod", make_pod(0, version=5))
    store.gone("Pod", make_pod(0, version=9))
    store.saw("Pod", make_pod(0, version=7))
    store.gone("Pod", make_pod(0, version=9))
    assert told.take() == ["job 1", "pod-0 Pending", "no pod-0"]
    assert store.is_gone("pod-0")
    store.gone("TrainingJob", make_job(version=20))
    store.saw("TrainingJob", make_job(version=8))
    assert told.take() == ["no job"]


def test_a_pod_that_lost_its_labels_is_still_there(store: Store, told: Listener) -> None:
    """A watch tells of it as of one that was deleted; a look at it shows that it was not."""
    store.saw("TrainingJob", make_job())
    store.saw("Pod", make_pod(0, version=5))
    store.gone("Pod", make_pod(0, version=9))
    store.saw("Pod", make_pod(0, version=9, labels={}))
    assert told.take() == ["job 1", "pod-0 Pending", "no pod-0", "pod-0 Pending"]
    (stranger,) = store.strangers()
    assert stranger == Stranger(kind="Pod", namespace="team", name="digits-worker-0", uid="pod-0")
    store.listed("Pod", (), "30", None)
    assert told.take() == []
    store.missing(stranger)
    assert (told.take(), store.strangers()) == (["no pod-0"], [])


def test_a_foreign_service_that_went_is_noticed(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job())
    store.saw("Service", make_service(owner_uid=None, labels={}))
    (stranger,) = store.strangers()
    store.missing(stranger)
    assert told.take() == ["job 1", "service service foreign", "no service"]
    store.missing(stranger)
    assert told.take() == []


def test_strangers_are_forgotten_with_their_job(store: Store, told: Listener) -> None:
    """Each is looked at every 10 s: without an end they would be looked at for ever."""
    store.saw("TrainingJob", make_job(version=1))
    store.saw("Service", make_service(owner_uid=None, labels={}, version=2))
    store.saw("Pod", make_pod(0, owner_uid=None, labels={}, version=3))
    store.saw("Pod", make_pod(1, version=4))
    assert len(store.strangers()) == 2
    store.gone("TrainingJob", make_job(version=9))
    assert store.strangers() == []
    assert store.counts() == {"TrainingJob": 0, "Service": 0, "Pod": 1}
    told.take()
    store.saw("TrainingJob", make_job(version=10, uid="second"))
    store.saw("Pod", make_pod(0, owner_uid=None, labels={}, version=3))
    assert told.take() == ["job 10", "pod-1 Pending foreign", "pod-0 Pending foreign"]


def test_a_list_finds_who_went_unnoticed(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job(version=1))
    store.saw("TrainingJob", make_job("other", uid="other", version=2, namespace="elsewhere"))
    for index in range(3):
        store.saw("Pod", make_pod(index, version=10 + index))
    store.saw("Service", make_service(version=12))
    told.take()
    store.listed("Pod", {"pod-0"}, "11", "team")
    assert told.take() == ["no pod-1"]  # the third is younger than the list
    store.listed("Service", (), "20", "elsewhere")
    assert told.take() == []
    store.listed("Service", (), "20", "team")
    store.listed("TrainingJob", (), "30", "elsewhere")
    assert told.take() == ["no service", "no job"]
    store.saw("Pod", make_pod(1, version=10))
    assert told.take() == []


def test_a_list_without_a_version_ends_nobody(store: Store, told: Listener) -> None:
    store.saw("TrainingJob", make_job())
    store.listed("TrainingJob", (), "", None)
    assert told.take() == ["job 1"]


def test_a_job_made_anew_under_the_same_name(store: Store, told: Listener) -> None:
    """Its predecessor's children are not its own, whatever they are called."""
    store.saw("TrainingJob", make_job(version=1))
    store.saw("Pod", make_pod(0, version=2))
    store.saw("TrainingJob", make_job(version=5, uid="second"))
    assert told.take() == ["job 1", "pod-0 Pending", "no job", "job 5", "pod-0 Pending foreign"]
    store.gone("TrainingJob", make_job(version=4))
    store.saw("TrainingJob", make_job(version=3))
    assert told.take() == []


def test_an_unreadable_job_is_left_alone(store: Store, told: Listener, caplog: pytest.LogCaptureFixture) -> None:
    store.saw("TrainingJob", make_job(version=1))
    store.saw("Pod", make_pod(0, version=2))
    told.take()
    for version in (5, 6):
        store.saw("TrainingJob", make_job(version=version, spec={"colour": "red"}))
    store.saw("Pod", make_pod(0, version=7, status={"phase": "Running"}))
    assert told.take() == ["no job"]
    assert len([one for one in caplog.records if "left alone" in one.message]) == 1
    [(which, why)] = store.take_unread(9)
    assert (which.name, which.version, store.take_unread(9)) == ("digits", 5, [])
    assert "spec.colour" in why
    store.saw("TrainingJob", make_job(version=8))
    assert told.take() == ["job 8", "pod-0 Running"]
    store.saw("TrainingJob", make_job(version=9, spec={"colour": "red"}))
    store.gone("TrainingJob", make_job(version=10))
    assert told.take() == ["no job"]
    assert store.take_unread(9) == []


def test_of_an_unreadable_job_is_told_what_is_news(store: Store) -> None:
    """Once for each thing that keeps it from being read, and not of another controller's."""
    told = []
    for version, fields in enumerate(
        ({"colour": "red"}, {"colour": "blue"}, {"workers": -1}, {"managedBy": "a.io/b"}), 1
    ):
        store.saw("TrainingJob", make_job(version=version, spec={"workers": 1, "x": 1} | fields))
        told.append(len(store.take_unread(9)))
    assert told == [1, 0, 1, 0]


def test_nonsense_is_passed_over(store: Store, told: Listener) -> None:
    for raw in (None, {}, {"metadata": {"name": "x"}}, []):
        for kind in ("TrainingJob", "Pod", "Service"):
            store.saw(kind, raw)  # type: ignore[arg-type]
            store.gone(kind, raw)  # type: ignore[arg-type]
    assert told.take() == []


@given(st.data())
def test_in_whatever_order_the_newest_wins(data: st.DataObject) -> None:
    """Each object has a life of versions; they come in any order, some of them twice, then a list comes."""
    events: list[tuple[str, str, Any]] = [("saw", "TrainingJob", make_job(version=1))]
    alive: dict[str, str] = {}
    for index in range(3):
        versions = sorted(data.draw(st.sets(st.integers(2, 30), min_size=1, max_size=4)))
        phases = [data.draw(st.sampled_from(["Pending", "Running", "Failed"])) for _ in versions]
        for version, phase in zip(versions, phases, strict=True):
            events.append(("saw", "Pod", make_pod(index, version=version, status={"phase": phase})))
        if data.draw(st.booleans()):
            events.append(("gone", "Pod", make_pod(index, version=31 + index)))
        else:
            alive[f"pod-{index}"] = phases[-1]
    told = Listener()
    store = Store()
    store.connect(told)
    shuffled = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=4))))
    for verb, kind, raw in shuffled:
        (store.saw if verb == "saw" else store.gone)(kind, raw)  # type: ignore[arg-type]
    assert {uid: pod.phase for uid, pod in told.pods.items()} == alive
