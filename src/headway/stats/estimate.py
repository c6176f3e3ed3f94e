"""The one thing that intervals give back, and the checks of their common arguments."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """A value with its two-sided confidence interval; ``Interval(**estimate._asdict())`` makes it a record."""

    value: float
    low: float
    high: float
    confidence: float


def check_confidence(confidence: float) -> float:
    """The confidence itself.

    Raises:
        ValueError: it is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    return confidence


def check_counts(successes: float, n: float) -> None:
    """Nothing.

    Raises:
        ValueError: not 0 <= successes <= n with n >= 1.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n with n above 0, got {successes} of {n}")
