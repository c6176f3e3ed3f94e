"""Normalizations and the softmax family."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator


@operator("BatchNormalization", frame=True)
def _batch(node: Node) -> Run:
    epsilon, momentum, trains = node.get("epsilon", 1e-5), node.get("momentum", 0.9), node.get("training_mode", 0)

    def run(frame: Any, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor | tuple[Tensor, ...]:
        if trains:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            now, spread = x.mean(axes), x.var(axes, unbiased=False)
            made = functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
            return made, mean * momentum + now * (1 - momentum), variance * momentum + spread * (1 - momentum)
        updates = frame.update_statistics and frame.training
        if x.dtype != scale.dtype:
            x = x.to(scale.dtype)
        return functional.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), scale, bias, updates, 1 - momentum, epsilon)

    if trains:
        return lambda frame, *inputs: run(frame, *inputs)[: len(node.proto.output)]
    return run


@operator("LayerNormalization")
def _layer(node: Node) -> Run:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        shape = x.shape[axis % x.dim() :]
        fits = scale.shape == shape and (bias is None or bias.shape == shape)
        made = functional.layer_norm(x, shape, scale if fits else None, bias if fits else None, epsilon)
        if not fits:
            made = made * scale if bias is None else made * scale + bias
        if not node.makes(1) and not node.makes(2):
            return made
        axes = list(range(axis % x.dim(), x.dim()))
        wide = x.float()
        mean = wide.mean(axes, keepdim=True)
        return made, mean, torch.rsqrt((wide - mean).square().mean(axes, keepdim=True) + epsilon)

    return run


@operator("RMSNormalization")
def _root_mean_square(node: Node) -> Run:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        axes = list(range(axis % x.dim(), x.dim()))
        return (wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale

    return run


@operator("InstanceNormalization")
def _instance(node: Node) -> Run:
    epsilon = node.get("epsilon", 1e-5)
    return lambda x, scale, bias: functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@operator("GroupNormalization", since=21)
def _group(node: Node) -> Run:
    groups, epsilon = node.get("num_groups"), node.get("epsilon", 1e-5)
    return lambda x, scale, bias: functional.group_norm(x, groups, scale, bias, epsilon)


@operator("MeanVarianceNormalization")
def _standardize(node: Node) -> Run:
    axes = node.get("axes") or [0, 2, 3]

    def run(x: Tensor) -> Tensor:
        mean = x.mean(axes, keepdim=True)
        return (x - mean) / (torch.sqrt((x * x).mean(axes, keepdim=True) - mean * mean) + 1e-9)

    return run


@operator("LpNormalization")
def _unit(node: Node) -> Run:
    axis, order = node.get("axis", -1), node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return torch.where(size == 0, torch.zeros_like(x), x / torch.where(size == 0, torch.ones_like(size), size))

    return run


@operator("LRN")
def _local(node: Node) -> Run:
    size, alpha, beta, bias = node.get("size"), node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)

    def run(x: Tensor) -> Tensor:
        squares = functional.pad((x * x).flatten(2).transpose(1, 2), ((size - 1) // 2, math.ceil((size - 1) / 2)))
        sums = squares.unfold(-1, size, 1).sum(-1).transpose(1, 2).reshape(x.shape)
        return x / (bias + alpha / size * sums) ** beta

    return run


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return functional.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)


_SOFT = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax, "Hardmax": _hardmax}


@operator("Softmax", "LogSoftmax", "Hardmax", since=13)
def _soft(node: Node) -> Run:
    function, axis = _SOFT[node.operator], node.get("axis", -1)
    return lambda x: function(x, axis)


@operator("Softmax", "LogSoftmax", "Hardmax", since=1)
def _soft_flat(node: Node) -> Run:
    """Before opset 13 all axes from ``axis`` on count as one."""
    function, axis = _SOFT[node.operator], node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        return function(x.reshape(math.prod(x.shape[: axis % x.dim()]), -1), -1).reshape(x.shape)

    return run
