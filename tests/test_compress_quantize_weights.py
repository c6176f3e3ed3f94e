"""Narrow weights: rounding in closed form and against brute force, both forms in both runtimes, tables by row, LSTM layers, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.compress import Context
from headway.compress.constants import join_constants
from headway.compress.graph import initializers, normalise
from headway.compress.narrow_weights import Codes, dividing, packed
from headway.compress.recurrent import bounded
from headway.compress.rounding import nearest, restored, scales, second_order
from headway.compress.session import answers, relative_error
from headway.compress.techniques import quantize_dynamic, quantize_weights
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported
from headway.runtime.runtimes import onnx_runtime, openvino
from headway.testing.small_graphs import mlp, samples, transformer

VNNI = frozenset({"avx512_vnni"})


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: dict[str, tuple[int, list[int | str]]], out: list[int | str]
) -> ModelProto:
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def recommender(width: int = 32) -> tuple[ModelProto, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    weights = {
        "users": rng.normal(0, 0.1, (300, width)).astype(np.float32),
        "films": rng.normal(0, 0.1, (400, width)).astype(np.float32),
        "w": rng.normal(0, 0.2, (width, 2 * width)).astype(np.float32),
        "b": rng.normal(0, 0.2, 2 * width).astype(np.float32),
        "v": rng.normal(0, 0.2, (1, 2 * width)).astype(np.float32),
        "c": np.array([0.5], np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["users", "u"], ["eu"], "look_up_users"),
        helper.make_node("Gather", ["films", "f"], ["ef"], "look_up_films"),
        helper.make_node("Mul", ["eu", "ef"], ["p"]),
        helper.make_node("Gemm", ["p", "w", "b"], ["h"], "hidden", alpha=0.5, beta=2.0),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "c"], ["y"], "score", transB=1),
    ]
    proto = graph_of(nodes, weights, {"u": (TensorProto.INT64, ["n"]), "f": (TensorProto.INT64, ["n"])}, ["n", 1])
    return proto, {"u": rng.integers(0, 300, 64), "f": rng.integers(-400, 400, 64)}


def narrowed(proto: ModelProto, feeds: dict[str, np.ndarray], **chosen: Setting) -> ModelProto:
    return quantize_weights.apply(Model.from_proto(proto, "m", "onnx"), dict(chosen), Context(feeds, VNNI)).to_proto()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 8]), st.sampled_from([16, 32]), st.booleans())
def test_nearest_codes_are_within_half_a_step_where_nothing_is_cut(seed: int, bits: int, block: int, clipped: bool) -> None:
    weight = np.random.default_rng(seed).normal(0, 1, (5, 40)).astype(np.float32)
    by_block = scales(weight, bits, block, clipped=clipped)
    off = np.abs(restored(nearest(weight, by_block, bits, block), by_block, block) - weight)
    wide = np.repeat(by_block, block, axis=1)[:, :40]
    inside = np.abs(weight) <= wide * (2 ** (bits - 1) - 1) * 1.00001
    assert (off[inside] <= wide[inside] * 0.5001).all() and (inside.all() or clipped)


def test_clipping_has_the_lesser_squared_error() -> None:
    weight = np.random.default_rng(0).laplace(0, 1, (64, 128)).astype(np.float32)
    losses = []
    for clipped in (False, True):
        by_block = scales(weight, 4, 32, clipped=clipped)
        losses.append(np.square(restored(nearest(weight, by_block, 4, 32), by_block, 32) - weight).sum())
    assert losses[1] < 0.95 * losses[0]


def test_second_order_rounding_moves_the_layers_answers_less() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (24, 96)).astype(np.float32)
    inputs = rng.normal(0, 1, (400, 12)) @ rng.normal(0, 1, (12, 96)) + 0.1 * rng.normal(0, 1, (400, 96))
    by_block = scales(weight, 4, 32, clipped=True)
    plain = nearest(weight, by_block, 4, 32)
    learned = second_order(weight, by_block, 4, 32, inputs.T @ inputs)
    errors = [np.linalg.norm(inputs @ (restored(codes, by_block, 32) - weight).T) for codes in (plain, learned)]
    assert errors[1] < 0.5 * errors[0]


def test_second_order_rounding_of_independent_inputs_is_nearest() -> None:
    weight = np.random.default_rng(1).normal(0, 1, (6, 70)).astype(np.float32)
    by_block = scales(weight, 4, 32, clipped=False)
    assert np.array_equal(second_order(weight, by_block, 4, 32, np.eye(70)), nearest(weight, by_block, 4, 32))


def test_two_codes_share_a_byte_the_lower_half_first() -> None:
    codes = Codes(np.array([[-8, 7, 0, 1]], np.int8), np.ones((1, 1), np.float32), 4, 4)
    assert packed(codes).tolist() == [[[0 | 15 << 4, 8 | 9 << 4]]]


@pytest.mark.parametrize("runtime", [onnx_runtime, openvino])
@pytest.mark.parametrize(
    "chosen", [{"bits": 8}, {"bits": 4}, {"bits": 8, "form": "standard"}, {"bits": 4, "form": "standard"}, {"bits": 8, "block": 16}]
)
def test_both_runtimes_compute_what_the_codes_say(chosen: dict[str, Setting], runtime: object, tmp_path: Path) -> None:
    """The oracle is the float model with restored weights, computed in float."""
    for proto, feeds in (recommender(), (transformer(), samples(transformer(), 64)), (mlp(), samples(mlp(), 64))):
        oracle, path = ModelProto(), tmp_path / "narrow.onnx"
        oracle.CopyFrom(proto)
        names = [tensor.name for tensor in oracle.graph.initializer if len(tensor.dims) == 2]
        readers = {node.input[1]: node for node in oracle.graph.node if node.op_type in ("MatMul", "Gemm")}
        bits = int(chosen["bits"])
        for name in names:
            tensor = initializers(oracle.graph)[name]
            array = numpy_helper.to_array(tensor)
            if array.size < quantize_weights.LEAST_VALUES:
                continue
            own_bits = bits if array.size >= 4096 else 8
            node = readers.get(name)
            by_row = node is not None and any(a.name == "transB" and a.i for a in node.attribute)
            block = (
                (32 if own_bits == 4 else array.shape[1]) if node is None else int(chosen.get("block", quantize_weights.BLOCK[own_bits]))
            )
            matrix = array if node is None or by_row else array.T
            block = dividing(matrix.shape[1], block) if chosen.get("form") == "standard" and node is not None else block
            by_block = scales(matrix, own_bits, block, clipped=False)
            by_block = by_block.astype(np.float16) if node is None and own_bits == 8 else by_block
            back = restored(nearest(matrix, by_block, own_bits, block), by_block, block)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(back if matrix is array else back.T), name))
        onnx.save(narrowed(proto, feeds, **chosen), path)
        session = runtime.open_session(path, threads=1)  # type: ignore[attr-defined]
        got = session.run({name: array[:16] for name, array in feeds.items()})["y"]
        session.close()
        loose = runtime is onnx_runtime and chosen.get("form") == "standard"  # there ONNX Runtime rounds activations to 8 bits
        assert relative_error([[got]], answers(oracle, feeds, 16)) < (0.05 if loose else 1e-4), proto.graph.node[0].op_type


def test_a_recommender_shrinks_by_three_and_a_half() -> None:
    proto, feeds = recommender()
    assert proto.ByteSize() / narrowed(proto, feeds, bits=8).ByteSize() > 3
    assert proto.ByteSize() / narrowed(proto, feeds, bits=4).ByteSize() > 4.5


def test_a_table_that_others_read_stays_float() -> None:
    proto, feeds = recommender()
    proto.graph.node.append(helper.make_node("ReduceSum", ["users"], ["s"], "also_reads", keepdims=0))
    proto.graph.node.append(helper.make_node("Add", ["z", "s"], ["y"], "end"))
    proto.graph.node[5].output[0] = "z"
    fixed = initializers(narrowed(proto, feeds).graph)
    assert "users" in fixed and "films" not in fixed


def test_the_ladder_offers_four_bits_only_where_they_save_something() -> None:
    for proto, feeds, rungs in ((*recommender(), 3), (mlp(), samples(mlp(), 8), 2)):
        assert len(quantize_weights.ladder(Model.from_proto(proto, "m", "onnx"), Context(feeds))) == rungs
    assert quantize_weights.ladder(Model.from_proto(recommender()[0], "m", "onnx"), Context())[-1]["rounding"] == "clipped"


def test_refusals_and_settings() -> None:
    proto, feeds = recommender()
    model = Model.from_proto(proto, "m", "onnx")
    with pytest.raises(Unsupported, match="needs calibration samples"):
        quantize_weights.apply(model, {"rounding": "second_order"}, Context())
    with pytest.raises(ConfigError, match="known are 4, 8"):
        quantize_weights.apply(model, {"bits": 3}, Context())
    twice = Model.from_proto(narrowed(proto, feeds), "m", "onnx")
    assert "quantized already (node 'hidden' is a MatMulNBits)" in str(quantize_weights.refuse(twice, Context(feeds)))


def lstm(*, reads_features: bool = True, layers: int = 2, width: int = 32) -> ModelProto:
    """LSTM layers over raw features; weights put together by Concat and Unsqueeze, as PyTorch's exporter leaves them."""
    rng = np.random.default_rng(0)
    weights, nodes, value = {"axis0": np.array([0]), "axis1": np.array([1])}, [], "x"
    if not reads_features:
        nodes.append(helper.make_node("Tanh", ["x"], ["t"]))
        value = "t"
    for place in range(layers):
        into = 12 if place == 0 else width
        parts = [f"w{place}{gate}" for gate in range(4)]
        weights |= {name: rng.normal(0, 0.3, (width, into)).astype(np.float32) for name in parts}
        weights[f"r{place}"] = rng.normal(0, 0.2, (1, 4 * width, width)).astype(np.float32)
        nodes += [
            helper.make_node("Concat", parts, [f"cat{place}"], axis=0),
            helper.make_node("Unsqueeze", [f"cat{place}", "axis0"], [f"w{place}"]),
            helper.make_node("LSTM", [value, f"w{place}", f"r{place}"], [f"h{place}"], f"lstm{place}", hidden_size=width),
            helper.make_node("Squeeze", [f"h{place}", "axis1"], [f"s{place}"]),
        ]
        value = f"s{place}"
    weights |= {"last": np.array(-1), "head": rng.normal(0, 0.3, (width, 5)).astype(np.float32)}
    nodes += [helper.make_node("Gather", [value, "last"], ["z"], axis=0), helper.make_node("MatMul", ["z", "head"], ["y"], "head_product")]
    return graph_of(nodes, weights, {"x": (TensorProto.FLOAT, [7, "n", 12])}, ["n", 5])


def run(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_an_lstm_over_hidden_states_becomes_8_bit_and_one_over_features_keeps_its_input_matrix() -> None:
    proto, x = lstm(), np.random.default_rng(1).normal(0, 1, (7, 3, 12)).astype(np.float32)
    written = quantize_dynamic.apply(Model.from_proto(proto, "m", "onnx"), {}, Context(instruction_sets=VNNI)).to_proto()
    kinds = {node.name: node.op_type for node in written.graph.node}
    assert (kinds["lstm0"], kinds["lstm1"]) == ("LSTM", "DynamicQuantizeLSTM")
    fixed = initializers(written.graph)
    assert fixed["w0"].data_type == TensorProto.FLOAT and fixed["lstm0_recurrent_codes"].data_type == TensorProto.INT8
    expected, got = run(proto, x), run(written, x)
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03
    assert proto.ByteSize() / written.ByteSize() > 2.2


def test_all_lstm_layers_become_8_bit_behind_a_tanh() -> None:
    proto = normalise(lstm(reads_features=False))
    assert bounded(proto.graph, "t") and bounded(proto.graph, "s0") and not bounded(proto.graph, "x")
    written = quantize_dynamic.apply(Model.from_proto(proto, "m", "onnx"), {}, Context(instruction_sets=VNNI)).to_proto()
    assert sum(node.op_type == "DynamicQuantizeLSTM" for node in written.graph.node) == 2
    plain = quantize_dynamic.apply(Model.from_proto(proto, "m", "onnx"), {"recurrent": False}, Context(instruction_sets=VNNI)).to_proto()
    assert sum(node.op_type == "LSTM" for node in plain.graph.node) == 2


def test_constants_put_together_by_nodes_are_joined_once() -> None:
    proto = join_constants(normalise(lstm(layers=1)))
    assert {node.op_type for node in proto.graph.node} == {"LSTM", "Squeeze", "Gather", "MatMul"}
    assert list(initializers(proto.graph)["w0"].dims) == [1, 128, 12]


def test_a_model_whose_weights_are_elsewhere_is_refused_with_the_node() -> None:
    reason = quantize_weights.refuse(Model.from_proto(lstm(), "m", "onnx"), Context())
    assert reason is not None and "too little to gain from; the largest weight belongs to node 'lstm0', a LSTM" in reason
