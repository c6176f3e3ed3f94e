"""Poisson arrivals whose rate jumps in the middle of the run: from then on ``factor`` times what it was before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.load.thinning import thinned_times
from headway.records import ConfigError

C2 = 1.0
"""Squared coefficient of variation of the gaps on the clock of ``cumulative``: Poisson before and after."""
FACTOR = 3.0
AT = 0.5


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator, *, factor: float = FACTOR, at: float = AT) -> NDArray[np.float64]:
    """Due times, ascending [s]; the mean over the whole run is the asked rate, so the first part is slower than it and the second faster.

    Args:
        factor: rate after the jump over the rate before it; below 1 the load falls.
        at: moment of the jump, as a share of the run.

    Raises:
        ConfigError: a factor that is not above 0, or a moment outside (0, 1).
    """
    before, after = _levels(factor, at)
    return thinned_times(
        lambda moment: np.where(moment < at, before, after), max(before, after), rate_per_s=rate_per_s, duration_s=duration_s, rng=rng
    )


def cumulative(at_share: NDArray[np.float64], *, factor: float = FACTOR, at: float = AT) -> NDArray[np.float64]:
    """Share of all arrivals expected before a share of the run."""
    before, after = _levels(factor, at)
    share: NDArray[np.float64] = before * np.minimum(at_share, at) + after * np.maximum(at_share - at, 0.0)
    return share


def _levels(factor: float, at: float) -> tuple[float, float]:
    """Rate before and after the jump over the mean rate."""
    if not 1e-3 <= factor <= 1e3 or not 0 < at < 1:
        raise ConfigError(f"arrivals step: factor must lie between 0.001 and 1000 and at between 0 and 1, got factor={factor:g}, at={at:g}")
    before = 1.0 / (at + factor * (1.0 - at))
    return before, factor * before
