"""Weights that a graph puts together from constants, put together once: techniques look for a weight in an initializer.

Exporters write an LSTM's gates as a Concat and an Unsqueeze of constants (PyTorch), or a transposed matrix (Keras).
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from headway.compress.graph import drop_unused, initializers, opset, replace

_MOVES = frozenset({"Concat", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Flatten", "Slice", "Identity"})


def join_constants(proto: ModelProto) -> ModelProto:
    """The same model (changed in place, and returned) without nodes that only move constants about. Expects the form of ``graph.normalise``.

    None of these operators makes more values than it reads, so the model does not grow, unless a constant has other readers too.
    """
    graph = proto.graph
    fixed = initializers(graph)
    outputs = {value.name for value in graph.output}
    gone = set()
    for node in graph.node:
        movable = node.op_type in _MOVES and node.domain in ("", "ai.onnx") and not outputs & set(node.output)
        if not movable or not any(node.input) or not all(name in fixed for name in node.input if name):
            continue
        feeds = {name: numpy_helper.to_array(fixed[name]) for name in node.input if name}
        tensor = numpy_helper.from_array(np.ascontiguousarray(_evaluated(node, feeds, opset(proto))), node.output[0])
        graph.initializer.append(tensor)
        fixed[tensor.name] = tensor
        gone.add(node.name)
    if gone:
        replace(graph.node, [node for node in graph.node if node.name not in gone])
        drop_unused(graph)
    return proto


def _evaluated(node: NodeProto, feeds: dict[str, np.ndarray], version: int) -> np.ndarray:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in feeds.items()
    ]
    body = helper.make_graph(
        [node], "one", inputs, [helper.make_tensor_value_info(node.output[0], inputs[0].type.tensor_type.elem_type, None)]
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", version)])
    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])
