"""How late the event loop gets to things: numbers in, seconds out."""

from __future__ import annotations

WEIGHT = 0.1
"""Weight of one batch in the running means."""
SHARE = 0.25
"""At most this share of a deadline is allowed for the lag."""


class Lag:
    """What is kept free of a deadline for the event loop, from how long finished batches waited for it.

    Attributes:
        allowance_s: twice the mean and its deviation, for a request waits for the loop to be read, and to be answered [s].
    """

    def __init__(self, deadline_s: float) -> None:
        self._mean_s = self._deviation_s = 0.0
        self._most_s = SHARE * deadline_s
        self.allowance_s = 0.0

    def observe(self, lag_s: float) -> None:
        """Learn from one batch."""
        self._deviation_s += WEIGHT * (abs(lag_s - self._mean_s) - self._deviation_s)
        self._mean_s += WEIGHT * (lag_s - self._mean_s)
        self.allowance_s = min(self._most_s, 2 * (self._mean_s + self._deviation_s))
