"""Biases shifted so that rounding a layer's weights and its input leaves its mean output by channel where it was.

Rounding weights and clipping activations moves means, and a shift goes through every later layer. Source: Nagel et al. (arXiv 1906.04721,
section 4.2 and appendix D, the empirical form). Each layer is corrected for what itself does to the float model's activations: all layers in
one pass. Correcting for what arrives from the layers before too takes a pass a layer; in groups of six it overshot (relative error of
EfficientNet-Lite0's answers 0.71 instead of 0.12).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress.calibration import channel_means
from headway.compress.graph import consumers, copied, initializers, producers
from headway.compress.layers import CONVOLUTIONS, Layer


def corrected(reference: ModelProto, own: Sequence[Layer], narrow: ModelProto, samples: Mapping[str, np.ndarray]) -> ModelProto:
    """A copy of the float model whose biases make up for the rounding.

    Args:
        reference: the float model, in the form of ``graph.normalise``.
        own: the layers that are quantized; those without a bias of their own are left alone.
        narrow: the same model with these layers quantized, node names kept.
        samples: all of them are used, once.
    """
    proto = copied(reference)
    mine = _correctable(proto, own)
    twins = copied(reference)
    made = {layer.name: _twin(twins, narrow, layer) for layer in mine}
    axes = {layer.output: _axis(layer) for layer in mine} | {made[layer.name]: _axis(layer) for layer in mine if made[layer.name]}
    means = channel_means(twins, axes, samples, min(len(array) for array in samples.values())) if axes else {}
    fixed = initializers(proto.graph)
    for layer in mine:
        if made[layer.name] in means and layer.output in means:
            bias = fixed[_bias(proto, layer)]
            shifted = numpy_helper.to_array(bias).astype(np.float64) + means[layer.output] - means[made[layer.name]]
            bias.CopyFrom(numpy_helper.from_array(shifted.astype(np.float32), bias.name))
    return proto


def _correctable(proto: ModelProto, own: Sequence[Layer]) -> list[Layer]:
    fixed, read_by = initializers(proto.graph), consumers(proto.graph)
    nodes = {node.name: node for node in proto.graph.node}

    def correctable(layer: Layer) -> bool:
        node = nodes[layer.name]
        tensor = fixed.get(node.input[2]) if len(node.input) > 2 else None
        plain = not any(attribute.name == "beta" and attribute.f != 1 for attribute in node.attribute)
        return tensor is not None and plain and len(read_by[tensor.name]) == 1 and list(tensor.dims) == [_channels(fixed, layer)]

    return [layer for layer in own if correctable(layer)]


def _twin(proto: ModelProto, narrow: ModelProto, layer: Layer) -> str:
    """Adds the layer once more, with rounded weight and input, beside itself; the name of its output, empty when the layer stayed float."""
    graph, narrow_fixed, made_by = narrow.graph, initializers(narrow.graph), producers(narrow.graph)
    node = next(node for node in proto.graph.node if node.name == layer.name)
    mate = next((other for other in graph.node if other.name == layer.name and len(other.input) > 1), None)
    weight = _dequantized(made_by.get(mate.input[1]), narrow_fixed) if mate is not None else None
    source = made_by.get(mate.input[0]) if mate is not None else None
    if weight is None or source is None or source.op_type != "DequantizeLinear":
        return ""
    name = f"{layer.name}/twin"
    proto.graph.initializer.append(numpy_helper.from_array(weight, f"{name}/weight"))
    scale, zero = (narrow_fixed[part] for part in source.input[1:3])
    for tensor, part in ((scale, "scale"), (zero, "zero")):
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = f"{name}/{part}"
        proto.graph.initializer.append(copy)
    grid = [f"{name}/scale", f"{name}/zero"]
    proto.graph.node.append(helper.make_node("QuantizeLinear", [layer.value, *grid], [f"{name}/codes"]))
    proto.graph.node.append(helper.make_node("DequantizeLinear", [f"{name}/codes", *grid], [f"{name}/input"]))
    twin = NodeProto()
    twin.CopyFrom(node)
    twin.name, twin.input[0], twin.input[1], twin.output[0] = name, f"{name}/input", f"{name}/weight", f"{name}/output"
    proto.graph.node.append(twin)
    return f"{name}/output"


def _dequantized(node: NodeProto | None, fixed: Mapping[str, TensorProto]) -> np.ndarray | None:
    """The float weight that a DequantizeLinear makes of a constant with zero points of zero."""
    if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in fixed:
        return None
    codes, scale = (numpy_helper.to_array(fixed[name]) for name in node.input[:2])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [1] * codes.ndim
    if scale.ndim:
        shape[axis] = -1
    return np.asarray(codes.astype(np.float32) * scale.reshape(shape), np.float32)


def _bias(proto: ModelProto, layer: Layer) -> str:
    return next(node.input[2] for node in proto.graph.node if node.name == layer.name)


def _channels(fixed: Mapping[str, TensorProto], layer: Layer) -> int:
    return int(fixed[layer.weight].dims[layer.axis])


def _axis(layer: Layer) -> int:
    return 1 if layer.op_type in CONVOLUTIONS else -1
