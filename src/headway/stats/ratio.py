"""How many times faster, from interleaved rounds: the unit of evidence is the round, not the sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from headway.stats.bootstrap import RESAMPLES
from headway.stats.estimate import Estimate, check_confidence


def ratio_interval(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The geometric mean of a_i / b_i over rounds, with Student's t interval on the logarithms.

    Each round gives one figure of either side (a rate, a percentile), taken close together in time, so what disturbs a round
    disturbs both and cancels. One round has no interval to give: both ends equal the value, and the caller must say so.

    Raises:
        ValueError: different lengths, no rounds, or a figure that is not positive and finite.
    """
    check_confidence(confidence)
    over, under = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if over.shape != under.shape or over.ndim != 1 or over.size == 0:
        raise ValueError(f"both sides need one figure a round, at least one round, got shapes {over.shape} and {under.shape}")
    if not (np.all(np.isfinite(over)) and np.all(np.isfinite(under)) and over.min() > 0 and under.min() > 0):
        raise ValueError("figures of a ratio must be positive and finite; leave failed rounds out on both sides")
    logs = np.log(over) - np.log(under)
    centre = float(logs.mean())
    half = 0.0
    if logs.size > 1:
        half = float(t.ppf(0.5 + confidence / 2, logs.size - 1) * logs.std(ddof=1) / np.sqrt(logs.size))
    return Estimate(float(np.exp(centre)), float(np.exp(centre - half)), float(np.exp(centre + half)), confidence)


def ratio_of_medians(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], confidence: float = 0.95, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The ratio median(a) / median(b) from interleaved rounds of raw samples, with its interval.

    Args:
        a, b: samples of each round, one array a round; round i of both was measured side by side.

    With two rounds or more: ``ratio_interval`` of the rounds' medians. With one round: a bootstrap within it, which
    takes the samples as independent and knows nothing of drift between rounds, so it is too narrow on a noisy machine.

    Raises:
        ValueError: different numbers of rounds, an empty round, a median that is not positive.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"both sides need the same rounds, at least one, got {len(a)} and {len(b)}")
    over = [np.asarray(samples, dtype=np.float64) for samples in a]
    under = [np.asarray(samples, dtype=np.float64) for samples in b]
    if min(samples.size for samples in over + under) == 0:
        raise ValueError("every round must hold at least one sample; leave empty rounds out on both sides")
    estimate = ratio_interval([np.median(samples) for samples in over], [np.median(samples) for samples in under], confidence)
    if len(over) > 1:
        return estimate
    generator = np.random.default_rng(seed)
    top, bottom = (
        np.array([np.median(samples[generator.integers(0, samples.size, samples.size)]) for _ in range(resamples)])
        for samples in (over[0], under[0])
    )
    low, high = np.quantile(top / bottom, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(estimate.value, min(estimate.value, float(low)), max(estimate.value, float(high)), confidence)
