"""Padding of sliding windows, as the convolutions and pools of ONNX state it."""

from __future__ import annotations

from collections.abc import Sequence

from headway.lift.node import Node


def pads_of(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each axis, from ``pads`` or ``auto_pad``."""
    rank, mode = len(kernel), node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        return before, after
    pads = None if mode == "VALID" else node.get("pads")
    pads = pads or [0] * (2 * rank)
    return list(pads[:rank]), list(pads[rank:])
