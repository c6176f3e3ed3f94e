"""Paired bootstrap: rows (or whole clusters of rows) drawn again, the same rows for both sides of a comparison.

Percentile intervals (Efron 1979). They collapse to a point when nothing varies in the rows at hand, and are a little narrow
below some thirty rows: for shares of right answers use ``tango``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headway.stats.clusters import cluster_index, cluster_sums
from headway.stats.estimate import Estimate, check_confidence

RESAMPLES = 2000
_CHUNK = 1 << 21  # draws held in memory at a time


def resampled_means(
    columns: ArrayLike, clusters: ArrayLike | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Bootstrap means of one or more columns: (resamples, columns); all columns of a resample use the same rows.

    Args:
        columns: values, (rows,) or (rows, columns).
        clusters: cluster of each row; clusters are drawn whole and the mean stays a mean over rows.

    Raises:
        ValueError: no rows, or clusters of another length.
    """
    values = np.asarray(columns, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[0] == 0:
        raise ValueError(f"columns must be (rows,) or (rows, columns) with at least one row, got shape {values.shape}")
    index = cluster_index(clusters, values.shape[0])
    clustered = int(index.max()) + 1 < values.shape[0]
    if clustered:
        values = np.column_stack([values, np.ones(values.shape[0])])  # the last column counts rows
    sums = cluster_sums(values, index)
    count = sums.shape[0]
    generator = np.random.default_rng(seed)
    totals = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, max(1, _CHUNK // count)):
        stop = min(resamples, start + max(1, _CHUNK // count))
        draw = generator.integers(0, count, size=(stop - start, count), dtype=np.int32)
        for column in range(sums.shape[1]):
            totals[start:stop, column] = sums[:, column][draw].sum(axis=1)
    return totals[:, :-1] / totals[:, -1:] if clustered else totals / count


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """mean(a) - mean(b) over the same rows, with its interval, in the unit of the values.

    Raises:
        ValueError: different lengths or no rows.
    """
    left, right = _pair(a, b)
    means = resampled_means(left - right, clusters, seed=seed, resamples=resamples)[:, 0]
    return _percentiles(float(np.mean(left - right)), means, confidence)


def paired_relative_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    floor: float = 1e-12,
) -> Estimate:
    """mean(a) / mean(b) - 1 over the same rows, with its interval; |mean(b)| is taken as at least ``floor``.

    Raises:
        ValueError: different lengths or no rows.
    """
    left, right = _pair(a, b)
    means = resampled_means(np.column_stack([left, right]), clusters, seed=seed, resamples=resamples)
    value = (left.mean() - right.mean()) / max(abs(right.mean()), floor)
    return _percentiles(float(value), (means[:, 0] - means[:, 1]) / np.maximum(np.abs(means[:, 1]), floor), confidence)


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    clusters: ArrayLike | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Any figure of a set of rows, with its interval; for a paired difference let ``statistic`` take the difference.

    Args:
        statistic: figure of the rows with the given indices (repeats allowed). NaN marks a resample on which the figure
            does not exist (one class only); such resamples are left out.
        n: number of rows.

    Raises:
        ValueError: no rows, or the figure exists on fewer than half of the resamples.
    """
    index = cluster_index(clusters, n)
    if n == 0:
        raise ValueError("a bootstrap needs at least one row, got none")
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    alone = len(members) == n
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for resample in range(resamples):
        picks = generator.integers(0, len(members), size=len(members))
        drawn[resample] = statistic(picks if alone else np.concatenate([members[pick] for pick in picks]))
    known = drawn[~np.isnan(drawn)]
    if known.size < resamples / 2:
        raise ValueError(f"the figure must exist on most resamples, got it on {known.size} of {resamples}; use more rows")
    return _percentiles(float(statistic(np.arange(n))), known, confidence)


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or left.size == 0:
        raise ValueError(f"both sides must be rows of the same length, at least one, got shapes {left.shape} and {right.shape}")
    return left, right


def _percentiles(value: float, drawn: NDArray[np.float64], confidence: float) -> Estimate:
    tail = (1 - check_confidence(confidence)) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)), confidence)
