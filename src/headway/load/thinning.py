"""Due times of a Poisson process whose rate changes over the run: candidates at the peak rate, each kept with its moment's share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headway.load.renewal import renewal_times


def thinned_times(
    intensity: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    peak: float,
    *,
    rate_per_s: float,
    duration_s: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Times of a non-homogeneous Poisson process, ascending [s] (Lewis and Shedler 1979, algorithm 1).

    Args:
        intensity: rate at a moment (share of the run, 0 to 1) over the mean rate; its mean over the run must be 1.
        peak: the largest value of ``intensity``.
    """
    mean_s = 1.0 / (peak * rate_per_s)
    candidates_s = renewal_times(
        lambda n: rng.exponential(mean_s, n), float(rng.exponential(mean_s)), rate_per_s=peak * rate_per_s, duration_s=duration_s
    )
    kept = rng.uniform(0.0, peak, len(candidates_s)) < intensity(candidates_s / duration_s)
    times_s: NDArray[np.float64] = candidates_s[kept]
    return times_s
