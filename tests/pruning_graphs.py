"""Small graphs with the couplings that ``headway.testing.small_graphs`` has not: groups, gates, recurrence, tables, control flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


class Build:
    """Nodes and weights of a graph with the input ``x`` and the output ``y``."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def w(self, *shape: int) -> str:
        """A random float weight."""
        return self.c((self.rng.normal(0, 1, shape) / max(np.prod(shape[1:]), 1) ** 0.5).astype(np.float32))

    def c(self, array: object, dtype: type = np.int64) -> str:
        """A constant."""
        name = f"c{len(self.weights)}"
        made = array if isinstance(array, np.ndarray) else np.array(array, dtype)
        self.weights.append(numpy_helper.from_array(made, name))
        return name

    def add(self, op: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: object) -> str:
        """A node; its first output."""
        names = list(outputs or (f"v{len(self.nodes)}",))
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}{len(self.nodes)}", **attributes))
        return names[0]

    def conv(self, value: str, into: int, out: int, kernel: int = 3, group: int = 1) -> str:
        """A convolution with bias that keeps the picture's size."""
        return self.add("Conv", value, self.w(out, into // group, kernel, kernel), self.w(out), pads=[kernel // 2] * 4, group=group)

    def linear(self, value: str, into: int, out: int, **outputs: tuple[str, ...]) -> str:
        """MatMul and Add."""
        return self.add("Add", self.add("MatMul", value, self.w(into, out)), self.w(out), **outputs)

    def model(
        self, shape: tuple[int | str, ...], out: tuple[int | str, ...], *, kind: int = TensorProto.FLOAT, version: int = 17
    ) -> ModelProto:
        """The checked model."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("x", kind, ["n", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *out])],
            self.weights,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
        onnx.checker.check_model(proto)
        return proto


def _pooled(b: Build, value: str, channels: int, classes: int = 3) -> ModelProto:
    flat = b.add("Flatten", b.add("GlobalAveragePool", value))
    b.add("Gemm", flat, b.w(classes, channels), b.w(classes), outputs=("y",), transB=1)
    return b.model((3, 6, 6), (classes,))


def grouped() -> ModelProto:
    """A grouped, a depthwise and a widening depthwise convolution."""
    b = Build(1)
    value = b.add("Relu", b.conv("x", 3, 12))
    value = b.add("Relu", b.conv(value, 12, 24, group=4))
    value = b.add("HardSwish", b.conv(b.conv(value, 24, 8, 1), 8, 16, group=8))
    return _pooled(b, value, 16)


def squeeze_excite() -> ModelProto:
    """A gate by channel, made from the channel means."""
    b = Build(2)
    value = b.add("Relu", b.conv("x", 3, 8))
    gate = b.add("GlobalAveragePool", value)
    gate = b.add("Sigmoid", b.conv(b.add("Relu", b.conv(gate, 8, 4, 1)), 4, 8, 1))
    return _pooled(b, b.add("Mul", value, gate), 8)


def joined() -> ModelProto:
    """Concat of three branches, uneven Split, Slice, PRelu, Pad, a transposed convolution, and Flatten over positions."""
    b = Build(3)
    parts = [b.add("Sigmoid", b.conv("x", 3, size)) for size in (4, 6, 2)]
    value = b.add("PRelu", b.add("Concat", *parts, axis=1), b.w(12, 1, 1))
    b.add("Split", value, b.c([5, 7]), outputs=("left", "right"), axis=1)
    right = b.add("Slice", "right", b.c([2]), b.c([-1]), b.c([1]))
    up = b.add("Pad", b.conv("left", 5, 4, 1), b.c([0, 0, 1, 1, 0, 0, 1, 1]))
    up = b.add("ConvTranspose", up, b.w(4, 4, 1, 1), b.w(4))
    up = b.add("Slice", up, b.c([1, 1]), b.c([7, 7]), b.c([2, 3]))
    value = b.add("Add", up, right)
    b.add("Gemm", b.add("Flatten", value), b.w(144, 3), b.w(3), outputs=("y",))
    return b.model((3, 6, 6), (3,))


def old_split() -> ModelProto:
    """Opset 11: Split with its sizes in an attribute, Squeeze with axes in one, Clip by inputs."""
    b = Build(4)
    value = b.add("Clip", b.conv("x", 3, 10), b.c(0, np.float32), b.c(6, np.float32))
    b.add("Split", value, outputs=("left", "right"), axis=1, split=[4, 6])
    one = b.conv("left", 4, 5, 1)
    two = b.conv("right", 6, 5, 1)
    flat = b.add("GlobalAveragePool", b.add("Max", one, two))
    flat = b.add("Squeeze", flat, axes=[2, 3])
    b.add("Gemm", flat, b.w(5, 3), b.w(3), outputs=("y",))
    return b.model((3, 6, 6), (3,), version=11)


def attention() -> ModelProto:
    """Four heads from one fused matrix each, the shape computed from the input as exporters write it."""
    b = Build(5)
    shape = b.add("Shape", "x")
    batch, steps = (b.add("Unsqueeze", b.add("Gather", shape, b.c(index), axis=0), b.c([0])) for index in (0, 1))
    apart = b.add("Concat", batch, steps, b.c([4]), b.c([3]), axis=0)
    together = b.add("Concat", batch, steps, b.c([12]), axis=0)
    heads = [b.add("Transpose", b.add("Reshape", b.linear("x", 8, 12), apart), perm=[0, 2, 1, 3]) for _ in range(3)]
    scores = b.add("MatMul", heads[0], b.add("Transpose", heads[1], perm=[0, 1, 3, 2]))
    mixed = b.add("MatMul", b.add("Softmax", b.add("Mul", scores, b.c(0.5, np.float32)), axis=-1), heads[2])
    mixed = b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), together)
    stream = b.add("Add", "x", b.linear(mixed, 12, 8))
    inner = b.add("Gelu", b.linear(b.add("LayerNormalization", stream, b.w(8), b.w(8), axis=-1), 8, 16))
    b.add("Add", stream, b.linear(inner, 16, 8), outputs=("y",))
    return b.model((5, 8), (5, 8), version=20)


def lstm() -> ModelProto:
    """Two stacked layers, the first in both directions with a state made from the batch's size; the last state to a classifier."""
    b = Build(6)
    value = b.add("Transpose", "x", perm=[1, 0, 2])
    batch = b.add("Gather", b.add("Shape", "x"), b.c([0]), axis=0)
    state = b.add("ConstantOfShape", b.add("Concat", b.c([2]), batch, b.c([6]), axis=0))
    value = b.add("LSTM", value, b.w(2, 24, 4), b.w(2, 24, 6), b.w(2, 48), "", state, state, hidden_size=6, direction="bidirectional")
    value = b.add("Reshape", b.add("Transpose", value, perm=[0, 2, 1, 3]), b.c([0, 0, -1]))
    b.add("LSTM", value, b.w(1, 20, 12), b.w(1, 20, 5), b.w(1, 40), outputs=("all", "last"), hidden_size=5)
    b.add("Gemm", b.add("Squeeze", "last", b.c([0])), b.w(5, 3), b.w(3), outputs=("y",))
    return b.model((7, 4), (3,))


def gru() -> ModelProto:
    """A GRU over a sequence, the mean of its states to a classifier."""
    b = Build(7)
    value = b.add("Transpose", "x", perm=[1, 0, 2])
    value = b.add("GRU", value, b.w(1, 18, 4), b.w(1, 18, 6), b.w(1, 36), hidden_size=6, linear_before_reset=1)
    value = b.add("ReduceMean", b.add("Squeeze", value, b.c([1])), axes=[0], keepdims=0)
    b.linear(value, 6, 3, outputs=("y",))
    return b.model((7, 4), (3,))


def embedding() -> ModelProto:
    """Two tables multiplied and joined with a third, as recommenders do."""
    b = Build(8)
    users, items, other = (b.add("Gather", b.w(10, size), "x") for size in (6, 6, 4))
    value = b.add("Concat", b.add("Mul", users, items), other, axis=-1)
    b.linear(b.add("Tanh", b.linear(value, 10, 8)), 8, 3, outputs=("y",))
    return b.model((2,), (2, 3), kind=TensorProto.INT64)


def shared() -> ModelProto:
    """One matrix in two branches that are added later; a table read twice."""
    b = Build(9)
    weight, bias, last = b.w(8, 10), b.w(10), b.w(10, 8)
    one = b.add("Relu", b.add("Gemm", "x", weight, bias))
    two = b.add("Tanh", b.add("Gemm", b.add("Neg", "x"), weight, bias))
    b.add("Add", b.add("MatMul", one, last), b.add("MatMul", two, last), outputs=("y",))
    return b.model((8,), (8,))


def control_flow() -> ModelProto:
    """The middle value is read inside an If: it stays; the layers beside it do not."""
    b = Build(10)
    free = b.add("Relu", b.linear("x", 4, 8))
    held = b.add("Relu", b.linear(free, 8, 6))
    positive = b.add("Greater", b.add("ReduceSum", held, keepdims=0), b.c(0, np.float32))
    branches = {}
    for name, op in (("then_branch", "Neg"), ("else_branch", "Abs")):
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", 6])
        branches[name] = helper.make_graph([helper.make_node(op, [held], [f"{name}_out"])], name, [], [out])
    value = b.add("If", positive, **branches)
    b.linear(value, 6, 3, outputs=("y",))
    return b.model((4,), (3,))


def in_a_loop() -> ModelProto:
    """A weight that a Loop's body multiplies with: its layer stays."""
    b = Build(11)
    value = b.add("Relu", b.linear("x", 4, 6))
    weight = b.w(6, 6)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", weight], ["next"]), helper.make_node("Identity", ["going"], ["goes"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", 6]),
        ],
        [helper.make_tensor_value_info("goes", TensorProto.BOOL, []), helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 6])],
    )
    value = b.add("Loop", b.c(2), b.c(True, np.bool_), value, body=body)
    b.linear(b.add("Relu", b.linear(value, 6, 8)), 8, 3, outputs=("y",))
    return b.model((4,), (3,))


GRAPHS: dict[str, Callable[[], ModelProto]] = {
    made.__name__: made
    for made in (grouped, squeeze_excite, joined, old_split, attention, lstm, gru, embedding, shared, control_flow, in_a_loop)
}


def samples(proto: ModelProto, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random rows for ``x``; small integers where it takes indices."""
    rng = np.random.default_rng(seed)
    kind = proto.graph.input[0].type.tensor_type
    shape = (rows, *[axis.dim_value for axis in kind.shape.dim][1:])
    if kind.elem_type == TensorProto.INT64:
        return {"x": rng.integers(0, 10, shape)}
    return {"x": rng.normal(0, 1, shape).astype(np.float32)}
