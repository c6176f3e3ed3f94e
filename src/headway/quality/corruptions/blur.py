"""Gaussian blur: out of focus. Strength: standard deviation as a share of the shorter side, at least 0.4 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

KIND = "image"
SEVERITIES = (0.008, 0.012, 0.018, 0.025, 0.035)
NARROWEST_PIXELS = 0.4


def corrupt(pixels: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Rows, then columns, convolved with a Gaussian; edges are mirrored."""
    width = max(NARROWEST_PIXELS, strength * min(pixels.shape[1:3]))
    across = gaussian_filter1d(pixels, width, axis=2, mode="reflect")
    return np.asarray(gaussian_filter1d(across, width, axis=1, mode="reflect"), np.float32)
