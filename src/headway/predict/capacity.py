"""The SLO capacity of a plan by simulation: the largest rate at which the simulated percentile stays within the bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headway.load import arrival_times
from headway.predict.simulate import simulate
from headway.records import Candidate, Objective, Plan, Prediction, ServiceCurve

REQUESTS = 40_000
"""Requests of one simulation: a p99 then rests on four hundred samples beyond it."""
ROUGH_REQUESTS, ROUGH_BEYOND = 3_000, 30
"""Requests of a first look, which says where to look with all of them: at least, and beyond the percentile."""
ROUGH, FINE = 0.01, 0.004
"""How near a first look comes to the capacity, and the search after it, as shares of mu."""
START_SHARE = 0.7
WARM_SHARE = 0.05
"""The first requests find an empty engine and are left out."""
LATENCY_FREE_SHARE = 0.9
"""Without a latency bound, the share of mu that is called capacity: beyond it latency has no limit."""
COMFORTABLE = 0.7


@dataclass(frozen=True, slots=True)
class Engine:
    """A plan on a curve behind a front end, and what is asked of it.

    All rates are simulated with the same random numbers, so that the percentile hardly wavers between them.

    Attributes:
        front_end_s, front_joined_s, front_steals, jitter_s: as in ``simulate``.
        refuses: whether the server looks at deadlines.
        requests: of one simulation, once the first look is over.
        fine: how near the search comes to the capacity, as a share of mu.
    """

    curve: ServiceCurve
    plan: Plan
    objective: Objective
    front_end_s: float | Sequence[float] = 0.0
    front_joined_s: float | None = None
    front_steals: bool = False
    jitter_s: Sequence[float] = ()
    refuses: bool = True
    seed: int = 0
    requests: int = REQUESTS
    fine: float = FINE

    @property
    def mu_per_s(self) -> float:
        """The rate that no bound on latency could take away [1/s]: mu; a serial front end, and the time it takes from the batches, lower it."""
        mu = self.curve.capacity_per_s(self.plan.max_batch)
        front_s = float(np.mean(self.front_end_s)) if self.front_joined_s is None else self.front_joined_s
        if front_s <= 0:
            return mu
        return min(1 / front_s, 1 / (1 / mu + front_s / self.plan.instances) if self.front_steals else mu)

    def capacity_per_s(self, guess_per_s: float | None = None) -> float:
        """SLO capacity, after a first look around a guess [1/s]."""
        top = self.mu_per_s
        if self.objective.latency_s is None:
            return LATENCY_FREE_SHARE * top
        start = self.rough_per_s(START_SHARE * top if guess_per_s is None else guess_per_s)
        return highest(self.holds, top, max(ROUGH * top, start), 2 * ROUGH * top, self.fine * top)

    def rough_per_s(self, start_per_s: float) -> float:
        """SLO capacity from a few requests, searched from a guess on [1/s]."""
        top = self.mu_per_s
        if self.objective.latency_s is None:
            return LATENCY_FREE_SHARE * top
        start = max(ROUGH * top, min(top, start_per_s))
        requests = min(self.requests, max(ROUGH_REQUESTS, round(ROUGH_BEYOND / (1 - self.objective.percentile))))
        return highest(lambda rate_per_s: self.holds(rate_per_s, requests), top, start, 4 * ROUGH * top, ROUGH * top)

    def holds(self, rate_per_s: float, requests: int = 0) -> bool:
        """Whether the percentile is within the bound at a rate."""
        bound_s = self.objective.latency_s if self.objective.latency_s is not None else math.inf
        latency_s = self._settled_s(rate_per_s, requests or self.requests, bound_s if self.refuses else math.inf)
        return int(np.count_nonzero(latency_s <= bound_s)) >= math.ceil(self.objective.percentile * len(latency_s))

    def percentile_s(self, rate_per_s: float) -> float:
        """The percentile of latency at a rate where nothing is refused [s]."""
        settled_s = self._settled_s(rate_per_s, self.requests, math.inf)
        rank = min(len(settled_s) - 1, math.ceil(self.objective.percentile * len(settled_s)) - 1)
        return float(np.partition(settled_s, rank)[rank])

    def _settled_s(self, rate_per_s: float, requests: int, deadline_s: float) -> NDArray[np.float64]:
        due_s = arrival_times(self.objective.arrivals, rate_per_s, requests / rate_per_s, self.seed)
        latency_s = simulate(
            self.curve, self.plan, due_s, seed=self.seed, front_end_s=self.front_end_s, front_joined_s=self.front_joined_s,
            front_steals=self.front_steals, jitter_s=self.jitter_s, deadline_s=deadline_s,
        )  # fmt: skip
        return latency_s[int(WARM_SHARE * len(latency_s)) :]


def highest(holds: Callable[[float], bool], top: float, start: float, step: float, resolution: float) -> float:
    """The largest rate up to ``top`` that holds, 0 if none: steps double away from ``start`` until they bracket it, then the bracket is halved."""
    low, high = 0.0, top
    if holds(start):
        low = start
        while low < high:
            tried = min(top, low + step)
            if not holds(tried):
                high = tried
                break
            low, step = tried, 2 * step
    else:
        high = start
        while high > low:
            tried = max(0.0, high - step)
            if tried == 0 or holds(tried):
                low = tried
                break
            high, step = tried, 2 * step
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def predict_capacity(
    curve: ServiceCurve,
    plan: Plan,
    objective: Objective,
    *,
    front_end_s: float | Sequence[float] = 0.0,
    front_joined_s: float | None = None,
    front_steals: bool = False,
    jitter_s: Sequence[float] = (),
    refuses: bool = True,
    seed: int = 0,
) -> Prediction:
    """SLO capacity by search below mu, and the percentile of latency at the stated rate (or at 70% of that capacity).

    The capacity is that of a server which refuses what would be late: a refused request has missed the bound, and spares those behind it. The
    latency is what clients would wait if nothing were refused, so that it has a value beyond the capacity, too.

    Near saturation every predictor is steep: 5% of capacity can move p99 tenfold. Hence capacity is what is predicted, and callers keep a margin.

    Args:
        curve: measured with ``plan.instances`` running.
        front_end_s, front_joined_s, front_steals, jitter_s: as in ``simulate``.
        refuses: whether the server looks at deadlines.
    """
    return expected(Engine(curve, plan, objective, front_end_s, front_joined_s, front_steals, jitter_s, refuses, seed))


def expected(engine: Engine) -> Prediction:
    """What an engine holds, as a record."""
    capacity, objective = engine.capacity_per_s(), engine.objective
    rate_per_s = objective.rate_per_s or COMFORTABLE * capacity or COMFORTABLE * engine.curve.capacity_per_s(engine.plan.max_batch)
    return Prediction(
        candidate=Candidate(variant=engine.curve.variant, plan=engine.plan),
        capacity_per_s=capacity,
        rate_per_s=rate_per_s,
        latency_s=engine.percentile_s(rate_per_s),
        percentile=objective.percentile,
    )
