"""Asks the runtime to compute float32 nodes in bfloat16 or float16, where this CPU has such arithmetic.

The graph stays float32: the wish travels in its metadata (``headway.precision``), a runtime that cannot honour it refuses. Weights lose
fraction bits (24 to 8 or 11), nothing else. Source: Kalamkar et al., "A study of BFLOAT16" (arXiv 1905.12322).
"""

from __future__ import annotations

from onnx import ModelProto

from headway.compress.arithmetic import narrow_floats
from headway.compress.context import Context
from headway.compress.graph import PRECISION_KEY, every_node, precision_request
from headway.compress.settings import read_settings
from headway.model import Model
from headway.records import Setting, Unsupported

ORDER = 90
HARSHNESS = 1
FOLLOWS: tuple[str, ...] = ("quantize_static", "quantize_dynamic")
TYPES = ("bfloat16", "float16")
HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "Attention"})


def refuse(model: Model, context: Context) -> str | None:
    """Why 16-bit floats cannot pay here: the CPU lacks them, or nothing is left in float32."""
    proto = model.to_proto()
    asked = precision_request(proto)
    if asked:
        return f"precision: the model already asks for {asked}"
    if not narrow_floats(context.instruction_sets):
        return "precision: 16-bit floats need avx512_bf16, amx_bf16, avx512_fp16 or ARM's fp16 or bf16, and this CPU has none of them"
    if not _has_float_work(proto):
        return "precision: no Conv, MatMul, Gemm, LSTM or GRU of the model works in float32, so 16-bit floats have nothing to speed up"
    return None


def _has_float_work(proto: ModelProto) -> bool:
    """Whether some heavy operator reads no dequantized value."""
    nodes = list(every_node(proto.graph))
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return any(node.op_type in HEAVY and not dequantized & set(node.input[1:2]) for node in nodes)


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One rung for each 16-bit type of this CPU."""
    if refuse(model, context):
        return ()
    return tuple({"type": name} for name in narrow_floats(context.instruction_sets))


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The same graph with the wish in its metadata."""
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    available = narrow_floats(context.instruction_sets)
    wanted = str(read_settings("precision", settings, {"type": available[-1]}, {"type": TYPES})["type"])
    if wanted not in available:
        raise Unsupported(f"precision: {wanted} needs instructions that this CPU lacks; it has {', '.join(available)}")
    proto = model.to_proto()
    entry = proto.metadata_props.add()
    entry.key, entry.value = PRECISION_KEY, wanted
    return Model.from_proto(proto, model.name, model.origin)
