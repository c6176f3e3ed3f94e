"""What a channel carries into the layers that read it: its mean square times the squared weights that read it, as a share of each layer.

In the spirit of ThiNet (Luo et al., arXiv 1707.06342): a channel counts by what its readers lose, not by its own size.
"""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from headway.compress.activations import moments
from headway.compress.context import Context
from headway.compress.coupling import Coupling
from headway.compress.graph import initializers

NEEDS_SAMPLES = True


def score(coupling: Coupling, context: Context) -> dict[int, float]:
    """The sum over readers of the share that a unit has in the reader's input energy (cross terms left out)."""
    readers = [layer for layer in coupling.layers if layer.inside is not None and not layer.tied and (layer.inside >= 0).any()]
    seen = moments(coupling.proto, readers, context.samples)
    fixed = initializers(coupling.proto.graph)
    result = {unit: 0.0 for family in coupling.families for unit in family.units}
    for layer in readers:
        weight = np.square(numpy_helper.to_array(fixed[layer.weight]).astype(np.float64))
        energy = np.moveaxis(weight, layer.weight_axis, 0).reshape(weight.shape[layer.weight_axis], -1).sum(axis=1)
        energy = energy * np.diag(seen[layer.inside_value])[:-1]
        total = energy.sum() or 1.0
        assert layer.inside is not None
        for unit, value in zip(layer.inside.tolist(), (energy / total).tolist(), strict=True):
            if unit in result:
                result[unit] += value
    return result
