"""Cleaning: what is folded, what must stay, and that answers stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.compress import Context, make
from headway.compress.batchnorm import fold_batch_norms
from headway.compress.graph import normalise
from headway.compress.products import join_biases
from headway.compress.session import answers, relative_error
from headway.compress.techniques.fold import remove_pass_through
from headway.model import Model
from headway.records import Step
from headway.testing.small_graphs import cnn, constant_nodes, samples, shared_weights

RNG = np.random.default_rng(0)
FOLD = (Step(technique="fold"),)


def tensor(name: str, *shape: int, positive: bool = False) -> TensorProto:
    array = RNG.normal(0, 1, shape)
    return numpy_helper.from_array((np.abs(array) + 0.5 if positive else array).astype(np.float32), name)


def graph(nodes: list, weights: list[TensorProto], shape: tuple[int, ...], outputs: dict[str, int] | None = None) -> ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])]
    ranks = outputs or {"y": len(shape) + 1}
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in ranks.items()]
    body = helper.make_graph(nodes, "g", inputs, made, weights)
    return normalise(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def norm(value: str, output: str, channels: int) -> tuple[list, list[TensorProto]]:
    names = [f"{output}.{part}" for part in ("gamma", "beta", "mean", "variance")]
    return [helper.make_node("BatchNormalization", [value, *names], [output])], [
        tensor(name, channels, positive=name.endswith("variance")) for name in names
    ]


def kinds(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def same_answers(before: ModelProto, after: ModelProto, tolerance: float = 1e-5) -> bool:
    feeds = samples(before, 5)
    return relative_error(answers(before, feeds, 5), answers(after, feeds, 5)) < tolerance


def copied(proto: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


@pytest.mark.parametrize(
    ("layer", "weight", "channels", "shape"),
    [
        (helper.make_node("Conv", ["x", "w", "b"], ["c"]), (6, 4, 3, 3), 6, (4, 5, 5)),
        (helper.make_node("Conv", ["x", "w"], ["c"], group=4), (4, 1, 3, 3), 4, (4, 5, 5)),
        (helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"]), (4, 6, 3, 3), 6, (4, 5, 5)),
        (helper.make_node("Gemm", ["x", "w", "b"], ["c"], transB=1, beta=0.5), (6, 4), 6, (4,)),
        (helper.make_node("Gemm", ["x", "w"], ["c"], alpha=2.0), (4, 6), 6, (4,)),
    ],
)
def test_batch_norm_folds_into_its_layer(layer: object, weight: tuple[int, ...], channels: int, shape: tuple[int, ...]) -> None:
    nodes, weights = norm("c", "y", channels)
    before = graph([layer, *nodes], [tensor("w", *weight), tensor("b", channels), *weights], shape)
    after = fold_batch_norms(copied(before))
    assert len(after.graph.node) == 1
    assert same_answers(before, after)


def test_batch_norm_stays_where_the_layer_has_another_reader() -> None:
    nodes, weights = norm("c", "d", 4)
    add = helper.make_node("Add", ["c", "d"], ["y"])
    before = graph([helper.make_node("Conv", ["x", "w"], ["c"]), *nodes, add], [tensor("w", 4, 4, 3, 3), *weights], (4, 5, 5))
    assert kinds(fold_batch_norms(copied(before))) == ["Conv", "BatchNormalization", "Add"]


def test_batch_norm_stays_where_the_layer_is_an_output() -> None:
    nodes, weights = norm("c", "y", 4)
    before = graph([helper.make_node("Conv", ["x", "w"], ["c"]), *nodes], [tensor("w", 4, 4, 3, 3), *weights], (4, 5, 5), {"c": 4, "y": 4})
    assert "BatchNormalization" in kinds(fold_batch_norms(copied(before)))


def test_batch_norm_before_a_convolution_stays() -> None:
    nodes, weights = norm("x", "c", 4)
    before = graph([*nodes, helper.make_node("Conv", ["c", "w"], ["y"], pads=[1] * 4)], [tensor("w", 4, 4, 3, 3), *weights], (4, 5, 5))
    assert "BatchNormalization" in kinds(fold_batch_norms(copied(before)))


def test_a_shared_weight_is_copied_not_changed() -> None:
    model = Model.from_proto(shared_weights(), "m", "onnx")
    made = make(model, FOLD, Context(samples(shared_weights(), 4)))
    assert made.effects[0].output_error is not None and made.effects[0].output_error < 1e-5
    assert "BatchNormalization" not in kinds(made.model.to_proto())


def test_identity_and_dropout_go_also_at_the_outputs_and_inputs() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Dropout", ["b"], ["c", "mask"]),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    before = graph(nodes, [], (3,))
    after = copied(before)
    remove_pass_through(after)
    assert kinds(after) == ["Relu"] and same_answers(before, after)


def test_an_identity_between_input_and_output_stays() -> None:
    proto = graph([helper.make_node("Identity", ["x"], ["y"])], [], (3,))
    remove_pass_through(proto)
    assert kinds(proto) == ["Identity"]


def test_a_dropout_whose_mask_is_read_stays() -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["c", "mask"]), helper.make_node("Where", ["mask", "c", "x"], ["y"])]
    proto = graph(nodes, [], (3,))
    remove_pass_through(proto)
    assert kinds(proto) == ["Dropout", "Where"]


def test_a_value_read_only_inside_a_branch_is_rewired() -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["c"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, None)])
    other = helper.make_graph([helper.make_node("Abs", ["c"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, None)])
    nodes = [
        helper.make_node("Identity", ["x"], ["c"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=other),
    ]
    before = graph(nodes, [numpy_helper.from_array(np.array(True), "yes")], (3,))
    after = copied(before)
    remove_pass_through(after)
    assert kinds(after) == ["If"] and same_answers(before, after)


def test_a_matrix_and_its_bias_become_one_gemm_only_in_two_dimensions() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["c"]), helper.make_node("Add", ["b", "c"], ["y"])]
    flat = graph(nodes, [tensor("w", 4, 6), tensor("b", 6)], (4,))
    deep = graph(nodes, [tensor("w", 4, 6), tensor("b", 6)], (3, 4))
    joined = join_biases(copied(flat))
    assert kinds(joined) == ["Gemm"] and same_answers(flat, joined)
    assert kinds(join_biases(copied(deep))) == ["MatMul", "Add"]


def test_constant_nodes_become_initializers_and_nodes_get_names() -> None:
    proto = normalise(constant_nodes())
    assert "Constant" not in kinds(proto) and proto.graph.initializer
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)


@pytest.mark.parametrize(("begin", "kept"), [(0.0, 4), (0.5, 7)])
def test_initial_states_go_only_when_they_are_zero(begin: float, kept: int) -> None:
    nodes = [
        helper.make_node("Expand", ["value", "size"], ["state"]),
        helper.make_node("LSTM", ["x", "w", "r", "b", "", "state", "state"], ["", "h"], hidden_size=3),
        helper.make_node("Squeeze", ["h", "zero"], ["y"]),
    ]
    fixed = [numpy_helper.from_array(np.array(begin, np.float32), "value"), numpy_helper.from_array(np.array([1, 4, 3]), "size")]
    weights = [tensor("w", 1, 12, 5), tensor("r", 1, 12, 3), tensor("b", 1, 24), numpy_helper.from_array(np.array([0]), "zero")]
    before = graph(nodes, [*fixed, *weights], (4, 5), {"y": 2})
    feeds = {"x": RNG.normal(0, 1, (6, 4, 5)).astype(np.float32)}
    model = Model.from_proto(before, "recurrent", "here")
    after = make(model, FOLD, Context(samples=feeds, instruction_sets=frozenset(), seed=0)).model.to_proto()
    assert [len(node.input) for node in after.graph.node if node.op_type == "LSTM"] == [kept]
    assert relative_error(answers(before, feeds, 6), answers(after, feeds, 6)) < 1e-6


def test_a_clean_graph_is_said_to_be_unchanged() -> None:
    context = Context(samples(cnn(), 4))
    once = make(Model.from_proto(cnn(), "m", "onnx"), FOLD, context)
    assert not once.effects[0].did_nothing and once.effects[0].nodes_after < once.effects[0].nodes_before
    twice = make(once.model, FOLD, context)
    assert twice.effects[0].did_nothing and "did nothing" in twice.effects[0].message
    assert twice.model.to_bytes() == once.model.to_bytes()


def test_without_samples_the_error_is_not_claimed() -> None:
    made = make(Model.from_proto(cnn(), "m", "onnx"), FOLD, Context())
    assert made.effects[0].output_error is None and "not compared" in made.effects[0].message
