"""Convolutions and matrix products, float and integer: two FLOP for each multiply-add, one for each bias added."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from headway.model.flop.view import NodeView, ShapeUnknown


def _conv(weight: int, bias: int) -> Callable[[NodeView], int]:
    """Convolution with W of shape (C_out, C_in / groups, k...): every output element sums C_in / groups * prod(k) products."""

    def rule(node: NodeView) -> int:
        kernel = prod(node.input(weight)[1:])
        return node.elements_out() * (2 * kernel + node.has(bias))

    return rule


def _conv_transpose(node: NodeView) -> int:
    """W of shape (C_in, C_out / groups, k...): every input element is spread over C_out / groups * prod(k) places."""
    return 2 * node.elements_in(0) * prod(node.input(1)[1:]) + node.has(2) * node.elements_out()


def _deform_conv(node: NodeView) -> int:
    """As a convolution, and a bilinear sample (8 FLOP) for each tap of each offset group's channels."""
    kernel = prod(node.input(1)[2:])
    samples = node.output()[0] * node.input(0)[1] * kernel * prod(node.output()[2:])
    return node.elements_out() * (2 * prod(node.input(1)[1:]) + node.has(3)) + 8 * samples


def _gemm(bias: int) -> Callable[[NodeView], int]:
    def rule(node: NodeView) -> int:
        depth = node.input(0)[0 if node.attributes.get("transA", 0) else -1]
        return node.elements_out() * (2 * depth + node.has(bias))

    return rule


def _matmul(bias: int | None = None) -> Callable[[NodeView], int]:
    """Batched, broadcast matrix product: every output element sums as many products as the first operand's last dimension."""

    def rule(node: NodeView) -> int:
        left = node.input(0)
        depth = left[-2] if node.attributes.get("transA", 0) else left[-1]
        return node.elements_out() * (2 * depth + (bias is not None and node.has(bias)))

    return rule


def _einsum(node: NodeView) -> int:
    """A product for each point of the index space and each operand after the first; an addition when a label is contracted."""
    terms, _, result = node.attributes["equation"].replace(" ", "").partition("->")
    operands = terms.split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(operands):
        shape = node.input(index)
        named = term.replace("...", "")
        hidden = len(shape) - len(named)
        start = term.find("...") if "..." in term else len(term)
        labels = list(named[:start]) + [f"hidden {-place}" for place in range(hidden, 0, -1)] + list(named[start:])
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    if not result:  # implicit form: labels that occur once stay
        result = "".join(label for label in sizes if terms.count(label) == 1)
    contracted = any(len(label) == 1 and label not in result for label in sizes)
    if len(operands) == 1:
        return node.elements_in(0) if contracted else 0
    return (len(operands) - 1 + contracted) * prod(sizes.values())


def _matmul_nbits(node: NodeView) -> int:
    """Weight-only product: Y = A * dequantized B; B counts two FLOP an element to dequantize."""
    depth, width = int(node.attributes["K"]), int(node.attributes["N"])
    return node.elements_out() * (2 * depth + node.has(5)) + 2 * depth * width


def _qgemm(node: NodeView) -> int:
    return node.elements_out() * (2 * node.input(0)[0 if node.attributes.get("transA", 0) else -1] + node.has(6) + 2)


def _qlinear(rule: Callable[[NodeView], int]) -> Callable[[NodeView], int]:
    """An integer operator that also requantizes: two FLOP more for each output element."""
    return lambda node: rule(node) + 2 * node.elements_out()


def _det(node: NodeView) -> int:
    """Determinant by LU: 2/3 n^3 for each matrix."""
    shape = node.input(0)
    if len(shape) < 2:
        raise ShapeUnknown("Det: a matrix")
    return prod(shape[:-2]) * (2 * shape[-1] ** 3) // 3


RULES: dict[str, Callable[[NodeView], int]] = {
    "Conv": _conv(1, 2),
    "FusedConv": _conv(1, 2),
    "NhwcConv": _conv(1, 2),
    "ConvInteger": _conv(1, 99),
    "QLinearConv": _qlinear(_conv(3, 8)),
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "Gemm": _gemm(2),
    "FusedGemm": _gemm(2),
    "GemmFloat8": _gemm(2),
    "QGemm": _qgemm,
    "MatMul": _matmul(),
    "FusedMatMul": _matmul(),
    "MatMulInteger": _matmul(),
    "MatMulIntegerToFloat": _qlinear(_matmul(6)),
    "DynamicQuantizeMatMul": _qlinear(_matmul(4)),
    "QLinearMatMul": _qlinear(_matmul()),
    "MatMulNBits": _matmul_nbits,
    "Einsum": _einsum,
    "Det": _det,
}
