"""Shapes and places: reshape, transpose, slice, join, repeat, pad; shapes are computed on the CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator
from headway.lift.tensors import ints, torch_dtype


@operator("Shape")
def _shape(node: Node) -> Run:
    start, end = node.get("start", 0), node.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@operator("Constant")
def _constant(node: Node) -> Run:
    name, value = next(iter(node.attributes.items()))
    if name == "sparse_value":
        raise node.refuse("must hold a dense value, got a sparse one; make it dense")
    if name.startswith("value_string"):
        raise node.refuse("must hold numbers, got strings; take text processing out of the model")
    if name != "value":
        value = torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)
    return lambda: value


@operator("ConstantOfShape")
def _constant_of_shape(node: Node) -> Run:
    value = node.get("value", torch.zeros(1)).reshape(())
    return lambda shape: value.expand(ints(shape)).clone()


@operator("Reshape", host=(1,))
def _reshape(node: Node) -> Run:
    allow_zero = node.get("allowzero", 0)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = ints(shape)
        if not allow_zero and 0 in sizes:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        if -1 in sizes and x.numel() == 0:
            known = math.prod(size for size in sizes if size != -1)
            sizes = [0 if size == -1 and not known else size for size in sizes]
        return x.reshape(sizes)

    return run


@operator("Transpose")
def _transpose(node: Node) -> Run:
    order = node.get("perm")
    return (lambda x: x.permute(order)) if order is not None else (lambda x: x.permute(tuple(reversed(range(x.dim())))))


@operator("Flatten")
def _flatten(node: Node) -> Run:
    axis = node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        at = axis + x.dim() if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:at]), -1) if x.numel() else x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


@operator("Squeeze", host=(1,))
def _squeeze(node: Node) -> Run:
    fixed = node.get("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = fixed if axes is None else ints(axes)
        return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))

    return run


@operator("Unsqueeze", host=(1,))
def _unsqueeze(node: Node) -> Run:
    fixed = node.get("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = fixed if axes is None else ints(axes)
        rank = x.dim() + len(chosen)
        for axis in sorted(axis % rank for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Concat")
def _concat(node: Node) -> Run:
    axis = node.get("axis")
    return lambda *values: torch.cat(values, axis)


@operator("Split", host=(1,))
def _split(node: Node) -> Run:
    axis, fixed, count = node.get("axis", 0), node.get("split"), node.get("num_outputs", len(node.proto.output))

    def run(x: Tensor, split: Tensor | None = None) -> tuple[Tensor, ...]:
        sizes = fixed if split is None else ints(split)
        if sizes is None:
            each = -(-x.shape[axis] // count)
            sizes = [max(0, min(each, x.shape[axis] - position * each)) for position in range(count)]
        return tuple(torch.split(x, sizes, axis))

    return run


@operator("Slice", host=(1, 2, 3, 4))
def _slice(_: Node) -> Run:
    def run(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        first, last = ints(starts), ints(ends)
        along = list(range(len(first))) if axes is None else ints(axes)
        strides = [1] * len(first) if steps is None else ints(steps)
        index = [slice(None)] * x.dim()
        for start, end, position, step in zip(first, last, along, strides, strict=True):
            axis = position % x.dim()
            if step > 0:
                index[axis] = slice(start, end, step)
            else:
                chosen = range(x.shape[axis])[start : (None if end < -x.shape[axis] else end) : step]
                x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64, device=x.device))
        return x[tuple(index)] if index else x

    return run


@operator("Expand", host=(1,))
def _expand(_: Node) -> Run:
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, ints(shape)))


@operator("Tile", host=(1,))
def _tile(_: Node) -> Run:
    return lambda x, repeats: x.repeat(ints(repeats))


@operator("Range")
def _range(_: Node) -> Run:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        first, last, step = start.item(), limit.item(), delta.item()
        count = max(math.ceil((last - first) / step), 0)
        return (torch.arange(count, dtype=torch.float64 if start.is_floating_point() else torch.int64) * step + first).to(start.dtype)

    return run


@operator("Pad", host=(1, 3))
def _pad(node: Node) -> Run:
    mode = node.get("mode", "constant")

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        amounts = ints(pads)
        chosen = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in ints(axes)]
        before, after = amounts[: len(chosen)], amounts[len(chosen) :]
        if mode == "constant":
            flat = [0] * (2 * x.dim())
            for axis, low, high in zip(chosen, before, after, strict=True):
                flat[2 * (x.dim() - 1 - axis) : 2 * (x.dim() - axis)] = [low, high]
            return functional.pad(x, flat, value=0 if value is None else value.item())
        for axis, low, high in zip(chosen, before, after, strict=True):
            if low or high:
                x = x.index_select(axis, _mirror(torch.arange(-low, x.shape[axis] + high, device=x.device), x.shape[axis], mode))
        return x

    return run


def _mirror(places: Tensor, size: int, mode: str) -> Tensor:
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    folded = places % period
    return torch.where(folded < size, folded, period - folded)


@operator("CenterCropPad", host=(1,))
def _center(node: Node) -> Run:
    fixed = node.get("axes")

    def run(x: Tensor, shape: Tensor) -> Tensor:
        for axis, wanted in zip(fixed or range(x.dim()), ints(shape), strict=True):
            had = x.shape[axis]
            if wanted <= had:
                x = x.narrow(axis, (had - wanted) // 2, wanted)
            else:
                flat = [0] * (2 * x.dim())
                low = (wanted - had) // 2
                at = 2 * (x.dim() - 1 - axis % x.dim())
                flat[at : at + 2] = [low, wanted - had - low]
                x = functional.pad(x, flat)
        return x

    return run


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Run:
    block, columns_first = node.get("blocksize"), node.get("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if columns_first:
            return x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, -1, h * block, w * block)
        return x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block, w * block)

    return run


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Run:
    block = node.get("blocksize")
    order = (0, 1, 3, 5, 2, 4) if node.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // block, block, w // block, block).permute(order).reshape(n, -1, h // block, w // block)

    return run


@operator("ReverseSequence")
def _reverse(node: Node) -> Run:
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        moved = x.movedim((batch, time), (0, 1))
        places = torch.arange(moved.shape[1], device=x.device).expand(moved.shape[0], -1)
        ends = lengths.reshape(-1, 1)
        index = torch.where(places < ends, ends - 1 - places, places)
        rows = torch.arange(moved.shape[0], device=x.device).reshape(-1, 1)
        return moved[rows, index].movedim((0, 1), (batch, time))

    return run


@operator("Trilu", host=(1,))
def _triangle(node: Node) -> Run:
    function: Any = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=None: function(x, 0 if k is None else int(k))


@operator("EyeLike")
def _eye(node: Node) -> Run:
    from_type = node.get("dtype")
    dtype = torch_dtype(from_type) if from_type else None

    def run(x: Tensor) -> Tensor:
        made = torch.zeros(x.shape, dtype=dtype or x.dtype, device=x.device)
        made.diagonal(node.get("k", 0)).fill_(1)
        return made

    return run
