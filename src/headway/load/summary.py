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
"""Of a verdict, one-sided, and of the intervals of percentiles, two-sided."""
LATE_SHARE = 0.2
"""The generator is the bottleneck when its 99th percentile of lateness passes this share of the latency bound."""
LATE_S = 2e-3
"""Without a bound: when it passes this [s]."""


def summarise(
    raw: RawLoad,
    *,
    target: str,
    arrivals: str,
    rate_per_s: float,
    objective: Objective,
    seed: int,
    mean_batch: float = math.nan,
    steal_fraction: float = 0.0,
) -> LoadPoint:
    """The LoadPoint of a run.

    - Latency counts from the due time. A failed or lost request counts with the time until the run's end, since it was not answered
      in all that time; a refused one is left out of the percentiles, since it was answered at once. All three are misses.
    - ``achieved_rate_per_s`` and ``goodput_per_s`` divide by the duration plus the wait for the last answer, as vegeta does: a
      target that falls behind cannot hide it in the drain.
    - Percentiles: 50, 90, 95, 99, 99.9 and the objective's own, each with its order-statistic interval at 95%; an end that so few
      samples cannot tell is the smallest or largest sample.
    - ``verdict``: ``held`` when the number of misses proves the objective's percentile with 95% confidence, ``missed`` when it
      refutes it, else ``unproven``. ``generator-bound`` replaces all three when the generator was late by a material share of the
      bound, unless it would be ``missed`` even with twice the greatest lateness forgiven (a late generator sends late and reads late):
      then the target is to blame. The percentiles of a generator-bound run are in the record to look at, not to quote.

    Raises:
        MeasurementError: the run held no request.
    """
    sent = len(raw.due_s)
    if sent == 0:
        raise MeasurementError(f"a run must hold at least one request, got none at {rate_per_s:g}/s; run longer")
    ok, answered = raw.status == OK, raw.status != REFUSED
    completed = int(np.count_nonzero(ok))
    until_s = np.where(ok, raw.done_s, raw.end_s)
    latency_s, naive_s = until_s - raw.due_s, until_s - raw.sent_s
    bound_s = math.inf if objective.latency_s is None else objective.latency_s
    lateness_s = raw.sent_s - raw.due_s
    lateness_p99_s = float(np.quantile(lateness_s, 0.99))
    forgiven_s = 2.0 * max(0.0, float(lateness_s.max()))
    misses, sure_misses = (sent - int(np.count_nonzero(ok & (latency_s <= limit_s))) for limit_s in (bound_s, bound_s + forgiven_s))
    span_s = max(raw.end_s, float(raw.due_s.max()), 1e-9)
    in_flight, little = _little(raw)
    return LoadPoint(
        target=target,
        arrivals=arrivals,
        offered_rate_per_s=rate_per_s,
        achieved_rate_per_s=completed / span_s,
        goodput_per_s=(sent - misses) / span_s,
        duration_s=span_s,
        sent=sent,
        completed=completed,
        failed=int(np.count_nonzero((raw.status == FAILED) | (raw.status == LOST))),
        refused=int(np.count_nonzero(~answered)),
        percentiles=_percentiles(np.sort(latency_s[answered]), objective.percentile),
        mean_s=float(np.mean(latency_s[answered])) if answered.any() else 0.0,
        naive_p99_s=float(np.quantile(naive_s[answered], 0.99, method="inverted_cdf")) if answered.any() else 0.0,
        lateness_p99_s=lateness_p99_s,
        in_flight_mean=in_flight,
        little_ratio=little,
        miss_fraction=misses / sent,
        mean_batch=mean_batch if math.isfinite(mean_batch) else 0.0,
        verdict=_verdict(misses, sure_misses, sent, objective, lateness_p99_s),
        seed=seed,
        steal_fraction=steal_fraction,
    )


def _little(raw: RawLoad) -> tuple[float, float]:
    """Mean number in the system while requests were arriving, and its ratio to X times mean R.

    The mean is the exact integral of the number in flight up to the last due time; X and R come from the requests that ended before
    it. Little's law makes them equal in a steady state, but for the requests under way at the end. A ratio far above 1 says that the
    queue was growing; one far below 1, that the record is broken.
    """
    there = raw.status != REFUSED
    due_s = raw.due_s[there]
    done_s = np.where(np.isnan(raw.done_s), np.inf, raw.done_s)[there]
    span_s = float(raw.due_s.max())
    ended = done_s <= span_s
    if span_s <= 0 or not ended.any():
        return 0.0, 1.0
    mean = float(np.sum(np.minimum(done_s, span_s) - due_s)) / span_s
    rate_times_latency = float(np.sum((done_s - due_s)[ended])) / span_s  # X R = (ended / span) (sum of R / ended)
    return mean, mean / max(rate_times_latency, 1e-12)


def _percentiles(ordered_s: NDArray[np.float64], own: float) -> tuple[Percentile, ...]:
    if not len(ordered_s):
        return ()
    found = []
    for q in sorted({*QUANTILES, own}):
        estimate = order_statistic_interval(ordered_s, q, CONFIDENCE)
        low = estimate.low if math.isfinite(estimate.low) else float(ordered_s[0])
        high = estimate.high if math.isfinite(estimate.high) else float(ordered_s[-1])
        found.append(Percentile(q=q, latency_s=estimate.value, low_s=low, high_s=high))
    return tuple(found)


def _verdict(misses: int, sure_misses: int, sent: int, objective: Objective, lateness_p99_s: float) -> str:
    limit_s = LATE_S if objective.latency_s is None else LATE_SHARE * objective.latency_s
    if lateness_p99_s > limit_s:
        return "missed" if refutes(sure_misses, sent, objective.percentile, CONFIDENCE) else "generator-bound"
    if proves(misses, sent, objective.percentile, CONFIDENCE):
        return "held"
    return "missed" if refutes(misses, sent, objective.percentile, CONFIDENCE) else "unproven"
