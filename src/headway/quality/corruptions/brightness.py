"""More light. Strength: what is added, in units of the range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KIND = "image"
SEVERITIES = (0.05, 0.1, 0.15, 0.2, 0.3)


def corrupt(pixels: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """The same amount added to every pixel."""
    return pixels + np.float32(strength)
