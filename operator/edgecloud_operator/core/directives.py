"""What each launcher is told: a function of what stands in status, never of what is only about to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, Rendezvous, TrainingJobStatus
from edgecloud.protocol import Directive, RunOrder
from edgecloud_operator.core.failures import PREEMPTED
from edgecloud_operator.core.observed import Launcher, Observed


@dataclass(frozen=True)
class _Seats:
    """Who sits where in a round; worked out once for all of its members."""

    place: Mapping[str, int]
    """Of each member, by Pod uid."""
    first_rank: Sequence[int]
    processes: Sequence[int]
    world_size: int


def directives(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, *, stop: bool, awaits: bool = False
) -> dict[str, Directive]:
    """Directives by Pod uid, for every launcher that was heard.

    stop: the members of the round should stop at a checkpoint. awaits: a member of it is still expected to be heard.
    """
    rendezvous = status.rendezvous or Rendezvous()
    seats = _seats(job, rendezvous)
    # Taken for one that does not ask, whoever is heard in a moment would have the others ended by SIGTERM at once.
    stopped = _stopped(job, rendezvous, asked=awaits or _asked(rendezvous, observed)) if stop else None
    return {uid: _directive(job, status, observed, uid, seats, stop=stopped) for uid in observed.launchers}


def _stopped(job: TrainingJob, rendezvous: Rendezvous, *, asked: bool) -> Directive:
    grace = float(job.spec.stop_grace_seconds)
    return Directive(
        action="stop", round=rendezvous.round, grace_seconds=grace, reason="stop at a checkpoint", asked=asked
    )


def _seats(job: TrainingJob, rendezvous: Rendezvous) -> _Seats:
    processes = [job.spec.processes_of(member.index) for member in rendezvous.members]
    place: dict[str, int] = {}
    for number, member in enumerate(rendezvous.members):
        place.setdefault(member.pod_uid, number)
    ends = list(accumulate(processes, initial=0))
    return _Seats(place=place, first_rank=ends, processes=processes, world_size=ends[-1])


def _directive(
    job: TrainingJob,
    status: TrainingJobStatus,
    observed: Observed,
    uid: str,
    seats: _Seats,
    *,
    stop: Directive | None,
) -> Directive:
    rendezvous = status.rendezvous or Rendezvous()
    number = rendezvous.round
    if status.measuring is not None:
        return Directive(action="exit", round=number, exit_code=0, reason="the training is complete")
    if status.phase in TERMINAL:
        code = 0 if status.phase == "Succeeded" else 1
        return Directive(action="exit", round=number, exit_code=code, reason=f"the job has {status.phase.lower()}")
    if status.phase == "Suspended":
        return Directive(action="exit", round=number, exit_code=PREEMPTED, reason="the job is suspended")
    place = seats.place.get(uid)
    if place is None:
        return Directive(action="wait", round=number, reason="waiting for the next round")
    if stop is not None:
        return stop
    order = _run_order(rendezvous, observed, seats, place)
    if order is None and observed.launchers[uid].report.round < number:
        # With the number of the round before: if this answer is overtaken by the next one, it must not end the round.
        return Directive(action="wait", round=number - 1, reason="waiting for the first worker of the round")
    return Directive(action="run", round=number, run=order)


def _asked(rendezvous: Rendezvous, observed: Observed) -> bool:
    """Whether a process of the round looks at the stop flag."""
    launchers = (observed.launchers.get(member.pod_uid) for member in rendezvous.members)
    return any(one.report.asks and one.report.round == rendezvous.round for one in launchers if one is not None)


def _run_order(rendezvous: Rendezvous, observed: Observed, seats: _Seats, place: int) -> RunOrder | None:
    """A member's part in the round; None while it is not known where they meet.

    They meet at the first member, which takes the round up before the others are told: the port that it says it uses is
    then one and the same for all.
    """
    master = observed.launchers.get(rendezvous.members[0].pod_uid)
    if master is None or (place > 0 and master.report.round < rendezvous.round):
        return None
    return RunOrder(
        first_rank=seats.first_rank[place],
        world_size=seats.world_size,
        processes=seats.processes[place],
        group_rank=place,
        group_size=len(rendezvous.members),
        master_address=master.report.address,
        master_port=_master_port(master, rendezvous.round),
    )


def _master_port(master: Launcher, number: int) -> int:
    """The port in use, if the first member has taken the round up; else the one that it will use."""
    report = master.report
    return report.port if report.round == number and report.port is not None else report.next_port
