"""Two answers to each of the same questions: McNemar's test, and the score interval of the difference of two shares."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from headway.stats.estimate import Estimate, check_confidence

_EDGE = 1 - 1e-9


def mcnemar(right_to_wrong: int, wrong_to_right: int) -> float:
    """Exact two-sided p-value of "flips go both ways equally" (McNemar 1947, exact binomial form); 1 without flips."""
    flips = right_to_wrong + wrong_to_right
    return float(binomtest(right_to_wrong, flips, 0.5).pvalue) if flips else 1.0


def tango(right_to_wrong: float, wrong_to_right: float, n: float, confidence: float = 0.95) -> Estimate:
    """(right_to_wrong - wrong_to_right) / n, the drop of a share on paired rows, with its score interval.

    Tango 1998 (Statistics in Medicine 17). Unlike a bootstrap it does not collapse when nothing flipped: 0 of n gives an upper
    end of z^2 / (n + z^2), so 100 unchanged rows do not prove a drop below 1%. Counts may be scaled to an effective size.

    Raises:
        ValueError: negative flips, or more flips than rows.
    """
    _check(right_to_wrong, wrong_to_right, n)
    z = float(norm.ppf(0.5 + check_confidence(confidence) / 2))
    value = (right_to_wrong - wrong_to_right) / n

    def end(wanted: float) -> float:
        def gap(drop: float) -> float:
            return _score(right_to_wrong, wrong_to_right, n, drop) - wanted

        if gap(-_EDGE) < 0:
            return -1.0
        if gap(_EDGE) > 0:
            return 1.0
        return float(brentq(gap, -_EDGE, _EDGE, xtol=1e-12))

    return Estimate(value, min(value, end(z)), max(value, end(-z)), confidence)


def paired_difference_p(right_to_wrong: float, wrong_to_right: float, n: float, bound: float) -> float:
    """One-sided p-value of "the drop is at most ``bound``" by Tango's score; small means the drop is surely larger.

    Raises:
        ValueError: negative flips, more flips than rows, or a bound outside (-1, 1).
    """
    _check(right_to_wrong, wrong_to_right, n)
    if not -1 < bound < 1:
        raise ValueError(f"bound must lie between -1 and 1, got {bound}")
    return float(norm.sf(_score(right_to_wrong, wrong_to_right, n, bound)))


def _score(b: float, c: float, n: float, drop: float) -> float:
    """Tango's score: the difference less its hypothesised value, over its standard error under the hypothesis.

    The nuisance share of wrong-to-right flips, q, is its maximum-likelihood value given the drop (Tango 1998, section 3).
    """
    quadratic, linear, constant = 2 * n, -b - c + (2 * n - b + c) * drop, -c * drop * (1 - drop)
    q = (math.sqrt(max(0.0, linear * linear - 4 * quadratic * constant)) - linear) / (2 * quadratic)
    variance = n * (2 * q + drop * (1 - drop))
    distance = b - c - n * drop
    if variance <= 1e-15 * n:
        return 0.0 if abs(distance) <= 1e-12 * n else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _check(b: float, c: float, n: float) -> None:
    if b < 0 or c < 0 or n <= 0 or b + c > n * (1 + 1e-9):
        raise ValueError(f"flips must not be negative nor more than the rows, got {b} and {c} of {n}")
