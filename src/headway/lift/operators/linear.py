"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator


@operator("MatMul")
def _matmul(_: Node) -> Run:
    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.is_floating_point():
            return torch.matmul(a, b)
        return torch.matmul(a.long(), b.long()).to(a.dtype)

    return run


@operator("Gemm")
def _gemm(node: Node) -> Run:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    turn_a, turn_b = node.get("transA", 0), node.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if alpha == beta == 1.0 and (c is None or c.dim() == 1) and not turn_a and a.is_floating_point():
            return functional.linear(a, b if turn_b else b.T, c)
        made = (a.T if turn_a else a) @ (b.T if turn_b else b)
        made = made if alpha == 1.0 else made * alpha
        return made if c is None else made + (c if beta == 1.0 else c * beta)

    return run


@operator("Einsum")
def _einsum(node: Node) -> Run:
    equation = node.get("equation")
    return lambda *values: torch.einsum(equation, *values)


@operator("MatMulInteger")
def _matmul_integer(_: Node) -> Run:
    def run(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
        floating = a.is_floating_point() or b.is_floating_point()
        kind = torch.float64 if floating else torch.int64  # both hold the sums exactly
        left, right = a.to(kind), b.to(kind)
        if a_zero is not None:
            left = left - (a_zero.to(kind).unsqueeze(-1) if a_zero.dim() == 1 and a_zero.numel() > 1 else a_zero.to(kind))
        if b_zero is not None:
            right = right - b_zero.to(kind)
        sums = torch.matmul(left, right)
        return sums if floating else sums.to(torch.int32)

    return run
