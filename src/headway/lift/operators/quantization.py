"""Quantize and dequantize with straight-through gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.quantizing import lsq_factor, quantized, spread, weaker
from headway.lift.registry import Run, operator
from headway.lift.tensors import DTYPES, RANGES

_KINDS = {torch.uint8: 2, torch.int8: 3, torch.uint16: 4, torch.int16: 5, torch.int32: 6}


@operator("QuantizeLinear")
def _quantize(node: Node) -> Run:
    axis, block, asked = node.get("axis", 1), node.get("block_size", 0), node.get("output_dtype", 0)
    if asked and asked not in RANGES:
        raise node.refuse("must give integers, got a narrow float type; no other is lifted")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        kind = asked or (2 if zero is None else node.kind(2) or _KINDS.get(zero.dtype, 0))
        if kind not in RANGES:
            raise node.refuse(f"must give integers, got {zero.dtype if zero is not None else ''}; no other type is lifted")
        size = spread(scale, x, axis, block).to(x.dtype)
        offset = None if zero is None else spread(zero, x, axis, block)
        made = quantized(x, size, offset, RANGES[kind], lsq_factor(x, scale, RANGES[kind], batched=True) if node.scales else 0.0)
        return made if node.ghost else made.detach().to(DTYPES[kind])

    return run


@operator("DequantizeLinear")
def _dequantize(node: Node) -> Run:
    axis, block, latent = node.get("axis", 1), node.get("block_size", 0), RANGES.get(node.latent)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        offset = None if zero is None else spread(zero, x, axis, block).to(scale.dtype)
        step = scale
        if node.scales and latent is not None:
            step = weaker(scale, lsq_factor(x, scale, latent, batched=False))
        elif node.scales and x.is_floating_point():
            step = weaker(scale, lsq_factor(x, scale, (0, 255 if offset is None or bool((offset > 0).any()) else 127), batched=True))
        step = spread(step, x, axis, block)
        whole = x.to(scale.dtype) if latent is None else quantized(x.to(scale.dtype), step, offset, latent)
        return (whole if offset is None else whole - offset) * step

    return run


@operator("DynamicQuantizeLinear")
def _dynamic(_: Node) -> Run:
    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
        scale = (high - low) / 255
        zero = torch.clamp(torch.round(-low / scale), 0, 255)
        return torch.clamp(torch.round(x / scale) + zero, 0, 255).to(torch.uint8), scale, zero.to(torch.uint8)

    return run
