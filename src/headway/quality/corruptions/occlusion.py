"""A grey square in front of the picture. Strength: its side as a share of the picture's sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIND = "image"
SEVERITIES = (0.15, 0.2, 0.3, 0.4, 0.5)
GREY = 0.5


def corrupt(pixels: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """One patch in each picture, anywhere inside."""
    count, height, width = pixels.shape[:3]
    tall, wide = (max(1, round(strength * side)) for side in (height, width))
    top = generator.integers(0, height - tall + 1, size=(count, 1, 1))
    left = generator.integers(0, width - wide + 1, size=(count, 1, 1))
    rows, columns = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    hidden = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    return np.where(hidden[..., None], np.float32(GREY), pixels)
