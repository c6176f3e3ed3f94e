"""Arrivals at equal distances from a random first moment: the kindest process there is, for comparison with real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load.renewal import renewal_times

C2 = 0.0
"""Squared coefficient of variation of the gaps."""


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Due times, ascending [s]; the first lies anywhere within one gap."""
    gap_s = 1.0 / rate_per_s
    return renewal_times(lambda n: np.full(n, gap_s), float(rng.uniform(0.0, gap_s)), rate_per_s=rate_per_s, duration_s=duration_s)
