"""Reading and writing by index: gather, scatter, one-hot, top k, arg max, sorting out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator
from headway.lift.tensors import ints

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _places(node: Node, index: Tensor, size: int) -> Tensor:
    """Ids counted from 0; negative ones count from the end.

    Raises:
        DataError: an id lies outside the axis.
    """
    index = index.to(torch.int64)
    if not index.numel():
        return index
    low, high = (int(bound) for bound in index.aminmax())
    if low < -size or high >= size:
        raise node.misfit(f"must get ids between {-size} and {size - 1}, got {low} to {high}; give ids that the table has")
    return torch.where(index < 0, index + size, index) if low < 0 else index


@operator("Gather")
def _gather(node: Node) -> Run:
    axis = node.get("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        at = axis % x.dim()
        flat = _places(node, index.reshape(-1), x.shape[at])
        return x.index_select(at, flat).reshape((*x.shape[:at], *index.shape, *x.shape[at + 1 :]))

    return run


@operator("GatherElements")
def _gather_elements(node: Node) -> Run:
    axis = node.get("axis", 0)
    return lambda x, index: torch.gather(x, axis, _places(node, index, x.shape[axis]))


@operator("GatherND")
def _gather_nd(node: Node) -> Run:
    batch = node.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        places = [_places(node, part, x.shape[batch + position]) for position, part in enumerate(index.unbind(-1))]
        rank = index.dim() - 1
        rows = [
            torch.arange(index.shape[axis], device=x.device).reshape([-1 if position == axis else 1 for position in range(rank)])
            for axis in range(batch)
        ]
        return x[tuple(rows + places)]

    return run


@operator("ScatterElements", "Scatter")
def _scatter_elements(node: Node) -> Run:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        places = _places(node, index, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, places, updates)
        return x.scatter_reduce(axis, places, updates, _REDUCE[reduction])

    return run


@operator("ScatterND")
def _scatter_nd(node: Node) -> Run:
    reduction = node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        depth = index.shape[-1]
        flat = torch.zeros(index.shape[:-1], dtype=torch.int64, device=x.device)
        for position, part in enumerate(index.unbind(-1)):
            flat = flat * x.shape[position] + _places(node, part, x.shape[position])
        rows = x.reshape(-1, *x.shape[depth:]) if depth < x.dim() else x.reshape(-1)
        changes = updates.reshape(flat.numel(), *rows.shape[1:])
        if reduction == "none":
            return rows.index_copy(0, flat.reshape(-1), changes).reshape(x.shape)
        if reduction == "add":
            return rows.index_add(0, flat.reshape(-1), changes).reshape(x.shape)
        return rows.index_reduce(0, flat.reshape(-1), changes, _REDUCE[reduction]).reshape(x.shape)

    return run


@operator("OneHot")
def _one_hot(node: Node) -> Run:
    axis = node.get("axis", -1)

    def run(index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        size = int(depth)
        hot = (index.to(torch.int64) % size if not index.is_floating_point() else index.long() % size).unsqueeze(-1)
        inside = ((index >= -size) & (index < size)).unsqueeze(-1)
        chosen = (hot == torch.arange(size, device=index.device)) & inside
        return torch.where(chosen, values[1], values[0]).movedim(-1, axis)

    return run


@operator("TopK", host=(1,))
def _top(node: Node) -> Run:
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))

    def run(x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, int(count)), places.narrow(axis, 0, int(count))

    return run


@operator("ArgMax", "ArgMin")
def _arg(node: Node) -> Run:
    axis, keep, last = node.get("axis", 0), bool(node.get("keepdims", 1)), node.get("select_last_index", 0)
    function: Any = torch.argmax if node.operator == "ArgMax" else torch.argmin

    def run(x: Tensor) -> Tensor:
        if last:
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)
        return function(x, axis, keepdim=keep)

    return run


@operator("NonZero")
def _non_zero(_: Node) -> Run:
    return lambda x: torch.nonzero(x).T.contiguous()


@operator("Compress")
def _compress(node: Node) -> Run:
    axis = node.get("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        chosen = torch.nonzero(condition).reshape(-1)
        return x.reshape(-1)[chosen] if axis is None else x.index_select(axis, chosen)

    return run


@operator("Unique")
def _unique(node: Node) -> Run:
    axis, ordered = node.get("axis"), node.get("sorted", 1)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=axis)
        inverse = inverse.reshape(-1)
        size = counts.numel()
        first = torch.full((size,), inverse.numel(), dtype=torch.int64, device=x.device)
        first = first.scatter_reduce(0, inverse, torch.arange(inverse.numel(), device=x.device), "amin")
        if not ordered:
            order = torch.argsort(first)
            values, first, counts = values.index_select(axis or 0, order), first[order], counts[order]
            inverse = torch.argsort(order)[inverse]
        return values, first, inverse, counts

    return run


@operator("CumSum", "CumProd", host=(1,))
def _cumulative(node: Node) -> Run:
    exclusive, backward, sums = node.get("exclusive", 0), node.get("reverse", 0), node.operator == "CumSum"

    def run(x: Tensor, axis: Tensor) -> Tensor:
        along = ints(axis)[0]
        x = x.flip(along) if backward else x
        made = (torch.cumsum if sums else torch.cumprod)(x, along).to(x.dtype)
        if exclusive:
            edge = torch.full_like(made.narrow(along, 0, 1), 0 if sums else 1)
            made = torch.cat((edge, made.narrow(along, 0, made.shape[along] - 1)), along)
        return made.flip(along) if backward else made

    return run


@operator("TensorScatter")
def _write(node: Node) -> Run:
    axis, circular = node.get("axis", -2), node.get("mode", "linear") == "circular"

    def run(x: Tensor, updates: Tensor, starts: Tensor | None = None) -> Tensor:
        along = axis % x.dim()
        first = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device) if starts is None else starts.long()
        places = first.unsqueeze(1) + torch.arange(updates.shape[along], device=x.device)
        places = places % x.shape[along] if circular else places
        shape = [-1 if position in (0, along) else 1 for position in range(x.dim())]
        shape[0], shape[along] = places.shape
        return x.scatter(along, places.reshape(shape).expand(updates.shape), updates)

    return run
