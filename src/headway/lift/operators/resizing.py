"""Resize by weights along each axis: nearest, linear and cubic, every coordinate rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator

_ROUND: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@operator("Resize", host=(1, 2, 3))
def _resize(node: Node) -> Run:
    mode = node.get("mode", "nearest")

    def run(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        axes = [axis % x.dim() for axis in node.get("axes") or range(x.dim())]
        given = None if scales is None or not scales.numel() else scales.tolist()
        wanted, factors = _target(node, x, axes, given, None if sizes is None else sizes.tolist())
        quick = _quick(node, x, axes, wanted, factors)
        if quick is not None:
            return quick
        regions = None if roi is None or not roi.numel() else roi.tolist()
        for position, axis in enumerate(axes):
            start, end = (regions[position], regions[position + len(axes)]) if regions else (0.0, 1.0)
            cropping = node.get("coordinate_transformation_mode") == "tf_crop_and_resize"
            if wanted[position] == x.shape[axis] and factors[position] == 1 and not cropping:
                continue
            places = _places(node, x.shape[axis], wanted[position], factors[position], start, end)
            matrix = _matrix(node, mode, places, x.shape[axis], factors[position])
            if cropping:
                outside = (places < 0) | (places > x.shape[axis] - 1)
            made = torch.tensordot(x.double() if x.dtype == torch.float64 or not x.is_floating_point() else x.float(), matrix.to(
                device=x.device, dtype=torch.float32 if x.is_floating_point() and x.dtype != torch.float64 else torch.float64
            ), dims=([axis], [1])).movedim(-1, axis)  # fmt: skip
            if cropping:
                made = torch.where(
                    outside.reshape([-1 if at == axis else 1 for at in range(x.dim())]), node.get("extrapolation_value", 0.0), made
                )
            x = made.to(x.dtype) if x.is_floating_point() else made.round().to(x.dtype)
        return x

    return run


def _target(node: Node, x: Tensor, axes: list[int], scales: Any, sizes: Any) -> tuple[list[int], list[float]]:
    had = [x.shape[axis] for axis in axes]
    if scales is not None:
        return [math.floor(size * scale + 1e-6) for size, scale in zip(had, scales, strict=True)], scales
    factors = [want / size for want, size in zip(sizes, had, strict=True)]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        factor = (min if policy == "not_larger" else max)(factors)
        return [math.floor(size * factor + 0.5) for size in had], [factor] * len(had)
    return list(sizes), factors


def _quick(node: Node, x: Tensor, axes: list[int], wanted: list[int], factors: list[float]) -> Tensor | None:
    """Torch's kernel for the usual two-dimensional upsampling; none where its rule differs."""
    rule, mode = node.get("coordinate_transformation_mode", "half_pixel"), node.get("mode", "nearest")
    flat = x.dim() == 4 and axes == [0, 1, 2, 3] and factors[:2] == [1, 1] and x.is_floating_point() and not node.get("antialias", 0)
    if not flat:
        return None
    if mode == "linear" and rule in ("half_pixel", "align_corners", "pytorch_half_pixel") and min(wanted[2:]) > 1:
        exact = all(factor * size == want for factor, size, want in zip(factors[2:], x.shape[2:], wanted[2:], strict=True))
        return functional.interpolate(x, wanted[2:], mode="bilinear", align_corners=rule == "align_corners") if exact else None
    whole = all(factor == int(factor) for factor in factors)
    if mode == "nearest" and rule == "asymmetric" and node.get("nearest_mode", "round_prefer_floor") == "floor" and whole:
        return functional.interpolate(x, wanted[2:], mode="nearest")
    return None


def _places(node: Node, size: int, wanted: int, scale: float, start: float, end: float) -> Tensor:
    """Where each new value lies among the old ones."""
    rule = node.get("coordinate_transformation_mode", "half_pixel")
    x = torch.arange(wanted, dtype=torch.float64)
    if rule == "asymmetric":
        return x / scale
    if rule == "align_corners":
        length = size * scale
        return x * (size - 1) / (length - 1) if length > 1 else torch.zeros_like(x)
    if rule == "tf_crop_and_resize":
        if wanted > 1:
            return start * (size - 1) + x * (end - start) * (size - 1) / (wanted - 1)
        return torch.full_like(x, 0.5 * (start + end) * (size - 1))
    if rule == "pytorch_half_pixel" and wanted == 1:
        return torch.full_like(x, -0.5)
    if rule == "half_pixel_symmetric":
        adjust = wanted / (scale * size)
        return size / 2 * (1 - adjust) + (x + 0.5) / scale - 0.5
    if rule == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    return (x + 0.5) / scale - 0.5


def _matrix(node: Node, mode: str, places: Tensor, size: int, scale: float) -> Tensor:
    """Weights [new, old] of the old values in the new ones."""
    if mode == "nearest":
        index = _ROUND[node.get("nearest_mode", "round_prefer_floor")](places).clamp(0, size - 1).long()
        return functional.one_hot(index, size).double()
    shrink = min(scale, 1.0) if node.get("antialias", 0) else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / shrink) + (1 if shrink < 1 else 0)
    first = torch.floor(places).long()
    offsets = torch.arange(-reach + 1, reach + 1)
    index = first.unsqueeze(1) + offsets
    distance = (places.unsqueeze(1) - index.double()) * shrink
    weights = _triangle(distance) if mode == "linear" else _cubic(distance, node.get("cubic_coeff_a", -0.75))
    if node.get("exclude_outside", 0):
        weights = torch.where((index < 0) | (index >= size), torch.zeros_like(weights), weights)
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(places), size, dtype=torch.float64)
    return matrix.scatter_add(1, index.clamp(0, size - 1), weights)


def _triangle(distance: Tensor) -> Tensor:
    return torch.clamp(1 - distance.abs(), min=0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
