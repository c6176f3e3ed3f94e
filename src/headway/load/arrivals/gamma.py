"""Arrivals with gamma gaps of any squared variation: ``c2`` below 1 is smoother than Poisson, above 1 comes in bursts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load.renewal import renewal_times
from headway.records import ConfigError

C2 = 2.0
"""Squared coefficient of variation of the gaps, when ``c2`` is not given."""
SMALLEST, LARGEST = 1e-4, 1e4


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator, *, c2: float = C2) -> NDArray[np.float64]:
    """Due times, ascending [s]; gamma gaps of shape 1/c2 and scale c2/rate have mean 1/rate and variation c2.

    Time 0 falls into a long gap more likely than into a short one: that gap is gamma of shape 1/c2 + 1, and a uniform share of it is left.

    Raises:
        ConfigError: ``c2`` outside 0.0001 to 10,000.
    """
    if not SMALLEST <= c2 <= LARGEST:
        raise ConfigError(f"arrivals: c2, the squared variation of gaps, must lie between {SMALLEST:g} and {LARGEST:g}, got {c2:g}")
    shape, scale_s = 1.0 / c2, c2 / rate_per_s
    first_s = float(rng.uniform() * rng.gamma(shape + 1.0, scale_s))
    return renewal_times(lambda n: rng.gamma(shape, scale_s, n), first_s, rate_per_s=rate_per_s, duration_s=duration_s)
