"""Rows of a dataset as the feeds of requests and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Feeds = Mapping[str, np.ndarray]


def rows(inputs: Feeds, start: int, count: int) -> dict[str, np.ndarray]:
    """``count`` rows from ``start`` on, wrapping around at the end; every array keeps its other dimensions."""
    size = len(next(iter(inputs.values())))
    at = np.arange(start, start + count) % size
    return {name: np.ascontiguousarray(array[at]) for name, array in inputs.items()}


def stack(feeds: Sequence[Feeds]) -> dict[str, np.ndarray]:
    """Several requests as one batch."""
    if len(feeds) == 1:
        return dict(feeds[0])
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
