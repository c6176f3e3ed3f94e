"""Giving up early, and many comparisons at once, without being fooled by noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from headway.stats.clusters import cluster_index, cluster_sums, mean_error

FIRST_LOOK = 64
SPARED = 0.25


def planned_looks(rows: int) -> tuple[int, ...]:
    """After how many of its ``rows`` a race looks whether it can stop: 64, 128, 256, ..., as long as a quarter of the rows can still be spared.

    Each look shares the allowed error with all others. Doubling keeps them few: a race ends after at most twice the rows that it needed,
    and 10,000 rows take seven looks.
    """
    looks = []
    look = FIRST_LOOK
    while rows - look >= SPARED * rows:
        looks.append(look)
        look *= 2
    return tuple(looks)


def mean_above_p(differences: ArrayLike, bound: float, clusters: ArrayLike | None = None) -> float:
    """One-sided p-value of "the mean of ``differences`` is at most ``bound``", by Student's t over rows or clusters.

    One row or one cluster says nothing: 1. Rows that are all equal say 0 or 1.

    Raises:
        ValueError: no rows, or clusters of another length.
    """
    rows = np.asarray(differences, dtype=np.float64)
    if rows.ndim != 1 or rows.size == 0:
        raise ValueError(f"differences must be a row of at least one number, got shape {rows.shape}")
    error, freedom = mean_error(rows, cluster_index(clusters, rows.size))
    gap = float(rows.mean()) - bound
    if freedom == 0:
        return 1.0
    if error <= 1e-12 * (1 + abs(bound)):
        return 0.0 if gap > 1e-12 * (1 + abs(bound)) else 1.0
    return float(t.sf(gap / error, freedom))


def skewed_mean_above_p(differences: ArrayLike, bound: float, clusters: ArrayLike | None = None) -> float:
    """``mean_above_p``, or the p-value corrected for skewness where that is larger.

    Where few rows hold most of a loss, samples with few of those rows have a small mean and, wrongly, a small error, so that t calls it small
    too often: with a loss of 0.5 in 2% of 512 rows it found the mean of 0.01 to be below 0.01 in 6% of simulated races, not in 1%. Hall
    1992 (J. R. Stat. Soc. B 54, "On the removal of skewness by transformation"): with w the mean over its standard deviation and g the
    skewness of n rows (or sums of clusters), sqrt(n) (w + g w^2 / 3 + g^2 w^3 / 27 + g / 6n) is normal up to terms of 1/n.

    Raises:
        ValueError: no rows, or clusters of another length.
    """
    plain = mean_above_p(differences, bound, clusters)
    rows = np.asarray(differences, dtype=np.float64) - bound
    sums = cluster_sums(rows[:, None], cluster_index(clusters, rows.size))[:, 0]
    spread = float(sums.std())
    if spread <= 1e-12 * (1 + abs(bound)):
        return plain
    skew = float(np.mean(((sums - sums.mean()) / spread) ** 3))
    w = float(sums.mean()) / spread
    corrected = w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * sums.size)
    return max(plain, float(norm.sf(math.sqrt(sums.size) * corrected)))


def holm(p_values: Sequence[float] | NDArray[np.float64], alpha: float = 0.05) -> NDArray[np.bool_]:
    """Which hypotheses are rejected when the chance of *any* false rejection must stay within ``alpha`` (Holm 1979)."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    limits = alpha / np.arange(values.size, 0, -1)
    passed = np.logical_and.accumulate(values[order] <= limits) if values.size else np.zeros(0, dtype=bool)
    rejected = np.zeros(values.size, dtype=bool)
    rejected[order] = passed
    return rejected
