"""What a batcher learns of overload: how much is asked for, and how much time to keep free for what no prediction knows."""

from __future__ import annotations

import math

WINDOW_S, LEAST_ROWS, LONGEST_WINDOW_S = 0.1, 20, 1.0
"""Demand is looked at over windows of this length, longer ones while fewer rows than these came, but not longer than the last [s]."""
STEP = 0.05
"""How much more of the latency is kept free after a batch that was late."""
LATE_SHARE = 0.01
"""Share of batches that may be late."""
MOST_SHARE = 0.15
"""At most this share of the latency is kept free."""


def window_over(rows: int, span_s: float) -> bool:
    """Whether so many rows in so long tell how much is asked for."""
    return span_s >= WINDOW_S and (rows >= LEAST_ROWS or span_s >= LONGEST_WINDOW_S)


def spare_after(spare_s: float, late: bool, latency_s: float) -> float:
    """The time to keep free of ``latency_s`` after one more batch, from what was kept free before it [s].

    More after a batch that was late, less after one that was not, so that it settles where one batch in a hundred is late (Robbins and Monro,
    A Stochastic Approximation Method, 1951).
    """
    return min(MOST_SHARE * latency_s, max(0.0, spare_s + STEP * ((1.0 if late else 0.0) - LATE_SHARE) * latency_s))


class Demand:
    """Rows asked for a second, refused ones included, over the last whole window."""

    def __init__(self) -> None:
        self.per_s = 0.0
        self._rows = 0
        self._since_s: float | None = None

    def add(self, rows: int, now_s: float) -> bool:
        """Count what came; true when ``per_s`` is new."""
        self._rows += rows
        if self._since_s is None:
            self._since_s = now_s
        span_s = now_s - self._since_s
        if not window_over(self._rows, span_s):
            return False
        self.per_s = self._rows / span_s
        self._rows, self._since_s = 0, now_s
        return True


class Spare:
    """Time that an item must have to spare, by the predictions, to be taken: ``spare_after``. While nothing is late it is nothing.

    Attributes:
        seconds: the time [s].
    """

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self.seconds = 0.0

    def learn(self, late: bool) -> None:
        """Learn from one batch, or from items that were taken and could not be run in time."""
        if self._latency_s < math.inf:
            self.seconds = spare_after(self.seconds, late, self._latency_s)
