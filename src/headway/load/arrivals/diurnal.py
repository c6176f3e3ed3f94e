"""Poisson arrivals whose rate rises and falls like a day squeezed into the run: quiet at both ends, busiest in the middle."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headway.load.thinning import thinned_times
from headway.records import ConfigError

C2 = 1.0
"""Squared coefficient of variation of the gaps on the clock of ``cumulative``: Poisson at every moment."""
PEAK = 1.8
DAYS = 1.0


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator, *, peak: float = PEAK, days: float = DAYS) -> NDArray[np.float64]:
    """Due times, ascending [s]; the rate is the asked one times 1 - (peak - 1) cos(2 pi days t / duration).

    Args:
        peak: rate at the busiest moment over the mean, from 1 (flat) to 2 (nothing at night).
        days: how many days the run holds, whole ones so that the mean rate is the asked one.

    Raises:
        ConfigError: a peak outside 1 to 2, or days that are not a whole number above 0.
    """
    _check(peak, days)
    swing, turn = peak - 1.0, 2.0 * math.pi * days
    return thinned_times(lambda moment: 1.0 - swing * np.cos(turn * moment), peak, rate_per_s=rate_per_s, duration_s=duration_s, rng=rng)


def cumulative(at_share: NDArray[np.float64], *, peak: float = PEAK, days: float = DAYS) -> NDArray[np.float64]:
    """Share of all arrivals expected before a share of the run."""
    turn = 2.0 * math.pi * days
    share: NDArray[np.float64] = at_share - (peak - 1.0) * np.sin(turn * at_share) / turn
    return share


def _check(peak: float, days: float) -> None:
    if not 1 <= peak <= 2:
        raise ConfigError(f"arrivals diurnal: peak, the busiest rate over the mean, must lie between 1 and 2, got {peak:g}")
    if days < 1 or days != round(days):
        raise ConfigError(f"arrivals diurnal: days must be a whole number above 0, so that the mean rate is the asked one, got {days:g}")
