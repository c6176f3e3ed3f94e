"""A stretch of time without signal: a lost packet. Strength: its length as a share of the whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIND = "series"
SEVERITIES = (0.05, 0.1, 0.15, 0.2, 0.3)


def corrupt(values: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """One stretch in each row set to every feature's mean."""
    count, length = values.shape[:2]
    gap = max(1, round(strength * length))
    start = generator.integers(0, length - gap + 1, size=(count, 1))
    at = np.arange(length)[None, :]
    return np.where(((at >= start) & (at < start + gap))[..., None], np.float32(0), values)
