"""Gaussian noise on every value of a series: hiss. Strength: standard deviation in units of each feature's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIND = "series"
SEVERITIES = (0.05, 0.1, 0.15, 0.25, 0.4)


def corrupt(values: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Each value plus noise of its own."""
    return values + np.float32(strength) * generator.standard_normal(values.shape, dtype=np.float32)
