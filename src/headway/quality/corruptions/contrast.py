"""Less contrast: fog or glare. Strength: the share of contrast that is lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIND = "image"
SEVERITIES = (0.25, 0.4, 0.5, 0.6, 0.75)


def corrupt(pixels: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Each image drawn towards the mean of each of its channels."""
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    return np.asarray(mean + np.float32(1 - strength) * (pixels - mean))
