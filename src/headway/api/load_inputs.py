"""What is sent: labelled samples without their labels, or made-up inputs that fit the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import headway.data
from headway.measure.rows import rows
from headway.model import synthetic_inputs
from headway.records import ConfigError, TensorSpec

REQUESTS_KEPT = 64
"""Requests prepared for a run, which are then sent in turn."""
Feeds = dict[str, np.ndarray]


class Samples:
    """Rows to make requests of.

    Attributes:
        made_up: whether the values mean nothing; they rarely change the time, but can.
        size: rows that every request must hold, where the model's first dimension is fixed; none: any number.
    """

    def __init__(self, specs: tuple[TensorSpec, ...], data: str, seed: int) -> None:
        self._specs = specs
        self.made_up = not data
        fixed = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)}
        self.size: int | None = max(fixed) if fixed else None
        if data:
            self._inputs: Mapping[str, np.ndarray] = headway.data.check(headway.data.load(data, inputs=specs), specs).inputs
        else:
            self._inputs = self._made(REQUESTS_KEPT, seed, None)

    def __len__(self) -> int:
        return len(next(iter(self._inputs.values())))

    def requests(self, count: int = REQUESTS_KEPT, size: int = 1) -> list[Feeds]:
        """Up to ``count`` different requests of ``size`` rows each.

        Raises:
            ConfigError: the model takes another number of rows, and no other.
        """
        size = self._fitting(size)
        return [rows(self._inputs, at * size, size) for at in range(min(count, max(1, len(self) // size)))]

    def fresh(self, count: int, seed: int) -> list[Feeds]:
        """``count`` requests that differ from those of any other seed as far as the inputs allow.

        Floats are made up with the sizes of these samples. Other inputs must stay valid (an id must be in its table), so each element is one
        that stands at its place in some row of the samples.
        """
        size = self._fitting(1)
        made = self._made(count, seed, self._inputs)
        rng = np.random.default_rng(seed)
        for name, array in made.items():
            known = self._inputs[name]
            if not self.made_up and array.dtype.kind in "iub" and known.shape[1:] == array.shape[1:]:
                made[name] = np.take_along_axis(known, rng.integers(0, len(known), array.shape), axis=0)
        return [rows(made, at * size, size) for at in range(count)]

    def _made(self, count: int, seed: int, like: Mapping[str, np.ndarray] | None) -> Feeds:
        if self.size is None:
            return synthetic_inputs(self._specs, count, seed, like=like)
        parts = [synthetic_inputs(self._specs, self.size, 1_000_003 * seed + at, like=like) for at in range(count)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _fitting(self, size: int) -> int:
        if self.size is None or size in (1, self.size):
            return self.size or size
        raise ConfigError(
            f"requests of {size} rows must be possible, and this model takes exactly {self.size}; export it with a free batch size"
        )
