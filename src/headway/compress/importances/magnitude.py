"""Size of the weights of a channel: L2 over everything that goes with it, relative to its family (Li et al., arXiv 1608.08710, sec. 3)."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from headway.compress.context import Context
from headway.compress.coupling import Coupling
from headway.compress.graph import initializers

NEEDS_SAMPLES = False


def score(coupling: Coupling, context: Context) -> dict[int, float]:
    """Each unit's share of the squared weights of its family, times the number of units: 1 for an average unit."""
    fixed = initializers(coupling.proto.graph)
    sums: dict[int, float] = {}
    for (name, axis), row in coupling.slices.items():
        if (name, axis) in coupling.consumed or len(fixed[name].dims) < 2:
            continue
        array = np.square(numpy_helper.to_array(fixed[name]).astype(np.float64))
        by_index = np.moveaxis(array, axis, 0).reshape(len(row), -1).sum(axis=1)
        for unit, value in zip(row.tolist(), by_index.tolist(), strict=True):
            sums[unit] = sums.get(unit, 0.0) + value
    result = {}
    for family in coupling.families:
        mean = sum(sums.get(unit, 0.0) for unit in family.units) / len(family.units) or 1.0
        result.update({unit: sums.get(unit, 0.0) / mean for unit in family.units})
    return result
