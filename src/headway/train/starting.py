"""The hidden float weights behind integer ones, started from the weights they were rounded from.

Rounding loses where between two codes a weight lay; a model from before quantization still knows. Quantizers rename weights, so they
are recognised by their values: same shape (or transposed), and nearer than any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headway.lift import Lifted

FARTHEST = 0.5
"""A weight counts as the source of a rounded one when their distance is below this share of its own norm."""


@torch.no_grad()
def begin_from(student: Lifted, start: Lifted, masks: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the weights behind integers that now start from ``start``'s values; a weight without a likely source is left as it is.

    Args:
        masks: 0 where a weight stays zero.
    """
    sources = [weight.detach() for name, weight in start.weights.items() if weight.ndim >= 2 and name not in start.latents]
    begun = []
    for name in student.latents:
        weight = student.weights[name]
        source = _nearest(weight, sources) if weight.ndim >= 2 else None
        if source is not None:
            weight.copy_(source * masks[name] if name in masks else source)
            begun.append(name)
    return tuple(begun)


def _nearest(weight: nn.Parameter, sources: list[Tensor]) -> Tensor | None:
    best, least = None, FARTHEST
    for source in sources:
        for candidate in (source, source.T) if source.ndim == 2 else (source,):
            if candidate.shape == weight.shape and bool(candidate.any()):
                distance = float((candidate - weight).norm() / candidate.norm())
                if distance < least:
                    best, least = candidate, distance
    return best
