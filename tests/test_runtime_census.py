"""The census counts work as it is executed, names what fell back, and rejects the hopeless before anything is timed."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.compress import Context, get, make
from headway.model import Model
from headway.records import Census, ModelError, Step, from_json, to_json
from headway.runtime import census, hopeless
from headway.runtime.executed import executed, multiply_adds
from headway.testing.small_graphs import GRAPHS, samples

RUNTIMES = ("onnx_runtime", "openvino")
CHANNELS, SIDE, CLASSES = 32, 16, 96
CONV_MACS = CHANNELS * CHANNELS * 9 * SIDE * SIDE
GEMM_MACS = CHANNELS * SIDE * SIDE * CLASSES


def conv_and_gemm(side: int | str = SIDE) -> ModelProto:
    """A convolution and a product of known sizes: 2.36 and 0.79 million multiply-adds."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32),
        "m": rng.normal(0, 0.1, (CHANNELS * SIDE * SIDE, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, kernel_shape=[3, 3], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "m"], ["y"], name="gemm"),
    ]
    return graph_of(nodes, ("x", ["n", CHANNELS, side, side]), ("y", ["n", CLASSES]), weights)


def graph_of(
    nodes: list[onnx.NodeProto], given: tuple[str, list[int | str]], out: tuple[str, list[int | str]], weights: dict[str, np.ndarray]
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [helper.make_tensor_value_info(out[0], TensorProto.FLOAT, out[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(proto: ModelProto, folder: Path) -> Path:
    path = folder / "graph.onnx"
    onnx.save(proto, str(path))
    return path


def quantized(proto: ModelProto, folder: Path, technique: str = "quantize_static", name: str = "it") -> Path:
    """The harshest rung of a technique, on a graph."""
    model = Model.from_proto(proto, name, "onnx")
    context = Context(samples=samples(proto, 16), instruction_sets=frozenset({"avx512_vnni"}), seed=0)
    rung = get(technique).ladder(model, context)[-1]
    path = folder / f"{technique}.onnx"
    make(model, (Step(technique="fold"), Step(technique=technique, settings=rung)), context).model.save(path)
    return path


def is_whole(found: Census) -> bool:
    return abs(sum(found.shares.values()) - 1) < 1e-9 and from_json(to_json(found), Census) == found


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("graph", sorted(GRAPHS))
def test_a_float_graph_has_no_narrow_work_and_nothing_to_explain(graph: str, runtime: str, tmp_path: Path) -> None:
    found = census(runtime, saved(GRAPHS[graph](), tmp_path), "v")
    assert is_whole(found)
    assert found.shares.get("integer", 0) == 0 and found.shares["float32"] == 1
    assert (found.sentence, found.fallbacks) == ("", ())
    assert hopeless(found) is None


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("graph", ["cnn", "residual", "mlp"])
def test_static_quantization_of_every_layer_is_counted_integer(graph: str, runtime: str, tmp_path: Path) -> None:
    found = census(runtime, quantized(GRAPHS[graph](), tmp_path), "v")
    assert is_whole(found)
    assert found.shares["integer"] > 0.99
    assert "100% of the multiply-adds" in found.sentence
    assert hopeless(found) is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_work_is_weighted_by_multiply_adds(runtime: str, tmp_path: Path) -> None:
    """Only the product is quantized: 25% of the work, though it holds 99% of the weights."""
    proto = conv_and_gemm()
    scales = {
        "xs": np.float32(0.05),
        "xz": np.uint8(0),
        "ws": np.float32(0.004),
        "wz": np.int8(0),
        "ys": np.float32(0.1),
        "yz": np.uint8(128),
    }
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    weights["m"] = np.clip(np.round(weights["m"] / 0.004), -127, 127).astype(np.int8)
    nodes = [
        *list(proto.graph.node)[:3],
        helper.make_node("QuantizeLinear", ["f", "xs", "xz"], ["fq"]),
        helper.make_node("DequantizeLinear", ["fq", "xs", "xz"], ["fd"]),
        helper.make_node("DequantizeLinear", ["m", "ws", "wz"], ["md"]),
        helper.make_node("MatMul", ["fd", "md"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "ys", "yz"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "ys", "yz"], ["y"]),
    ]
    path = saved(graph_of(nodes, ("x", ["n", CHANNELS, SIDE, SIDE]), ("y", ["n", CLASSES]), {**weights, **scales}), tmp_path)
    found = census(runtime, path, "v")
    assert is_whole(found)
    assert found.shares["integer"] == pytest.approx(GEMM_MACS / (GEMM_MACS + CONV_MACS), rel=1e-6)
    assert "only 25% of the work" in str(hopeless(found))


def test_executed_kernels_have_the_shapes_of_one_row_even_where_the_graph_states_none(tmp_path: Path) -> None:
    path = saved(conv_and_gemm("side"), tmp_path)
    kernels = {kernel.op_type: kernel for kernel in executed(path, tmp_path / "optimized.onnx")}
    assert multiply_adds(kernels["Conv"]) == CONV_MACS
    assert multiply_adds(kernels["MatMul" if "MatMul" in kernels else "Gemm"]) == GEMM_MACS
    assert (tmp_path / "optimized.onnx").is_file()


def signed_activations(proto: ModelProto) -> ModelProto:
    """The same quantized graph with int8 activations, as many converters write it."""
    kinds = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and kinds[node.input[2]].data_type == TensorProto.UINT8:
            zero = kinds[node.input[2]]
            signed = (numpy_helper.to_array(zero).astype(np.int16) - 128).astype(np.int8)
            zero.CopyFrom(numpy_helper.from_array(signed, zero.name))
    return proto


def test_signed_activations_fall_back_with_a_name_where_a_branch_shares_them(tmp_path: Path) -> None:
    """ONNX Runtime on x86 makes signed activations unsigned by itself, but only where one layer reads them."""
    chain, residual = (
        census("onnx_runtime", saved(signed_activations(onnx.load(str(quantized(GRAPHS[name](), tmp_path, name=name)))), tmp_path), "v")
        for name in ("cnn", "residual")
    )
    assert is_whole(chain) and is_whole(residual)
    assert chain.shares["integer"] == 1 and chain.fallbacks == ()
    if platform.machine() in ("x86_64", "AMD64"):
        assert residual.shares["integer"] < 0.9
        assert "Conv with signed 8-bit activations" in residual.fallbacks[0]
        assert "signed 8-bit activations" in residual.sentence


def test_conv_integer_is_hopeless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    weights = {"w": rng.integers(-127, 127, (8, 3, 3, 3)).astype(np.int8)}
    path = saved(graph_of(nodes, ("x", ["n", 3, 8, 8]), ("y", ["n", 8, 8, 8]), weights), tmp_path)
    found = census("onnx_runtime", path, "v")
    assert found.kernels["ConvInteger"] == 1 and "ConvInteger" in found.sentence
    assert "ConvInteger" in str(hopeless(found))


def test_dynamic_quantization_pays_on_one_runtime_and_is_hopeless_on_the_other(tmp_path: Path) -> None:
    path = quantized(GRAPHS["mlp"](), tmp_path, "quantize_dynamic")
    assert census("onnx_runtime", path, "v").shares["integer"] == 1
    assert hopeless(census("onnx_runtime", path, "v")) is None
    found = census("openvino", path, "v")
    assert found.shares == {"float32": 1.0}
    assert "4 x FullyConnected in float32" in str(hopeless(found))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_graph_without_products_is_whole(runtime: str, tmp_path: Path) -> None:
    found = census(runtime, saved(graph_of([helper.make_node("Relu", ["x"], ["y"])], ("x", ["n", 3]), ("y", ["n", 3]), {}), tmp_path), "v")
    assert is_whole(found) and hopeless(found) is None


def test_a_graph_that_does_not_run_on_zeros_is_weighed_by_its_weights(tmp_path: Path) -> None:
    weights = {"shape": np.array([-1, 7], np.int64), "w": np.ones((7, 4), np.float32)}
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    path = saved(graph_of(nodes, ("x", ["n", 5]), ("y", ["m", 4]), weights), tmp_path)
    assert executed(path, tmp_path / "optimized.onnx") == ()
    found = census("onnx_runtime", path, "v")
    assert is_whole(found) and found.shares["float32"] == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_bad_file_is_a_model_error(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        census(runtime, tmp_path / "bad.onnx", "v")


@pytest.mark.parametrize(
    ("kernels", "shares", "hope"),
    [
        ({"Conv": 3}, {"float32": 1.0}, True),
        ({"Conv": 3, "QLinearConv": 3}, {"float32": 0.8, "integer": 0.2}, False),
        ({"Conv": 3, "QLinearConv": 3}, {"float32": 0.6, "integer": 0.4}, True),
        ({"Convolution": 3}, {"bfloat16": 1.0}, True),
        ({"ConvInteger": 1}, {"integer": 1.0}, False),
    ],
)
def test_hope(kernels: dict[str, int], shares: dict[str, float], hope: bool) -> None:
    assert (hopeless(Census(variant="v", runtime="r", shares=shares, kernels=kernels)) is None) == hope
