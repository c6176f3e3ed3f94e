"""JPEG compression, written and read back by Pillow. Strength: 100 less the quality."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KIND = "image"
SEVERITIES = (30.0, 50.0, 65.0, 75.0, 85.0)
MODES = {1: "L", 3: "RGB"}


def corrupt(pixels: NDArray[np.float32], strength: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Each picture at a lower quality; a fourth channel (opacity) stays as it is."""
    colours = 3 if pixels.shape[3] >= 3 else 1
    made = pixels.copy()
    for row, picture in enumerate(np.round(pixels[..., :colours].clip(0, 1) * 255).astype(np.uint8)):
        held = io.BytesIO()
        Image.fromarray(picture if colours == 3 else picture[..., 0], MODES[colours]).save(held, "JPEG", quality=round(100 - strength))
        with Image.open(held) as read:
            made[row, ..., :colours] = (np.asarray(read, np.float32) / 255).reshape(picture.shape)
    return made
