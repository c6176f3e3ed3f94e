"""The quantized graphs: types by instruction set, what fuses in ONNX Runtime, what stays float, and every refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.compress import Context, get, make, refusals
from headway.compress.arithmetic import integer_arithmetic, narrow_floats
from headway.compress.graph import initializers, opset
from headway.model import Model
from headway.records import ConfigError, Step, Unsupported
from headway.testing.small_graphs import GRAPHS, cnn, cnn_opset_11, mlp, residual, samples, shared_weights, transformer

VNNI = frozenset({"avx512_vnni"})


def model_of(proto: ModelProto) -> Model:
    return Model.from_proto(proto, "m", "onnx")


def context_of(proto: ModelProto, *instruction_sets: str, rows: int = 24) -> Context:
    return Context(samples(proto, rows), frozenset(instruction_sets or VNNI))


def static(proto: ModelProto, *instruction_sets: str, **settings: float | str) -> ModelProto:
    model = model_of(proto)
    return get("quantize_static").apply(model, dict(settings), context_of(proto, *instruction_sets)).to_proto()


def kernels(proto: ModelProto, folder: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def zero_point_types(proto: ModelProto, op_type: str) -> set[int]:
    fixed = initializers(proto.graph)
    return {fixed[node.input[2]].data_type for node in proto.graph.node if node.op_type == op_type}


@pytest.mark.parametrize(
    ("instruction_sets", "activation", "reduced"),
    [
        (("avx2",), "uint8", True),
        (("avx2", "avx512f"), "uint8", True),
        (("avx512_vnni",), "uint8", False),
        (("avx512vnni",), "uint8", False),
        (("avx_vnni",), "uint8", False),
        (("amx_int8",), "uint8", False),
        (("asimd", "asimddp"), "int8", False),
        ((), "uint8", True),
    ],
)
def test_the_types_follow_the_instruction_set(instruction_sets: tuple[str, ...], activation: str, reduced: bool) -> None:
    got = integer_arithmetic(instruction_sets)
    assert (got.activation, got.reduce_range) == (activation, reduced)


def test_16_bit_floats_follow_the_instruction_set() -> None:
    assert narrow_floats({"avx512_bf16"}) == narrow_floats({"amx_bf16"}) == ("bfloat16",)
    assert narrow_floats({"avx512_fp16", "avx512_bf16"}) == ("float16", "bfloat16")
    assert narrow_floats({"avx512_vnni"}) == ()


def test_on_x86_every_layer_and_sum_fuses(tmp_path: Path) -> None:
    counted = kernels(static(residual()), tmp_path)
    assert counted["QLinearConv"] == 6 and counted["QLinearAdd"] == 2 and counted["QGemm"] == 1
    assert not counted["Conv"] and not counted["Gemm"] and not counted["DequantizeLinear"]


def test_weights_are_per_channel_int8_and_biases_int32() -> None:
    proto = static(residual())
    fixed = initializers(proto.graph)
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    made = {node.output[0]: node for node in proto.graph.node}
    for node in convolutions:
        weight, bias = (made[name] for name in node.input[1:3])
        assert fixed[weight.input[0]].data_type == TensorProto.INT8
        assert list(fixed[weight.input[1]].dims) == [fixed[weight.input[0]].dims[0]]
        assert not numpy_helper.to_array(fixed[weight.input[2]]).any()
        assert fixed[bias.input[0]].data_type == TensorProto.INT32


def test_activation_type_and_weight_bits() -> None:
    assert zero_point_types(static(cnn()), "QuantizeLinear") == {TensorProto.UINT8}
    assert zero_point_types(static(cnn(), "asimd"), "QuantizeLinear") == {TensorProto.INT8}

    def largest(proto: ModelProto) -> int:
        weights = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("_quantized")]
        return max(int(np.abs(array.astype(int)).max()) for array in weights if array.dtype == np.int8)

    assert largest(static(cnn())) == 127
    assert largest(static(cnn(), "avx2")) <= 64


def test_in_a_transformer_only_constant_matrices_are_quantized(tmp_path: Path) -> None:
    proto = static(transformer())
    readers = {name: node for node in proto.graph.node for name in node.input}
    rounded = [readers[node.output[0]] for node in proto.graph.node if node.op_type == "DequantizeLinear"]
    assert {node.op_type for node in rounded} == {"MatMul"}
    counted = kernels(proto, tmp_path)
    assert counted["MatMulIntegerToFloat"] == 6 and not counted["QLinearAdd"] and not counted["QLinearSoftmax"]


def test_float_readers_of_a_quantized_value_read_the_original() -> None:
    """The residual stream must not be rounded because a layer beside it is."""
    proto = static(transformer())
    assert any(node.op_type == "Add" and "x" in node.input for node in proto.graph.node)
    dequantized = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    for node in proto.graph.node:
        if node.op_type in ("Add", "LayerNormalization", "Softmax"):
            assert not dequantized & set(node.input)


def test_the_answer_itself_is_not_rounded() -> None:
    for name in ("mlp", "residual", "shared_weights"):
        makers = {output: node.op_type for node in static(GRAPHS[name]()).graph.node for output in node.output}
        assert makers["y"] != "DequantizeLinear", name


def test_a_relu_taken_into_a_layer_survives_when_its_reader_is_float() -> None:
    """Writer and cleaning together once lost it: Gemm, Relu, float Gemm."""
    proto = mlp()
    step = Step(technique="quantize_static", settings={"scope": "but_sensitive", "keep_float": 0.25})
    outcome = make(model_of(proto), [Step(technique="fold"), step], context_of(proto))
    assert outcome.effects[1].output_error is not None and outcome.effects[1].output_error < 0.02


@pytest.mark.parametrize("name", ["residual", "cnn", "mlp"])
def test_layers_kept_in_float_are_float_in_onnx_runtime_too(name: str, tmp_path: Path) -> None:
    """Between dequantize and quantize nodes ONNX Runtime would quantize them itself, with one scale for all channels."""
    settings: dict[str, float | str] = {"scope": "but_sensitive", "keep_float": 0.4}
    proto = static(GRAPHS[name](), **settings)
    fixed = initializers(proto.graph)
    kept = sum(node.op_type in ("Conv", "Gemm") and node.input[1] in fixed for node in proto.graph.node)
    counted = kernels(proto, tmp_path)
    assert kept and counted["Conv"] + counted["FusedConv"] + counted["Gemm"] + counted["FusedGemm"] == kept


def test_keeping_more_in_float_costs_less_of_the_answers() -> None:
    proto, errors = residual(), []
    context = context_of(proto)
    for settings in ({"scope": "all"}, *({"scope": "but_sensitive", "keep_float": share} for share in (0.15, 0.5))):
        errors.append(make(model_of(proto), [Step(technique="quantize_static", settings=settings)], context).effects[0].output_error)
    assert errors[0] > errors[1] > errors[2] > 0


def test_opset_11_is_raised_and_constants_and_shared_weights_work() -> None:
    assert opset(static(cnn_opset_11())) == 13
    assert any(node.op_type == "QuantizeLinear" for node in static(GRAPHS["constant_nodes"]()).graph.node)
    proto = static(shared_weights())
    assert sum(node.op_type == "DequantizeLinear" for node in proto.graph.node) > 6


def test_a_weight_shared_with_a_float_reader_keeps_its_float_copy() -> None:
    """An embedding table that is also the last matrix: the look-up must not read dequantized rows."""
    table = numpy_helper.from_array(np.random.default_rng(0).normal(0, 1, (16, 16)).astype(np.float32), "table")
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "i"], ["e"]),
        helper.make_node("Relu", ["e"], ["r"]),
        helper.make_node("MatMul", ["r", "table"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16]) for name in ("x", "y")]
    body = helper.make_graph(nodes, "g", values[:1], values[1:], [table])
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    written = static(proto)
    gather = next(node for node in written.graph.node if node.op_type == "Gather")
    assert gather.input[0] == "table" and initializers(written.graph)["table"].data_type == TensorProto.FLOAT


def test_dynamic_leaves_convolutions_alone_and_takes_matrices(tmp_path: Path) -> None:
    for proto, layers in ((mlp(), 4), (transformer(), 6)):
        model = model_of(proto)
        counted = kernels(get("quantize_dynamic").apply(model, {}, context_of(proto)).to_proto(), tmp_path)
        assert counted["DynamicQuantizeMatMul"] + counted["MatMulIntegerToFloat"] == layers
    with pytest.raises(Unsupported, match="of the work"):
        get("quantize_dynamic").apply(model_of(cnn()), {}, context_of(cnn()))


def test_refusals_are_sentences_that_name_the_cause() -> None:
    relu = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", 1, ["n", 3])],
            [helper.make_tensor_value_info("y", 1, ["n", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    got = refusals(model_of(relu), context_of(relu))
    assert "no Conv, MatMul or Gemm" in got["quantize_static"]
    assert "no MatMul or Gemm" in got["quantize_dynamic"]
    assert "this CPU has none" in got["precision"]
    assert "nothing to speed up" in refusals(model_of(relu), context_of(relu, "avx512_bf16"))["precision"]
    assert "samples" in refusals(model_of(cnn()), Context(instruction_sets=VNNI))["quantize_static"]
    quantized = model_of(static(mlp()))
    again = refusals(quantized, context_of(mlp()))
    assert "quantized already (node '" in again["quantize_static"] and "quantized already (node '" in again["quantize_dynamic"]


def test_settings_out_of_range_are_errors() -> None:
    apply = get("quantize_static").apply
    model, context = model_of(cnn()), context_of(cnn())
    with pytest.raises(ConfigError, match="did you mean 'entropy'"):
        apply(model, {"calibrator": "entrpy"}, context)
    with pytest.raises(ConfigError, match="did you mean 'scope'"):
        apply(model, {"scop": "all"}, context)
    with pytest.raises(ConfigError, match="keep_float"):
        apply(model, {"keep_float": 1.5}, context)
    with pytest.raises(ConfigError, match="type int"):
        apply(model, {"rows": "many"}, context)
    with pytest.raises(Unsupported, match="lacks"):
        get("precision").apply(model, {"type": "float16"}, context_of(cnn(), "avx512_bf16"))


_DIGESTS = """
from headway.compress import Context, get
from headway.model import Model
from headway.testing.small_graphs import residual, samples, transformer
for graph in (residual, transformer):
    model, context = Model.from_proto(graph(), "m", "onnx"), Context(samples(graph(), 24), frozenset({"avx512_vnni"}))
    for settings in get("quantize_static").ladder(model, context)[:3]:
        print(get("quantize_static").apply(get("fold").apply(model, {}, context), settings, context).digest)
print(get("quantize_dynamic").apply(model, {}, context).digest)
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bytes() -> None:
    seen = {
        subprocess.run(
            [sys.executable, "-c", _DIGESTS], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
