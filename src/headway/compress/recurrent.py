"""LSTM layers with 8-bit matrices: ONNX Runtime's ``DynamicQuantizeLSTM`` where the input bears it, else narrow in the file alone.

The operator rounds its whole input, all time steps together, to 255 steps. A hidden state, which lies between -1 and 1, bears that. Raw
features need not: on mel energies (quiet frames a thousandth of loud ones) 28% of a speaker recogniser's answers changed, and rounding the
first layer's input matrix alone to 8 bits still changed 6%. Such a layer computes in float with its input matrix as it is; its recurrent
matrix is held in 8 bits and made float again when the graph is loaded. There 0.6% of answers changed.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress.graph import fresh_name, initializers, producers, value_names
from headway.compress.narrow_weights import CONTRIB

_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Concat"})
_BOUNDED = frozenset({"LSTM", "GRU", "DynamicQuantizeLSTM", "Tanh", "Sigmoid", "Softmax"})


def recurrent_layers(graph: GraphProto) -> tuple[NodeProto, ...]:
    """LSTM nodes with constant float32 matrices, time along the first axis. Expects the form of ``graph.normalise``."""
    fixed = initializers(graph)

    def eligible(node: NodeProto) -> bool:
        if node.op_type != "LSTM" or node.domain not in ("", "ai.onnx"):
            return False
        batch_first = any(attribute.name == "layout" and attribute.i for attribute in node.attribute)
        tensors = [fixed.get(name) for name in node.input[1:3]]
        return not batch_first and all(tensor is not None and tensor.data_type == TensorProto.FLOAT for tensor in tensors)

    return tuple(node for node in graph.node if eligible(node))


def bounded(graph: GraphProto, name: str) -> bool:
    """Whether a value is made of hidden states of LSTM or GRU layers, or of what tanh, sigmoid or softmax gives."""
    node = producers(graph).get(name)
    if node is None:
        return False
    if node.op_type in _BOUNDED:
        return bool(name == node.output[0])
    sources = list(node.input) if node.op_type == "Concat" else list(node.input[:1])
    return node.op_type in _MOVES and all(bounded(graph, source) for source in sources)


def quantized(graph: GraphProto, node: NodeProto, *, reduce_range: bool) -> list[NodeProto]:
    """The nodes in place of an LSTM; their constants are added to the graph. Rows of a matrix get one scale each.

    Args:
        reduce_range: matrices in 7 bits, for CPUs whose 8-bit sums saturate.
    """
    fixed = initializers(graph)
    first, recurrent = (numpy_helper.to_array(fixed[name]).astype(np.float64) for name in node.input[1:3])
    if not bounded(graph, node.input[0]):
        return _held_narrow(graph, node, recurrent)
    steps = 63 if reduce_range else 127
    parts = [_turned(graph, f"{node.name}_{name}", array, steps) for name, array in (("input", first), ("recurrent", recurrent))]
    inputs = [node.input[0], parts[0][0], parts[1][0], *node.input[3:8]]
    inputs += [""] * (8 - len(inputs)) + parts[0][1:] + parts[1][1:]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "layout"}
    attributes["hidden_size"] = recurrent.shape[2]
    return [helper.make_node("DynamicQuantizeLSTM", inputs, list(node.output), node.name, domain=CONTRIB, **attributes)]


def _turned(graph: GraphProto, name: str, array: np.ndarray, steps: int) -> list[str]:
    """Names of the codes [directions, inputs, rows], scales and zero points [directions, rows]."""
    codes, scale = _codes(array, steps)
    content = {"codes": codes.transpose(0, 2, 1), "scales": scale, "zeros": np.zeros(scale.shape, np.int8)}
    return _added(graph, name, content)


def _held_narrow(graph: GraphProto, node: NodeProto, recurrent: np.ndarray) -> list[NodeProto]:
    codes, scale = _codes(recurrent, 127)
    name = f"{node.name}_recurrent"
    held, scales = _added(graph, name, {"codes": codes, "scales": scale[:, :, None]})
    taken = value_names(graph)
    wide, weight = (fresh_name(f"{name}_{part}", taken) for part in ("wide", "weight"))
    layer = NodeProto()
    layer.CopyFrom(node)
    layer.input[2] = weight
    cast = helper.make_node("Cast", [held], [wide], wide, to=TensorProto.FLOAT)
    return [cast, helper.make_node("Mul", [wide, scales], [weight], weight), layer]


def _codes(array: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 of the array's shape [directions, rows, inputs], and scales float32 [directions, rows]."""
    peak = np.abs(array).max(axis=2)
    scale = np.where(peak > 0, peak, 1.0) / steps
    return np.clip(np.round(array / scale[:, :, None]), -steps, steps).astype(np.int8), scale.astype(np.float32)


def _added(graph: GraphProto, name: str, content: dict[str, np.ndarray]) -> list[str]:
    taken = value_names(graph)
    names = [fresh_name(f"{name}_{part}", taken) for part in content]
    arrays = zip(names, content.values(), strict=True)
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(array), made) for made, array in arrays)
    return names
