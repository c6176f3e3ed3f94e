"""Giving up early, and many comparisons at once, without being fooled by noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from headway.stats.clusters import cluster_index, mean_error
from headway.stats.estimate import check_confidence

FEWEST = 20


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


def surely_above(
    differences: ArrayLike, bound: float, confidence: float = 0.99, *, looks: int = 1, clusters: ArrayLike | None = None
) -> bool:
    """Whether a candidate may be dropped now: the mean loss is above ``bound`` with ``confidence``.

    A one-sided t-test, never before ``FEWEST`` rows (or clusters). A race looks again after each batch of rows; with ``looks``
    planned looks each one gets an equal share of the allowed error (Bonferroni), so the chance of ever dropping a candidate
    that keeps its bound stays at most 1 - confidence. Being too slow costs time; being too quick costs a good candidate.

    Args:
        differences: loss against the parent, one a row, positive is worse.

    Raises:
        ValueError: no rows, looks below one, clusters of another length.
    """
    check_confidence(confidence)
    if looks < 1:
        raise ValueError(f"looks must be at least 1, got {looks}")
    rows = np.asarray(differences, dtype=np.float64)
    if rows.size and int(cluster_index(clusters, rows.size).max()) + 1 < FEWEST:
        return False
    return mean_above_p(rows, bound, clusters) <= (1 - confidence) / looks


def holm(p_values: Sequence[float] | NDArray[np.float64], alpha: float = 0.05) -> NDArray[np.bool_]:
    """Which hypotheses are rejected when the chance of *any* false rejection must stay within ``alpha`` (Holm 1979)."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    limits = alpha / np.arange(values.size, 0, -1)
    passed = np.logical_and.accumulate(values[order] <= limits) if values.size else np.zeros(0, dtype=bool)
    rejected = np.zeros(values.size, dtype=bool)
    rejected[order] = passed
    return rejected
