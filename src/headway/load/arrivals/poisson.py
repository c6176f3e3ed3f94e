"""Independent arrivals at a constant mean rate: exponential gaps, never truncated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

C2 = 1.0
"""Squared coefficient of variation of the gaps."""


def gaps_s(rate_per_s: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``count`` gaps with mean 1/rate [s]."""
    return rng.exponential(1.0 / rate_per_s, count)
