"""How many independent rows clustered rows are worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t


def cluster_index(clusters: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """For each of ``n`` rows the number of its cluster, 0 to K-1; without clusters every row is its own.

    Raises:
        ValueError: the number of cluster names is not ``n``.
    """
    if clusters is None:
        return np.arange(n)
    names = np.asarray(clusters)
    if names.shape != (n,):
        raise ValueError(f"clusters must name one cluster for each of {n} rows, got shape {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


def cluster_sums(values: NDArray[np.float64], index: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sums of ``values`` (rows, columns) by cluster: (K, columns)."""
    count = int(index.max()) + 1
    if count == index.size:  # every row alone: the order of independent rows does not matter
        return values
    return np.stack([np.bincount(index, weights=column, minlength=count) for column in values.T], axis=1)


def mean_error(values: NDArray[np.float64], index: NDArray[np.intp]) -> tuple[float, int]:
    """The standard error of a mean whose rows come in clusters, and its degrees of freedom, K - 1.

    Linearised ratio of totals: sqrt(K/(K-1) sum_c (s_c - m n_c)^2) / n (Cochran, Sampling Techniques, section 9).
    With one cluster the error is unknown: NaN.
    """
    centred = (values - values.mean())[:, None]
    residuals = cluster_sums(centred, index)[:, 0]
    count = residuals.size
    if count < 2:
        return float("nan"), 0
    return float(np.sqrt(count / (count - 1) * np.sum(residuals**2)) / values.size), count - 1


def effective_size(values: ArrayLike, clusters: ArrayLike | None, confidence: float = 0.95) -> float:
    """The number of independent rows that would tell as much about the mean of ``values`` as these clustered rows do.

    n / deff, with the design effect deff = (variance of the mean with clusters) / (variance without), at least 1 (Rao and
    Scott 1992), and times (z / t_{K-1})^2 because few clusters estimate it badly (Korn and Graubard 1998). Without any
    variation the design effect is taken at its worst, the mean cluster size. Never above n, never below 1.
    """
    rows = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return float(rows.size)
    index = cluster_index(clusters, rows.size)
    error, freedom = mean_error(rows, index)
    if freedom == 0:
        return 1.0
    plain = float(rows.var()) / rows.size
    design = max(1.0, error * error / plain) if plain > 0 else rows.size / (freedom + 1)
    shrink = (norm.ppf(0.5 + confidence / 2) / t.ppf(0.5 + confidence / 2, freedom)) ** 2
    return float(max(1.0, min(rows.size, rows.size / design * shrink)))
