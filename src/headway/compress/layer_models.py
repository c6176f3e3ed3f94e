"""Each layer that channels can be cut from as a model of its own, at a few widths, for somebody to time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from headway.compress.coupling import Coupling, Layer, couple
from headway.compress.graph import initializers, opset
from headway.model import Model

SHARES = (0.25, 0.5, 1.0)
MULTIPLE = 8


@dataclass(frozen=True, eq=False)
class LayerQuery:
    """One layer at one size. A query whose ``layer`` is empty is the graph that does nothing.

    Attributes:
        layer: the node's name.
        inside: its input channels; of a layer cut with its input (depthwise) always the whole.
        outside: its output channels.
        shape: of its input for one sample; ``batch_axis`` scales with the batch.
        key: equal keys cost the same: one timing serves all.
        weights: shapes of its constant inputs; an empty name position stands as none.
    """

    layer: str
    inside: int
    outside: int
    shape: tuple[int, ...]
    batch_axis: int
    node: bytes
    weights: tuple[tuple[int, ...] | None, ...]
    version: int
    key: tuple[object, ...]
    rank: int = 0
    precision: str = "float32"

    def build(self) -> bytes:
        """The ONNX model, with random weights from a fixed seed."""
        node = NodeProto.FromString(self.node)
        rng = np.random.default_rng(0)
        tensors = []
        for place, shape in enumerate(self.weights):
            if shape is not None:
                array = rng.normal(0, 0.05, shape).astype(np.float32)
                tensors.append(numpy_helper.from_array(array, node.input[place + 1]))
        shown: list[int | str] = list(self.shape)
        shown[self.batch_axis] = "n"
        given = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, shown)
        made = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "layer", [given], [made], tensors)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.version)], ir_version=8)
        return bytes(proto.SerializeToString(deterministic=True))

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        """Random input for one run."""
        shape = list(self.shape)
        shape[self.batch_axis] *= batch
        name = NodeProto.FromString(self.node).input[0]
        return {name: np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)}


def layer_queries(model: Model, samples: Mapping[str, np.ndarray]) -> tuple[LayerQuery, ...]:
    """Queries for every layer with channels to cut, at a quarter, half and all of its widths, real sizes elsewhere; first the empty graph.

    Args:
        samples: as in ``Context``; one batch of them runs, to see the sizes.

    Raises:
        Unsupported: ONNX Runtime cannot run the model.
    """
    coupling = couple(model.to_proto(), samples)
    nodes = {node.name: node for node in coupling.proto.graph.node}
    fixed = initializers(coupling.proto.graph)
    rows = next(coupling.shapes[value.name][0] for value in coupling.proto.graph.input if value.name not in fixed)
    queries = [_empty(opset(coupling.proto))]
    for layer in coupling.layers:
        movable = any(row is not None and (row >= 0).any() for row in (layer.inside, layer.outside))
        if movable and layer.kind != "recurrence":
            queries += _sizes(coupling, layer, nodes[layer.name], rows)
    return tuple(queries)


def _empty(version: int) -> LayerQuery:
    node = helper.make_node("Identity", ["x"], ["y"], name="empty").SerializeToString()
    return LayerQuery("", 1, 1, (1, 1), 0, node, (), version, ("empty",))


def _sizes(coupling: Coupling, layer: Layer, node: NodeProto, rows: int) -> Iterable[LayerQuery]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in coupling.proto.graph.initializer}
    recurrent = layer.kind in ("LSTM", "GRU")
    batch_axis = 1 if recurrent else 0
    shape = list(coupling.shapes[layer.inside_value])
    shape[batch_axis] = max(shape[batch_axis] // rows, 1)
    channel = 1 if layer.kind.startswith("Conv") else len(shape) - 1
    whole_in = shape[channel]
    whole_out = shapes[node.input[2]][2] if recurrent else coupling.shapes[layer.output][1 if layer.kind.startswith("Conv") else -1]
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    for inside in [whole_in] if layer.tied else _widths(layer.inside, whole_in):
        for outside in _widths(layer.outside, whole_out, whole_out // group if layer.tied else 1):
            part = outside / whole_out
            sized = list(shape)
            sized[channel] = round(whole_in * part) if layer.tied else inside
            ratio = {"inside": sized[channel] / whole_in, "outside": part}
            weights = _weights(coupling, layer, node, shapes, ratio)
            cut = _node(node, weights, round(group * part) if layer.tied else group, outside)
            key = (node.op_type, str(cut.attribute), tuple(sized), weights)
            data = cut.SerializeToString(deterministic=True)
            yield LayerQuery(layer.name, inside, outside, tuple(sized), batch_axis, data, weights, opset(coupling.proto), key)


def _widths(row: np.ndarray | None, whole: int, unit: int = 1) -> list[int]:
    if row is None or not (row >= 0).any():
        return [whole]
    step = unit if unit > 1 else min(MULTIPLE, max(whole // 4, 1))
    return sorted({min(max(round(share * whole / step), 1) * step, whole) for share in SHARES} | {whole})


def _weights(
    coupling: Coupling, layer: Layer, node: NodeProto, shapes: Mapping[str, tuple[int, ...]], ratio: Mapping[str, float]
) -> tuple[tuple[int, ...] | None, ...]:
    """Shapes of the constant inputs; the axis that is summed over follows the inside, the others that are cut the outside."""
    found: list[tuple[int, ...] | None] = []
    limit = 4 if layer.kind in ("LSTM", "GRU") else len(node.input)
    for name in node.input[1:limit]:
        if name not in shapes:
            found.append(None)
            continue
        sizes = list(shapes[name])
        for axis in range(len(sizes)):
            if (name, axis) in coupling.slices:
                inside = name == layer.weight and axis == layer.weight_axis and not layer.tied
                sizes[axis] = round(sizes[axis] * ratio["inside" if inside else "outside"])
        found.append(tuple(sizes))
    return tuple(found)


def _node(node: NodeProto, weights: tuple[tuple[int, ...] | None, ...], group: int, outside: int) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    names = ["x", *(f"w{place}" if shape is not None else "" for place, shape in enumerate(weights))]
    del copy.input[:], copy.output[:]
    copy.input.extend(names)
    copy.output.append("y")
    copy.name = "layer"
    for attribute in copy.attribute:
        if attribute.name == "group":
            attribute.i = group
        if attribute.name == "hidden_size":
            attribute.i = outside
    return copy
