"""Arithmetic, comparison, logic and casts, value by value."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator, plain
from headway.lift.tensors import DTYPES, RANGES, torch_dtype

_SIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


def widened(function: Run) -> Run:
    """The function, run on wider signed integers where torch lacks it for unsigned ones of 16 to 64 bits."""

    def run(*values: Tensor) -> Tensor:
        kind = values[0].dtype
        if kind not in _SIGNED:
            return function(*values)
        made = function(*(value.to(_SIGNED[kind]) if value.dtype == kind else value for value in values))
        return made if made.dtype == torch.bool else made.to(kind)

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    if exponent.dim() == 0 and not exponent.requires_grad and base.is_floating_point():
        return torch.pow(base, exponent.item())
    if not base.is_floating_point() and exponent.is_floating_point():
        return torch.pow(base.double(), exponent.double()).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


def _prelu(value: Tensor, slope: Tensor) -> Tensor:
    return torch.where(value > 0, value, value * slope)


plain({
    name: widened(function)
    for name, function in {
        "Abs": torch.abs, "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": _divide, "Neg": torch.neg, "Sign": torch.sign,
        "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "Pow": _power,
        "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor, "BitwiseNot": torch.bitwise_not,
        "Max": lambda *values: reduce(torch.maximum, values), "Min": lambda *values: reduce(torch.minimum, values),
    }.items()
})  # fmt: skip
plain({
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor, "Not": torch.logical_not,
    "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh, "Atan": torch.atan, "Atanh": torch.atanh,
    "Cos": torch.cos, "Cosh": torch.cosh, "Sin": torch.sin, "Sinh": torch.sinh, "Tan": torch.tan, "Tanh": torch.tanh,
    "Ceil": torch.ceil, "Floor": torch.floor, "Round": torch.round, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal, "Erf": torch.erf, "IsNaN": torch.isnan, "Identity": lambda value: value,
    "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Mish": torch.nn.functional.mish, "PRelu": _prelu,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)), "Softsign": torch.nn.functional.softsign,
    "HardSwish": lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
    "Sum": lambda *values: reduce(torch.add, values), "Mean": lambda *values: reduce(torch.add, values) / len(values),
})  # fmt: skip


@operator("Where")
def _where(_: Node) -> Run:
    return torch.where


@operator("Mod")
def _modulo(node: Node) -> Run:
    return widened(torch.fmod if node.get("fmod", 0) else torch.remainder)


@operator("BitShift")
def _shift(node: Node) -> Run:
    return widened(torch.bitwise_left_shift if node.get("direction") == "LEFT" else torch.bitwise_right_shift)


@operator("IsInf")
def _is_infinite(node: Node) -> Run:
    low, high = node.get("detect_negative", 1), node.get("detect_positive", 1)
    return lambda x: (torch.isposinf(x) & bool(high)) | (torch.isneginf(x) & bool(low))


@operator("Clip")
def _clip(node: Node) -> Run:
    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if x.is_floating_point():
            return torch.clamp(x, None if low is None else low.item(), None if high is None else high.item())
        return torch.clamp(x, low, high) if low is not None or high is not None else x

    def learned(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        grows = any(bound is not None and bound.requires_grad for bound in (low, high))
        return torch.clamp(x, low, high) if grows else run(x, low, high)

    return widened(learned) if node.has(1) or node.has(2) else lambda x, *_: x


@operator("LeakyRelu")
def _leaky(node: Node) -> Run:
    alpha = node.get("alpha", 0.01)
    return lambda x: torch.nn.functional.leaky_relu(x, alpha)


@operator("Elu")
def _elu(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda x: torch.nn.functional.elu(x, alpha)


@operator("Celu")
def _celu(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda x: torch.nn.functional.celu(x, alpha)


@operator("Selu")
def _selu(node: Node) -> Run:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * torch.nn.functional.elu(x, alpha)


@operator("ThresholdedRelu")
def _thresholded(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


@operator("HardSigmoid")
def _hard_sigmoid(node: Node) -> Run:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


@operator("Gelu")
def _gelu(node: Node) -> Run:
    approximate = node.get("approximate", "none")
    return lambda x: torch.nn.functional.gelu(x, approximate=approximate)


@operator("Swish")
def _swish(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return torch.nn.functional.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


@operator("Shrink")
def _shrink(node: Node) -> Run:
    bias, limit = node.get("bias", 0.0), node.get("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero)).to(x.dtype)

    return run


@operator("Cast")
def _cast(node: Node) -> Run:
    kind, saturate = node.get("to"), bool(node.get("saturate", 1))
    torch_dtype(kind)

    def run(x: Any) -> Any:
        if not isinstance(x, Tensor):
            raise node.refuse("must cast numbers, got strings; turn them into numbers before the model")
        return _as(x, kind, saturate)

    return run


@operator("CastLike")
def _cast_like(node: Node) -> Run:
    saturate = bool(node.get("saturate", 1))

    def run(x: Tensor, like: Tensor) -> Tensor:
        return _as(x, node.kind(1), saturate) if node.kind(1) in DTYPES else x.to(like.dtype)

    return run


def _as(x: Tensor, kind: int, saturate: bool) -> Tensor:
    """``x`` in an ONNX element type: integers of 2 and 4 bits wrap, floats of 8 bits saturate unless told not to."""
    dtype = torch_dtype(kind)
    if kind in RANGES and RANGES[kind][1] < 127:
        low, high = RANGES[kind]
        return ((x.to(torch.int32) - low) % (high - low + 1) + low).to(dtype)
    if dtype.is_floating_point and dtype.itemsize == 1:
        largest, wide = torch.finfo(dtype).max, x.float()
        if saturate:
            return torch.clamp(wide, -largest, largest).to(dtype)
        return torch.where(wide.abs() > largest * (1 + torch.finfo(dtype).eps / 4), _overflow(dtype), wide).to(dtype)
    return x.to(dtype)


def _overflow(dtype: torch.dtype) -> float:
    return float("inf") if dtype == torch.float8_e5m2 else float("nan")


@operator("Dropout", frame=True, random=True)
def _dropout(node: Node) -> Run:
    """Drops while the module trains, whatever the graph's own training input says; without a ratio, one half."""

    def run(frame: Any, x: Tensor, ratio: Tensor | None = None, _: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        share = node.get("ratio", 0.5) if ratio is None else float(ratio)
        if not frame.training or share == 0:
            return (x, torch.ones_like(x, dtype=torch.bool)) if node.makes(1) else x
        kept = torch.rand_like(x) >= share
        dropped = torch.where(kept, x / (1 - share), torch.zeros_like(x)) if share < 1 else torch.zeros_like(x)
        return (dropped, kept) if node.makes(1) else dropped

    return run


plain({"Det": torch.linalg.det, "Size": lambda x: torch.tensor(math.prod(x.shape), dtype=torch.int64)})


@operator("SwiGLU")
def _gated(node: Node) -> Run:
    alpha = node.get("alpha", 1.0)
    return lambda gate, value: gate * torch.sigmoid(alpha * gate) * value


@operator("BitCast")
def _bit_cast(node: Node) -> Run:
    dtype = torch_dtype(node.get("to"))
    return lambda x: x.view(dtype)
