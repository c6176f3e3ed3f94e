"""Gaussian noise on every pixel: a dark room or a cheap sensor. Strength: standard deviation in units of the range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIND = "image"
SEVERITIES = (0.04, 0.06, 0.08, 0.12, 0.18)


def corrupt(pixels: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Each value plus noise of its own."""
    return pixels + np.float32(strength) * generator.standard_normal(pixels.shape, dtype=np.float32)
