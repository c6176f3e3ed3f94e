"""A run's raw records to its LoadPoint: percentiles from the due time, the checks that make them believable, the verdict."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headway.load.generator import FAILED, LOST, OK, REFUSED, RawLoad
from headway.records import LoadPoint, MeasurementError, Objective, Percentile
from headway.stats import order_statistic_interval, proves, refutes

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
CONFIDENCE = 0.95
LATE_SHARE = 0.2
"""The generator is the bottleneck when its 99th percentile of lateness passes this share of the latency bound."""
LATE_S = 2e-3
"""Without a bound: when it passes this [s]."""


def summarise(
    raw: RawLoad, *, target: str, arrivals: str, rate_per_s: float, objective: Objective, seed: int, mean_batch: float = math.nan,
    steal_fraction: float = 0.0,
) -> LoadPoint:  # fmt: skip
    """The LoadPoint of a run.

    A lost or failed request counts with the time until the run's end, and as a miss; a refused one as a miss only, since it was
    answered at once. Throughput divides by the duration plus the wait for the last answers. The verdict is ``held`` when the
    number of misses proves the percentile with 95% confidence, ``missed`` when it refutes it, ``unproven`` between, and
    ``generator-bound`` when the generator's own lateness would colour the figures.

    Raises:
        MeasurementError: the run held no request.
    """
    count = len(raw.due_s)
    if count == 0:
        raise MeasurementError(f"a run must hold at least one request, got none at {rate_per_s:g}/s; run longer")
    latency_s = np.where(raw.status == OK, raw.done_s, raw.end_s) - raw.due_s
    timed = np.sort(latency_s[raw.status != REFUSED])
    ok = raw.status == OK
    bound_s = objective.latency_s if objective.latency_s is not None else math.inf
    misses = int(count - np.count_nonzero(ok & (latency_s <= bound_s)))
    lateness_s = float(np.quantile(raw.sent_s - raw.due_s, 0.99))
    span_s = max(raw.end_s, float(raw.due_s[-1]), 1e-9)
    achieved = int(np.count_nonzero(ok)) / span_s
    naive = np.where(ok, raw.done_s, raw.end_s) - raw.sent_s
    answered = raw.status != REFUSED
    in_flight, little = _little(raw, answered)
    mean_s = float(np.mean(timed)) if len(timed) else 0.0
    return LoadPoint(
        target=target, arrivals=arrivals, offered_rate_per_s=rate_per_s, achieved_rate_per_s=achieved,
        goodput_per_s=(count - misses) / span_s, duration_s=span_s, sent=count, completed=int(np.count_nonzero(ok)),
        failed=int(np.count_nonzero((raw.status == FAILED) | (raw.status == LOST))), refused=int(np.count_nonzero(raw.status == REFUSED)),
        percentiles=_percentiles(timed), mean_s=mean_s, naive_p99_s=float(np.quantile(naive[answered], 0.99)) if answered.any() else 0.0,
        lateness_p99_s=lateness_s, in_flight_mean=in_flight, little_ratio=little,
        miss_fraction=misses / count, mean_batch=mean_batch if math.isfinite(mean_batch) else 0.0,
        verdict=_verdict(misses, count, objective, lateness_s), seed=seed, steal_fraction=steal_fraction,
    )  # fmt: skip


def _little(raw: RawLoad, answered: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean number in the system while requests were arriving, counted on a grid of moments; and its ratio to X times mean R.

    The count comes from arrivals and departures, X and R from the requests that ended within the same span. Little's law makes
    them equal in a steady state; a ratio far from 1 means that the queue grew, or that the record is broken.
    """
    due_s = np.sort(raw.due_s[answered])
    done_s = np.where(np.isnan(raw.done_s), np.inf, raw.done_s)[answered]
    span_s = float(raw.due_s[-1])
    ended = done_s <= span_s
    if span_s <= 0 or not ended.any():
        return 0.0, 1.0
    grid = np.linspace(0.0, span_s, 2001)[1:]
    inside = np.searchsorted(due_s, grid, side="right") - np.searchsorted(np.sort(done_s), grid, side="right")
    mean = float(np.mean(inside))
    rate = int(np.count_nonzero(ended)) / span_s
    latency_s = float(np.mean((done_s - raw.due_s[answered])[ended]))
    return mean, mean / max(rate * latency_s, 1e-12)


def _percentiles(ordered_s: NDArray[np.float64]) -> tuple[Percentile, ...]:
    """Percentiles with their order-statistic intervals; an end that the data cannot tell is the smallest or largest sample."""
    if not len(ordered_s):
        return ()
    found = []
    for q in QUANTILES:
        estimate = order_statistic_interval(ordered_s, q, CONFIDENCE)
        low = estimate.low if math.isfinite(estimate.low) else float(ordered_s[0])
        high = estimate.high if math.isfinite(estimate.high) else float(ordered_s[-1])
        found.append(Percentile(q=q, latency_s=estimate.value, low_s=low, high_s=high))
    return tuple(found)


def _verdict(misses: int, count: int, objective: Objective, lateness_s: float) -> str:
    limit_s = LATE_S if objective.latency_s is None else LATE_SHARE * objective.latency_s
    if lateness_s > limit_s:
        return "generator-bound"
    if proves(misses, count, objective.percentile, CONFIDENCE):
        return "held"
    if refutes(misses, count, objective.percentile, CONFIDENCE):
        return "missed"
    return "unproven"
