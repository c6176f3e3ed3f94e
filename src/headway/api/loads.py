"""The load stage: the shortlist under open-loop load inside this process; the better half goes on to real sockets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.load import find_capacity
from headway.measure.in_process import InProcess, in_process
from headway.records import Capacity, Failure, HeadwayError, LoadPoint, LoadRun, Prediction

TRIAL_S = 1.2
LONGEST_TRIAL_S = 6.0
AT_RATE_S = 3.0
TRIALS = 5
TRIAL_REQUESTS = 250
"""A trial lasts long enough for this many requests, so that a percentile has something to stand on."""
COMFORTABLE = 0.7
"""Without a stated rate, latency is compared at this share of a candidate's own capacity."""


def load_shortlist(run: Run, prepared: Prepared, shortlisted: Sequence[Prediction], paths: dict[str, Path]) -> None:
    """Measure capacity, and latency at the stated rate, of every shortlisted candidate; recorded, nothing measured twice."""
    for prediction in shortlisted:
        candidate = prediction.candidate
        run.progress.step(str(candidate))
        if any(old.candidate == candidate and old.target == "in-process" for old in run.journal.of(Capacity)):
            continue
        if run.spent("load") and run.journal.of(Capacity):
            run.left_out.append(f"load run of {candidate}")
            continue
        try:
            with in_process(paths[candidate.variant], candidate.plan, prepared.parts.selection.inputs) as held:
                _measure(run, held, prediction)
        except HeadwayError as error:
            run.add(Failure(stage="load", variant=candidate.variant, plan=candidate.plan, reason=str(error)))


def trial_s(rate_per_s: float, shortest_s: float) -> float:
    """How long a trial at a rate lasts [s]."""
    return min(LONGEST_TRIAL_S, max(shortest_s, TRIAL_REQUESTS / rate_per_s))


def _measure(run: Run, held: InProcess, prediction: Prediction) -> None:
    candidate = prediction.candidate
    count = 0

    def trial(rate_per_s: float) -> LoadPoint:
        nonlocal count
        count += 1
        point = held.load(rate_per_s, trial_s(rate_per_s, TRIAL_S), run.objective, run.config.seed + count)
        run.add(LoadRun(candidate=candidate, role="candidate", round=0, point=point))
        return point

    found = find_capacity(trial, start_per_s=0.85 * prediction.capacity_per_s, trials=TRIALS, percentile=run.objective.percentile)
    at = run.objective.rate_per_s or COMFORTABLE * found.low_per_s
    if at > 0:
        point = held.load(at, AT_RATE_S, run.objective, run.config.seed)
        run.add(LoadRun(candidate=candidate, role="candidate", round=0, point=point, purpose="at-rate"))
    run.add(
        Capacity(
            candidate=candidate,
            role="candidate",
            target="in-process",
            rate_per_s=found.low_per_s,
            low_per_s=found.low_per_s,
            high_per_s=found.high_per_s,
            open_above=found.open_above,
        )
    )
