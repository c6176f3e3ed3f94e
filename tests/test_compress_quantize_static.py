"""Equalization and smoothing keep the answers exactly; bias correction and the error bound do what they promise; surprises met in the wild."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress import Context
from headway.compress.equalize import equalize, pairs
from headway.compress.graph import copied, initializers, normalise
from headway.compress.layers import PRODUCTS, layers, unshare
from headway.compress.session import answers, relative_error
from headway.compress.smooth import smooth
from headway.compress.techniques import quantize_dynamic, quantize_static, quantize_weights
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported
from headway.testing.small_graphs import GRAPHS, cnn, mlp, residual, samples, transformer

VNNI = frozenset({"avx512_vnni"})


def graph_of(
    nodes: list[NodeProto], weights: dict[str, np.ndarray], shape: list[int | str], out: list[int | str], version: int = 17
) -> ModelProto:
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def separable(spread: float, seed: int = 0, activation: str = "Relu") -> ModelProto:
    """Dense, depthwise and pointwise convolution and a Gemm; channels of the first two differ in range by up to ``spread``."""
    rng = np.random.default_rng(seed)
    wild = np.exp(rng.uniform(-np.log(spread), np.log(spread), 8))

    def draw(*dims: int) -> np.ndarray:
        return rng.normal(0, (2 / np.prod(dims[1:])) ** 0.5, dims)

    weights = {
        "w0": draw(8, 3, 3, 3) * wild[:, None, None, None],
        "b0": rng.normal(0, 0.1, 8) * wild,
        "w1": draw(8, 1, 3, 3) / wild[:, None, None, None],
        "b1": rng.normal(0, 0.1, 8),
        "w2": draw(6, 8, 1, 1),
        "b2": rng.normal(0, 0.1, 6),
        "w3": draw(5, 6),
        "b3": rng.normal(0, 0.1, 5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "dense", pads=[1] * 4),
        helper.make_node(activation, ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], "depthwise", pads=[1] * 4, group=8),
        helper.make_node(activation, ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "pointwise"),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "classify", transB=1),
    ]
    return normalise(graph_of(nodes, {name: array.astype(np.float32) for name, array in weights.items()}, ["n", 3, 8, 8], ["n", 5]))


def error_of(proto: ModelProto, rows: int = 48, instruction_sets: frozenset[str] = VNNI, **chosen: Setting) -> float:
    feeds = samples(proto, rows)
    got = quantize_static.apply(Model.from_proto(proto, "m", "onnx"), dict(chosen), Context(feeds, instruction_sets)).to_proto()
    return relative_error(answers(proto, feeds, rows), answers(got, feeds, rows))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1.0, 10.0, 100.0]), st.sampled_from(["Relu", "LeakyRelu"]))
def test_equalization_changes_no_answer(seed: int, spread: float, activation: str) -> None:
    proto = separable(spread, seed, activation)
    feeds = samples(proto, 4)
    assert relative_error(answers(proto, feeds, 4), answers(equalize(copied(proto)), feeds, 4)) < 1e-5


def test_equalized_channels_have_like_ranges() -> None:
    """At the fixed point each channel is as wide in the layer before as in the layer after (equation 11)."""
    proto = equalize(separable(50.0))
    fixed = {name: np.abs(numpy_helper.to_array(tensor)) for name, tensor in initializers(proto.graph).items()}
    assert np.allclose(fixed["w0"].max(axis=(1, 2, 3)), fixed["w1"].max(axis=(1, 2, 3)), rtol=0.05)
    assert np.allclose(fixed["w1"].max(axis=(1, 2, 3)), fixed["w2"].max(axis=(0, 2, 3)), rtol=0.05)


def test_pairs_end_at_clips_branches_outputs_and_shared_weights() -> None:
    assert [(pair.first.name, pair.second.name) for pair in pairs(separable(2.0).graph)] == [
        ("dense", "depthwise"), ("depthwise", "pointwise"),
    ]  # fmt: skip
    assert len(pairs(normalise(mlp()).graph)) == 2
    assert pairs(normalise(GRAPHS["shared_weights"]()).graph) == ()
    assert all("Clip" not in pair.first.output for pair in pairs(normalise(residual()).graph))


def test_equalization_helps_channels_of_unlike_range() -> None:
    assert error_of(separable(100.0), equalize=True) < 0.5 * error_of(separable(100.0))


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8, 1.0])
def test_smoothing_changes_no_answer(strength: float) -> None:
    for proto in (normalise(transformer()), normalise(mlp())):
        unshare(proto, [layer.name for layer in layers(proto.graph, PRODUCTS)])
        feeds = samples(proto, 8)
        smoothed = smooth(copied(proto), feeds, strength)
        onnx.checker.check_model(smoothed)
        assert relative_error(answers(proto, feeds, 8), answers(smoothed, feeds, 8)) < 1e-5


def test_smoothing_goes_into_the_norm_where_nothing_else_reads_it() -> None:
    proto = normalise(transformer())
    smoothed = smooth(copied(proto), samples(proto, 8), 0.5)
    before, after = ([node.op_type for node in graph.graph.node] for graph in (proto, smoothed))
    assert after.count("Mul") == before.count("Mul") + 2  # of the attention's output and the second product of the FFN
    readers = [node.input[0] for node in smoothed.graph.node if node.op_type == "MatMul" and node.input[0].startswith("v0")]
    assert readers == ["v0"] * 3


def test_smoothing_helps_where_a_few_columns_are_large() -> None:
    proto = normalise(transformer())
    gain = next(node.input[1] for node in proto.graph.node if node.op_type == "LayerNormalization")
    wild = np.ones(16, np.float32)
    wild[3] = 60
    tensor = initializers(proto.graph)[gain]
    readers = [node for node in proto.graph.node if node.op_type == "MatMul" and node.input[0] == "v0"]
    tensor.CopyFrom(numpy_helper.from_array(wild, gain))
    for node in readers:
        weight = initializers(proto.graph)[node.input[1]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / wild[:, None], weight.name))
    assert error_of(proto, smooth=0.5, calibrator="min_max") < 0.6 * error_of(proto, calibrator="min_max")


def test_bias_correction_makes_up_for_what_the_layer_itself_shifts() -> None:
    """One layer: rounding its weights to 7 bits moves means, and the bias takes all of that back on the samples it was shown."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.laplace(0, 0.3, (6, 40)).astype(np.float32), "b": np.zeros(6, np.float32)}
    proto = normalise(graph_of([helper.make_node("Gemm", ["x", "w", "b"], ["y"], "only", transB=1)], weights, ["n", 40], ["n", 6]))
    feeds = {"x": rng.gamma(2, 1, (64, 40)).astype(np.float32)}
    shifts = []
    for correct in (False, True):
        chosen: dict[str, Setting] = {"correct_bias": correct, "calibrator": "percentile"}
        got = quantize_static.apply(Model.from_proto(proto, "m", "onnx"), chosen, Context(feeds)).to_proto()
        before, after = (answers(graph, feeds, 64)[0][0] for graph in (proto, got))
        shifts.append(np.abs((after - before).mean(axis=0)).max())
    assert shifts[1] < 0.1 * shifts[0]


def test_the_error_bound_holds_with_as_many_layers_as_it_allows() -> None:
    proto = separable(60.0, 1)
    free = error_of(proto, 32)
    counts = []
    for bound in (2 * free, free / 2, free / 8):
        model, context = Model.from_proto(proto, "m", "onnx"), Context(samples(proto, 32), VNNI)
        made = quantize_static.apply(model, {"error_bound": bound}, context).to_proto()
        counts.append(sum(node.op_type in ("Conv", "Gemm") and node.input[1] not in initializers(proto.graph) for node in made.graph.node))
        assert relative_error(answers(proto, context.samples, 32), answers(made, context.samples, 32)) <= bound
    assert counts[0] == 4 and counts[0] > counts[1] >= counts[2] > 0
    with pytest.raises(Unsupported, match="no layer may be quantized at error_bound 1e-09"):
        quantize_static.apply(model, {"error_bound": 1e-9}, context)


def test_settings_out_of_range_are_errors() -> None:
    model, context = Model.from_proto(cnn(), "m", "onnx"), Context(samples(cnn(), 8), VNNI)
    for chosen in ({"smooth": 1.5}, {"error_bound": -0.1}):
        with pytest.raises(ConfigError, match="smooth must lie in"):
            quantize_static.apply(model, dict(chosen), context)


def test_the_ladder_is_short_and_mild_first() -> None:
    for name, rungs in (("residual", 7), ("mlp", 8), ("transformer", 7)):
        proto = GRAPHS[name]()
        got = quantize_static.ladder(Model.from_proto(proto, name, "onnx"), Context(samples(proto, 8), VNNI))
        assert len(got) <= 8 and got[0]["keep_float"] == 0.25 and len(got) == rungs, name


def with_branches() -> ModelProto:
    """A state that goes around an If, whose branches hold products of their own and read values and weights from outside."""

    def branch(name: str, reads: str, weight: np.ndarray, inner: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("MatMul", [reads, "shared"], [f"{inner}_a"]),
            helper.make_node("MatMul", [f"{inner}_a", f"{inner}_w"], [f"{inner}_m"]),
            helper.make_node("Add", [f"{inner}_m", "state"], [f"{inner}_y"]),
        ]
        out = helper.make_tensor_value_info(f"{inner}_y", TensorProto.FLOAT, ["n", 12])
        return helper.make_graph(nodes, name, [], [out], [numpy_helper.from_array(weight, f"{inner}_w")])

    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, (12, 12)).astype(np.float32) for name in ("w", "shared", "v", "t", "e")}
    weights |= {"b": rng.normal(0, 0.1, 12).astype(np.float32), "zero": np.array(0, np.float32)}
    then, other = branch("then", "r", weights.pop("t"), "t"), branch("else", "state", weights.pop("e"), "e")
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "clip"),
        helper.make_node("Gemm", ["r", "shared"], ["g"], "second"),
        helper.make_node("Tanh", ["g"], ["state"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["z"], "choose", then_branch=then, else_branch=other),
        helper.make_node("MatMul", ["z", "v"], ["y"], "last"),
    ]
    return graph_of(nodes, weights, ["n", 12], ["n", 12])


def free_size() -> ModelProto:
    """Convolutions over pictures of any height and width."""
    proto = copied(separable(2.0))
    for axis, name in ((2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return proto


def in_constant_nodes() -> ModelProto:
    proto = separable(2.0)
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer]
    body = helper.make_graph([*nodes, *proto.graph.node], "g", list(proto.graph.input), list(proto.graph.output))
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


SURPRISES = {
    "branches": with_branches,
    "free_size": free_size,
    "constant_nodes_opset_11": in_constant_nodes,
    "shared": GRAPHS["shared_weights"],
}
CHOSEN: tuple[tuple[object, dict[str, Setting]], ...] = (
    (quantize_static, {}),
    (quantize_static, {"equalize": True, "correct_bias": True, "smooth": 0.5}),
    (quantize_static, {"scope": "but_sensitive", "keep_float": 0.3}),
    (quantize_static, {"error_bound": 0.02}),
    (quantize_static, {"rounding": "second_order", "correct_bias": True}),
    (quantize_dynamic, {}),
    (quantize_weights, {}),
    (quantize_weights, {"rounding": "second_order"}),
    (quantize_weights, {"form": "standard"}),
)


@pytest.mark.parametrize("place", range(len(CHOSEN)))
@pytest.mark.parametrize("name", sorted(SURPRISES))
def test_surprises_work_or_are_refused_with_a_sentence(name: str, place: int) -> None:
    technique, chosen = CHOSEN[place]
    proto = SURPRISES[name]()
    rng = np.random.default_rng(0)
    shape = (16, 12) if name == "branches" else (16, 3, 8, 8)
    feeds = {"x": rng.normal(0, 1, shape).astype(np.float32)}
    model, context = Model.from_proto(proto, name, "onnx"), Context(feeds, VNNI)
    reason = technique.refuse(model, context)  # type: ignore[attr-defined]
    if reason is not None:
        assert technique is not quantize_static and ("of the work" in reason or "of 128 values" in reason or "of the weights" in reason), (
            reason
        )
        return
    made = technique.apply(model, dict(chosen), context).to_proto()  # type: ignore[attr-defined]
    assert made.SerializeToString() == technique.apply(model, dict(chosen), context).to_proto().SerializeToString()  # type: ignore[attr-defined]
    wider = {"x": rng.normal(0, 1, (4, 3, 11, 13)).astype(np.float32)} if name == "free_size" else feeds
    for each in (feeds, wider, {"x": -feeds["x"]}):
        rows = len(each["x"])
        assert relative_error(answers(proto, each, rows), answers(made, each, rows)) < 0.08
