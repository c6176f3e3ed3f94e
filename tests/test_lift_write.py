"""Values back into the graph: only what moved changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headway.lift import lift, write_back
from headway.lift.quantizing import lsq_factor
from headway.model import Model
from headway.records import ModelError
from lift_graphs import agree, arrays, graph, model, one, values


def two_layers() -> Model:
    a, b, c = arrays((4, 3), (4,), (4, 2))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(c)),
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], transB=1, name="first"),
        helper.make_node("MatMul", ["h", "c"], ["y"], name="second"),
    ]
    return model(graph(nodes, {"x": [None, 3]}, ["y"], {"a": a, "b": b}))


def test_without_training_the_bytes_stay() -> None:
    source = two_layers()
    assert write_back(source, lift(source)).to_bytes() == source.to_bytes()


def test_only_the_weight_that_moved_changes() -> None:
    source = two_layers()
    lifted = lift(source)
    with torch.no_grad():
        lifted.weights["b"].add_(1)
        lifted.weights["c"].mul_(2)
    made = write_back(source, lifted)
    before, after = values(source), values(made)
    assert before["a"] == after["a"] and before["b"] != after["b"]
    agree(made, lifted, {"x": arrays((5, 3), seed=1)[0]})
    assert [node.name for node in made.to_proto().graph.node] == [node.name for node in source.to_proto().graph.node]


def test_values_stored_as_numbers_rather_than_bytes_are_replaced_too() -> None:
    proto = two_layers().to_proto()
    proto.graph.initializer[1].CopyFrom(helper.make_tensor("b", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0]))
    source = Model.from_proto(proto, "m", "onnx")
    lifted = lift(source)
    with torch.no_grad():
        lifted.weights["b"].add_(1)
    agree(write_back(source, lifted), lifted, {"x": arrays((5, 3), seed=1)[0]})


def test_another_graph_is_refused() -> None:
    lifted = lift(two_layers())
    with pytest.raises(ModelError, match="graph that was lifted"):
        write_back(one("MatMul", {"x": [1, 4]}, {"a": arrays((4, 4))[0]}), lifted)


def test_stored_statistics_are_written() -> None:
    scale, bias, mean, x = arrays((3,), (3,), (3,), (4, 3, 5, 5))
    source = one("BatchNormalization", {"x": [None, 3, 5, 5]}, {"s": scale, "b": bias, "m": mean, "v": np.ones(3, np.float32)})
    lifted = lift(source).train()
    lifted.update_statistics = True
    lifted({"x": torch.from_numpy(x)})
    agree(write_back(source, lifted), lifted.eval(), {"x": x})


def test_sixteen_bit_weights_learn_in_32_bits_and_return_in_16() -> None:
    w = arrays((3, 3))[0].astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    source = model(graph(nodes, {"x": [None, 3]}, ["y"], {"w": w}))
    lifted = lift(source)
    assert lifted.weights["w"].dtype == torch.float32
    assert write_back(source, lifted).to_bytes() == source.to_bytes()
    with torch.no_grad():
        lifted.weights["w"].add_(0.5)
    agree(write_back(source, lifted), lifted, {"x": arrays((2, 3), seed=1)[0]}, 1e-2)


def quantized(per_channel: bool = True) -> Model:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (4, 3)).astype(np.int8)
    scale = np.array([0.01, 0.02, 0.03, 0.04], np.float32) if per_channel else np.float32(0.02)
    zero = np.zeros(4, np.int8) if per_channel else np.int8(0)
    constants = {
        "wq": weight, "ws": scale, "wz": zero, "xs": np.float32(0.02), "xz": np.uint8(128),
        "bq": rng.integers(-(2**28), 2**28, 4).astype(np.int32), "bs": np.full(4, 1e-8, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["bq", "bs"], ["b"], axis=0),
        helper.make_node("Gemm", ["xd", "w", "b"], ["y"], transB=1),
    ]
    return model(graph(nodes, {"x": [None, 3]}, ["y"], constants))


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantized_graph_answers_the_same_and_returns_to_the_byte(per_channel: bool) -> None:
    source = quantized(per_channel)
    lifted = lift(source)
    assert list(lifted.weights) == ["wq", "bq"]
    agree(source, lifted, {"x": arrays((5, 3), seed=1)[0]})
    assert write_back(source, lifted).to_bytes() == source.to_bytes()


def test_moved_latents_are_quantized_again_and_the_answers_agree() -> None:
    source = quantized()
    lifted = lift(source)
    with torch.no_grad():
        lifted.weights["wq"].add_(0.0123)
        lifted.weights["bq"].mul_(1.5)
    made = write_back(source, lifted)
    assert values(made)["wq"] != values(source)["wq"]
    agree(made, lifted, {"x": arrays((5, 3), seed=1)[0]})


def test_gradients_pass_straight_through_inside_the_range_and_stop_outside() -> None:
    lifted = lift(quantized())
    x = torch.tensor([[0.5, 100.0, -100.0]], requires_grad=True)
    lifted({"x": x})["y"].sum().backward()
    assert x.grad[0, 0] != 0
    assert x.grad[0, 1] == 0 and x.grad[0, 2] == 0


def test_scales_learn_by_the_rule_of_lsq() -> None:
    scale, bounds = np.float32(0.1), (-128, 127)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    source = model(graph(nodes, {"x": [None, 3]}, ["y"], {"s": scale, "z": np.int8(0)}))
    assert not lift(source).weights
    lifted = lift(source, learn_scales=True)
    x = torch.tensor([[0.234, 1.06, 50.0]])
    lifted({"x": x})["y"].sum().backward()
    v = x / 0.1
    inside = (torch.round(v) - v)[:, :2].sum() + 127
    expected = inside * lsq_factor(x, torch.tensor(0.1), bounds, batched=True)
    assert lifted.weights["s"].grad.item() == pytest.approx(float(expected), rel=1e-4)
    with torch.no_grad():
        lifted.weights["s"].mul_(1.25)
    agree(write_back(source, lifted), lifted, {"x": x.numpy()})


def test_learned_scales_of_weights_requantize_the_weight() -> None:
    source = quantized()
    lifted = lift(source, learn_scales=True)
    assert set(lifted.weights) == {"wq", "ws", "xs", "bq"}
    with torch.no_grad():
        lifted.weights["ws"].mul_(1.3)
    agree(write_back(source, lifted), lifted, {"x": arrays((5, 3), seed=1)[0]})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-128, 127), min_size=2, max_size=8), st.floats(1e-4, 10), st.integers(-128, 127))
def test_any_integers_return_as_they_were(integers: list[int], scale: float, zero: int) -> None:
    constants = {"q": np.array(integers, np.int8), "s": np.float32(scale), "z": np.int8(zero)}
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]), helper.make_node("Mul", ["x", "w"], ["y"])]
    source = model(graph(nodes, {"x": [1]}, ["y"], constants))
    assert write_back(source, lift(source)).to_bytes() == source.to_bytes()
