"""Rows of a weight by their Fisher information, so that what the answers hang on is kept best (FWSVD, Hsu et al., arXiv 2207.00112, sec. 3).

The paper takes the gradient of a loss on labels. Here the answers themselves, each with a random sign, stand for the loss, as in the importance
``taylor``: no labels are needed, and the gradient does not vanish where the model is sure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from onnx import ModelProto

from headway.compress.context import Context
from headway.compress.factors import Target
from headway.lift import lift
from headway.model import Model

DRAWS, BATCH, ROWS = 16, 16, 128


def moments(proto: ModelProto, found: Sequence[Target], context: Context) -> dict[str, np.ndarray]:
    """Diagonal matrices: squared gradients of a row's values, summed over what it makes, mean over draws."""
    lifted = lift(Model.from_proto(proto, "weighed", "onnx"))
    lifted.eval()
    signs = torch.Generator().manual_seed(context.seed)
    rows = min(context.rows, ROWS)
    wanted = {target.weight: lifted.weights[target.weight] for target in found if target.weight in lifted.weights}
    squares = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in wanted.items()}
    for draw in range(DRAWS):
        begin = draw * BATCH % max(rows - BATCH + 1, 1)
        inputs = {name: torch.from_numpy(np.array(array[begin : begin + BATCH])) for name, array in context.samples.items()}
        lifted.zero_grad(set_to_none=True)
        floats = [value for value in lifted(inputs).values() if value.dtype.is_floating_point]
        torch.stack([(value * (torch.randint(0, 2, value.shape, generator=signs) * 2 - 1)).sum() for value in floats]).sum().backward()
        for name, weight in wanted.items():
            if weight.grad is not None:
                squares[name] += weight.grad.detach().double().square() / DRAWS
    return {target.nodes[0]: _by_input(target, squares[target.weight].numpy()) for target in found if target.weight in squares}


def _by_input(target: Target, squares: np.ndarray) -> np.ndarray:
    first = squares.swapaxes(0, 1) if target.turned else squares
    return np.diag(first.reshape(len(first), -1).sum(axis=1))
