"""Rounding to integers with gradients: straight through to the value, and LSQ's to the scale.

Bengio et al., "Estimating or propagating gradients through stochastic neurons" (arXiv 1308.3432): rounding passes the gradient inside
the range and stops it outside. Esser et al., "Learned step size quantization" (arXiv 1902.08153), equations 3 to 5 and section 2.2:
the scale's gradient is ``round(v) - v`` inside the range and the bound outside, times ``1 / sqrt(N Q)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headway.lift.tensors import RANGES


@dataclass(frozen=True, slots=True)
class Grid:
    """How floats and the integers of one weight belong together; ``kind`` is the ONNX element type of the integers."""

    kind: int
    scale_name: str
    scale: Tensor
    zero: Tensor | None
    axis: int
    block: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return RANGES[self.kind]


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return torch.round(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Weaker(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def spread(value: Tensor, like: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point shaped to meet ``like``: one for all, one for each index of ``axis``, or one for each block along it."""
    if value.numel() == 1 and value.dim() <= 1:
        return value.reshape(())
    axis = axis % like.dim()
    if value.dim() == 1 and not block:
        return value.reshape([-1 if position == axis else 1 for position in range(like.dim())])
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, like.shape[axis])
    return value


def quantized(value: Tensor, scale: Tensor, zero: Tensor | None, bounds: tuple[int, int], weaken: float = 0.0) -> Tensor:
    """Integers held as floats: ``clamp(round(value / scale) + zero)`` with both gradients; ``weaken`` > 0 scales the scale's."""
    if weaken and scale.requires_grad:
        scale = _Weaker.apply(scale, weaken)
    offset = 0 if zero is None else zero.to(value.dtype)
    return torch.clamp(_Round.apply(value / scale) + offset, bounds[0], bounds[1])


def dequantized(value: Tensor, grid: Grid, scale: Tensor) -> Tensor:
    """The floats that integers stand for."""
    centred = value.to(scale.dtype)
    if grid.zero is not None:
        centred = centred - spread(grid.zero, value, grid.axis, grid.block).to(scale.dtype)
    return centred * spread(scale, value, grid.axis, grid.block)


def weaker(scale: Tensor, factor: float) -> Tensor:
    """The same scale, whose gradient is multiplied by ``factor``."""
    return _Weaker.apply(scale, factor) if scale.requires_grad else scale


def lsq_factor(value: Tensor, scale: Tensor, bounds: tuple[int, int], batched: bool) -> float:
    """``1 / sqrt(N Q)``: N values of one sample (or of one weight) share one scale, Q is the largest integer (LSQ, section 2.2)."""
    count = value.numel() / (value.shape[0] if batched and value.dim() else 1) / (1 if batched else scale.numel())
    return float(1.0 / (max(count, 1.0) * max(bounds[1], 1)) ** 0.5)
