"""MatMul and Gemm in 8 bits: weights rounded once per output channel, activations measured on every call.

Needs no calibration and follows each input's own range; costs one pass over the activations per layer. Never on Conv: ONNX Runtime's
ConvInteger was 7 times slower than float in our trial. Source: Zafrir et al., Q8BERT (arXiv 1910.06188); written by
``onnxruntime.quantization.quantize_dynamic``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as write_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from headway.compress.arithmetic import integer_arithmetic
from headway.compress.context import Context
from headway.compress.graph import drop_unused, first_integer_node, normalise, opset, sort_nodes
from headway.compress.layers import PRODUCTS, layers, unshare
from headway.compress.qdq import clean
from headway.compress.settings import read_settings
from headway.model import Model, cost
from headway.records import Setting, Unsupported

ORDER = 60
HARSHNESS = 2
FOLLOWS: tuple[str, ...] = ()
LEAST_SHARE = 0.1
OLDEST_OPSET = 11


def refuse(model: Model, context: Context) -> str | None:
    """Why it cannot work or pay: quantized already, no constant matrices, or matrices do too little of the work."""
    proto = normalise(model.to_proto())
    integer = first_integer_node(proto)
    if integer is not None:
        return f"quantize_dynamic: the model is quantized already (node {integer.name!r} is a {integer.op_type})"
    if opset(proto) < OLDEST_OPSET:
        return f"quantize_dynamic: needs operator set {OLDEST_OPSET} or newer, and the model has {opset(proto)}; export it again"
    own = layers(proto.graph, PRODUCTS)
    if not own:
        return "quantize_dynamic: the model holds no MatMul or Gemm with a constant float32 matrix"
    return _too_little_work(model)


def _too_little_work(model: Model) -> str | None:
    operators = cost(model).operators
    total = sum(item.flop for item in operators)
    products = sum(item.flop for item in operators if item.op_type in PRODUCTS)
    if total and products < LEAST_SHARE * total:
        return f"quantize_dynamic: MatMul and Gemm do {products / total:.1%} of the work, too little to gain from"
    return None


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One rung: everything eligible."""
    return () if refuse(model, context) else ({},)


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model with 8-bit matrices."""
    read_settings("quantize_dynamic", settings, {})
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    proto = normalise(model.to_proto())
    chosen = [layer.name for layer in layers(proto.graph, PRODUCTS)]
    unshare(proto, chosen)
    add_pre_process_metadata(proto)
    with tempfile.TemporaryDirectory(prefix="headway.") as folder:
        path = Path(folder) / "dynamic.onnx"
        write_dynamic(
            proto,
            path,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=_after_rewriting(proto, chosen),
            per_channel=True,
            reduce_range=integer_arithmetic(context.instruction_sets).reduce_range,
            weight_type=QuantType.QInt8,
        )
        written = onnx.load(path)
    clean(written)
    drop_unused(written.graph)
    sort_nodes(written.graph)
    return Model.from_proto(written, model.name, model.origin)


def _after_rewriting(proto: onnx.ModelProto, chosen: list[str]) -> list[str]:
    """Names of the chosen nodes after the writer has turned each Gemm into a MatMul and an Add."""
    kinds = {node.name: node.op_type for node in proto.graph.node}
    return chosen + [f"{name}_MatMul" for name in chosen if kinds[name] == "Gemm"]
