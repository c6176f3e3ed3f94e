"""Sums, means, extrema and norms over axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.operators.elementwise import widened
from headway.lift.registry import Run, operator
from headway.lift.tensors import ints

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else x.double().mean(axes, keepdim=keep).to(x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(highest: bool) -> Reduce:
    def run(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if any(x.shape[axis] == 0 for axis in axes):
            edge = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
            low, high = (-float("inf"), float("inf")) if x.is_floating_point() else (edge.min, edge.max)
            return torch.full_like(_sum(x, axes, keep), low if highest else high)
        return (torch.amax if highest else torch.amin)(x, axes, keep)

    return run


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x * x, axes, keep).sqrt() if x.is_floating_point() else _sum(x.double() ** 2, axes, keep).sqrt().to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keep) if x.is_floating_point() else torch.logsumexp(x.double(), axes, keep).to(x.dtype)


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _product,
    "ReduceMax": _extreme(highest=True),
    "ReduceMin": _extreme(highest=False),
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": _norm,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": _log_sum_exp,
}


@operator(*_REDUCTIONS, host=(1,))
def _reduce(node: Node) -> Run:
    fixed, keep, skip = node.get("axes"), bool(node.get("keepdims", 1)), node.get("noop_with_empty_axes", 0)
    function = _REDUCTIONS[node.operator]

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = (fixed or []) if axes is None else ints(axes)
        if not chosen and skip:
            return _elementwise(node.operator, x)
        chosen = chosen or list(range(x.dim()))
        return widened(lambda value: function(value, chosen, keep))(x) if x.dim() else function(x.reshape(1), [0], False)

    return run


def _elementwise(name: str, x: Tensor) -> Tensor:
    if name in ("ReduceL1", "ReduceL2"):
        return x.abs()
    if name == "ReduceSumSquare":
        return x * x
    return x.log() if name == "ReduceLogSum" else x
