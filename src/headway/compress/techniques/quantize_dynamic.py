"""MatMul, Gemm and LSTM in 8 bits: weights rounded once per output channel, activations measured on every call.

Needs no calibration and follows each input's own range; costs one pass over the activations per layer. Never on Conv: ONNX Runtime's
ConvInteger was 7 times slower than float in our trial. Source: Zafrir et al., Q8BERT (arXiv 1910.06188); written by
``onnxruntime.quantization.quantize_dynamic``, LSTM layers by ``compress.recurrent``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as write_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from headway.compress.arithmetic import integer_arithmetic
from headway.compress.constants import join_constants
from headway.compress.context import Context
from headway.compress.graph import drop_unused, first_integer_node, normalise, opset, replace, sort_nodes, weight_left_out
from headway.compress.layers import PRODUCTS, layers, unshare
from headway.compress.narrow_weights import need_contrib
from headway.compress.qdq import clean
from headway.compress.recurrent import bounded, quantized, recurrent_layers
from headway.compress.settings import read_settings
from headway.compress.tables import narrow_tables
from headway.model import Model, cost
from headway.records import Setting, Unsupported

ORDER = 60
HARSHNESS = 2
FOLLOWS: tuple[str, ...] = ()
LEAST_SHARE = 0.1
OLDEST_OPSET = 11
DEFAULTS: dict[str, Setting] = {"recurrent": True, "tables": True}


def refuse(model: Model, context: Context) -> str | None:
    """Why it cannot work or pay: quantized already, no constant matrices, or matrices do too little of the work."""
    proto = _prepared(model)
    integer = first_integer_node(proto)
    if integer is not None:
        return f"quantize_dynamic: the model is quantized already (node {integer.name!r} is a {integer.op_type})"
    if opset(proto) < OLDEST_OPSET:
        return f"quantize_dynamic: needs operator set {OLDEST_OPSET} or newer, and the model has {opset(proto)}; export it again"
    if not layers(proto.graph, PRODUCTS) and not _narrowed(proto):
        why = _recurrent_reason(proto) or weight_left_out(proto.graph, PRODUCTS)
        return f"quantize_dynamic: the model holds no MatMul or Gemm with a constant float32 matrix{why}"
    return _too_little_work(model)


def _recurrent_reason(proto: ModelProto) -> str:
    """What keeps the LSTM nodes in float; empty when there are none."""
    node = next((node for node in proto.graph.node if node.op_type == "LSTM"), None)
    if node is None:
        return ""
    return f", and LSTM {node.name!r} reads features that no tanh bounds, or has weights that are not constant"


def _narrowed(proto: ModelProto) -> bool:
    return any(bounded(proto.graph, node.input[0]) for node in recurrent_layers(proto.graph))


def _too_little_work(model: Model) -> str | None:
    operators = cost(model).operators
    total = sum(item.flop for item in operators)
    narrow = sum(item.flop for item in operators if item.op_type in (*PRODUCTS, "LSTM"))
    if total and narrow < LEAST_SHARE * total:
        return f"quantize_dynamic: MatMul, Gemm and LSTM do {narrow / total:.1%} of the work, too little to gain from"
    return None


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One rung: everything eligible."""
    return () if refuse(model, context) else ({},)


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model with 8-bit matrices. Settings: ``recurrent``, whether LSTM layers too; ``tables``, whether embedding tables too (rows)."""
    chosen = read_settings("quantize_dynamic", settings, DEFAULTS)
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    reduce_range = integer_arithmetic(context.instruction_sets).reduce_range
    written = _with_narrow_products(_prepared(model), reduce_range=reduce_range)
    if chosen["recurrent"]:
        graph = written.graph
        made = {node.name: quantized(graph, node, reduce_range=reduce_range) for node in recurrent_layers(graph)}
        nodes = [new for node in graph.node for new in made.get(node.name, [node])]
        need_contrib(written, nodes)
        replace(graph.node, nodes)
    if chosen["tables"]:
        narrow_tables(written)
    drop_unused(written.graph)
    sort_nodes(written.graph)
    return Model.from_proto(written, model.name, model.origin)


def _prepared(model: Model) -> ModelProto:
    return join_constants(normalise(model.to_proto()))


def _with_narrow_products(proto: ModelProto, *, reduce_range: bool) -> ModelProto:
    chosen = [layer.name for layer in layers(proto.graph, PRODUCTS)]
    if not chosen:
        return proto
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
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )
        written = onnx.load(path)
    clean(written)
    return written


def _after_rewriting(proto: ModelProto, chosen: list[str]) -> list[str]:
    """Names of the chosen nodes after the writer has turned each Gemm into a MatMul and an Add."""
    kinds = {node.name: node.op_type for node in proto.graph.node}
    return chosen + [f"{name}_MatMul" for name in chosen if kinds[name] == "Gemm"]
