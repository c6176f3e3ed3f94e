"""Convolutions in any number of dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator
from headway.lift.windows import pads_of

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TURNED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def convolution(node: Node) -> Run:
    """The function ``(x, weight, bias)`` of a Conv-like node."""
    groups = node.get("group", 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.dim() - 2
        strides, dilations = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
        before, after = pads_of(node, x.shape[2:], weight.shape[2:], strides, dilations)
        if before != after:
            x = functional.pad(x, [each for pair in zip(reversed(before), reversed(after), strict=True) for each in pair])
            before = [0] * rank
        return _CONV[rank](x, weight, bias, strides, before, dilations, groups)

    return run


operator("Conv")(convolution)


@operator("ConvInteger")
def _integer(node: Node) -> Run:
    inner = convolution(node)

    def run(x: Tensor, weight: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None) -> Tensor:
        values = x.double() if x_zero is None else x.double() - x_zero.double()
        kernel = weight.double()
        if w_zero is not None:
            kernel = kernel - (w_zero.double().reshape(-1, *[1] * (weight.dim() - 1)) if w_zero.numel() > 1 else w_zero.double())
        sums = inner(values, kernel)
        return sums if x.is_floating_point() or weight.is_floating_point() else sums.round().to(torch.int32)

    return run


@operator("ConvTranspose")
def _transposed(node: Node) -> Run:
    groups = node.get("group", 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.dim() - 2
        strides, dilations = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
        extra = node.get("output_padding") or [0] * rank
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
        full = [(size - 1) * stride + span for size, stride, span in zip(x.shape[2:], strides, spans, strict=True)]
        whole = _TURNED[rank](x, weight, bias, strides, 0, 0, groups, dilations)
        starts, sizes = _crop(node, x, full, strides, extra)
        amounts = [
            each for start, size, had in reversed(list(zip(starts, sizes, full, strict=True))) for each in (-start, start + size - had)
        ]
        if bias is None or all(each <= 0 for each in amounts):
            return functional.pad(whole, amounts)
        bare = _TURNED[rank](x, weight, None, strides, 0, 0, groups, dilations)
        return functional.pad(bare, amounts) + bias.reshape(1, -1, *[1] * rank)

    return run


def _crop(node: Node, x: Tensor, full: list[int], strides: list[int], extra: list[int]) -> tuple[list[int], list[int]]:
    rank = len(full)
    mode, shape, pads = node.get("auto_pad", "NOTSET"), node.get("output_shape"), node.get("pads") or [0] * 2 * rank
    if shape is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if shape is None:
        pads = [0] * 2 * rank if mode == "VALID" else pads
        return pads[:rank], [had + more - pads[at] - pads[at + rank] for at, (had, more) in enumerate(zip(full, extra, strict=True))]
    total = [had + more - wanted for had, more, wanted in zip(full, extra, shape[-rank:], strict=True)]
    first = [math.ceil(each / 2) if mode == "SAME_LOWER" else each // 2 for each in total]
    return [max(each, 0) if sum_ > 0 else 0 for each, sum_ in zip(first, total, strict=True)], list(shape[-rank:])


@operator("Col2Im", host=(1, 2))
def _fold(node: Node) -> Run:
    def run(x: Tensor, image: Tensor, block: Tensor) -> Tensor:
        size, kernel = image.tolist(), block.tolist()
        if len(size) != 2:
            raise node.refuse(f"must make an image of two axes, got {len(size)}; no other is lifted")
        pads = node.get("pads") or [0] * 4
        wide = [size[0] + pads[0] + pads[2], size[1] + pads[1] + pads[3]]
        made = functional.fold(x, wide, kernel, node.get("dilations") or 1, 0, node.get("strides") or 1)
        return made[..., pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]

    return run


@operator("CausalConvWithState")
def _causal(node: Node) -> Run:
    smooth = node.get("activation", "none") in ("silu", "swish")

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        past = weight.shape[-1] - 1
        whole = functional.pad(x, (past, 0)) if state is None else torch.cat((state, x), -1)
        made = functional.conv1d(whole, weight, bias, groups=x.shape[1])
        return functional.silu(made) if smooth else made, whole[..., whole.shape[-1] - past :]

    return run


@operator("DeformConv")
def _deformed(node: Node) -> Run:
    """The windows are gathered at their moved places by bilinear sampling and multiplied by the kernel."""
    groups, offset_groups = node.get("group", 1), node.get("offset_group", 1)

    def run(x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        (rows, columns), (height, width) = weight.shape[2:], offset.shape[2:]
        strides, dilations, pads = node.get("strides") or [1, 1], node.get("dilations") or [1, 1], node.get("pads") or [0] * 4
        batch, taps = x.shape[0], rows * columns
        moved = offset.reshape(batch, offset_groups, taps, 2, height, width)
        y = _base(height, rows, strides[0], dilations[0], pads[0], x).reshape(rows, 1, height, 1).expand(-1, columns, -1, width)
        z = _base(width, columns, strides[1], dilations[1], pads[1], x).reshape(1, columns, 1, width).expand(rows, -1, height, -1)
        y, z = y.reshape(taps, height, width) + moved[:, :, :, 0], z.reshape(taps, height, width) + moved[:, :, :, 1]
        places = torch.stack(((2 * z + 1) / x.shape[3] - 1, (2 * y + 1) / x.shape[2] - 1), -1)
        parts = x.reshape(batch * offset_groups, -1, *x.shape[2:])
        seen = functional.grid_sample(parts, places.reshape(batch * offset_groups, taps * height, width, 2), align_corners=False)
        seen = seen.reshape(batch, offset_groups, -1, taps, height, width)
        if mask is not None:
            seen = seen * mask.reshape(batch, offset_groups, 1, taps, height, width)
        seen = seen.reshape(batch, groups, -1, height * width)
        made = torch.einsum("gok,bgkp->bgop", weight.reshape(groups, weight.shape[0] // groups, -1), seen)
        made = made.reshape(batch, -1, height, width)
        return made if bias is None else made + bias.reshape(1, -1, 1, 1)

    return run


def _base(count: int, taps: int, stride: int, dilation: int, pad: int, like: Tensor) -> Tensor:
    """Places [tap, window] of the taps along one axis before they are moved."""
    steps = torch.arange(count, dtype=like.dtype, device=like.device) * stride - pad
    return torch.arange(taps, dtype=like.dtype, device=like.device).unsqueeze(1) * dilation + steps
