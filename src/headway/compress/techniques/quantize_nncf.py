"""Layers in 8 bits by NNCF (Neural Network Compression Framework) on its ONNX backend: one more candidate beside ``quantize_static``.

Its scheme is made for OpenVINO: wherever a layer's neighbours allow it, they work in 8 bits too; in a transformer SmoothQuant goes first.
Source: NNCF 3.4, ``nncf.quantize`` (https://github.com/openvinotoolkit/nncf). NNCF reports its use to its makers unless told otherwise; here
it is told otherwise when this file is imported, for the whole process.
"""

from __future__ import annotations

import contextlib
import io
import logging

import nncf
import onnx
from onnx import ModelProto
from openvino_telemetry import Telemetry

from headway.compress.constants import join_constants
from headway.compress.context import Context
from headway.compress.graph import copied, drop_unused, first_integer_node, normalise, opset, sort_nodes, subgraphs
from headway.compress.layers import is_transformer, layers
from headway.compress.opset import raised
from headway.compress.sensitivity import spread
from headway.compress.session import batches, open_cpu
from headway.compress.settings import read_settings
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported

ORDER = 60
HARSHNESS = 3
FOLLOWS: tuple[str, ...] = ()
OPSET = 13  # below it NNCF gives all channels of a weight one scale
PRESETS = {"mixed": nncf.QuantizationPreset.MIXED, "performance": nncf.QuantizationPreset.PERFORMANCE}
DEFAULTS: dict[str, Setting] = {"preset": "mixed", "transformer": False, "fast_bias_correction": True, "rows": 300}

nncf.set_log_level(logging.ERROR)
Telemetry().consent = False  # one object for the process, made when nncf is imported; without consent it sends nothing


def refuse(model: Model, context: Context) -> str | None:
    """Why it cannot work: quantized already, no layer to quantize, branches or loops, no samples, or too old an operator set."""
    try:
        proto = _prepared(model)
    except Unsupported as error:
        return str(error)
    if not layers(proto.graph):
        return "quantize_nncf: the model holds no Conv, MatMul or Gemm with a constant float32 weight"
    branching = next((node for node in proto.graph.node if any(subgraphs(node))), None)
    if branching is not None:
        return f"quantize_nncf: NNCF reads no branches or loops, and node {branching.name!r} is a {branching.op_type}"
    if not context.rows:
        return "quantize_nncf: needs calibration samples to fix the ranges of activations, and there are none"
    return None


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One rung, by what NNCF's documentation recommends: its scheme for transformers, the mixed preset for everything else."""
    if refuse(model, context):
        return ()
    return ({"preset": "mixed", "transformer": is_transformer(_prepared(model).graph)},)


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model with quantize/dequantize nodes.

    Settings: ``preset`` (``mixed``: activations may have a zero point, ``performance``: none), ``transformer`` (NNCF's scheme for attention),
    ``fast_bias_correction`` (false: layer by layer, slower), ``rows``, the most samples used, evenly spread.

    Raises:
        Unsupported: it cannot work here, or NNCF itself gives up; the message says why.
    """
    chosen = read_settings("quantize_nncf", settings, DEFAULTS, {"preset": tuple(PRESETS)})
    if int(chosen["rows"]) < 1:
        raise ConfigError(f"quantize_nncf: rows must be at least 1, got {chosen['rows']}")
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    return Model.from_proto(_quantized(_prepared(model), chosen, context), model.name, model.origin)


def _quantized(proto: ModelProto, chosen: dict[str, Setting], context: Context) -> ModelProto:
    samples = spread(context.samples, int(chosen["rows"]))
    feeds = list(batches(open_cpu(proto), samples, rows=context.rows, size=1))
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            made: ModelProto = nncf.quantize(
                copied(proto), nncf.Dataset(feeds), subset_size=len(feeds), preset=PRESETS[str(chosen["preset"])],
                model_type=nncf.ModelType.TRANSFORMER if chosen["transformer"] else None,
                fast_bias_correction=bool(chosen["fast_bias_correction"]),
            )  # fmt: skip
    except Exception as error:  # NNCF, networkx and ONNX Runtime share no base
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unsupported(f"quantize_nncf: NNCF does not quantize this model: {line[:200]}") from error
    drop_unused(made.graph)
    sort_nodes(made.graph)
    return made


def _prepared(model: Model) -> ModelProto:
    proto = normalise(model.to_proto())
    integer = first_integer_node(proto)
    if integer is not None:
        raise Unsupported(f"quantize_nncf: the model is quantized already (node {integer.name!r} is a {integer.op_type})")
    if opset(proto) < OPSET:
        proto = raised(proto, OPSET, "quantize_nncf")
    join_constants(proto)
    drop_unused(proto.graph)
    return onnx.shape_inference.infer_shapes(proto)
