"""Due times out of independent gaps: what every arrival process without memory beyond the last arrival shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def renewal_times(
    gaps_s: Callable[[int], NDArray[np.float64]], first_s: float, *, rate_per_s: float, duration_s: float
) -> NDArray[np.float64]:
    """Times ``first_s``, then one gap after the other, up to ``duration_s`` [s].

    Nothing is truncated or rescaled: gaps are drawn until the last lies beyond the end. How many are drawn at a time depends only on
    rate times duration, so the same seed gives the same pattern at any rate.

    Args:
        gaps_s: gives that many independent gaps [s].
        first_s: time to the first arrival [s]. Drawn as what is left of the gap that time 0 falls into, it makes the process
            stationary: rate times duration arrivals are expected in any stretch, also the first (Cox, Renewal Theory, section 5.2).
    """
    expected = rate_per_s * duration_s
    parts = [np.array([first_s])]
    last_s = first_s
    while last_s < duration_s:
        part = last_s + np.cumsum(gaps_s(16 + int(1.1 * expected)))
        parts.append(part)
        last_s = float(part[-1])
    times_s: NDArray[np.float64] = np.concatenate(parts)
    return times_s[times_s < duration_s]
