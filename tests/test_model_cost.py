"""The FLOP counter against numbers worked out by hand, and against numpy's own loops where a law has a closed form."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headway.model import Model, cost
from headway.model.flop import RULES, NodeView, flop_of

F = TensorProto.FLOAT


def model(nodes, inputs, outputs, weights=(), *, opset=17, extra=()) -> Model:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in extra)]
    return Model.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10), "m", "onnx")


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def one(node, inputs, output, weights=(), **more):
    made = model([node], [(name, F, shape) for name, shape in inputs.items()], [("y", F, output)], weights, **more)
    return cost(made)


@pytest.mark.parametrize(
    ("groups", "weight", "flop"),
    [
        (1, (8, 4, 3, 3), 8 * 36 * (2 * 4 * 9 + 1)),
        (2, (8, 2, 3, 3), 8 * 36 * (2 * 2 * 9 + 1)),
        (4, (4, 1, 3, 3), 4 * 36 * (2 * 1 * 9 + 1)),  # depthwise
    ],
)
def test_convolution(groups, weight, flop):
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    done = one(node, {"x": ["batch", 4, 6, 6]}, ["batch", weight[0], 6, 6], {"w": zeros(*weight), "b": zeros(weight[0])})
    assert done.flop == flop
    assert done.weight_bytes == 4 * (np.prod(weight) + weight[0])
    assert done.activation_bytes == 4 * 36 * (4 + weight[0])
    assert done.uncounted == ()


def test_transposed_convolution():
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], kernel_shape=[2, 2])
    done = one(node, {"x": ["batch", 4, 5, 5]}, ["batch", 3, 10, 10], {"w": zeros(4, 3, 2, 2)})
    assert done.flop == 2 * 4 * 25 * 3 * 4


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed):
    weight = zeros(5, 7) if transposed else zeros(7, 5)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)
    assert one(node, {"x": ["batch", 7]}, ["batch", 5], {"w": weight, "b": zeros(5)}).flop == 2 * 7 * 5 + 5


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 4), max_size=2), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_batched_matrix_product(batch, m, k, n):
    view = NodeView("MatMul", inputs=((*batch, m, k), (k, n)), outputs=((*batch, m, n),), given=(True, True))
    assert flop_of(view) == 2 * int(np.prod(batch, initial=1)) * m * k * n


@pytest.mark.parametrize(
    ("equation", "shapes", "out", "flop"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], (2, 4), 2 * 24),
        ("bhid,bhjd->bhij", [(1, 2, 3, 4), (1, 2, 5, 4)], (1, 2, 3, 5), 2 * 2 * 3 * 5 * 4),
        ("...ij,...jk->...ik", [(7, 2, 3), (7, 3, 4)], (7, 2, 4), 2 * 7 * 24),
        ("i,j->ij", [(3,), (4,)], (3, 4), 12),
        ("ij->ji", [(3, 4)], (4, 3), 0),
        ("ij->i", [(3, 4)], (3,), 12),
        ("ij,jk", [(2, 3), (3, 4)], (2, 4), 2 * 24),
    ],
)
def test_einsum(equation, shapes, out, flop):
    view = NodeView("Einsum", attributes={"equation": equation}, inputs=tuple(shapes), outputs=(out,), given=(True,) * len(shapes))
    assert flop_of(view) == flop


@pytest.mark.parametrize(
    ("kind", "gates", "pointwise", "direction"),
    [("LSTM", 4, 9, "forward"), ("LSTM", 4, 9, "bidirectional"), ("GRU", 3, 7, "forward"), ("RNN", 1, 1, "forward")],
)
def test_recurrent(kind, gates, pointwise, direction):
    steps, width, hidden = 6, 5, 7
    ways = 2 if direction == "bidirectional" else 1
    node = helper.make_node(kind, ["x", "w", "r", "b"], ["y"], hidden_size=hidden, direction=direction)
    weights = {"w": zeros(ways, gates * hidden, width), "r": zeros(ways, gates * hidden, hidden), "b": zeros(ways, 2 * gates * hidden)}
    done = one(node, {"x": [steps, "batch", width]}, [steps, ways, "batch", hidden], weights)
    assert done.flop == steps * ways * (2 * gates * hidden * (width + hidden) + 2 * gates * hidden + pointwise * hidden)
    assert done.parameters == ways * gates * hidden * (width + hidden + 2)


def test_attention_is_the_sum_of_its_parts():
    rows, heads, length, width = 1, 4, 6, 8
    shape = (rows, heads, length, width)
    view = NodeView("Attention", inputs=(shape,) * 3, outputs=(shape,), given=(True,) * 3)
    scores, scale, softmax, mixed = 2 * heads * length**2 * width, heads * length**2, 5 * heads * length**2, 2 * heads * length**2 * width
    assert flop_of(view) == scores + scale + softmax + mixed
    hidden = heads * width
    fused = NodeView(
        "Attention",
        "com.microsoft",
        {"num_heads": heads},
        ((rows, length, hidden), (hidden, 3 * hidden), (3 * hidden,)),
        ((rows, length, hidden),),
        given=(True,) * 3,
    )
    assert flop_of(fused) == flop_of(view) + length * 3 * hidden * (2 * hidden + 1)


@pytest.mark.parametrize(
    ("view", "flop"),
    [
        (NodeView("Relu", outputs=((2, 3),), given=(True,)), 6),
        (NodeView("Sum", outputs=((2, 3),), given=(True, True, True)), 12),
        (NodeView("Gather", outputs=((2, 3),), given=(True, True)), 0),
        (NodeView("ReduceMean", inputs=((2, 3),), outputs=((2, 1),)), 8),
        (NodeView("Softmax", inputs=((2, 3),), outputs=((2, 3),)), 30),
        (NodeView("LayerNormalization", inputs=((2, 3),), outputs=((2, 3),)), 42),
        (NodeView("MaxPool", attributes={"kernel_shape": [2, 2]}, inputs=((1, 1, 4, 4),), outputs=((1, 1, 2, 2),)), 16),
        (NodeView("GlobalAveragePool", inputs=((1, 2, 4, 4),), outputs=((1, 2, 1, 1),)), 34),
        (NodeView("Resize", attributes={"mode": "linear"}, inputs=((1, 1, 2, 2),), outputs=((1, 1, 4, 4),)), 16 * 2 * 4),
        (NodeView("Resize", attributes={"mode": "nearest"}, inputs=((1, 1, 2, 2),), outputs=((1, 1, 4, 4),)), 0),
        (NodeView("MatMulInteger", inputs=((2, 3), (3, 4)), outputs=((2, 4),)), 48),
        (NodeView("ConvInteger", inputs=((1, 2, 4, 4), (3, 2, 1, 1)), outputs=((1, 3, 4, 4),)), 48 * 4),
        (
            NodeView("QLinearConv", inputs=((1, 2, 4, 4), (), (), (3, 2, 1, 1)), outputs=((1, 3, 4, 4),), given=(True,) * 9),
            48 * (4 + 1 + 2),
        ),
        (NodeView("MatMulNBits", attributes={"K": 8, "N": 4}, inputs=((1, 8),), outputs=((1, 4),)), 4 * 16 + 2 * 32),
    ],
)
def test_rules(view, flop):
    assert flop_of(view) == flop


def test_every_standard_operator_has_a_rule_or_is_known_to_lack_one():
    known_to_lack = {
        "BlackmanWindow", "CenterCropPad", "Col2Im", "HammingWindow", "HannWindow", "ImageDecoder", "MelWeightMatrix", "NonMaxSuppression",
        "NegativeLogLikelihoodLoss", "RegexFullMatch", "RoiAlign", "SoftmaxCrossEntropyLoss", "StringConcat", "StringNormalizer",
        "StringSplit", "TfIdfVectorizer", "If", "Loop", "Scan", "SequenceMap",
    }  # fmt: skip
    names = {
        schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain and not schema.deprecated and schema.since_version <= 22
    }
    assert names - set(RULES) - known_to_lack == set()


def test_an_operator_without_rule_is_named():
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="my.domain")
    done = one(node, {"x": ["batch", 3]}, ["batch", 3], extra=["my.domain"])
    assert (done.flop, done.uncounted) == (0, ("Frobnicate",))


def test_sizes_come_by_name_then_from_samples_then_by_default():
    node = helper.make_node("Relu", ["x"], ["y"])
    made = model([node], [("x", F, ["n", "time", "height"])], [("y", F, ["n", "time", "height"])])
    assert cost(made).flop == 64 * 224
    assert cost(made, {"x": zeros(9, 5, 6)}).flop == 30
    assert cost(made, {"x": zeros(9, 5, 6)}, sizes={"time": 2}).flop == 12


def test_shapes_that_cannot_be_inferred_are_seen_in_a_run():
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),  # onnx cannot infer its shape
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    made = model(nodes, [("x", F, ["batch", 3])], [("y", F, ["batch", 2])], {"w": zeros(3, 2)}, extra=["com.microsoft"])
    done = cost(made)
    assert done.flop == 5 * 3 + 12
    assert done.uncounted == ()


def test_what_constants_alone_give_costs_nothing():
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Exp", ["t"], ["e"]),
        helper.make_node("MatMul", ["x", "e"], ["y"]),
    ]
    done = cost(model(nodes, [("x", F, ["batch", 3])], [("y", F, ["batch", 2])], {"w": zeros(2, 3)}))
    assert done.flop == 12
    assert [operator.op_type for operator in done.operators] == ["MatMul"]
    assert done.weight_bytes == 24


def test_a_table_that_is_looked_up_does_not_move():
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    done = cost(model([node], [("ids", TensorProto.INT64, ["batch", 3])], [("y", F, ["batch", 3, 8])], {"table": zeros(1000, 8)}))
    assert (done.parameters, done.weight_bytes) == (8000, 0)
    assert done.activation_bytes == 3 * 8 + 2 * 3 * 8 * 4


def test_quantized_values_move_narrow():
    scale = {"s": np.float32(0.1), "z": np.uint8(0), "wz": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "s", "wz"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["mq"]),
        helper.make_node("DequantizeLinear", ["mq", "s", "z"], ["y"]),
    ]
    made = model(nodes, [("x", F, ["batch", 16])], [("y", F, ["batch", 8])], {**scale, "wq": zeros(16, 8, dtype=np.int8)})
    done = cost(made)
    product = next(operator for operator in done.operators if operator.op_type == "MatMul")
    assert product.activation_bytes == 16 + 8
    assert product.weight_bytes == 16 * 8 + 4 + 1
    assert done.parameters == 16 * 8
    assert done.flop == 2 * 16 * 8 + 4 * 16 + 4 * 8


def test_bodies_count_once_and_the_costlier_branch():
    def branch(operators):
        nodes = [
            helper.make_node("Exp", ["x" if index == 0 else f"{operators}e{index - 1}"], [f"{operators}e{index}"])
            for index in range(operators)
        ]
        return helper.make_graph(
            nodes, f"b{operators}", [], [helper.make_tensor_value_info(f"{operators}e{operators - 1}", F, ["batch", 3])]
        )

    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch(1), else_branch=branch(3))
    done = cost(model([node], [("x", F, ["batch", 3]), ("flag", TensorProto.BOOL, [])], [("y", F, ["batch", 3])]))
    assert done.flop == 9
    assert done.uncounted == ("If (the costlier branch counted)",)


def test_functions_of_the_model_are_counted_inside():
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Twice", ["a"], ["c"], [helper.make_node("Add", ["a", "a"], ["c"])], imports[:1])
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", F, ["batch", 3])],
        [helper.make_tensor_value_info("y", F, ["batch", 3])],
    )
    proto = helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=8)
    assert cost(Model.from_proto(proto, "m", "onnx")).flop == 3
