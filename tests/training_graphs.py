"""Small graphs and rows for the tests of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.model import Model


def model_of(
    nodes: Sequence[NodeProto], arrays: dict[str, np.ndarray], inputs: dict[str, tuple], outputs: dict[str, tuple], name: str = "small"
) -> Model:
    """A model; inputs and outputs are (type, shape) by name."""
    infos = [[helper.make_tensor_value_info(key, *value) for key, value in given.items()] for given in (inputs, outputs)]
    weights = [numpy_helper.from_array(array, key) for key, array in arrays.items()]
    graph = helper.make_graph(list(nodes), name, *infos, weights)
    proto: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model.from_proto(proto, name, "onnx")


def network(seed: int = 0, *, inside: int = 4, width: int = 16, classes: int = 3, softmax: bool = False, heads: int = 1) -> Model:
    """Two layers; with two heads a second output ``number`` [n, 1] beside ``y`` [n, classes]."""
    rng = np.random.default_rng(seed)
    arrays = {
        "w1": rng.normal(0, inside**-0.5, (width, inside)).astype(np.float32),
        "b1": np.zeros(width, np.float32),
        "w2": rng.normal(0, width**-0.5, (classes, width)).astype(np.float32),
        "b2": np.zeros(classes, np.float32),
    }
    last = "scores" if softmax else "y"
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], [last], name="second", transB=1),
    ]
    outputs = {"y": (TensorProto.FLOAT, ["n", classes])}
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], ["y"], name="softmax", axis=-1))
    if heads == 2:
        arrays["w3"] = rng.normal(0, width**-0.5, (1, width)).astype(np.float32)
        nodes.append(helper.make_node("Gemm", ["r", "w3"], ["number"], name="third", transB=1))
        outputs["number"] = (TensorProto.FLOAT, ["n", 1])
    return model_of(nodes, arrays, {"x": (TensorProto.FLOAT, ["n", inside])}, outputs)


def clouds(rows: int = 240, *, inside: int = 4, classes: int = 3, seed: int = 0, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Points [rows, inside] around one centre a class, and their classes [rows]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, apart, (classes, inside))
    label = rng.integers(0, classes, rows)
    return (centres[label] + rng.normal(size=(rows, inside))).astype(np.float32), label.astype(np.int64)


def weights_of(model: Model) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.to_proto().graph.initializer}
