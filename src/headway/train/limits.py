"""What training must not undo: zeros that pruning made, and scales above zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headway.lift import Lifted
from headway.model import Model

PRUNED_SHARE = 0.5
"""From this share of zeros on, those of an integer weight count as pruned; below it, rounding may have made them."""
SMALLEST_SCALE = 1 / 16
"""A scale never falls below this share of where it started."""
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def scale_names(model: Model) -> frozenset[str]:
    """Names of the scales of the graph's quantize and dequantize nodes."""
    graph = model.to_proto().graph
    return frozenset(node.input[1] for node in graph.node if node.op_type in QUANTIZERS and len(node.input) > 1)


def pruned(lifted: Lifted) -> dict[str, Tensor]:
    """1 where a weight may move and 0 where it stays zero, for weights of two or more axes that hold zeros.

    Behind an integer weight, rounding makes zeros too: they count only in a weight that is zero for at least half.
    """
    masks = {}
    for name, weight in lifted.weights.items():
        zero = weight.detach() == 0
        share = float(zero.float().mean()) if weight.ndim >= 2 else 0.0
        if share > 0 and (name not in lifted.latents or share >= PRUNED_SHARE):
            masks[name] = (~zero).to(weight.dtype)
    return masks


class Limits:
    """Masks and floors, put in force after every step."""

    def __init__(self, weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], scales: frozenset[str]) -> None:
        """Takes the weights as they stand at the start."""
        self.masked = [(weights[name], mask) for name, mask in masks.items()]
        self.floored = [(weights[name], weights[name].detach().abs() * SMALLEST_SCALE) for name in sorted(scales & set(weights))]

    def on_gradients(self) -> None:
        """No gradient where a weight stays zero, so that clipping does not count it."""
        for weight, mask in self.masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)

    @torch.no_grad()
    def on_weights(self) -> None:
        """Zeros zero, scales above their floor."""
        for weight, mask in self.masked:
            weight.mul_(mask)
        for weight, floor in self.floored:
            torch.maximum(weight, floor, out=weight)
