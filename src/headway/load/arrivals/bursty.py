"""Arrivals in bursts: gamma gaps with a squared coefficient of variation of 4, so that long silences alternate with crowds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load.renewal import renewal_times

C2 = 4.0
"""Squared coefficient of variation of the gaps."""


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Due times, ascending [s]; gamma gaps of shape 1/C2 and scale C2/rate have mean 1/rate and variation C2.

    Time 0 falls into a long gap more likely than into a short one: that gap is gamma of shape 1/C2 + 1, and a uniform share of it is left.
    """
    shape, scale_s = 1.0 / C2, C2 / rate_per_s
    first_s = float(rng.uniform() * rng.gamma(shape + 1.0, scale_s))
    return renewal_times(lambda n: rng.gamma(shape, scale_s, n), first_s, rate_per_s=rate_per_s, duration_s=duration_s)
