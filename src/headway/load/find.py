"""The highest rate that holds: a bracket by growing or shrinking steps, then bisection; pure logic around a trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from headway.records import LoadPoint

OPEN_STEP = 1.5
"""Factor between rates while the bracket is open, when nothing better is known."""
RESOLUTION = 1.06
"""The search ends when the two ends of the bracket are within this factor."""
LOWEST_PER_S = 1.0
STALL_SHARE = 0.3
"""Share of misses from which a failed trial is believed at once. Overload makes nearly all requests late; one stall of a shared machine
makes a few per cent late."""
IDLE = 0.1
"""With fewer requests in flight on average than this, a target is idle nine tenths of the time: whoever meets it then and is late would be late at any rate."""
BELOW_MU = 0.8
FAR = 8.0
"""Largest factor of one step down."""
TRIAL_REQUESTS = 250
"""A trial lasts long enough for this many requests, so that a percentile has something to stand on."""
LONGEST_TRIAL_S = 4.0


@dataclass(frozen=True, slots=True)
class Bracket:
    """What a search found.

    Attributes:
        low_per_s: highest rate that held; 0 when no rate tried did.
        high_per_s: lowest rate that did not, or, when ``open_above``, the highest tried: the true end lies above it.
        generator_bound: the upper end failed while the generator itself was late, so the target may hold more.
        points: every trial, in order.
    """

    low_per_s: float
    high_per_s: float
    open_above: bool
    points: tuple[LoadPoint, ...]
    generator_bound: bool = False


MOST_FACTOR = 3


def trial_s(rate_per_s: float, shortest_s: float) -> float:
    """How long a trial at a rate lasts [s]."""
    return min(LONGEST_TRIAL_S, max(shortest_s, TRIAL_REQUESTS / rate_per_s))


def held(point: LoadPoint, percentile: float) -> bool:
    """Whether a trial counts as held: no more late, lost or refused requests than the percentile allows.

    The estimate decides, not the proof: a search of short trials would never end otherwise. Proof is the business of the long
    run at the stated rate.
    """
    return point.miss_fraction <= 1.0 - percentile + 1e-9 and point.achieved_rate_per_s > 0


def find_capacity(
    trial: Callable[[float], LoadPoint],
    *,
    start_per_s: float,
    trials: int,
    percentile: float = 0.99,
    high_per_s: float = math.inf,
    step: float = OPEN_STEP,
) -> Bracket:
    """Bracket the highest rate that holds, with about ``trials`` trials; up to three times as many while nothing has held yet.

    A rate that fails is tried once more, unless it failed so thoroughly that no stall explains it: on a shared machine one failure is
    weak evidence. A rate that drowns the target still tells its throughput there, and with it where to look next.

    Args:
        trial: runs the load at a rate [1/s] and gives its point.
        start_per_s: first guess [1/s].
        high_per_s: no rate above this is tried [1/s].
        step: factor between rates while the bracket is open, squared from the second step on; a small one where the answer is nearly known.
    """
    points: list[LoadPoint] = []

    def holds(rate_per_s: float) -> bool:
        points.append(trial(rate_per_s))
        if held(points[-1], percentile):
            return True
        if points[-1].miss_fraction > STALL_SHARE or len(points) >= trials:
            return False
        points.append(trial(rate_per_s))
        return held(points[-1], percentile)

    low, high = 0.0, math.inf
    generator_bound = False
    rate = min(max(start_per_s, LOWEST_PER_S), high_per_s)
    while len(points) < trials or (low == 0.0 and len(points) < MOST_FACTOR * trials):
        if holds(rate):
            low = rate
        else:
            high, generator_bound = rate, points[-1].verdict == "generator-bound"
        following = _following(low, high, points, high_per_s, step)
        if following is None:
            break
        rate = following
    open_above = math.isinf(high)
    return Bracket(low, low if open_above else high, open_above, tuple(points), generator_bound)


def _following(low: float, high: float, points: list[LoadPoint], high_per_s: float, step: float) -> float | None:
    """The next rate to try; none when the bracket is narrow, or leaves nothing to try [1/s]."""
    if math.isinf(high):
        return None if low >= high_per_s else min(high_per_s, low * (step if len(points) == 1 else step**2))
    if low > 0:
        return None if high <= low * RESOLUTION else math.sqrt(low * high)
    hopeless = points[-1].in_flight_mean < IDLE and points[-1].miss_fraction > 1 - IDLE
    if high <= LOWEST_PER_S or hopeless:
        return None
    step_down = high / (step if len(points) <= 2 else step**2)
    drowned = points[-1].miss_fraction > STALL_SHARE
    guess = min(step_down, BELOW_MU * points[-1].achieved_rate_per_s) if drowned else step_down
    return max(LOWEST_PER_S, high / FAR, guess)
