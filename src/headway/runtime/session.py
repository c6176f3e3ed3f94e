"""What every runtime gives back, and the cheap check of what goes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from headway.records import DataError, TensorSpec


class Session(Protocol):
    """One graph, loaded and ready. A session is used by one thread at a time; several sessions may run at once."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in the graph's order; arrays that later runs do not overwrite.

        Raises:
            DataError: names, types or shapes do not fit the inputs.
        """

    def close(self) -> None:
        """Let go of the graph's memory; the session is not used afterwards."""


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, np.ndarray]) -> None:
    """Nothing, when names, element types and fixed dimensions fit.

    Raises:
        DataError: the first that does not fit.
    """
    if len(feeds) != len(inputs) or any(spec.name not in feeds for spec in inputs):
        raise DataError(f"inputs must be named {[spec.name for spec in inputs]}, got {sorted(feeds)}")
    for spec in inputs:
        array = feeds[spec.name]
        if not isinstance(array, np.ndarray):
            raise DataError(f"input {spec.name!r} must be a numpy array, got {type(array).__name__}")
        if array.dtype.name != spec.dtype or not array.dtype.isnative:
            foreign = "" if array.dtype.isnative else " in foreign byte order"
            raise DataError(f"input {spec.name!r} must be of type {spec.dtype}, got {array.dtype.name}{foreign}")
        fixed = all(not isinstance(size, int) or size == got for size, got in zip(spec.shape, array.shape, strict=False))
        if len(array.shape) != len(spec.shape) or not fixed:
            raise DataError(f"input {spec.name!r} must have the shape {list(spec.shape)}, got {list(array.shape)}")
