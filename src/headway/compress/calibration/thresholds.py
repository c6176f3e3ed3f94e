"""From a histogram to the range that 8 bits shall cover. Each method is a pure function; the range always holds zero.

Values outside the range saturate, values inside are rounded to 255 steps: a wide range rounds coarsely, a narrow one clips.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headway.compress.calibration.histogram import StreamingHistogram

Range = tuple[float, float]
STEPS = 255
PERCENT = 99.99
TARGET_BINS = 128
LEAST_PER_BIN = 8


def min_max(histogram: StreamingHistogram) -> Range:
    """The extremes seen: nothing is clipped (Jacob et al., arXiv 1712.05877, section 3)."""
    return min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)


def percentile(histogram: StreamingHistogram, percent: float = PERCENT) -> Range:
    """The range that keeps ``percent`` of the values, the rest cut equally from both ends (Wu et al., arXiv 2004.09602, section 5)."""
    low, high = min_max(histogram)
    tail = (1 - percent / 100) / (2 if low < 0 < high else 1)
    share = np.concatenate([[0.0], np.cumsum(histogram.counts) / max(1, histogram.counted)])
    left, right = (float(np.interp(q, share, histogram.edges)) for q in (tail, 1 - tail))
    return (max(low, min(left, 0.0)) if low < 0 else 0.0), (min(high, max(right, 0.0)) if high > 0 else 0.0)


def mean_squared_error(histogram: StreamingHistogram, steps: int = STEPS) -> Range:
    """The range with the least expected squared rounding and clipping error (Choukroun et al., arXiv 1902.06822, section 3).

    Both ends shrink in turn over 100 fractions of the extremes, twice.
    """
    low, high = min_max(histogram)
    fractions = np.linspace(0.01, 1.0, 100)
    for _ in range(2 if low < 0 < high else 1):
        if high > 0:
            high = _best(histogram, steps, [(low, f * max(histogram.maximum, 0.0)) for f in fractions])[1]
        if low < 0:
            low = _best(histogram, steps, [(f * min(histogram.minimum, 0.0), high) for f in fractions])[0]
    return low, high


def _best(histogram: StreamingHistogram, steps: int, candidates: list[Range]) -> Range:
    centres, counts = histogram.centres, histogram.counts
    occupied = counts > 0
    centres, counts = centres[occupied], counts[occupied]
    errors = []
    for low, high in candidates:
        scale = (high - low) / steps
        zero = np.round(-low / scale)  # zero is exact in 8 bits, so the grid goes through it
        rounded = (np.clip(np.round(centres / scale) + zero, 0, steps) - zero) * scale
        errors.append(float(np.dot(counts, np.square(rounded - centres))))
    return candidates[int(np.argmin(errors))]


def entropy(histogram: StreamingHistogram, target_bins: int = TARGET_BINS) -> Range:
    """The symmetric cut of |x| that loses least information when ``target_bins`` levels replace the fine bins.

    Least Kullback-Leibler divergence of the clipped distribution from its coarse form (Migacz, "8-bit inference with TensorRT", GTC 2017).
    The bin at zero is set to its neighbour: exact zeros cost nothing and would hide everything else. One-sided values get twice the levels,
    because all 255 steps fall on their side. Fewer than 8 values a bin say nothing about a distribution: then nothing is clipped.
    """
    low, high = min_max(histogram)
    if not (low < 0 < high):
        target_bins *= 2
    magnitudes = _magnitudes(histogram)
    if len(magnitudes) <= target_bins or histogram.counted < LEAST_PER_BIN * len(magnitudes):
        return low, high
    magnitudes[0] = magnitudes[1]
    stops = np.unique(np.linspace(target_bins, len(magnitudes), 256).astype(int))
    losses = [_divergence(magnitudes, int(stop), target_bins) for stop in stops]
    cut = float(stops[int(np.argmin(losses))]) * histogram.width
    return max(low, -cut), min(high, cut)


def _magnitudes(histogram: StreamingHistogram) -> np.ndarray:
    """Counts of |x| in bins of the same width, from zero up."""
    index = histogram.first + np.arange(len(histogram.counts))
    index = np.where(index < 0, -index - 1, index)
    return np.bincount(index, weights=histogram.counts.astype(np.float64))


def _divergence(magnitudes: np.ndarray, stop: int, target_bins: int) -> float:
    kept = magnitudes[:stop]
    clipped = kept.copy()
    clipped[-1] += magnitudes[stop:].sum()
    group = np.arange(stop) * target_bins // stop
    occupied = kept > 0
    sums = np.bincount(group, weights=kept, minlength=target_bins)
    members = np.bincount(group, weights=occupied, minlength=target_bins)
    coarse = np.where(occupied, (sums / np.maximum(members, 1))[group], 0.0)
    if not coarse.sum():
        return float("inf")
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    q = np.maximum(q, 1e-9)
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


METHODS: dict[str, Callable[[StreamingHistogram], Range]] = {
    "min_max": min_max, "percentile": percentile, "entropy": entropy, "mse": mean_squared_error,
}  # fmt: skip
