"""Small models that cover what real exports hold, for contract suites.

Random weights from a fixed seed, a free batch axis, well under a megabyte each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


class Sketch:
    """Collects nodes and weights of a graph with one input ``x`` and one output ``y``."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.values: list[onnx.ValueInfoProto] = []

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        array = self.rng.normal(0, scale if scale is not None else (2 / fan_in) ** 0.5, shape).astype(np.float32)
        return self.constant(array)

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: object) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"{op_type}{len(self.nodes)}", **attributes))
        return name

    def conv(self, value: str, into: int, out: int, *, kernel: int = 3, group: int = 1, bias: bool = True) -> str:
        inputs = [value, self.weight(out, into // group, kernel, kernel)] + ([self.weight(out, scale=0.1)] if bias else [])
        return self.add("Conv", *inputs, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4, group=group)

    def batch_norm(self, value: str, channels: int) -> str:
        positive = self.constant(self.rng.uniform(0.5, 1.5, channels).astype(np.float32))
        shift, mean = self.weight(channels, scale=0.2), self.weight(channels, scale=0.2)
        variance = self.constant(self.rng.uniform(0.5, 2, channels).astype(np.float32))
        return self.add("BatchNormalization", value, positive, shift, mean, variance)

    def model(self, shape: tuple[int | str, ...], outputs: int | tuple[int | str, ...], version: int = 17) -> ModelProto:
        last = (outputs,) if isinstance(outputs, int) else outputs
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *last])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def _head(sketch: Sketch, value: str, channels: int, classes: int = 5) -> None:
    flat = sketch.add("Flatten", sketch.add("GlobalAveragePool", value))
    sketch.add("Gemm", flat, sketch.weight(classes, channels), sketch.weight(classes, scale=0.1), output="y", transB=1)


def cnn(version: int = 17) -> ModelProto:
    """Conv, batch norm, Relu; a depthwise pair; dropout and identity on the way to the classifier."""
    sketch = Sketch(1)
    value = "x"
    for into, out, group in ((3, 8, 1), (8, 8, 8), (8, 16, 1)):
        value = sketch.add("Relu", sketch.batch_norm(sketch.conv(value, into, out, group=group, bias=False), out))
    value = sketch.add("Identity", sketch.add("Dropout", sketch.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])))
    _head(sketch, value, 16)
    return sketch.model((3, 8, 8), 5, version)


def cnn_opset_11() -> ModelProto:
    """The same in operator set 11, older than per-channel scales."""
    return cnn(11)


def residual() -> ModelProto:
    """Two residual blocks with clipped activations and a projection shortcut."""
    sketch = Sketch(2)
    low, high = sketch.constant(np.array(0, np.float32)), sketch.constant(np.array(6, np.float32))
    value = sketch.add("Clip", sketch.conv("x", 3, 8), low, high)
    inner = sketch.add("Clip", sketch.batch_norm(sketch.conv(value, 8, 8), 8), low, high)
    value = sketch.add("Clip", sketch.add("Add", sketch.conv(inner, 8, 8), value), low, high)
    inner = sketch.add("Clip", sketch.conv(value, 8, 16), low, high)
    value = sketch.add("Relu", sketch.add("Add", sketch.conv(inner, 16, 16), sketch.conv(value, 8, 16, kernel=1)))
    _head(sketch, value, 16)
    return sketch.model((3, 8, 8), 5)


def mlp(version: int = 17) -> ModelProto:
    """Gemm with and without transposition, and a MatMul with its bias added after."""
    sketch = Sketch(3)
    value = sketch.add("Relu", sketch.add("Gemm", "x", sketch.weight(32, 12), sketch.weight(32, scale=0.1), transB=1))
    value = sketch.add("Relu", sketch.add("Gemm", value, sketch.weight(32, 32), sketch.weight(32, scale=0.1)))
    value = sketch.add("Relu", sketch.add("Add", sketch.add("MatMul", value, sketch.weight(32, 16)), sketch.weight(16, scale=0.1)))
    sketch.add("Gemm", value, sketch.weight(4, 16), sketch.weight(4, scale=0.1), output="y", transB=1)
    return sketch.model((12,), 4, version)


def transformer(version: int = 17, steps: int | str = 6) -> ModelProto:
    """One pre-norm transformer block of width 16 with two heads, and a mean over the sequence; before opset 17 the norms are written out."""
    sketch = Sketch(4)
    width, heads = 16, 2

    def norm(value: str) -> str:
        ones, zeros = sketch.constant(np.ones(width, np.float32)), sketch.constant(np.zeros(width, np.float32))
        if version >= 17:
            return sketch.add("LayerNormalization", value, ones, zeros, axis=-1)
        centred = sketch.add("Sub", value, sketch.add("ReduceMean", value, axes=[-1]))
        spread = sketch.add("ReduceMean", sketch.add("Mul", centred, centred), axes=[-1])
        root = sketch.add("Sqrt", sketch.add("Add", spread, sketch.constant(np.array(1e-5, np.float32))))
        return sketch.add("Add", sketch.add("Mul", sketch.add("Div", centred, root), ones), zeros)

    def linear(value: str, into: int, out: int) -> str:
        return sketch.add("Add", sketch.add("MatMul", value, sketch.weight(into, out)), sketch.weight(out, scale=0.1))

    split = sketch.constant(np.array([0, 0, heads, width // heads], np.int64))
    joined = sketch.constant(np.array([0, 0, width], np.int64))
    entry = norm("x")
    query, key, value = (sketch.add("Reshape", linear(entry, width, width), split) for _ in range(3))
    query, value = (sketch.add("Transpose", item, perm=[0, 2, 1, 3]) for item in (query, value))
    scores = sketch.add("MatMul", query, sketch.add("Transpose", key, perm=[0, 2, 3, 1]))
    scores = sketch.add("Div", scores, sketch.constant(np.array((width / heads) ** 0.5, np.float32)))
    mixed = sketch.add("MatMul", sketch.add("Softmax", scores, axis=-1), value)
    mixed = sketch.add("Reshape", sketch.add("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
    stream = sketch.add("Add", "x", linear(mixed, width, width))
    inner = linear(norm(stream), width, 32)
    inner = sketch.add("Mul", inner, sketch.add("Sigmoid", inner))
    stream = sketch.add("Add", stream, linear(inner, 32, width))
    sketch.add("ReduceMean", norm(stream), output="y", axes=[1], keepdims=0)
    return sketch.model((steps, width), width, version)


def shared_weights() -> ModelProto:
    """One matrix in three layers (once transposed), one convolution weight in two with a batch norm after one of them, a shared bias."""
    sketch = Sketch(5)
    kernel, bias = sketch.weight(4, 4, 3, 3), sketch.weight(4, scale=0.1)
    value = sketch.conv("x", 3, 4)
    for last in (False, True):
        value = sketch.add("Conv", value, kernel, bias, kernel_shape=[3, 3], pads=[1] * 4)
        value = sketch.add("Relu", value if last else sketch.batch_norm(value, 4))
    flat = sketch.add("Flatten", sketch.add("GlobalAveragePool", value))
    matrix = sketch.weight(4, 4)
    value = sketch.add("Relu", sketch.add("Gemm", flat, matrix, bias, transB=1))
    value = sketch.add("Relu", sketch.add("MatMul", value, matrix))
    sketch.add("Add", sketch.add("MatMul", value, matrix), flat, output="y")
    return sketch.model((3, 8, 8), 4)


def constant_nodes(proto: ModelProto | None = None) -> ModelProto:
    """A graph, by default the residual network, with every weight in a Constant node, and nodes without names."""
    proto = residual() if proto is None else proto
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer]
    del proto.graph.initializer[:]
    rest = list(proto.graph.node)
    for node in rest:
        node.name = ""
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    return proto


GRAPHS: dict[str, Callable[[], ModelProto]] = {
    "cnn": cnn,
    "cnn_opset_11": cnn_opset_11,
    "residual": residual,
    "mlp": mlp,
    "transformer": transformer,
    "shared_weights": shared_weights,
    "constant_nodes": constant_nodes,
}


def samples(proto: ModelProto, rows: int, seed: int = 0, free: tuple[int, ...] = (8,)) -> dict[str, np.ndarray]:
    """Random samples for a graph of this room: arrays (rows, ...) float32, by input name; free axes after the first get the sizes ``free`` in turn."""
    rng = np.random.default_rng(seed)
    fixed = {tensor.name for tensor in proto.graph.initializer}
    made = {}
    for value in proto.graph.input:
        if value.name not in fixed:
            sizes = itertools.cycle(free)
            shape = [axis.dim_value or next(sizes) for axis in value.type.tensor_type.shape.dim[1:]]
            made[value.name] = rng.normal(0, 1, (rows, *shape)).astype(np.float32)
    return made
