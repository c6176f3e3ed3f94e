"""Arrivals at equal distances: the kindest process there is, for comparison with real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

C2 = 0.0
"""Squared coefficient of variation of the gaps."""


def gaps_s(rate_per_s: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``count`` gaps of exactly 1/rate [s]."""
    return np.full(count, 1.0 / rate_per_s)
