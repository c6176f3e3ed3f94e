"""What a server keeps free of its deadlines for what no prediction of service times knows: numbers in, seconds out."""

from __future__ import annotations

import math

LAG_WEIGHT = 0.1
"""Weight of one batch in the running means of the event loop's lag."""
LAG_SHARE, ERROR_SHARE = 0.25, 0.15
"""At most these shares of the deadline are allowed for the lag, and for errors of the predictions."""
ERROR_STEP = 0.05
"""How much more of the deadline is allowed for errors after a batch that was late."""
LATE_SHARE = 0.01
"""Share of batches that may be late."""


class Allowance:
    """What is kept free of a deadline for all that no prediction of service times knows.

    Two parts. The event loop's lag, from how long finished batches waited for it. And an error that is learned: it grows with each batch that came
    too late for one of its requests, and shrinks with each that did not, so that it settles where one batch in a hundred is late (Robbins and Monro,
    A Stochastic Approximation Method, 1951). While nothing is late it is nothing.

    Attributes:
        lag_s: the first part [s].
        error_s: the second part; only for requests that are not accepted yet [s].
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._mean_s = self._deviation_s = 0.0
        self.lag_s = self.error_s = 0.0

    def observe(self, lag_s: float, spare_s: float) -> None:
        """Learn from one batch.

        Args:
            lag_s: how long it waited for the loop; a request waits so long twice, to be read and to be answered [s].
            spare_s: how long before the earliest deadline among its requests it was answered; negative when it was late [s].
        """
        self._deviation_s += LAG_WEIGHT * (abs(lag_s - self._mean_s) - self._deviation_s)
        self._mean_s += LAG_WEIGHT * (lag_s - self._mean_s)
        self.lag_s = min(LAG_SHARE * self._deadline_s, 2 * (self._mean_s + self._deviation_s))
        self._learn(spare_s < self._mean_s)

    def missed(self) -> None:
        """Learn that requests were accepted that could not be answered in time."""
        self._learn(True)

    def _learn(self, late: bool) -> None:
        if self._deadline_s < math.inf:
            error_s = self.error_s + ERROR_STEP * (late - LATE_SHARE) * self._deadline_s
            self.error_s = min(ERROR_SHARE * self._deadline_s, max(0.0, error_s))
