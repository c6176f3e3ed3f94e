"""The highest rate that holds: a bracket by doubling or halving, then bisection; pure logic around a trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headway.records import LoadPoint

STEP = 1.5
"""Factor between rates while the bracket is open."""
RESOLUTION = 1.06
"""The search ends when the two ends of the bracket are within this factor."""
LOWEST_PER_S = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """The bracket: ``low_per_s`` held (0: no rate tried did), ``high_per_s`` did not, or ``open_above`` when every rate tried held."""

    low_per_s: float
    high_per_s: float
    open_above: bool
    points: tuple[LoadPoint, ...]


def held(point: LoadPoint, allowed: float) -> bool:
    """Whether a trial counts as held: no more late, lost or refused requests than the percentile allows.

    The estimate decides, not the proof: a search of short trials would never end otherwise. Proof is the business of the long
    runs at the stated rate.
    """
    return point.miss_fraction <= allowed and point.achieved_rate_per_s > 0


def find_capacity(trial: Callable[[float], LoadPoint], *, start_per_s: float, trials: int, percentile: float = 0.99) -> Found:
    """Bracket the highest rate that holds, with at most ``trials`` trials (and one repeat of a failed first step).

    A rate that fails is tried once more if it lies below one that held before: on a shared machine one failure is weak evidence.

    Args:
        trial: runs the load at a rate [1/s] and gives its point.
        start_per_s: first guess [1/s].
    """
    allowed = 1.0 - percentile + 1e-9
    points: list[LoadPoint] = []

    def holds(rate_per_s: float) -> bool:
        points.append(trial(rate_per_s))
        if held(points[-1], allowed) or len(points) >= trials:
            return held(points[-1], allowed)
        if points[-1].miss_fraction > 3 * allowed:
            return False
        points.append(trial(rate_per_s))  # a near miss gets a second chance
        return held(points[-1], allowed)

    low, high = 0.0, float("inf")
    rate = max(start_per_s, LOWEST_PER_S)
    while len(points) < trials:
        if holds(rate):
            low = max(low, rate)
        else:
            high = min(high, rate)
        if high == float("inf"):
            rate = low * STEP
        elif low == 0.0:
            if high <= LOWEST_PER_S:
                break
            rate = max(LOWEST_PER_S, high / STEP / (STEP if len(points) > 2 else 1.0))
        elif high <= low * RESOLUTION:
            break
        else:
            rate = (low * high) ** 0.5
    open_above = high == float("inf")
    return Found(low, low if open_above else high, open_above, tuple(points))
