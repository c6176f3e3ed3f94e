"""Intervals of a share, and how many requests prove a percentile."""

from __future__ import annotations

import math

from scipy.stats import beta, binom, norm

from headway.stats.estimate import Estimate, check_confidence, check_counts


def wilson(successes: float, n: float, confidence: float = 0.95) -> Estimate:
    """A share with its score interval (Wilson 1927): close to nominal coverage even for small n and extreme shares.

    ``n`` may be an effective sample size (``effective_size``), so it need not be whole.

    Raises:
        ValueError: not 0 <= successes <= n, or n is zero.
    """
    check_counts(successes, n)
    z = float(norm.ppf(0.5 + check_confidence(confidence) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), confidence)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A share with its exact interval (Clopper and Pearson 1934): never covers less than ``confidence``.

    Raises:
        ValueError: not 0 <= successes <= n, or n is zero.
    """
    check_counts(successes, n)
    tail = (1 - check_confidence(confidence)) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return Estimate(successes / n, low, high, confidence)


def proves(misses: int, n: int, q: float, confidence: float = 0.99) -> bool:
    """Whether ``misses`` late requests of ``n`` prove "the q-quantile is within the bound".

    One-sided and exact: true when P(Binomial(n, 1-q) <= misses) <= 1 - confidence (MLPerf inference rules, appendix
    on early stopping). Requests must be independent; correlated ones prove less.
    """
    _check_quantile(q)
    if n == 0:
        return False
    check_counts(misses, n)
    return bool(binom.cdf(misses, n, 1 - q) <= 1 - check_confidence(confidence))


def refutes(misses: int, n: int, q: float, confidence: float = 0.99) -> bool:
    """Whether ``misses`` late requests of ``n`` prove that the q-quantile is beyond the bound.

    The mirror of ``proves``: true when P(Binomial(n, 1-q) >= misses) <= 1 - confidence. Both may be false: unproven.
    """
    _check_quantile(q)
    if n == 0:
        return False
    check_counts(misses, n)
    return bool(binom.sf(misses - 1, n, 1 - q) <= 1 - check_confidence(confidence))


def requests_to_prove(q: float, confidence: float = 0.99, misses: int = 0) -> int:
    """The fewest requests that prove a quantile with ``misses`` of them late.

    For p99 at 99%: 459 with none, 662 with one, 838 with two, 1001 with three.

    Raises:
        ValueError: q or confidence outside (0, 1), or negative misses.
    """
    if misses < 0:
        raise ValueError(f"misses must be at least 0, got {misses}")
    low, high = misses, max(1, 2 * misses)
    while not proves(misses, high, q, confidence):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if proves(misses, middle, q, confidence):
            high = middle
        else:
            low = middle
    return high


def _check_quantile(q: float) -> None:
    if not 0 < q < 1:
        raise ValueError(f"q must lie between 0 and 1, got {q}; p99 is 0.99")
