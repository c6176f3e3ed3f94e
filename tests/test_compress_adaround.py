"""Patches are what a convolution multiplies; weights rounded by what layers see move the answers less, and are nearest where that is best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.compress import Context
from headway.compress.graph import initializers, normalise
from headway.compress.layer_products import MOST_INPUTS, flat_weight, layer_products, own_shape, seen_rows
from headway.compress.layers import layers
from headway.compress.session import answers, relative_error
from headway.compress.techniques import quantize_static
from headway.model import Model
from headway.testing.small_graphs import GRAPHS, samples

VNNI, AVX2 = frozenset({"avx512_vnni"}), frozenset({"avx2"})


def convolution(weight: np.ndarray, spatial: list[int | str], **options: object) -> ModelProto:
    groups = int(options.get("group", 1))  # type: ignore[call-overload]
    body = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv", **options)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[1] * groups, *spatial])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return normalise(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@given(st.integers(0, 999), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.lists(st.integers(0, 2), min_size=4, max_size=4))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_rows_times_weight_is_the_convolution(seed: int, groups: int, size: int, stride: int, dilation: int, pads: list[int]) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, 4 // groups, size, 2)).astype(np.float32)
    proto = convolution(weight, [7, 6], group=groups, strides=[stride, 1], dilations=[dilation, 1], pads=pads)
    value = rng.normal(size=(2, 4, 7, 6)).astype(np.float32)
    (expected,) = answers(proto, {"x": value}, 2)[0]
    rows = seen_rows(proto.graph.node[0], weight.shape[2:], value)
    parts = np.split(weight.reshape(4, -1), groups)
    got = np.concatenate([part @ row.T for part, row in zip(parts, rows, strict=True)])  # [outputs, samples * positions]
    assert np.allclose(got, np.moveaxis(expected, 1, 0).reshape(4, -1), atol=1e-4)


def test_a_convolution_over_time_without_settings_is_read_too() -> None:
    weight = np.ones((2, 3, 4), np.float32)
    proto = convolution(weight, [9])
    value = np.random.default_rng(0).normal(size=(2, 3, 9)).astype(np.float32)
    assert seen_rows(proto.graph.node[0], (4,), value).shape == (1, 2 * 6, 12)
    (seen,) = layer_products(proto, layers(proto.graph), {"x": value}).values()
    rows = seen_rows(proto.graph.node[0], (4,), value)[0].astype(np.float64)
    assert np.allclose(seen[0], rows.T @ rows, rtol=1e-4)


def test_auto_pad_and_very_wide_layers_are_left_to_nearest() -> None:
    value = {"x": np.ones((2, 3, 5), np.float32)}
    padded = convolution(np.ones((2, 3, 3), np.float32), [5], auto_pad="SAME_UPPER")
    assert layer_products(padded, layers(padded.graph), value) == {}
    wide = convolution(np.ones((1, MOST_INPUTS + 1, 1), np.float32), [2])
    assert layer_products(wide, layers(wide.graph), {"x": np.ones((1, MOST_INPUTS + 1, 2), np.float32)}) == {}


def test_flat_weights_go_back() -> None:
    for name in ("cnn", "mlp", "transformer"):
        proto = normalise(GRAPHS[name]())
        for layer in layers(proto.graph):
            weight = numpy_helper.to_array(initializers(proto.graph)[layer.weight])
            assert np.array_equal(own_shape(layer, flat_weight(layer, weight), weight), weight)


def made(proto: ModelProto, feeds: dict[str, np.ndarray], rounding: str, sets: frozenset[str] = VNNI) -> ModelProto:
    model = Model.from_proto(proto, "m", "onnx")
    return quantize_static.apply(model, {"rounding": rounding}, Context(feeds, sets)).to_proto()


def correlated(seed: int) -> tuple[ModelProto, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A product whose inputs vary along a few directions: there nearest rounding is far from best."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(64, 16)).astype(np.float32)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    directions = rng.normal(size=(6, 64))

    def draw(rows: int) -> dict[str, np.ndarray]:
        return {"x": (rng.normal(size=(rows, 6)) @ directions + 0.05 * rng.normal(size=(rows, 64))).astype(np.float32)}

    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), draw(256), draw(256)


def error_of_weights(proto: ModelProto, narrow: ModelProto, feeds: dict[str, np.ndarray]) -> float:
    """Squared error of the product from its weights alone."""
    fixed = initializers(narrow.graph)
    node = next(node for node in narrow.graph.node if node.op_type == "DequantizeLinear" and node.input[0].startswith("w"))
    codes, scale = (numpy_helper.to_array(fixed[name]).astype(np.float64) for name in node.input[:2])
    exact = numpy_helper.to_array(initializers(proto.graph)["w"])
    return float(np.square(feeds["x"] @ (codes * scale - exact)).sum())


@pytest.mark.parametrize("sets", [VNNI, AVX2])
@pytest.mark.parametrize("seed", range(3))
def test_what_layers_see_halves_the_error_of_the_weights_on_other_rows(seed: int, sets: frozenset[str]) -> None:
    proto, feeds, others = correlated(seed)
    nearest, learned = (made(proto, feeds, rounding, sets) for rounding in ("nearest", "second_order"))
    assert error_of_weights(proto, learned, others) < 0.5 * error_of_weights(proto, nearest, others)


def test_only_the_codes_differ() -> None:
    for name in ("cnn", "residual", "transformer", "shared_weights"):
        proto = GRAPHS[name]()
        nearest, learned = (made(proto, samples(proto, 24), rounding) for rounding in ("nearest", "second_order"))
        before, after = initializers(nearest.graph), initializers(learned.graph)
        changed = [key for key in before if before[key] != after[key]]
        assert changed and list(before) == list(after) and list(nearest.graph.node) == list(learned.graph.node), name
        assert all(before[key].data_type == after[key].data_type == TensorProto.INT8 for key in changed), name
        assert all(before[key].dims == after[key].dims for key in changed), name


def test_codes_keep_to_7_bits_where_8_would_overflow() -> None:
    proto, feeds, _ = correlated(0)
    arrays = [numpy_helper.to_array(tensor) for tensor in made(proto, feeds, "second_order", AVX2).graph.initializer]
    codes = [array for array in arrays if array.dtype == np.int8 and array.size > 1]
    assert codes and all(array.min() >= -64 and array.max() <= 64 for array in codes)


def test_inputs_of_zero_leave_a_finite_model() -> None:
    proto = GRAPHS["cnn"]()
    feeds = {key: np.zeros_like(array) for key, array in samples(proto, 4).items()}
    got = made(proto, feeds, "second_order")
    assert relative_error(answers(proto, feeds, 4), answers(got, feeds, 4)) < 0.1
