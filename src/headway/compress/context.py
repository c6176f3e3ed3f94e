"""What a technique may look at besides the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Context:
    """Calibration samples, the target's instruction sets, and the seed. Two contexts are equal only when they are the same object.

    Attributes:
        samples: one array per model input, first axis is the sample; only the calibration part of the data. May be empty.
        instruction_sets: as in ``Environment`` (``avx512_vnni``, ``amx_int8``, ``avx512_bf16``, ``asimddp``...).
        seed: every random choice starts here.
    """

    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    instruction_sets: frozenset[str] = frozenset()
    seed: int = 0

    @property
    def rows(self) -> int:
        """Number of samples."""
        return min((len(array) for array in self.samples.values()), default=0)
