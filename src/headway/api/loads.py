"""The load stage: the shortlist under open-loop load inside this process; the better half goes on to real sockets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.trials import Subject, capacity_of, load_run
from headway.measure.in_process import InProcess, in_process
from headway.records import Capacity, Failure, HeadwayError, Prediction

TRIAL_S = 1.2
AT_RATE_S = 3.0
TRIALS = 5
START_SHARE = 0.85
"""The search begins at this share of the predicted capacity."""
COMFORTABLE = 0.7
"""Without a stated rate, latency is compared at this share of a candidate's own capacity."""


def load_shortlist(run: Run, prepared: Prepared, shortlisted: Sequence[Prediction], paths: dict[str, Path]) -> None:
    """Measure capacity, and latency at the stated rate, of every shortlisted candidate; recorded, nothing measured twice."""
    for prediction in shortlisted:
        candidate = prediction.candidate
        run.progress.step(str(candidate))
        if run.spent("load") and run.journal.of(Capacity):
            run.leave_out("load runs", str(candidate))
            continue
        try:
            with in_process(paths[candidate.variant], candidate.plan, prepared.parts.selection.inputs) as held:
                _measure(run, held, prediction)
        except HeadwayError as error:
            run.add(Failure(stage="load", variant=candidate.variant, plan=candidate.plan, reason=str(error)))


def _measure(run: Run, held: InProcess, prediction: Prediction) -> None:
    subject = Subject(prediction.candidate, "candidate", "in-process", 0)
    found = capacity_of(run, subject, held.load, start_per_s=START_SHARE * prediction.capacity_per_s, trials=TRIALS, shortest_s=TRIAL_S)
    at = run.objective.rate_per_s or COMFORTABLE * found.rate_per_s
    if at > 0:
        load_run(run, subject, held.load, at, AT_RATE_S, run.config.seed, "at-rate")
