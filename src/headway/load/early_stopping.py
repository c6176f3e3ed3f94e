"""When a run has seen enough queries to say something about a percentile, and what it may then say.

MLPerf's rule (inference rules, appendix "Early Stopping Criterion"; LoadGen, ``loadgen/early_stopping.cc`` and ``results.cc``), restated: of n
independent queries, t may be over a bound and still prove with confidence c that the q-quantile is within it, when
P(Binomial(n, 1 - q) <= t) <= 1 - c. It is the one-sided form of Clopper and Pearson's exact interval (1934).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.stats import proves, requests_to_prove

CONFIDENCE = 0.99


class Stopped(NamedTuple):
    """What a run may state of a percentile.

    Attributes:
        latency_s: the early-stopping estimate: the true percentile lies above it with a probability of at most 1 - confidence [s].
        allowed: t, how many queries over a bound so many queries allow; the t - 1 slowest are discarded.
    """

    latency_s: float
    allowed: int


def allowed_over(queries: int, q: float, confidence: float = CONFIDENCE) -> int:
    """The most queries over a bound that still prove the q-quantile within it; -1 when even none would not."""
    if not proves(0, queries, q, confidence):
        return -1
    low, high = 0, queries
    while high - low > 1:
        middle = (low + high) // 2
        if proves(middle, queries, q, confidence):
            low = middle
        else:
            high = middle
    return low


def queries_for_estimate(q: float, confidence: float = CONFIDENCE) -> int:
    """The fewest queries from which a percentile may be stated: enough to allow one over a bound (p90: 64, p99: 662)."""
    return requests_to_prove(q, confidence, misses=1)


def early_stopping_estimate(ordered_s: Sequence[float] | NDArray[np.float64], q: float, confidence: float = CONFIDENCE) -> Stopped | None:
    """The t-th slowest of n queries, t as many as n allow over a bound; none when there are too few queries.

    Args:
        ordered_s: latencies, ascending [s].
    """
    allowed = allowed_over(len(ordered_s), q, confidence)
    return Stopped(float(ordered_s[len(ordered_s) - allowed]), allowed) if allowed >= 1 else None


def queries_missing(over: int, queries: int, q: float, confidence: float = CONFIDENCE) -> int:
    """How many further queries, all within the bound, a run with ``over`` of ``queries`` beyond it would need; 0 when it needs none."""
    return max(0, requests_to_prove(q, confidence, misses=over) - queries)
