"""The form of a graph that the analysis reads: shape constants of its own for every node, and the shape of every value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from headway.compress.graph import copied, drop_unused, fresh_name, initializers, normalise, producers, replace, value_names
from headway.compress.session import batches, open_cpu, run

SHAPE_INPUTS = {"Reshape": (1,), "Split": (1,), "Slice": (1, 2), "Resize": (3,), "Expand": (1,), "ConstantOfShape": (0,)}
ROWS = 3  # a batch that few channel counts are a multiple of
NUMPY = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}


def prepared(proto: ModelProto) -> ModelProto:
    """A normalised copy in which no two nodes share a constant that holds a shape."""
    proto = normalise(copied(proto))
    graph = proto.graph
    fixed, makers, taken = initializers(graph), producers(graph), value_names(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        for position in SHAPE_INPUTS.get(node.op_type, ()):
            if position >= len(node.input) or not node.input[position]:
                continue
            name = node.input[position]
            maker = makers.get(name)
            if name in fixed:
                node.input[position] = _twin(graph.initializer, fixed[name], f"{node.name}.shape", taken)
            elif maker is not None and maker.op_type == "Concat":
                joined = NodeProto()
                joined.CopyFrom(maker)
                joined.name = joined.output[0] = fresh_name(f"{node.name}.shape", taken)
                for part, own in enumerate(joined.input):
                    if own in fixed:
                        joined.input[part] = _twin(graph.initializer, fixed[own], joined.name, taken)
                nodes.append(joined)
                node.input[position] = joined.output[0]
        nodes.append(node)
    replace(graph.node, nodes)
    drop_unused(graph)
    return proto


def _twin(field: object, tensor: TensorProto, wanted: str, taken: set[str]) -> str:
    twin = TensorProto()
    twin.CopyFrom(tensor)
    twin.name = fresh_name(wanted, taken)
    field.append(twin)  # type: ignore[attr-defined]
    return twin.name


def feeds_of(proto: ModelProto, samples: Mapping[str, np.ndarray], rows: int = ROWS) -> dict[str, np.ndarray]:
    """A small batch of samples, or zeros where there are none (2 for an axis of free size)."""
    fixed = initializers(proto.graph)
    inputs = [value for value in proto.graph.input if value.name not in fixed]
    if inputs and all(value.name in samples and len(samples[value.name]) for value in inputs):
        session = open_cpu(proto, exact=True)
        return next(batches(session, samples, rows=max(len(samples[v.name]) for v in inputs), size=rows))
    made: dict[str, np.ndarray] = {}
    for value in inputs:
        kind = value.type.tensor_type
        shape = [axis.dim_value or (2 if place else rows) for place, axis in enumerate(kind.shape.dim)]
        made[value.name] = np.zeros(shape, NUMPY.get(kind.elem_type, np.float32))
    return made


def shapes_of(proto: ModelProto, samples: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The shape of every value when a small batch runs.

    Raises:
        Unsupported: ONNX Runtime does not take the graph.
    """
    feeds = feeds_of(proto, samples)
    names = [name for node in proto.graph.node for name in node.output if name]
    arrays = run(open_cpu(proto, names, exact=True), feeds, names)
    found = {name: array.shape for name, array in zip(names, arrays, strict=True) if isinstance(array, np.ndarray)}
    return {**found, **{name: array.shape for name, array in feeds.items()}}
