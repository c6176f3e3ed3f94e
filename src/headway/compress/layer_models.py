"""Each layer that channels can be cut from as a model of its own, at several widths, for somebody to time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from headway.compress.coupling import Coupling, Layer, couple
from headway.compress.graph import initializers, opset, reads
from headway.model import Model

RECURRENT = ("LSTM", "GRU")
Widths = tuple[int, int]
Weights = tuple[float | tuple[int, ...], ...]
MULTIPLE, BLOCK, STEPS = 8, 16, 8
FOLLOWING = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalAveragePool", "HardSigmoid", "HardSwish",
    "LeakyRelu", "MaxPool", "Mul", "PRelu", "Pow", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
})  # fmt: skip
"""Operators that are timed with the layer whose output alone they read: runtimes fuse many of them into it."""


@dataclass(frozen=True, eq=False)
class LayerQuery:
    """One layer at one size, with the activation and pooling that follow it. A query whose ``layer`` is empty is the graph that does nothing.

    Attributes:
        layer: the node's name.
        inside: its input channels; of a layer cut with its input (depthwise) always the whole.
        outside: its output channels.
        shape: of its input for one sample; ``batch_axis`` scales with the batch.
        nodes: from the value ``x``; constants are named ``w`` and a number.
        outputs: the values that others read.
        weights: shapes of the constants, or their values where they are single numbers.
        key: equal keys cost the same: one timing serves all.
    """

    layer: str
    inside: int
    outside: int
    shape: tuple[int, ...]
    batch_axis: int
    nodes: tuple[bytes, ...]
    outputs: tuple[str, ...]
    weights: Weights
    version: int
    rank: int = 0
    precision: str = "float32"

    @property
    def key(self) -> tuple[object, ...]:
        """What the cost depends on."""
        return (self.nodes, self.shape, self.weights) if self.layer else ("empty",)

    def build(self) -> bytes:
        """The ONNX model, with random weights from a fixed seed."""
        rng = np.random.default_rng(0)
        tensors = []
        for place, weight in enumerate(self.weights):
            array = np.asarray(weight if isinstance(weight, float) else rng.normal(0, 0.05, weight), np.float32)
            tensors.append(numpy_helper.from_array(array, f"w{place}"))
        shown: list[int | str] = list(self.shape)
        shown[self.batch_axis] = "n"
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shown)
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs]
        graph = helper.make_graph([NodeProto.FromString(node) for node in self.nodes], "layer", [given], made, tensors)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.version)], ir_version=8)
        return bytes(proto.SerializeToString(deterministic=True))

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        """Random input for one run."""
        shape = list(self.shape)
        shape[self.batch_axis] *= batch
        return {"x": np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)}


def layer_queries(model: Model, samples: Mapping[str, np.ndarray]) -> tuple[LayerQuery, ...]:
    """Queries for every layer with channels to cut, at up to eight widths of each side with the other side whole; first the empty graph.

    Args:
        samples: as in ``Context``; one batch of them runs, to see the sizes.

    Raises:
        Unsupported: ONNX Runtime cannot run the model.
    """
    coupling = couple(model.to_proto(), samples)
    nodes = {node.name: node for node in coupling.proto.graph.node}
    fixed = initializers(coupling.proto.graph)
    rows = next(coupling.shapes[value.name][0] for value in coupling.proto.graph.input if value.name not in fixed)
    version = opset(coupling.proto)
    queries = [_empty(version)]
    for layer in coupling.layers:
        if (moves(layer.inside) or moves(layer.outside)) and layer.kind != "recurrence":
            queries += _sizes(coupling, layer, segment(coupling, nodes[layer.name]), rows)
    return tuple(queries)


def moves(row: np.ndarray | None) -> bool:
    """Whether channels of it may be cut."""
    return row is not None and bool((row >= 0).any())


def whole_widths(coupling: Coupling, layer: Layer) -> Widths:
    """Channels of a layer's input and output as the graph stands."""
    if layer.kind == "recurrence":
        return 1, 1
    channel = 1 if layer.kind.startswith("Conv") else -1
    inside = coupling.shapes[layer.inside_value][channel]
    if layer.kind in RECURRENT:
        return inside, len(layer.outside) if layer.outside is not None else coupling.shapes[layer.output][channel]
    return inside, coupling.shapes[layer.output][channel]


def widths(whole: int) -> tuple[int, ...]:
    """What is timed, rising to the whole: multiples of 8 of a narrow layer, and of 16 of a wide one (the block of AVX-512 kernels)."""
    multiple = MULTIPLE if whole <= MULTIPLE * STEPS else BLOCK
    step = max(-(-whole // STEPS // multiple) * multiple, multiple) if whole >= 2 * MULTIPLE else max(whole // 4, 1)
    return (*range(step, whole, step), whole)


def segment(coupling: Coupling, node: NodeProto) -> list[NodeProto]:
    """A layer's node and those of ``FOLLOWING`` that read nothing else."""
    fixed = initializers(coupling.proto.graph)
    found, made = [node], {node.output[0]}
    if node.op_type in RECURRENT:
        return found
    for other in coupling.proto.graph.node:
        given = {name for name in other.input if name and name not in fixed}
        if other.op_type in FOLLOWING and given and given <= made:
            found.append(other)
            made |= set(other.output)
    return found


def _empty(version: int) -> LayerQuery:
    node = helper.make_node("Identity", ["x"], ["y"], name="empty").SerializeToString()
    return LayerQuery("", 1, 1, (1, 1), 0, (node,), ("y",), (), version)


def _sizes(coupling: Coupling, layer: Layer, nodes: Sequence[NodeProto], rows: int) -> Iterable[LayerQuery]:
    batch_axis = 1 if layer.kind in RECURRENT else 0
    shape = list(coupling.shapes[layer.inside_value])
    shape[batch_axis] = max(shape[batch_axis] // rows, 1)
    channel = 1 if layer.kind.startswith("Conv") else len(shape) - 1
    whole_in, whole_out = whole_widths(coupling, layer)
    group = next((attribute.i for attribute in nodes[0].attribute if attribute.name == "group"), 1)
    unit = whole_out // group if layer.tied else 1
    outsides = sorted({max(round(width / unit), 1) * unit for width in widths(whole_out)}) if moves(layer.outside) else [whole_out]
    pairs = [(whole_in, outside) for outside in outsides]
    if moves(layer.inside) and not layer.tied:
        pairs = [(inside, whole_out) for inside in widths(whole_in)[:-1]] + pairs
    for inside, outside in pairs:
        part = outside / whole_out
        sized = [*shape]
        sized[channel] = round(whole_in * part) if layer.tied else inside
        ratio = {"inside": sized[channel] / whole_in, "outside": part}
        cut, outputs, weights = _resized(coupling, layer, nodes, ratio, round(group * part) if layer.tied else group, outside)
        yield LayerQuery(layer.name, inside, outside, tuple(sized), batch_axis, cut, outputs, weights, opset(coupling.proto))


def _resized(
    coupling: Coupling, layer: Layer, nodes: Sequence[NodeProto], ratio: Mapping[str, float], group: int, outside: int
) -> tuple[tuple[bytes, ...], tuple[str, ...], Weights]:
    """The nodes at another size with values renamed, what others read of them, and their constants."""
    fixed = initializers(coupling.proto.graph)
    names = {"": "", layer.inside_value: "x"}
    weights: list[float | tuple[int, ...]] = []
    copies = []
    for number, node in enumerate(nodes):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"n{number}"
        given = list(node.input)[: 4 if node.op_type in RECURRENT else None]
        for name in given:
            if name in fixed and name not in names:
                names[name] = f"w{len(weights)}"
                weights.append(_weight(coupling, layer, fixed[name], ratio))
        names[node.output[0]] = f"v{number}"
        del copy.input[:], copy.output[:]
        copy.input.extend(names[name] for name in given)
        copy.output.append(f"v{number}")
        if not number:
            _sized(copy, group, outside)
        copies.append(copy.SerializeToString(deterministic=True))
    inner = {id(node) for node in nodes}
    outer = {name for node in coupling.proto.graph.node if id(node) not in inner for name in reads(node)}
    outer |= {value.name for value in coupling.proto.graph.output}
    outputs = [f"v{number}" for number, node in enumerate(nodes) if node.output[0] in outer] or [f"v{len(nodes) - 1}"]
    return tuple(copies), tuple(outputs), tuple(weights)


def _weight(coupling: Coupling, layer: Layer, tensor: TensorProto, ratio: Mapping[str, float]) -> float | tuple[int, ...]:
    """The axis that is summed over follows the inside, the others that are cut the outside."""
    if not tensor.dims:
        return float(numpy_helper.to_array(tensor))
    sizes = list(tensor.dims)
    for axis in range(len(sizes)):
        if (tensor.name, axis) in coupling.slices:
            inside = tensor.name == layer.weight and axis == layer.weight_axis and not layer.tied
            sizes[axis] = round(sizes[axis] * ratio["inside" if inside else "outside"])
    return tuple(sizes)


def _sized(node: NodeProto, group: int, outside: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "group":
            attribute.i = group
        if attribute.name == "hidden_size":
            attribute.i = outside
