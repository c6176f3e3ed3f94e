"""Channels of neighbouring layers brought to like ranges: what one layer's weights are divided by, the next one's are multiplied with.

Exact where the activation between them is positively homogeneous: f(s x) = s f(x) for s > 0. Source: Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction" (arXiv 1906.04721, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from headway.compress.graph import consumers, initializers
from headway.compress.layers import Layer, layers

SWEEPS = 20
_SMALLEST, _LARGEST = 1e-3, 1e3  # of a factor: a dead channel must not take all of the range
_TOLERANCE = 1e-3
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"})


@dataclass(frozen=True)
class Pair:
    """Two layers of which the second alone reads the first, through activations that keep a positive factor."""

    first: Layer
    second: Layer


def pairs(graph: GraphProto) -> tuple[Pair, ...]:
    """The pairs of a graph, in its order. A Clip counts only when it has no upper bound and the lower one is zero.

    Both weights must be read by that layer alone, and the second layer be a dense or a depthwise convolution, or a product.
    """
    read_by, fixed = consumers(graph), initializers(graph)
    outputs = {value.name for value in graph.output}
    own = {layer.name: layer for layer in layers(graph)}
    nodes = {node.name: node for node in graph.node}
    found = []
    for layer in own.values():
        value, second = layer.output, None
        while value not in outputs and len(read_by.get(value, [])) == 1:
            reader = read_by[value][0]
            if reader.name in own:
                second = own[reader.name] if reader.input[0] == value else None
                break
            if not _homogeneous(reader, fixed):
                break
            value = reader.output[0]
        if second is None or not _private(graph, nodes[layer.name], read_by) or not _private(graph, nodes[second.name], read_by):
            continue
        first_peaks, second_peaks = (_peaks(graph, nodes[item.name], side) for item, side in ((layer, "out"), (second, "in")))
        if first_peaks is not None and second_peaks is not None and len(first_peaks) == len(second_peaks):
            found.append(Pair(layer, second))
    return tuple(found)


def equalize(proto: ModelProto) -> ModelProto:
    """The same model (changed in place, and returned) with equalized pairs; same answers up to float rounding.

    Each factor is sqrt(r1 / r2), r the largest weight of the channel in the first and in the second layer (equation 11); pairs are gone
    through in order until no factor differs from one by more than 0.1%, at most 20 times. Expects the form of ``graph.normalise``.
    """
    graph = proto.graph
    nodes = {node.name: node for node in graph.node}
    chain = pairs(graph)
    for _ in range(SWEEPS):
        largest = 0.0
        for pair in chain:
            before, after = (_peaks(graph, nodes[item.name], side) for item, side in ((pair.first, "out"), (pair.second, "in")))
            if before is None or after is None:
                continue
            alive = (before > 0) & (after > 0)
            factor = np.where(alive, np.sqrt(np.where(alive, before, 1.0) / np.where(alive, after, 1.0)), 1.0)
            factor = np.clip(factor, _SMALLEST, _LARGEST)
            _scale(graph, nodes[pair.first.name], 1 / factor, "out")
            _scale(graph, nodes[pair.second.name], factor, "in")
            largest = max(largest, float(np.abs(np.log(factor)).max()))
        if largest < _TOLERANCE:
            break
    return proto


def _homogeneous(node: NodeProto, fixed: dict[str, TensorProto]) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in fixed:
        unbounded = len(node.input) < 3 or not node.input[2]
        return unbounded and not numpy_helper.to_array(fixed[node.input[1]]).any()
    return node.op_type in _HOMOGENEOUS


def _private(graph: GraphProto, node: NodeProto, read_by: dict[str, list[NodeProto]]) -> bool:
    outputs, fixed = {value.name for value in graph.output}, initializers(graph)
    names = [name for name in node.input[1:] if name]
    once = len(set(names)) == len(names)
    return once and all(name in fixed and len(read_by[name]) == 1 and name not in outputs for name in names)


def _view(graph: GraphProto, node: NodeProto, side: str) -> np.ndarray | None:
    """A copy of the weight with the channels of one side on the first axis; none for grouped convolutions read from behind."""
    weight = numpy_helper.to_array(initializers(graph)[node.input[1]]).astype(np.float64)
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        group = attributes.get("group", 1)
        if side == "out":
            return weight
        if group == 1:
            return weight.swapaxes(0, 1)
        return weight if weight.shape[1] == 1 and group == weight.shape[0] else None
    if node.op_type == "Gemm" and (attributes.get("transA") or _beta(node) != 1):
        return None
    return weight.T if bool(attributes.get("transB")) == (side == "in") else weight


def _peaks(graph: GraphProto, node: NodeProto, side: str) -> np.ndarray | None:
    view = _view(graph, node, side)
    return None if view is None else np.abs(view).reshape(len(view), -1).max(axis=1)


def _scale(graph: GraphProto, node: NodeProto, factor: np.ndarray, side: str) -> None:
    fixed = initializers(graph)
    tensor = fixed[node.input[1]]
    weight = numpy_helper.to_array(tensor).astype(np.float64)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    if node.op_type == "Conv":
        depthwise = side == "in" and weight.shape[1] == 1 and weight.shape[0] == len(factor) and _group(node) == len(factor)
        axis = 0 if side == "out" or depthwise else 1
    else:
        axis = 0 if transposed == (side == "out") else 1
    shape = [1] * weight.ndim
    shape[axis] = -1
    tensor.CopyFrom(numpy_helper.from_array((weight * factor.reshape(shape)).astype(np.float32), tensor.name))
    if side == "out" and len(node.input) > 2 and node.input[2]:
        bias = fixed[node.input[2]]
        scaled = numpy_helper.to_array(bias).astype(np.float64) * factor
        bias.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), bias.name))


def _group(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _beta(node: NodeProto) -> float:
    return next((attribute.f for attribute in node.attribute if attribute.name == "beta"), 1.0)
