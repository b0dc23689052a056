"""Rounds: when one ends, what that costs, and who is in the next."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, Member, Reason, Rendezvous, TrainingJobStatus
from edgecloud.protocol import FailureReport
from edgecloud_operator.core import backoff, conditions
from edgecloud_operator.core.failures import MAX_UNPAID, PREEMPTED, Failure, first_cause, refreshed
from edgecloud_operator.core.members import (
    ENDED,
    SILENT_SECONDS,
    MemberState,
    blind,
    heard,
    member_states,
    silent,
    was_in_round,
)
from edgecloud_operator.core.observed import Observed
from edgecloud_operator.core.reckoning import pay, reckon_strays, reckoned

CAUSE_SECONDS: Final = 5.0
"""How long a weak failure waits for a better cause."""
GROW_SECONDS: Final = 60.0
"""Arrivals are batched: a round is not widened earlier than this after it was opened."""
SMALLER_SECONDS: Final = 15.0
"""How long an elastic job waits for the missing before it goes on without them, from when it could."""


BELIEVED_ROUNDS: Final = 10**6
"""A round that is further above the status than this is taken for a forgery."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the rounds come to now.

    status: with the round closed or opened, or as it was.
    stop: the members should stop at a checkpoint.
    succeeded: every member of the round ended with 0.
    failed: why the job ends in failure.
    wait: seconds until time alone may change this.
    """

    status: TrainingJobStatus
    stop: bool = False
    succeeded: bool = False
    failed: tuple[Reason, str] | None = None
    wait: float | None = None


def advance(job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime) -> Step:
    """Close the round that has ended, open the one that can begin, or leave things as they are."""
    rendezvous = status.rendezvous or Rendezvous()
    states = member_states(job.spec, rendezvous, observed, now)
    if states and all(state.doing == "succeeded" for state in states):
        return Step(status=status, succeeded=True)
    alive = [pod.index for pod in observed.pods if pod.owned and not pod.dead and not pod.terminating]
    wanted = [index for index in alive if index < job.spec.worker_count()]
    strays = reckon_strays(job, status, observed, now, missed=not states and not enough(job, wanted))
    status = strays.status
    if strays.failed:
        return Step(status=status, failed=strays.failed)
    if not states:
        return _open(job, status, observed, now)
    beyond = range(rendezvous.round + 1, rendezvous.round + 1 + BELIEVED_ROUNDS)
    if any(launcher.report.round in beyond for launcher in observed.launchers.values()):
        # Somebody knows of a newer round than status does: status was set back. Go on above it, at nobody's cost.
        return _open(job, _closed(job, status, "RoundClosed", "status was set back", now), observed, now)
    situation = _Situation(job, status, observed, now, states)
    return _failed(situation) or _stopping(situation)


def candidates(job: TrainingJob, observed: Observed, now: datetime) -> dict[int, str]:
    """Pod uids, by index, of the workers that could take part in a round."""
    found: dict[int, str] = {}
    for pod in observed.pods:
        launcher = observed.launchers.get(pod.uid)
        if not pod.owned or pod.dead or pod.terminating or pod.index >= job.spec.worker_count():
            continue
        if launcher is not None and heard(launcher, now) and not launcher.report.draining and not blind(launcher):
            found[pod.index] = pod.uid
    return found


def enough(job: TrainingJob, indices: Collection[int]) -> bool:
    """Whether these workers, and no others, could make a round."""
    least, storage = job.spec.min_workers, job.spec.storage_or_default()
    if len(indices) >= job.spec.worker_count():
        return True
    if least is None or len(indices) < least:
        return False
    # Worker 0 alone mounts the checkpoints of such a claim.
    return not (storage.claim_name and storage.access_mode == "ReadWriteOnce" and 0 not in indices)


def stopped(state: MemberState, observed: Observed, now: datetime, *, going: bool = False) -> bool:
    """Whether a member need not be waited for when its round stops.

    It has ended; or it has not taken the round up, so that no step of the round can have been done; or it is going for
    good, and its launcher does not answer any more.
    """
    if state.doing in ENDED or state.doing == "starting":
        return True
    return (going or state.leaving) and silent(observed.launchers.get(state.member.pod_uid), observed, now)


@dataclass(frozen=True)
class _Situation:
    """An open round, and how its members are doing."""

    job: TrainingJob
    status: TrainingJobStatus
    observed: Observed
    now: datetime
    states: tuple[MemberState, ...]

    @property
    def rendezvous(self) -> Rendezvous:
        return self.status.rendezvous or Rendezvous()

    def wanted(self, state: MemberState) -> bool:
        return state.member.index < self.job.spec.worker_count()

    @property
    def called(self) -> bool:
        """Somebody outside the program wants this round to stop: a worker has to go, or the job was to be suspended.

        Or the round was called to stop for another one: what was told stays told, whether or not there is still a
        reason for it. One that has done its part may go without: the others may have long to do yet, such as an export.
        """
        asked = conditions.get(self.status, "Suspended")
        leaving = any(state.leaving and state.doing != "succeeded" for state in self.states)
        resizing = bool(self.rendezvous.stopping) and not self.at_its_end
        return leaving or resizing or (asked is not None and asked.reason == "Stopping")

    @property
    def at_its_end(self) -> bool:
        return any(state.doing == "succeeded" for state in self.states)

    def resize(self) -> tuple[bool, float | None]:
        """Whether the round should have other members and could have the right ones, and else when it might.

        Nobody is stopped for newcomers with whom no round could be made yet: the others may stay away for long. Nor
        while a member is not heard: it trains, for all that is known, and would not be told to stop.
        """
        present = {state.member.index for state in self.states}
        if not all(self.wanted(state) for state in self.states):
            return True, None
        there = candidates(self.job, self.observed, self.now)
        begun = bool(self.rendezvous.stopping)
        told = all(
            state.doing in ENDED or heard(self.observed.launchers.get(state.member.pod_uid), self.now)
            for state in self.states
        )
        if self.at_its_end or not set(there) - present or not (begun or (told and enough(self.job, there))):
            return False, None
        left = GROW_SECONDS - (self.now - (self.rendezvous.opened_at or self.now)).total_seconds()
        return (True, None) if left <= 0 else (False, left)

    def failure(self, state: MemberState, report: FailureReport) -> Failure:
        """A failure that no launcher reported."""
        uid = state.member.pod_uid
        launcher, number = self.observed.launchers.get(uid), self.rendezvous.round
        return Failure(
            worker=state.member.index,
            rank=None,
            node=launcher.report.node if launcher else "",
            round=number,
            report=report,
            aftermath=was_in_round(launcher, None, before=number),
        )


def _failed(situation: _Situation) -> Step | None:
    """A member failed: wait for the cause to show, or close the round."""
    job, status, observed, now = situation.job, situation.status, situation.observed, situation.now
    failures = [state.failure for state in situation.states if state.failure and situation.wanted(state)]
    failures += _silent_members(situation)
    cause = first_cause(failures)
    if cause is None:
        return None
    if not cause.strong:
        if situation.called or situation.resize()[0] or any(state.doing == "preempted" for state in situation.states):
            return None  # the others are going because one was called away; what breaks on the way is no failure
        first = min(state.since for state in situation.states if state.failure)
        left = CAUSE_SECONDS - (now - first).total_seconds()
        if left > 0 and not all(state.doing in ENDED for state in situation.states):
            return Step(status=status, wait=left)
    unseen = [state.failure for state in situation.states if state.unseen]
    if cause.strong and all(failure in unseen for failure in failures if failure.strong):
        left = _until_told(situation)
        if left > 0:
            return Step(status=status, wait=left)
    reckoning = pay(job, status, failures, observed)
    if reckoning.failed:
        return Step(status=reckoning.status, failed=reckoning.failed)
    message = f"worker {cause.worker}: {cause.report.reason}"
    closed = _closed(job, reckoning.status, "RoundClosed", message, now)
    if closed.last_failure is not None:
        at = backoff.dated(closed.last_failure, situation.rendezvous.opened_at, now)
        closed = closed.model_copy(update={"last_failure": at})
    return _open(job, closed, observed, now)


def _until_told(situation: _Situation) -> float:
    """Seconds in which an operator that has just come up may yet hear that all had stopped together; else <= 0.

    A drain while nobody listened takes a Pod away without a trace; of whom it left behind, one may still be saving.
    """
    if all(state.doing in ENDED for state in situation.states):
        return 0.0
    unheard = any(state.doing == "unknown" for state in situation.states)
    limit = SILENT_SECONDS if unheard else CAUSE_SECONDS
    return limit - (situation.now - situation.observed.listening_since).total_seconds()


def _silent_members(situation: _Situation) -> list[Failure]:
    """In an elastic job, members that were silent for too long while no rank steps, and without whom others can go on.

    Else there is nothing to gain: where nobody is heard it is the way to this operator that is cut, and all train on.
    """
    job, observed, now = situation.job, situation.observed, situation.now
    if job.spec.min_workers is None or now.timestamp() < steps_until(situation.states, observed):
        return []
    if not enough(job, candidates(job, observed, now)):
        return []
    report = FailureReport(
        local_rank=0,
        rank=0,
        reason="PodLost",
        message=f"its launcher was not heard for {SILENT_SECONDS:.0f} s and no rank steps",
        at=now.timestamp(),
    )
    return [
        situation.failure(state, report)
        for state in situation.states
        if state.doing not in ENDED
        and situation.wanted(state)
        and silent(observed.launchers.get(state.member.pod_uid), observed, now)
    ]


def steps_until(states: tuple[MemberState, ...], observed: Observed) -> float:
    """Until when, in epoch seconds, the ranks of a round count as stepping, by the newest step that they reported."""
    launchers = [observed.launchers[s.member.pod_uid] for s in states if s.member.pod_uid in observed.launchers]
    return SILENT_SECONDS + max((one.progress_at for one in launchers if one.report.progress), default=0.0)


def _stopping(situation: _Situation) -> Step:
    """A member was called away, or the round should have other members: all stop, then the round is closed unpaid."""
    job, status, observed, now = situation.job, situation.status, situation.observed, situation.now
    called = situation.called
    resize, wait = situation.resize()
    left = [state for state in situation.states if state.doing == "preempted"]
    alone = min(left, key=lambda state: state.since, default=None)  # the others followed, or were made to
    if not (called or resize or alone):
        return Step(status=status, wait=wait)
    if not all(stopped(state, observed, now, going=not situation.wanted(state)) for state in situation.states):
        if resize and not situation.rendezvous.stopping:
            # Written before it is told: who stops for it has been asked to, even if it is taken back meanwhile.
            stopping = situation.rendezvous.model_copy(update={"stopping": True})
            status = status.model_copy(update={"rendezvous": stopping})
        return Step(status=status, stop=True)
    asked = bool(situation.rendezvous.stopping)
    if called or resize or asked or alone is None:
        reason: Reason = "Resizing" if resize or asked else "RoundClosed"
        closed = _closed(job, reckoned(status, observed, at_no_cost=True), reason, "stopped at a checkpoint", now)
        return _open(job, closed, observed, now, patient=not resize)
    # Nobody asked for this stop: a program that leaves with 143 again and again must not do so for ever.
    unpaid = refreshed(status.budget or Budget(), status.checkpoint.step if status.checkpoint else 0).unpaid
    often = f"{MAX_UNPAID + 1} times without a newer checkpoint" if unpaid >= MAX_UNPAID else "without being asked to"
    report = FailureReport(
        local_rank=0,
        rank=0,
        exit_code=PREEMPTED,
        reason="ProgramError",
        message=f"the program left with exit code {PREEMPTED} {often}",
        at=now.timestamp(),
    )
    reckoning = pay(job, status, [situation.failure(alone, report)], observed)
    if reckoning.failed:
        return Step(status=reckoning.status, failed=reckoning.failed)
    after, message = reckoning.status, report.message
    if not reckoning.paid:
        after, message = after.model_copy(update={"last_failure": status.last_failure}), "the program stopped by itself"
    closed = _closed(job, after, "RoundClosed", message, now)
    # Nothing else would tell that it was left just now.
    opened = Rendezvous(round=situation.rendezvous.round, opened_at=situation.rendezvous.opened_at)
    return _open(job, closed.model_copy(update={"rendezvous": opened}), observed, now)


def _open(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime, *, patient: bool = True
) -> Step:
    """Open the next round if its members are there; a patient elastic job first waits a while for the missing.

    After failures in a row all wait. A round that was opened since shows that they have.
    """
    if left := backoff.pause(job, status, now):
        return Step(status=backoff.told(job, status, now), wait=left)
    status = backoff.over(job, status, now)
    there = candidates(job, observed, now)
    if not enough(job, there):
        return Step(status=status)
    if patient and len(there) < job.spec.worker_count():
        left = SMALLER_SECONDS - (now - _smaller_since(job, status, observed, there)).total_seconds()
        if left > 0:
            return Step(status=status, wait=left)
    number = 1 + _highest(status, observed)
    opened = Rendezvous(
        round=number,
        members=tuple(Member(index=index, pod_uid=there[index]) for index in sorted(there)),
        opened_at=now,
    )
    if status.budget is not None:
        status = status.model_copy(update={"budget": status.budget.model_copy(update={"rejected": 0})})
    return Step(status=status.model_copy(update={"rendezvous": opened}))


def _smaller_since(job: TrainingJob, status: TrainingJobStatus, observed: Observed, there: dict[int, str]) -> datetime:
    """Since when a round could have been opened with some of those who are there.

    Not before the last one ended, this operator listened, and enough had arrived: images are pulled for minutes, and
    then the launchers are heard within seconds of each other. Whoever was in a round had arrived long before.
    """

    def arrival(index: int) -> datetime:
        launcher = observed.launchers[there[index]]
        return observed.listening_since if launcher.report.round else launcher.since

    arrived = sorted(there, key=arrival)
    counts = range(job.spec.min_workers or 1, len(arrived) + 1)
    last = next(arrived[count - 1] for count in counts if enough(job, arrived[:count]))
    moments = [observed.listening_since, arrival(last)]
    running = conditions.get(status, "Running")
    return max([*moments, running.last_transition_time] if running else moments)


def _highest(status: TrainingJobStatus, observed: Observed) -> int:
    """The highest round that anybody knows of: the status, a launcher, or a process that met one in its storage.

    A launcher also knows of one that it was told to begin, and will when the processes of the last one have ended.
    """
    own = (status.rendezvous or Rendezvous()).round
    rounds = [own]
    for launcher in observed.launchers.values():
        failure, ack = launcher.report.failure, launcher.report.ack
        rounds += [launcher.report.round, (failure.seen_round or 0) if failure else 0]
        rounds += [ack.round] if ack is not None and ack.action == "run" else []
    # A forged number may cost its job some rounds, but not drive it out of their range.
    return max(number for number in rounds if number <= own + BELIEVED_ROUNDS)


def _closed(
    job: TrainingJob, status: TrainingJobStatus, reason: Reason, message: str, now: datetime
) -> TrainingJobStatus:
    rendezvous = status.rendezvous or Rendezvous()
    status = status.model_copy(update={"rendezvous": Rendezvous(round=rendezvous.round)})
    generation = job.metadata.generation
    return conditions.put(status, "Running", "False", reason, now=now, message=message, generation=generation)
