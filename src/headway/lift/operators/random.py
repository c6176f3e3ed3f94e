"""Random tensors, from torch's generator."""

from __future__ import annotations

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator
from headway.lift.tensors import torch_dtype


@operator("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", random=True)
def _random(node: Node) -> Run:
    shape, kind = node.get("shape"), node.get("dtype")
    normal = "Normal" in node.operator

    def run(like: Tensor | None = None) -> Tensor:
        sizes = shape if like is None else like.shape
        dtype = torch_dtype(kind) if kind else (torch.float32 if like is None else like.dtype)
        device = None if like is None else like.device
        if normal:
            return torch.randn(sizes, dtype=dtype, device=device) * node.get("scale", 1.0) + node.get("mean", 0.0)
        low, high = node.get("low", 0.0), node.get("high", 1.0)
        return torch.rand(sizes, dtype=dtype, device=device) * (high - low) + low

    return run


@operator("Bernoulli", random=True)
def _bernoulli(node: Node) -> Run:
    kind = node.get("dtype")
    return lambda x: torch.bernoulli(x).to(torch_dtype(kind) if kind else x.dtype)
