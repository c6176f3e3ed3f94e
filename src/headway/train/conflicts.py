"""Gradients of several losses put together: Yu et al., "Gradient surgery for multi-task learning" (PCGrad, arXiv 2001.06782, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def project(gradients: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
    """The sum of flat gradients, each first freed of what works against another.

    A gradient with a negative product with another loses its part along it. The others are gone through in random order, which decides
    the outcome from three gradients on; without a generator it is the order given.
    """
    total = torch.zeros_like(gradients[0])
    for own, gradient in enumerate(gradients):
        freed = gradient.clone()
        order = range(len(gradients)) if generator is None else torch.randperm(len(gradients), generator=generator).tolist()
        for other in order:
            if other != own:
                against = gradients[other]
                product = torch.dot(freed, against)
                if product < 0:
                    freed -= product / against.square().sum() * against
        total += freed
    return total


def into_gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor], *, conflicts: str, generator: torch.Generator) -> None:
    """Put the gradient of the losses into ``.grad``; a parameter that no loss reaches keeps none."""
    if conflicts == "sum" or len(losses) == 1:
        torch.stack(list(losses)).sum().backward()
        return
    each = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses if loss.requires_grad]
    reached = [any(grads[index] is not None for grads in each) for index in range(len(parameters))]
    flat = []
    for grads in each:
        pairs = zip(parameters, grads, reached, strict=True)
        parts = [torch.zeros_like(weight) if grad is None else grad for weight, grad, is_reached in pairs if is_reached]
        flat.append(torch.cat([part.reshape(-1) for part in parts]))
    rest, start = project(flat, generator), 0
    for weight, is_reached in zip(parameters, reached, strict=True):
        if is_reached:
            weight.grad = rest[start : start + weight.numel()].view_as(weight).clone()
            start += weight.numel()
