"""All that a run knows about one candidate, gathered from its records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from headway.records import Candidate, Capacity, GuardResult, LoadRun, Quality, Record, ServiceCurve

NAIVE = "naive"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One candidate's measurements at one target: figures of different targets are never mixed.

    Attributes:
        target: where load was taken: ``http`` or ``in-process``.
        rate_per_s: SLO capacity, the median over rounds [1/s]; none if it was not searched.
        rounds: the number of each round and the SLO capacity found in it [1/s], ascending.
        latency_s: the objective's percentile, the median over the runs at ``at_rate_per_s`` [s]; none without such a run, or when all its requests were refused.
        best_latency_s: the lowest such percentile of any trial of the search, held or not, and the rate it was seen at [s, 1/s].
        quality: on the selection part; ``confirmed`` on the report part.
        guards: on either part.
        memory_bytes: resident memory of the serving process where it was measured, else what the sessions added [B].
    """

    candidate: Candidate
    target: str
    rate_per_s: float | None
    latency_s: float | None
    at_rate_per_s: float | None
    quality: Quality | None
    confirmed: Quality | None
    memory_bytes: int
    best_latency_s: float | None = None
    best_at_per_s: float | None = None
    guards: tuple[GuardResult, ...] = ()
    rounds: tuple[tuple[int, float], ...] = ()

    @property
    def cores(self) -> int:
        """Cores that the plan uses."""
        return self.candidate.plan.instances * self.candidate.plan.threads


def gather(records: Iterable[Record], percentile: float, target: str) -> tuple[Evidence, ...]:
    """Evidence for every candidate that was loaded at ``target``, in the order of their first run; the naive deployment is none."""
    lines = list(records)
    runs = [line for line in lines if isinstance(line, LoadRun) and line.role != NAIVE and line.point.target == target]
    capacities = [line for line in lines if isinstance(line, Capacity) and line.role != NAIVE and line.target == target]
    qualities = {(line.variant, line.runtime, line.part): line for line in lines if isinstance(line, Quality)}
    guards: dict[tuple[str, str], tuple[GuardResult, ...]] = {}
    for line in lines:
        if isinstance(line, GuardResult):
            guards[line.variant, line.runtime] = (*guards.get((line.variant, line.runtime), ()), line)
    curves = {(line.variant, line.runtime, line.instances, line.threads): line for line in lines if isinstance(line, ServiceCurve)}
    gathered = []
    for candidate in dict.fromkeys(run.candidate for run in runs):
        mine = [capacity for capacity in capacities if capacity.candidate == candidate]
        points = [run.point for run in runs if run.candidate == candidate and run.purpose == "at-rate" and run.point.percentiles]
        trials = [run.point for run in runs if run.candidate == candidate and run.purpose == "trial" and run.point.percentiles]
        best = min(trials, key=lambda point: point.percentile(percentile).latency_s, default=None)
        plan = candidate.plan
        curve = curves.get((candidate.variant, plan.runtime, plan.instances, plan.threads))
        gathered.append(
            Evidence(
                candidate=candidate,
                target=target,
                rate_per_s=statistics.median(capacity.rate_per_s for capacity in mine) if mine else None,
                latency_s=statistics.median(point.percentile(percentile).latency_s for point in points) if points else None,
                at_rate_per_s=points[-1].offered_rate_per_s if points else None,
                quality=qualities.get((candidate.variant, plan.runtime, "selection")),
                confirmed=qualities.get((candidate.variant, plan.runtime, "report")),
                memory_bytes=max((capacity.memory_bytes for capacity in mine), default=0) or (curve.peak_bytes if curve else 0),
                best_latency_s=best.percentile(percentile).latency_s if best else None,
                best_at_per_s=best.offered_rate_per_s if best else None,
                guards=guards.get((candidate.variant, plan.runtime), ()),
                rounds=tuple(sorted({capacity.round: capacity.rate_per_s for capacity in mine}.items())),
            )
        )
    return tuple(gathered)
