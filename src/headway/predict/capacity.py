"""The SLO capacity of a plan by simulation: the largest rate at which the simulated percentile stays within the bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load import arrival_times
from headway.predict.simulate import simulate
from headway.records import Candidate, Objective, Plan, Prediction, ServiceCurve

REQUESTS = 4000
STEPS = 7
WARM_SHARE = 0.05
LATENCY_FREE_SHARE = 0.9
"""Without a latency bound, the share of mu that is called capacity: beyond it latency has no limit."""
COMFORTABLE = 0.7


def predict_capacity(curve: ServiceCurve, plan: Plan, objective: Objective, *, front_end_s: float = 0.0, seed: int = 0) -> Prediction:
    """SLO capacity by bisection below mu, and the percentile of latency at the stated rate (or at 70% of that capacity).

    Near saturation every predictor is steep: 5% of capacity can move p99 tenfold. Hence capacity is what is predicted, and callers
    keep a margin.
    """
    mu = curve.capacity_per_s(plan.max_batch)
    if objective.latency_s is None:
        capacity = LATENCY_FREE_SHARE * mu
    else:
        low, high = 0.0, mu
        for _ in range(STEPS):
            middle = (low + high) / 2
            if _percentile_s(curve, plan, middle, objective, front_end_s, seed) <= objective.latency_s:
                low = middle
            else:
                high = middle
        capacity = low
    rate = objective.rate_per_s or COMFORTABLE * capacity or COMFORTABLE * mu
    latency_s = _percentile_s(curve, plan, rate, objective, front_end_s, seed)
    return Prediction(
        candidate=Candidate(variant=curve.variant, plan=plan),
        capacity_per_s=capacity,
        rate_per_s=rate,
        latency_s=latency_s,
        percentile=objective.percentile,
    )


def _percentile_s(curve: ServiceCurve, plan: Plan, rate_per_s: float, objective: Objective, front_end_s: float, seed: int) -> float:
    due_s: NDArray[np.float64] = arrival_times(objective.arrivals, rate_per_s, REQUESTS / rate_per_s, seed)
    latency_s = simulate(curve, plan, due_s, seed=seed, front_end_s=front_end_s)
    return float(np.quantile(latency_s[int(WARM_SHARE * len(latency_s)) :], objective.percentile))
