"""Arrivals in bursts: gamma gaps with a squared coefficient of variation of 4, so that long silences alternate with crowds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

C2 = 4.0
"""Squared coefficient of variation of the gaps."""


def gaps_s(rate_per_s: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``count`` gaps with mean 1/rate [s]; shape 1/C2 and scale C2/rate give that mean and variation."""
    return rng.gamma(1.0 / C2, C2 / rate_per_s, count)
