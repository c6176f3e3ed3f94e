"""A histogram that sees values once, needs no range in advance, and never grows."""

from __future__ import annotations

import math

import numpy as np

BINS = 4096  # at least 1024 are in use after the first batch
_FINEST = 2.0**-60


class StreamingHistogram:
    """Counts of values in bins whose width is a power of two and doubles whenever a value falls outside.

    Bin ``i`` holds ``[(first + i) * width, (first + i + 1) * width)``; zero is always an edge, so doubling merges neighbours
    exactly and no count is ever split. Merging is exact too: the same values in another order or other batches give the same minimum,
    maximum and total, and the same counts up to the width.

    Attributes:
        minimum, maximum: smallest and largest value seen, exact.
        counted: number of values in the bins.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.minimum = math.inf
        self.maximum = -math.inf
        self.counted = 0
        self.width = 0.0
        self.first = 0
        self.counts = np.zeros(0, np.int64)

    def update(self, values: np.ndarray, most: int | None = None) -> None:
        """Add values; the extremes see all of them, the bins at most about ``most``, evenly spaced over the array.

        Raises:
            ValueError: a value is not finite.
        """
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("values must be finite")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if most is not None and flat.size > most:
            step = -(-flat.size // most)
            flat = flat[:: step + 1 - step % 2]  # an odd step does not walk along one column of a power-of-two image
        self._count(flat.astype(np.float64))

    def _count(self, flat: np.ndarray) -> None:
        low, high = float(flat.min()), float(flat.max())
        if not self.width:
            span = max(high - low, abs(low), abs(high)) / (self.bins / 2)
            self.width = 2.0 ** math.ceil(math.log2(span)) if span > _FINEST else _FINEST
            self.first = math.floor(low / self.width)
            self.counts = np.zeros(1, np.int64)
        while not self._cover(math.floor(low / self.width), math.floor(high / self.width)):
            self._double()
        index = np.floor(flat / self.width).astype(np.int64) - self.first
        self.counts += np.bincount(index, minlength=len(self.counts))
        self.counted += flat.size

    def _cover(self, low: int, high: int) -> bool:
        """Stretch the bins to hold indices ``low`` to ``high``; false when that takes more than ``bins``."""
        first, last = min(self.first, low), max(self.first + len(self.counts) - 1, high)
        if last - first + 1 > self.bins:
            return False
        stretched = np.zeros(last - first + 1, np.int64)
        start = self.first - first
        stretched[start : start + len(self.counts)] = self.counts
        self.first, self.counts = first, stretched
        return True

    def _double(self) -> None:
        first = self.first // 2
        padded = np.concatenate([np.zeros(self.first - 2 * first, np.int64), self.counts])
        if len(padded) % 2:
            padded = np.append(padded, 0)
        self.first, self.counts, self.width = first, padded.reshape(-1, 2).sum(axis=1), self.width * 2

    @property
    def edges(self) -> np.ndarray:
        """Bin edges, one more than bins."""
        return (self.first + np.arange(len(self.counts) + 1)) * self.width

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin, kept inside the values seen."""
        return np.clip(self.edges[:-1] + self.width / 2, self.minimum, self.maximum)
