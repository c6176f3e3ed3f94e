"""Small graphs for the tests of the lift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from headway.lift import Lifted
from headway.model import Model


def graph(
    nodes: Sequence[NodeProto], inputs: Mapping[str, Sequence[Any]], outputs: Sequence[str], constants: Mapping[str, Any]
) -> GraphProto:
    """A graph of float inputs, with shapes of outputs left open."""
    return helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip


def model(body: GraphProto, opset: int = 17) -> Model:
    """A model of one graph."""
    return Model.from_proto(helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), "m", "onnx")


def one(
    operator: str, inputs: Mapping[str, Sequence[Any]], constants: Mapping[str, Any], opset: int = 17,
    order: Sequence[str] | None = None, **attributes: Any,
) -> Model:  # fmt: skip
    """A model of one node that makes ``y``."""
    node = helper.make_node(operator, list(order or (*inputs, *constants)), ["y"], name="the node", **attributes)
    return model(graph([node], inputs, ["y"], constants), opset)


def reference(source: Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's answers, node by node: its fusions take the scale of a bias for granted."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source.to_bytes(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def agree(source: Model, lifted: Lifted, feeds: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Assert that the lifted graph answers as ONNX Runtime does."""
    found = lifted({name: torch.from_numpy(value) for name, value in feeds.items()})
    for value, wanted in zip(found.values(), reference(source, feeds), strict=True):
        assert value.shape == wanted.shape
        np.testing.assert_allclose(value.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


def values(source: Model) -> dict[str, bytes]:
    """The bytes of all initializers."""
    return {tensor.name: tensor.SerializeToString() for tensor in source.to_proto().graph.initializer}


def arrays(*shapes: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Seeded float32 arrays."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
