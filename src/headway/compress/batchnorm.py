"""Batch normalisation folded into the layer before it: y = gamma (Wx + b - mean) / sqrt(var + eps) + beta is again W'x + b'."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from headway.compress.graph import consumers, drop_unused, fresh_name, initializers, producers, replace, value_names

FOLDS_INTO = ("Conv", "ConvTranspose", "Gemm")


def fold_batch_norms(proto: ModelProto) -> ModelProto:
    """The same model (changed in place, and returned) without the BatchNormalization nodes that follow a Conv, ConvTranspose or Gemm.

    A node stays when the layer's output is also read by others, when a weight is not constant, or in training mode. Weights that
    other layers share are copied, never changed. Computed in float64. Expects the form of ``graph.normalise``.
    """
    graph = proto.graph
    removed = []
    for node in list(graph.node):
        if node.op_type == "BatchNormalization" and _fold(graph, node):
            removed.append(node.name)
    if removed:
        gone = set(removed)
        replace(graph.node, [node for node in graph.node if node.name not in gone])
        drop_unused(graph)
    return proto


def _fold(graph: GraphProto, norm: NodeProto) -> bool:
    fixed = initializers(graph)
    attributes = {attribute.name: attribute for attribute in norm.attribute}
    training = attributes["training_mode"].i if "training_mode" in attributes else 0
    layer = producers(graph).get(norm.input[0])
    if training or layer is None or layer.op_type not in FOLDS_INTO or sum(bool(name) for name in norm.output) != 1:
        return False
    private = len(consumers(graph)[norm.input[0]]) == 1 and norm.input[0] not in {value.name for value in graph.output}
    constant = all(name in fixed for name in (*norm.input[1:5], *layer.input[1:]) if name)
    if not (private and constant):
        return False
    arrays = [numpy_helper.to_array(fixed[name]).astype(np.float64) for name in norm.input[1:5]]
    gamma, beta, mean, variance = arrays
    factor = gamma / np.sqrt(variance + (attributes["epsilon"].f if "epsilon" in attributes else 1e-5))
    weight = numpy_helper.to_array(fixed[layer.input[1]])
    axis = _output_axis(layer)
    if axis is None or weight.shape[axis] != len(gamma):
        return False
    bias = _bias(layer, fixed, len(gamma))
    if bias is None:
        return False
    shape = [1] * weight.ndim
    shape[axis] = -1
    _set_weights(graph, layer, weight.astype(np.float64) * factor.reshape(shape), (bias - mean) * factor + beta, weight.dtype)
    layer.output[0] = norm.output[0]
    return True


def _output_axis(layer: NodeProto) -> int | None:
    """The axis of the weight that counts output channels; none when groups make that no single axis."""
    values = {attribute.name: attribute.i for attribute in layer.attribute}
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1 if values.get("group", 1) == 1 else None
    return 0 if values.get("transB", 0) else 1


def _bias(layer: NodeProto, fixed: Mapping[str, TensorProto], channels: int) -> np.ndarray | None:
    """The layer's bias as one value a channel; none when it has another form."""
    if len(layer.input) < 3 or not layer.input[2]:
        return np.zeros(channels)
    bias = numpy_helper.to_array(fixed[layer.input[2]]).astype(np.float64)
    scale = next((attribute.f for attribute in layer.attribute if attribute.name == "beta"), 1.0)
    if bias.size == 1:
        bias = np.full(channels, bias.item())
    return bias.reshape(-1) * scale if bias.size == channels else None


def _set_weights(graph: GraphProto, layer: NodeProto, weight: np.ndarray, bias: np.ndarray, dtype: np.dtype) -> None:
    taken = value_names(graph)
    names = [fresh_name(f"{layer.name}.weight", taken), fresh_name(f"{layer.name}.bias", taken)]
    for name, array in zip(names, (weight, bias), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array.astype(dtype)), name))
    kept = [attribute for attribute in layer.attribute if attribute.name != "beta"]
    replace(layer.attribute, kept)
    layer.input[1] = names[0]
    if len(layer.input) < 3:
        layer.input.append(names[1])
    else:
        layer.input[2] = names[1]
