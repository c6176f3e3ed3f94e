"""Load runs with their records: what the journal of a resumed run already holds is not measured again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headway.api.run import Run
from headway.load import OPEN_STEP, find_capacity, trial_s
from headway.records import Candidate, Capacity, LoadPoint, LoadRun, Objective

Load = Callable[[float, float, Objective, int], LoadPoint]
"""``load(rate_per_s, duration_s, objective, seed)``: one open-loop run."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is loaded, where and in which round."""

    candidate: Candidate
    role: str
    target: str
    round: int


def known_run(run: Run, subject: Subject, rate_per_s: float, seed: int, purpose: str) -> LoadPoint | None:
    """The point of a run that the journal holds already."""
    wanted = (subject.candidate, subject.role, subject.target, subject.round, purpose, rate_per_s, seed)
    for line in run.journal.of(LoadRun):
        if (
            line.candidate,
            line.role,
            line.point.target,
            line.round,
            line.purpose,
            line.point.offered_rate_per_s,
            line.point.seed,
        ) == wanted:
            return line.point
    return None


def known_capacity(run: Run, subject: Subject) -> Capacity | None:
    """The capacity of a subject that the journal holds already."""
    wanted = (subject.candidate, subject.role, subject.target, subject.round)
    return next((line for line in run.journal.of(Capacity) if (line.candidate, line.role, line.target, line.round) == wanted), None)


def load_run(run: Run, subject: Subject, load: Load, rate_per_s: float, duration_s: float, seed: int, purpose: str) -> LoadPoint:
    """The point of one run: found in the journal, or measured and recorded."""
    known = known_run(run, subject, rate_per_s, seed, purpose)
    if known is not None:
        return known
    point = load(rate_per_s, duration_s, run.objective, seed)
    run.add(LoadRun(candidate=subject.candidate, role=subject.role, round=subject.round, point=point, purpose=purpose))
    return point


def capacity_of(
    run: Run,
    subject: Subject,
    load: Load,
    *,
    start_per_s: float,
    trials: int,
    shortest_s: float,
    step: float = OPEN_STEP,
    memory_bytes: Callable[[], int] = int,
) -> Capacity:
    """The SLO capacity of a subject: found in the journal, or searched for from ``start_per_s`` on and recorded."""
    known = known_capacity(run, subject)
    if known is not None:
        return known
    count = 0

    def trial(rate_per_s: float) -> LoadPoint:
        nonlocal count
        count += 1
        seed = run.config.seed + 1000 * subject.round + count
        return load_run(run, subject, load, rate_per_s, trial_s(rate_per_s, shortest_s), seed, "trial")

    found = find_capacity(trial, start_per_s=start_per_s, trials=trials, percentile=run.objective.percentile, step=step)
    return run.add(
        Capacity(
            candidate=subject.candidate, role=subject.role, target=subject.target, rate_per_s=found.low_per_s, low_per_s=found.low_per_s,
            high_per_s=found.high_per_s, open_above=found.open_above, round=subject.round, memory_bytes=memory_bytes(),
        )
    )  # fmt: skip
