"""Pools: maximum, average, p-norm; global ones; and unpooling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator, plain
from headway.lift.windows import pads_of

_MAX: dict[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}

plain(
    {
        "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
        "GlobalMaxPool": lambda x: torch.amax(x, tuple(range(2, x.dim())), keepdim=True),
    }
)


@operator("GlobalLpPool")
def _global_norm(node: Node) -> Run:
    order = node.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, order, tuple(range(2, x.dim())), keepdim=True)


class Window:
    """The windows of one call: kernel, strides, dilations and the padding with which every started window is whole."""

    def __init__(self, node: Node, x: Tensor) -> None:
        sizes = x.shape[2:]
        self.kernel = node.get("kernel_shape")
        rank = len(self.kernel)
        self.strides = node.get("strides") or [1] * rank
        self.dilations = node.get("dilations") or [1] * rank
        self.before, self.after = pads_of(node, sizes, self.kernel, self.strides, self.dilations)
        self.beyond = [0] * rank
        for axis in range(rank):
            span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            free = sizes[axis] + self.before[axis] + self.after[axis] - span
            count = (math.ceil if node.get("ceil_mode", 0) else math.floor)(free / self.strides[axis]) + 1
            if node.get("ceil_mode", 0) and (count - 1) * self.strides[axis] >= sizes[axis] + self.before[axis]:
                count -= 1
            self.beyond[axis] = max((count - 1) * self.strides[axis] - free, 0)

    def even(self) -> bool:
        """Whether torch's own padding does."""
        small = all(2 * pad <= width for pad, width in zip(self.before, self.kernel, strict=True))
        return small and self.before == self.after and not any(self.beyond)

    def padded(self, x: Tensor, value: float, beyond: bool = True) -> Tensor:
        """``x`` with its padding written out."""
        last = [after + (more if beyond else 0) for after, more in zip(self.after, self.beyond, strict=True)]
        return functional.pad(x, [each for pair in zip(reversed(self.before), reversed(last), strict=True) for each in pair], value=value)


@operator("MaxPool")
def _max(node: Node) -> Run:
    def run(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        window, kind = Window(node, x), x.dtype
        if not x.is_floating_point():
            x = x.float()
        pool = _MAX[x.dim() - 2]
        if window.even() and not node.makes(1):
            return pool(x, window.kernel, window.strides, window.before, window.dilations).to(kind)
        wide = window.padded(x, -float("inf"))
        if not node.makes(1):
            return pool(wide, window.kernel, window.strides, 0, window.dilations).to(kind)
        made, places = pool(wide, window.kernel, window.strides, 0, window.dilations, return_indices=True)
        return made.to(kind), _places(node, places, wide, x, window)

    return run


def _places(node: Node, places: Tensor, wide: Tensor, x: Tensor, window: Window) -> Tensor:
    """Flat positions in the padded maps as flat positions in the whole tensor without padding."""
    axes = []
    for size, pad in reversed(list(zip(wide.shape[2:], window.before, strict=True))):
        axes.append(places % size - pad)
        places = places // size
    axes.reverse()
    sizes = list(x.shape[2:])
    if node.get("storage_order", 0):
        axes.reverse()
        sizes.reverse()
    flat = torch.zeros_like(places)
    for axis, size in zip(axes, sizes, strict=True):
        flat = flat * size + axis
    maps = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(x.shape[0], x.shape[1], *[1] * len(sizes))
    return flat + maps * math.prod(sizes)


@operator("AveragePool")
def _average(node: Node) -> Run:
    count_padding = bool(node.get("count_include_pad", 0))

    def run(x: Tensor) -> Tensor:
        window = Window(node, x)
        plain_step = all(each == 1 for each in window.dilations)
        if plain_step and window.even() and (count_padding or not any(window.before)):
            return _MEAN[x.dim() - 2](x, window.kernel, window.strides, window.before)
        sums = _window_sums(window.padded(x, 0.0), window)
        ones = torch.ones_like(x[:1, :1])
        counted = window.padded(ones, 1.0 if count_padding else 0.0, beyond=False)
        more = [each for extra in reversed(window.beyond) for each in (0, extra)]
        return sums / _window_sums(functional.pad(counted, more), window)

    return run


def _window_sums(x: Tensor, window: Window) -> Tensor:
    for axis, (width, stride, dilation) in enumerate(zip(window.kernel, window.strides, window.dilations, strict=True), start=2):
        span = (width - 1) * dilation + 1
        x = x.unfold(axis, span, stride)[..., ::dilation].sum(-1)
    return x


@operator("LpPool")
def _norm(node: Node) -> Run:
    order = node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        window = Window(node, x)
        return _window_sums(window.padded(x.abs() ** order, 0.0), window) ** (1 / order)

    return run


@operator("MaxUnpool", host=(2,))
def _unpool(node: Node) -> Run:
    def run(x: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
        kernel, rank = node.get("kernel_shape"), x.dim() - 2
        strides, pads = node.get("strides") or [1] * rank, node.get("pads") or [0] * 2 * rank
        natural = [(size - 1) * strides[axis] - pads[axis] - pads[axis + rank] + kernel[axis] for axis, size in enumerate(x.shape[2:])]
        own = [*x.shape[:2], *natural]
        flat = torch.zeros(math.prod(own), dtype=x.dtype, device=x.device)
        made = flat.scatter(0, places.reshape(-1), x.reshape(-1)).reshape(own)
        if shape is None:
            return made
        more = [each for want, had in zip(reversed(shape.tolist()), reversed(own), strict=True) for each in (0, want - had)]
        return functional.pad(made, more)

    return run
