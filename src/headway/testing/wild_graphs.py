"""Surprises met in real exports, for the contract suite of techniques: each graph must be compressed rightly or refused, never made wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.testing.small_graphs import Sketch, cnn, constant_nodes, mlp, residual, transformer

STATE, STEPS, FEATURES = 16, 6, 8


def free_picture() -> ModelProto:
    """Height and width are free: shapes computed from the input, and the picture's positions mixed with a matrix."""
    sketch = Sketch(6)
    value = sketch.add("Relu", sketch.batch_norm(sketch.conv("x", 3, 16), 16))
    value = sketch.add("Relu", sketch.add("Add", value, sketch.conv(sketch.add("Relu", sketch.conv(value, 16, 16)), 16, 16)))
    value = sketch.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    shape = sketch.add("Shape", value)
    sizes = [
        sketch.add("Unsqueeze", sketch.add("Gather", shape, sketch.constant(np.array(axis)), axis=0), sketch.constant(np.array([0])))
        for axis in (0, 1)
    ]
    positions = sketch.add("Reshape", value, sketch.add("Concat", *sizes, sketch.constant(np.array([-1])), axis=0))
    value = sketch.add("MatMul", sketch.add("Transpose", positions, perm=[0, 2, 1]), sketch.weight(16, 32))
    value = sketch.add("ReduceMean", sketch.add("Relu", value), axes=[1], keepdims=0)
    sketch.add("Gemm", value, sketch.weight(5, 32), sketch.weight(5, scale=0.1), output="y", transB=1)
    return sketch.model((3, "height", "width"), 5)


def nested_if_with_state() -> ModelProto:
    """A state goes in and out; an If around an If, all with weights of their own, and one matrix that the graph around reads too."""
    rng = np.random.default_rng(7)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, (1 / shape[-2]) ** 0.5 if len(shape) > 1 else 0.1, shape).astype(np.float32), name)

    outer = [weight("enter", FEATURES, STATE), weight("shared", STATE, STATE)]
    outer += [weight("first", STEPS * FEATURES, 32), weight("leave", 32 + STATE, 5), numpy_helper.from_array(np.float32(0), "zero")]
    outer += [numpy_helper.from_array(np.array([0]), "axis"), weight("w_all", 1, 4 * STATE, FEATURES), weight("r_all", 1, 4 * STATE, STATE)]
    outer += [weight("b_all", 1, 8 * STATE)]
    recurrent = _branch(
        "recurrent",
        [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node("Unsqueeze", ["state", "axis"], ["begin"]),
            helper.make_node("LSTM", ["steps", "w_all", "r_all", "b_all", "", "begin", "begin"], ["", "last"], hidden_size=STATE),
            helper.make_node("Squeeze", ["last", "axis"], ["recurrent_out"]),
        ],
    )
    plain = _branch(
        "plain",
        [
            helper.make_node("MatMul", ["state", "shared"], ["moved"]),
            helper.make_node("Add", ["moved", "own_bias"], ["biased"]),
            helper.make_node("Tanh", ["biased"], ["plain_out"]),
        ],
        [weight("own_bias", STATE)],
    )
    inner = _branch(
        "inner",
        [
            helper.make_node("ReduceMax", ["state"], ["highest"], keepdims=0),
            helper.make_node("Greater", ["highest", "zero"], ["warm"]),
            helper.make_node("If", ["warm"], ["inner_out"], then_branch=recurrent, else_branch=plain),
        ],
    )
    other = _branch(
        "other",
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "enter"], ["entered"]),
            helper.make_node("MatMul", ["entered", "own"], ["other_out"]),
        ],
        [weight("own", STATE, STATE)],
    )
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["level"], keepdims=0),
        helper.make_node("Greater", ["level", "zero"], ["high"]),
        helper.make_node("If", ["high"], ["held"], name="choice", then_branch=inner, else_branch=other),
        helper.make_node("MatMul", ["held", "shared"], ["next"], name="carry"),
        helper.make_node("Flatten", ["x"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "first"], ["hidden"], name="first_layer"),
        helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        helper.make_node("Concat", ["active", "next"], ["joined"], axis=1, name="join"),
        helper.make_node("MatMul", ["joined", "leave"], ["y"], name="last_layer"),
    ]
    sizes = {"x": (STEPS, FEATURES), "state": (STATE,), "y": (5,), "next": (STATE,)}
    x, state, y, after = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *size]) for name, size in sizes.items())
    graph = helper.make_graph(nodes, "small", [x, state], [y, after], outer)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _branch(name: str, nodes: list[NodeProto], own: list[TensorProto] | None = None) -> GraphProto:
    for index, node in enumerate(nodes):
        node.name = f"{name}_{index}"
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", STATE])], own or [])


def lstm() -> ModelProto:
    """An LSTM in both directions whose gates are Concat nodes of constants, as exporters write them, and its last states to a classifier."""
    sketch = Sketch(8)
    steps = sketch.add("Transpose", sketch.add("Tanh", "x"), perm=[1, 0, 2])
    weights = [
        sketch.add(
            "Concat", sketch.weight(1, 4 * STATE, into, scale=into**-0.5), sketch.weight(1, 4 * STATE, into, scale=into**-0.5), axis=0
        )
        for into in (FEATURES, STATE)
    ]
    states = sketch.add("LSTM", steps, *weights, sketch.weight(2, 8 * STATE, scale=0.1), hidden_size=STATE, direction="bidirectional")
    states = sketch.add("Transpose", sketch.add("ReduceMean", states, axes=[0], keepdims=0), perm=[1, 0, 2])
    sketch.add("MatMul", sketch.add("Flatten", states), sketch.weight(2 * STATE, 5, scale=0.2), output="y")
    return sketch.model((STEPS, FEATURES), 5)


def shared_tables() -> ModelProto:
    """One matrix that two layers multiply with and one row of which is also added: no layer may change it alone."""
    sketch = Sketch(9)
    matrix = sketch.weight(32, 32)
    value = sketch.add("Relu", sketch.add("MatMul", "x", matrix))
    value = sketch.add("Relu", sketch.add("Gemm", value, matrix, sketch.weight(32, scale=0.1), transB=1))
    row = sketch.add("Gather", matrix, sketch.constant(np.array(3)), axis=0)
    value = sketch.add("Add", sketch.add("MatMul", value, sketch.weight(32, 32)), row)
    sketch.add("MatMul", value, sketch.weight(32, 5), output="y")
    return sketch.model((32,), 5)


def weights_listed_as_inputs() -> ModelProto:
    """As before IR version 4: every weight is an input too, which a caller may override."""
    proto = mlp(11)
    proto.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in proto.graph.initializer)
    proto.ir_version = 3
    return proto


def inner_value_given_out() -> ModelProto:
    """A value that the next layers read is an output as well."""
    proto = residual()
    name = next(node for node in proto.graph.node if node.op_type == "Add").output[0]
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, 8, 8]))
    return proto


def half_weights() -> ModelProto:
    """Weights kept in float16 and cast where they are read."""
    proto = mlp()
    casts = []
    for tensor in proto.graph.initializer:
        wide, tensor_name = numpy_helper.to_array(tensor), tensor.name
        tensor.CopyFrom(numpy_helper.from_array(wide.astype(np.float16), f"{tensor_name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [tensor_name], name=f"cast_{tensor_name}", to=TensorProto.FLOAT))
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *rest])
    return proto


GRAPHS: dict[str, Callable[[], ModelProto]] = {
    "free_picture": free_picture,
    "nested_if_with_state": nested_if_with_state,
    "lstm": lstm,
    "shared_tables": shared_tables,
    "cnn_opset_13": lambda: cnn(13),
    "mlp_opset_11": lambda: mlp(11),
    "mlp_opset_13": lambda: mlp(13),
    "transformer_opset_11": lambda: transformer(11),
    "transformer_opset_13": lambda: transformer(13),
    "weights_listed_as_inputs": weights_listed_as_inputs,
    "inner_value_given_out": inner_value_given_out,
    "half_weights": half_weights,
    "transformer_of_free_length": lambda: transformer(steps="steps"),
    "transformer_in_constant_nodes": lambda: constant_nodes(transformer()),
}
