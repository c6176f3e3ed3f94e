"""The SLO capacity of a plan by simulation: the largest rate at which the simulated percentile stays within the bound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from headway.load import arrival_times
from headway.predict.simulate import simulate
from headway.records import Candidate, Objective, Plan, Prediction, ServiceCurve

REQUESTS = 40_000
"""Requests of one simulation: a p99 then rests on four hundred samples beyond it."""
STEPS = 10
WARM_SHARE = 0.05
"""The first requests find an empty engine and are left out."""
LATENCY_FREE_SHARE = 0.9
"""Without a latency bound, the share of mu that is called capacity: beyond it latency has no limit."""
COMFORTABLE = 0.7


def predict_capacity(
    curve: ServiceCurve,
    plan: Plan,
    objective: Objective,
    *,
    front_end_s: float | Sequence[float] = 0.0,
    front_steals: bool = False,
    jitter_s: Sequence[float] = (),
    refuses: bool = True,
    seed: int = 0,
) -> Prediction:
    """SLO capacity by bisection below mu, and the percentile of latency at the stated rate (or at 70% of that capacity).

    The capacity is that of a server which refuses what would be late: a refused request has missed the bound, and spares those behind it. The
    latency is what clients would wait if nothing were refused, so that it has a value beyond the capacity, too.

    All rates are simulated with the same random numbers, so that the percentile hardly wavers between them. Near saturation every
    predictor is steep: 5% of capacity can move p99 tenfold. Hence capacity is what is predicted, and callers keep a margin.

    Args:
        curve: measured with ``plan.instances`` running.
        front_end_s, front_steals, jitter_s: as in ``simulate``.
        refuses: whether the server looks at deadlines.
    """

    def percentile_s(rate_per_s: float, deadline_s: float = math.inf) -> float:
        due_s = arrival_times(objective.arrivals, rate_per_s, REQUESTS / rate_per_s, seed)
        latency_s = simulate(
            curve, plan, due_s, seed=seed, front_end_s=front_end_s, front_steals=front_steals, jitter_s=jitter_s, deadline_s=deadline_s
        )
        settled_s = np.sort(latency_s[int(WARM_SHARE * len(latency_s)) :])
        return float(settled_s[min(len(settled_s) - 1, math.ceil(objective.percentile * len(settled_s)) - 1)])

    mu = curve.capacity_per_s(plan.max_batch)
    if objective.latency_s is None:
        capacity = LATENCY_FREE_SHARE * mu
    else:
        capacity, high = 0.0, mu
        for _ in range(STEPS):
            middle = (capacity + high) / 2
            if percentile_s(middle, objective.latency_s if refuses else math.inf) <= objective.latency_s:
                capacity = middle
            else:
                high = middle
    rate_per_s = objective.rate_per_s or COMFORTABLE * capacity or COMFORTABLE * mu
    return Prediction(
        candidate=Candidate(variant=curve.variant, plan=plan),
        capacity_per_s=capacity,
        rate_per_s=rate_per_s,
        latency_s=percentile_s(rate_per_s),
        percentile=objective.percentile,
    )
