"""Independent arrivals at a constant mean rate: exponential gaps, never truncated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load.renewal import renewal_times

C2 = 1.0
"""Squared coefficient of variation of the gaps."""


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Due times, ascending [s]. The exponential has no memory, so the first gap is like any other."""
    mean_s = 1.0 / rate_per_s
    return renewal_times(lambda n: rng.exponential(mean_s, n), float(rng.exponential(mean_s)), rate_per_s=rate_per_s, duration_s=duration_s)
