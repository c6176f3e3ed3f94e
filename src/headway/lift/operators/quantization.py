"""Quantize and dequantize with straight-through gradients."""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from headway.lift.node import Node
from headway.lift.quantizing import lsq_factor, quantized, spread, weaker
from headway.lift.registry import Run, operator
from headway.lift.tensors import DTYPES, RANGES

_KINDS = {
    torch.uint8: TensorProto.UINT8, torch.int8: TensorProto.INT8, torch.uint16: TensorProto.UINT16, torch.int16: TensorProto.INT16,
    torch.int32: TensorProto.INT32,
}  # fmt: skip


def _kind(zero: Tensor | None) -> int:
    """ONNX element type that a zero point tells; 0 when integers of this type are not lifted."""
    return TensorProto.UINT8 if zero is None else _KINDS.get(zero.dtype, 0)


@operator("QuantizeLinear")
def _quantize(node: Node) -> Run:
    axis, block, known = node.get("axis", 1), node.get("block_size", 0), node.quantizes_to
    if known and known not in RANGES:
        raise node.refuse("must give integers, got a narrow float type; no other is lifted")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        kind = known or _kind(zero)
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
        carried = RANGES.get(node.carried or _kind(zero)) if x.is_floating_point() else None
        bounds = latent or carried
        factor = lsq_factor(x, scale, bounds, batched=latent is None) if node.scales and bounds is not None else 1.0
        step = spread(weaker(scale, factor), x, axis, block)
        whole = x.to(scale.dtype) if latent is None else quantized(x.to(scale.dtype), step, offset, latent)
        return (whole if offset is None else whole - offset) * step

    return run


@operator("DynamicQuantizeLinear")
def _dynamic(node: Node) -> Run:
    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = x.detach()
        low, high = torch.clamp(seen.min(), max=0), torch.clamp(seen.max(), min=0)
        scale = torch.where(high > low, (high - low) / 255, torch.ones_like(high))
        zero = torch.clamp(torch.round(-low / scale), 0, 255)
        made = quantized(x, scale, zero, RANGES[TensorProto.UINT8])
        return made if node.ghost else made.detach().to(torch.uint8), scale, zero.to(torch.uint8)

    return run
