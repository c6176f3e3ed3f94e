"""How long a batch will take: measured times by size, corrected by what is seen while serving."""

from __future__ import annotations

from collections.abc import Mapping

WEIGHT = 0.05
"""Weight of one observation in the running mean: about the last 20 batches count."""
LARGEST = 4.0
"""An observation counts as at most this many times the expected time: one stall of a shared machine is not the model's pace."""
REFRESH = 1.02


def pace_after(mean: float, ratio: float) -> float:
    """The running mean of seen over expected times, after one more."""
    return mean + WEIGHT * (min(ratio, LARGEST) - mean)


def pace_moved(mean: float, used: float) -> bool:
    """Whether the mean has left what predictions use by more than is worth their making anew."""
    return mean > used * REFRESH or mean < used / REFRESH


class Pace:
    """Predicted service times, ``tau_s[b]`` for a batch of b rows [s]; linear between measured sizes.

    The measured curve's shape stays; its level follows the running mean of seen over expected time. What times scatter beyond it is the
    batcher's to keep free, and only while it has to refuse: a margin here refused one request in thirty that would have been in time.
    """

    def __init__(self, measured_s: Mapping[int, float], max_batch: int) -> None:
        if not measured_s or min(measured_s) < 1 or min(measured_s.values()) < 0:
            raise ValueError(f"a pace needs a measured time for at least one batch size, got {dict(measured_s)}")
        self._base_s = _filled(dict(sorted(measured_s.items())), max_batch)
        self._mean, self._used = 1.0, 1.0
        self.tau_s = self._base_s

    def observe(self, rows: int, service_s: float) -> bool:
        """Learn from one batch; true when ``tau_s`` has moved."""
        expected_s = self._base_s[min(rows, len(self._base_s) - 1)]
        if expected_s <= 0:
            return False
        self._mean = pace_after(self._mean, service_s / expected_s)
        if not pace_moved(self._mean, self._used):
            return False
        self._used = self._mean
        self.tau_s = [self._mean * base_s for base_s in self._base_s]
        return True


def _filled(measured_s: dict[int, float], max_batch: int) -> list[float]:
    """Times of all sizes from 0 to ``max_batch``, never falling; beyond the largest measured size in proportion to it."""
    sizes = list(measured_s)
    filled = [0.0]
    for size in range(1, max_batch + 1):
        above = next((known for known in sizes if known >= size), None)
        below = max((known for known in sizes if known <= size), default=None)
        if above is None:
            time_s = measured_s[sizes[-1]] * size / sizes[-1]
        elif below is None or above == below:
            time_s = measured_s[above]
        else:
            share = (size - below) / (above - below)
            time_s = measured_s[below] + share * (measured_s[above] - measured_s[below])
        filled.append(max(filled[-1], time_s))
    return filled
