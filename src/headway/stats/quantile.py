"""The interval of a quantile from order statistics: no assumption about the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from headway.stats.estimate import Estimate, check_confidence


def order_statistic_interval(ordered: Sequence[float] | NDArray[np.float64], q: float, confidence: float = 0.95) -> Estimate:
    """A quantile, in the unit of the samples, with an interval between two of them.

    The value is the ceil(q n)-th smallest sample. The number of samples below the true quantile is Binomial(n, q), which
    gives the two ranks exactly (David and Nagaraja, Order Statistics, section 7.1). When there are too few samples for an
    end (for p99 fewer than 368 at 95%), that end is minus or plus **infinity**: such data says nothing about it. JSON has no
    infinity; whoever writes the interval down must replace it.

    Args:
        ordered: samples, ascending.

    Raises:
        ValueError: no samples, not ascending, NaN, or q outside (0, 1).
    """
    samples = np.asarray(ordered, dtype=np.float64)
    if not 0 < q < 1:
        raise ValueError(f"q must lie between 0 and 1, got {q}; p99 is 0.99")
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"samples must be a row of at least one number, got shape {samples.shape}")
    if not bool(np.all(samples[1:] >= samples[:-1])) or bool(np.isnan(samples[0])):
        raise ValueError("samples must be ascending and hold no NaN; sort them first")
    n = samples.size
    tail = (1 - check_confidence(confidence)) / 2
    lower = int(binom.ppf(tail, n, q))  # largest rank with P(Binomial <= rank - 1) <= tail: see below
    if binom.cdf(lower - 1, n, q) > tail:
        lower -= 1
    upper = int(binom.isf(tail, n, q)) + 1  # smallest rank with P(Binomial >= rank) <= tail
    rank = min(n, max(1, math.ceil(q * n - 1e-9)))
    low = float(samples[lower - 1]) if lower >= 1 else -math.inf
    high = float(samples[upper - 1]) if upper <= n else math.inf
    value = float(samples[rank - 1])
    return Estimate(value, min(low, value), max(high, value), confidence)
