"""Arrivals in bursts: gamma gaps with a squared coefficient of variation of 4, so that long silences alternate with crowds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load.arrivals import gamma

C2 = 4.0
"""Squared coefficient of variation of the gaps, when ``c2`` is not given."""


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator, *, c2: float = C2) -> NDArray[np.float64]:
    """Due times, ascending [s]: those of ``gamma``."""
    return gamma.times(rate_per_s, duration_s, rng, c2=c2)
