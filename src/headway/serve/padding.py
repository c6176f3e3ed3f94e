"""Requests of different lengths in one batch, where the model's owner says what to fill them up with. Arrays only; no sessions, no sockets.

The rule: requests share a batch when each free dimension of theirs falls between the same two of the sizes 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ... ; inside a
batch all are filled up to the longest. So at most half of a row is filling, a third on average at worst, and a request that runs alone is
not filled at all. Whether filling leaves the model's answers as they are is tried on the golden set before anything is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headway.records import ConfigError, TensorSpec

Shape = tuple[int, ...]


class Padding:
    """Values to fill each input of free length with, and which outputs must be cut back.

    Args:
        values: by input name.

    Raises:
        ConfigError: a name that is no input of free length, one left out, or a free dimension without a name, which cannot be followed to the outputs.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], values: Mapping[str, float]) -> None:
        self._values = dict(values)
        self._dimensions = {spec.name: _free(spec) for spec in inputs}
        self._cuts = {spec.name: _free(spec) for spec in outputs}
        free = [name for name, dimensions in self._dimensions.items() if dimensions]
        if set(values) != set(free):
            raise ConfigError(
                f"padding needs a value for each input of free length, {free or 'of which this model has none'}, got {sorted(values)}"
            )
        known = {symbol for dimensions in self._dimensions.values() for symbol in dimensions.values()}
        strange = {symbol for dimensions in self._cuts.values() for symbol in dimensions.values()} - known
        if strange or "?" in known:
            raise ConfigError(
                f"padding needs free dimensions that have names, the same in inputs and outputs, got {sorted(strange or known)}"
            )

    def key(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """What requests must have in common to share a batch, from the shapes of the inputs beyond the rows."""
        return tuple(
            tuple(rung(size) if place + 1 in self._dimensions[name] else size for place, size in enumerate(shape))
            for name, shape in zip(self._dimensions, shapes, strict=True)
        )

    def join(self, name: str, arrays: Sequence[np.ndarray], least: int = 0) -> np.ndarray:
        """Several requests' arrays of one input, one below the other, filled up to the longest, and to at least ``least`` where they are free."""
        free = self._dimensions[name]
        shape = [max(*(array.shape[place] for array in arrays), least if place in free else 0) for place in range(arrays[0].ndim)]
        joined = np.full((sum(len(array) for array in arrays), *shape[1:]), self._values.get(name, 0), arrays[0].dtype)
        first = 0
        for array in arrays:
            joined[(slice(first, first + len(array)), *(slice(size) for size in array.shape[1:]))] = array
            first += len(array)
        return joined

    def cut(self, name: str, array: np.ndarray, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """One request's part of an output without the filling; ``feeds`` are the request's own inputs."""
        free = self._cuts[name]
        if not free:
            return array
        sizes = {symbol: feeds[own].shape[place] for own, dimensions in self._dimensions.items() for place, symbol in dimensions.items()}
        return array[tuple(slice(sizes[free[place]]) if place in free else slice(None) for place in range(array.ndim))]


def rung(size: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, ... that is at least ``size``."""
    power = 1 << (size - 1).bit_length()
    return 3 * power // 4 if power >= 4 and size <= 3 * power // 4 else power


def _free(spec: TensorSpec) -> dict[int, str]:
    """Places of a tensor's free dimensions beyond the rows, with their names."""
    return {place: size for place, size in enumerate(spec.shape) if place and isinstance(size, str)}
