"""How far the answers move when a channel is masked, to first order (Molchanov et al., arXiv 1906.10771, eq. 8), without labels.

Their loss is replaced by the answers themselves: with a random sign for every output, the gradient of the signed sum gives an unbiased
estimate of the squared change of all outputs (the Gauss-Newton term of a self-distillation loss, whose gradient is zero).
"""

from __future__ import annotations

import numpy as np
import torch

from headway.compress.context import Context
from headway.compress.coupling import Coupling
from headway.lift import lift
from headway.model import Model

NEEDS_SAMPLES = True
DRAWS, BATCH, ROWS = 16, 16, 128


def score(coupling: Coupling, context: Context) -> dict[int, float]:
    """The mean over draws of (sum of gradient times weight over the slices that read a unit) squared."""
    lifted = lift(Model.from_proto(coupling.proto, "scored", "onnx"))
    lifted.eval()
    signs = torch.Generator().manual_seed(context.seed)
    rows = min(context.rows, ROWS)
    result = {unit: 0.0 for family in coupling.families for unit in family.units}
    keys = [(key, row) for key, row in coupling.slices.items() if key in coupling.consumed and key[0] in lifted.weights]
    for draw in range(DRAWS):
        begin = draw * BATCH % max(rows - BATCH + 1, 1)
        inputs = {name: torch.from_numpy(np.array(array[begin : begin + BATCH])) for name, array in context.samples.items()}
        lifted.zero_grad(set_to_none=True)
        floats = [value for value in lifted(inputs).values() if value.dtype.is_floating_point]
        total = sum((value * (torch.randint(0, 2, value.shape, generator=signs) * 2 - 1)).sum() for value in floats)
        total.backward()
        for unit, value in _sums(lifted.weights, keys, result).items():
            result[unit] += value**2 / DRAWS
    return result


def _sums(
    weights: dict[str, torch.nn.Parameter], keys: list[tuple[tuple[str, int], np.ndarray]], units: dict[int, float]
) -> dict[int, float]:
    sums = dict.fromkeys(units, 0.0)
    for (name, axis), row in keys:
        weight = weights[name]
        if weight.grad is None:
            continue
        moved = (weight.detach().double() * weight.grad.double()).movedim(axis, 0).reshape(len(row), -1).sum(dim=1)
        for unit, value in zip(row.tolist(), moved.tolist(), strict=True):
            if unit in sums:
                sums[unit] += value
    return sums
