"""Layers with weights: convolutions, matrix products, embeddings. They end the channels they read and start those they make."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from headway.compress.coupling.coupled import Layer, Row
from headway.compress.coupling.walk import Rule, Walk


def _layer(walk: Walk, node: NodeProto, rows: tuple[Row | None, Row | None], *, axis: int, bias: str, macs: float, tied: bool) -> None:
    inside, outside = rows
    args = (node.name, node.op_type, inside, outside, node.input[1], axis, node.input[0], node.output[0], bias, macs, tied)
    walk.layers.append(Layer(*args))


def _uncharted(walk: Walk, node: NodeProto, why: str) -> None:
    walk.pin_inputs(node, why)
    for name in node.input:
        if name in walk.fixed:
            walk.use(name, {})


def convolution(walk: Walk, node: NodeProto) -> None:
    """Whole channels; a grouped convolution is cut by whole groups, a depthwise one with its input."""
    if node.input[1] not in walk.fixed or (len(node.input) > 2 and node.input[2] not in walk.fixed):
        _uncharted(walk, node, "takes its weight from the graph")
        return
    axes = walk.read(node.input[0])
    walk.pin(node, "slides over them", *axes[2:])
    transposed = node.op_type == "ConvTranspose"
    group = walk.integer(node, "group", 1)
    weight = walk.shape(node.input[1])
    count, into = walk.shape(node.output[0])[1], walk.shape(node.input[0])[1]
    inside: Row | None = axes[1]
    bias = node.input[2] if len(node.input) > 2 else ""
    positions = math.prod(walk.shape(node.input[0] if transposed else node.output[0])[2:])
    macs = float(positions * math.prod(weight))
    if group > 1:
        outside = _grouped(walk, node, inside, group, count, into)
        first: Row | None = inside if transposed else outside
        walk.use(node.input[1], {0: first})
    else:
        outside = walk.source(node, count)
        walk.use(node.input[1], {0: inside, 1: outside} if transposed else {0: outside, 1: inside}, sums=0 if transposed else 1)
    if bias:
        walk.use(bias, {0: outside})
    axis = 0 if transposed else 1
    _layer(walk, node, (inside, outside), axis=axis, bias=bias, macs=macs, tied=group > 1)
    walk.write(node.output[0], [axes[0], outside, *[None] * (len(axes) - 2)])


def _grouped(walk: Walk, node: NodeProto, inside: Row | None, group: int, count: int, into: int) -> Row | None:
    if inside is None:
        return None
    blocks = inside.reshape(group, into // group)
    for column in range(1, blocks.shape[1]):
        walk.unite(node, blocks[:, 0], blocks[:, column])
    walk.attributes[node.name, "group", 0] = blocks[:, 0]
    return np.repeat(blocks[:, 0], count // group)


def matmul(walk: Walk, node: NodeProto) -> None:
    """A constant matrix is a layer; of two activations, what is summed over stays and the rest passes."""
    left, right = node.input
    axes = walk.read(left)
    if right in walk.fixed and len(walk.shape(right)) == 2 and len(axes) >= 2 and left not in walk.fixed:
        inside, count = axes[-1], walk.shape(right)[1]
        outside = walk.source(node, count)
        walk.use(right, {0: inside, 1: outside}, sums=0)
        macs = float(math.prod(walk.shape(left)[1:-1]) * math.prod(walk.shape(right)))
        _layer(walk, node, (inside, outside), axis=0, bias="", macs=macs, tied=False)
        walk.write(node.output[0], [*axes[:-1], outside])
        return
    other = walk.read(right)
    if left in walk.fixed or right in walk.fixed or len(axes) != len(other) or len(axes) < 2:
        _uncharted(walk, node, "multiplies in a form that is not analysed")
        return
    walk.pin(node, "sums over them", axes[-1], other[-2])
    lead: list[Row | None] = []
    for position, (one, two) in enumerate(zip(axes[:-2], other[:-2], strict=True)):
        alike = walk.shape(left)[position] == walk.shape(right)[position]
        if alike and one is not None and two is not None:
            walk.unite(node, one, two)
        else:
            walk.pin(node, "joins them with channels that stay", one, two)
        lead.append(one if one is not None and alike else None)
    walk.write(node.output[0], [*lead, axes[-2], other[-1]])


def gemm(walk: Walk, node: NodeProto) -> None:
    """A linear layer with its bias."""
    axes = walk.read(node.input[0])
    if node.input[1] not in walk.fixed or walk.integer(node, "transA", 0) or node.input[0] in walk.fixed:
        _uncharted(walk, node, "multiplies in a form that is not analysed")
        return
    axis = 1 if walk.integer(node, "transB", 0) else 0
    outside = walk.source(node, walk.shape(node.input[1])[1 - axis])
    walk.use(node.input[1], {axis: axes[1], 1 - axis: outside}, sums=axis)
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and bias not in walk.fixed:
        walk.pin(node, "adds a value to them", outside, *walk.read(bias))
    elif bias:
        size = walk.shape(bias)
        walk.use(bias, {len(size) - 1: outside} if size and outside is not None and size[-1] == len(outside) else {})
    plain = bias if bias in walk.fixed and walk.shape(bias) == walk.shape(node.output[0])[1:] else ""
    _layer(walk, node, (axes[1], outside), axis=axis, bias=plain, macs=float(math.prod(walk.shape(node.input[1]))), tied=False)
    walk.write(node.output[0], [axes[0], outside])


def gather(walk: Walk, node: NodeProto) -> None:
    """Rows of a constant table: its columns are channels. Of an activation, the axis that is indexed stays."""
    data, indices = node.input
    axes = walk.read(data)
    axis = walk.integer(node, "axis", 0) % max(len(axes), 1)
    walk.pin(node, "looks up with them", *walk.read(indices))
    if data in walk.fixed:
        shape = walk.shape(data)
        floats = len(shape) == 2 and axis == 0 and walk.fixed[data].data_type in (1, 10, 16) and indices not in walk.fixed
        columns = walk.source(node, shape[1]) if floats else None
        walk.use(data, {1: columns})
        if columns is not None:
            walk.write(node.output[0], [*[None] * len(walk.shape(indices)), columns])
        return
    if not any(row is not None for row in axes):
        return
    walk.pin(node, "picks from them", axes[axis])
    walk.write(node.output[0], [*axes[:axis], *[None] * len(walk.shape(indices)), *axes[axis + 1 :]])


RULES: dict[str, Rule] = {"Conv": convolution, "ConvTranspose": convolution, "MatMul": matmul, "Gemm": gemm, "Gather": gather}
