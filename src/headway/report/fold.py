"""A run's lines gathered by kind: the newest line of each thing wins, as a resumed run may have written it twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from headway.records import (
    Candidate,
    Capacity,
    Census,
    Choice,
    Comparison,
    Failure,
    Frontier,
    GuardResult,
    LoadRun,
    Objective,
    Prediction,
    Quality,
    Record,
    Rejection,
    RunFinished,
    RunStarted,
    ServiceCurve,
    SourceInspected,
    StageTime,
    Variant,
)

R = TypeVar("R")
ROLES = ("naive", "uncompressed", "chosen")


@dataclass(frozen=True)
class Run:
    """Everything a run has recorded so far; any part may be missing.

    Attributes:
        capacities: the newest of each candidate in each role; ``rounds`` those of every round.
    """

    started: RunStarted | None
    sources: tuple[SourceInspected, ...]
    variants: tuple[Variant, ...]
    censuses: tuple[Census, ...]
    qualities: tuple[Quality, ...]
    guards: tuple[GuardResult, ...]
    curves: tuple[ServiceCurve, ...]
    predictions: tuple[Prediction, ...]
    loads: tuple[LoadRun, ...]
    capacities: tuple[Capacity, ...]
    rounds: tuple[Capacity, ...]
    failures: tuple[Failure, ...]
    rejections: tuple[Rejection, ...]
    comparison: Comparison | None
    frontier: Frontier | None
    choice: Choice | None
    stages: tuple[StageTime, ...]
    finished: RunFinished | None

    @property
    def objective(self) -> Objective:
        """The promise, or an empty one where the run did not get that far."""
        return self.started.objective if self.started else Objective()

    def quality_of(self, candidate: Candidate) -> Quality | None:
        """The most telling quality of a candidate's variant: on its runtime before others, on the report part before others."""
        found = [quality for quality in self.qualities if quality.variant == candidate.variant]
        return max(found, key=lambda q: (q.runtime == candidate.plan.runtime, q.part == "report"), default=None)

    def loads_of(self, candidate: Candidate, role: str = "candidate") -> tuple[LoadRun, ...]:
        """The load runs of one candidate in one role, by rising rate."""
        found = [load for load in self.loads if load.candidate == candidate and load.role == role]
        return tuple(sorted(found, key=lambda load: load.point.offered_rate_per_s))

    def capacity_of(self, candidate: Candidate, role: str = "candidate") -> Capacity | None:
        """The SLO capacity of one candidate in one role."""
        return next((c for c in reversed(self.capacities) if c.candidate == candidate and c.role == role), None)

    def candidate_of(self, role: str) -> Candidate | None:
        """The candidate that played a role in the comparison."""
        found = next((line.candidate for line in (*reversed(self.loads), *reversed(self.capacities)) if line.role == role), None)
        return self.choice.candidate if found is None and role == "chosen" and self.choice else found

    def loaded(self) -> tuple[Candidate, ...]:
        """Candidates with a load run or a capacity of their own, the chosen one first, then by falling capacity."""
        seen: dict[str, Candidate] = {}
        for line in (*self.loads, *self.capacities):
            if line.role == "candidate":
                seen.setdefault(str(line.candidate), line.candidate)
        chosen = self.choice.candidate if self.choice else None

        def order(candidate: Candidate) -> tuple[bool, float]:
            capacity = self.capacity_of(candidate)
            held = [load.point.offered_rate_per_s for load in self.loads_of(candidate) if load.point.verdict == "held"]
            return candidate != chosen, -(capacity.rate_per_s if capacity else max(held, default=0.0))

        return tuple(sorted(seen.values(), key=order))


def gather(lines: Iterable[Record]) -> Run:
    """The lines of ``records.jsonl``, in order, as one Run."""
    lines = list(lines)

    def last(kind: type[R]) -> R | None:
        return next((line for line in reversed(lines) if isinstance(line, kind)), None)

    def newest(kind: type[R], key: Callable[[R], Hashable]) -> tuple[R, ...]:
        return tuple({key(line): line for line in lines if isinstance(line, kind)}.values())

    return Run(
        started=last(RunStarted),
        sources=newest(SourceInspected, lambda s: (s.source, s.digest)),
        variants=newest(Variant, lambda v: v.name),
        censuses=newest(Census, lambda c: (c.variant, c.runtime)),
        qualities=newest(Quality, lambda q: (q.variant, q.runtime, q.part)),
        guards=newest(GuardResult, lambda g: (g.variant, g.runtime, g.part, g.guard)),
        curves=newest(ServiceCurve, lambda c: (c.variant, c.runtime, c.device, c.instances, c.threads)),
        predictions=newest(Prediction, lambda p: str(p.candidate)),
        loads=newest(LoadRun, lambda r: (str(r.candidate), r.role, r.round, r.point.target, r.point.offered_rate_per_s, r.point.seed)),
        capacities=newest(Capacity, lambda c: (str(c.candidate), c.role, c.target)),
        rounds=newest(Capacity, lambda c: (str(c.candidate), c.role, c.target, c.round)),
        failures=newest(Failure, lambda f: (f.stage, f.variant, str(f.plan), f.reason)),
        rejections=newest(Rejection, lambda r: (r.stage, r.variant, str(r.plan))),
        comparison=last(Comparison),
        frontier=last(Frontier),
        choice=last(Choice),
        stages=newest(StageTime, lambda s: s.stage),
        finished=last(RunFinished),
    )
