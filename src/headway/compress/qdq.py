"""Quantize and dequantize nodes written into a graph, with given ranges, by ONNX Runtime's own writer.

ONNX Runtime fuses exactly the patterns its writer makes, so the writer is theirs; the ranges, the choice of nodes
and the cleaning are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from headway.compress.arithmetic import IntegerArithmetic
from headway.compress.calibration import Range
from headway.compress.graph import (
    consumers,
    drop_unused,
    fresh_name,
    initializers,
    producers,
    rename_reads,
    replace,
    sort_nodes,
    value_names,
)
from headway.compress.layers import PRODUCTS

_WRITER_MARKS = ("onnx.infer", "onnx.quant.pre_process")


def activations(graph: GraphProto, nodes: Iterable[str]) -> tuple[str, ...]:
    """The values that need a range when ``nodes`` are quantized.

    A layer's output that only a quantized Relu or Clip reads needs none: it takes the range after the activation, which is folded into it.
    """
    chosen = set(nodes)
    fixed = initializers(graph)
    read_by = consumers(graph)
    outputs = {value.name for value in graph.output}
    wanted: dict[str, None] = {}
    for node in graph.node:
        if node.name not in chosen:
            continue
        for name in (*node.input, *node.output):
            readers = read_by.get(name, [])
            folded = len(readers) == 1 and readers[0].op_type in ("Relu", "Clip") and readers[0].name in chosen and name not in outputs
            if name and name not in fixed and not (folded and readers[0].input[0] == name):
                wanted[name] = None
    return tuple(wanted)


def write(proto: ModelProto, nodes: Iterable[str], ranges: Mapping[str, Range], arithmetic: IntegerArithmetic) -> ModelProto:
    """A new model in which ``nodes`` work on 8 bits; ``proto`` is used up.

    Weights are int8 per output channel, symmetric; biases int32 at the scale of input times weight; activations per tensor.
    """
    chosen = set(nodes)
    table = {name: _tensor_data(low, high) for name, (low, high) in ranges.items()}
    for node in proto.graph.node:
        if node.name in chosen and node.op_type in ("Relu", "Clip") and node.input[0] not in table and node.output[0] in table:
            table[node.input[0]] = table[node.output[0]]
    clipping = {node.name: node.output[0] for node in proto.graph.node if node.name in chosen and node.op_type in ("Relu", "Clip")}
    _note_types(proto.graph, table)
    add_infer_metadata(proto)
    kinds = sorted({node.op_type for node in proto.graph.node if node.name in chosen})
    writer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=arithmetic.reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if arithmetic.activation == "int8" else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, table),
        nodes_to_quantize=sorted(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=kinds,
        extra_options={"MatMulConstBOnly": True},
    )
    written: ModelProto = writer.quantize_model()
    clean(written)
    left = {node.name for node in written.graph.node}
    _keep_floats_float(written.graph, chosen, {output for name, output in clipping.items() if name not in left})
    _guard_float_layers(written.graph, chosen)
    drop_unused(written.graph)
    sort_nodes(written.graph)
    return written


def clean(proto: ModelProto) -> None:
    """Remove the marks that ONNX Runtime's tools leave in the metadata."""
    replace(proto.metadata_props, [entry for entry in proto.metadata_props if entry.key not in _WRITER_MARKS])


def _tensor_data(low: float, high: float) -> TensorData:
    return TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))


def _note_types(graph: GraphProto, values: Iterable[str]) -> None:
    """Say that each value is float32: where shape inference fails, the writer would skip the value without a word."""
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        ValueInfoProto(name=name, type=helper.make_tensor_type_proto(TensorProto.FLOAT, None)) for name in values if name not in known
    )


def _keep_floats_float(graph: GraphProto, chosen: set[str], clipped: set[str]) -> None:
    """Let float nodes read float values: the writer gives every reader of a quantized value the rounded one.

    Where a float node makes the value (a residual stream, a graph input), float readers get the original back. Where a MatMul or Gemm
    makes it and no 8-bit node reads it, the pair goes: those kernels can end in float. A Conv needs its pair to run in 8 bits; so does a
    MatMul of matrices before an Add, which ONNX Runtime would otherwise first turn into a float Gemm. The values named in ``clipped`` are
    what a Relu or Clip made that the writer took out: the pair is what clips now.
    """
    outputs = {value.name for value in graph.output}
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        dequantizers = [node for node in consumers(graph).get(quantize.output[0], []) if node.op_type == "DequantizeLinear"]
        source = producers(graph).get(quantize.input[0])
        if len(dequantizers) != 1 or (source is not None and source.name in chosen and source.op_type not in PRODUCTS):
            continue
        dequantize = dequantizers[0]
        if clipped & {quantize.input[0], dequantize.output[0]}:
            continue
        readers = consumers(graph).get(dequantize.output[0], [])
        if source is not None and source.name in chosen and _needs_pair(graph, source, readers, chosen):
            continue
        if dequantize.output[0] in outputs and source is not None:
            _give_output_back(graph, source, quantize, dequantize)
        for reader in consumers(graph).get(dequantize.output[0], []):
            if reader.name not in chosen:
                rename_reads(reader, dequantize.output[0], quantize.input[0])


def _guard_float_layers(graph: GraphProto, chosen: set[str]) -> None:
    """Put a Clip without bounds before each float layer that stands between a dequantize and a quantize node.

    ONNX Runtime quantizes the weights of such a layer by itself, with one scale for all channels: worse than what was left in float on
    purpose (WeightBiasQuantization, seen in 1.32). The Clip costs one pass over the layer's input and stops it.
    """
    fixed, made_by, read_by = initializers(graph), producers(graph), consumers(graph)
    outputs = {value.name for value in graph.output}
    bounds: list[str] = []
    for node in list(graph.node):
        source = made_by.get(node.input[0]) if node.input else None
        is_float_layer = node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.name not in chosen and node.input[1] in fixed
        if not is_float_layer or source is None or source.op_type != "DequantizeLinear" or outputs & set(node.output):
            continue
        readers = read_by.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
            readers = read_by.get(readers[0].output[0], [])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            continue
        if not bounds:
            taken = value_names(graph)
            for bound in (np.finfo(np.float32).min, np.finfo(np.float32).max):
                bounds.append(fresh_name("no_bound", taken))
                graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), bounds[-1]))
        name = f"{node.name}_stays_float"
        graph.node.append(helper.make_node("Clip", [node.input[0], *bounds], [name], name))
        node.input[0] = name


def _needs_pair(graph: GraphProto, source: NodeProto, readers: list[NodeProto], chosen: set[str]) -> bool:
    if any(reader.name in chosen for reader in readers):
        return True
    if source.op_type != "MatMul" or not any(reader.op_type == "Add" for reader in readers):
        return False
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info if value.type.tensor_type.HasField("shape")}
    return ranks.get(source.output[0], 2) <= 2


def _give_output_back(graph: GraphProto, source: NodeProto, quantize: NodeProto, dequantize: NodeProto) -> None:
    """Let ``source`` make the graph's output again; the writer had put the dequantize node in its place."""
    inner, output = quantize.input[0], dequantize.output[0]
    readers = consumers(graph)
    position = list(source.output).index(inner)
    dequantize.output[0] = f"{output}_rounded"
    for reader in readers.get(output, []):
        rename_reads(reader, output, dequantize.output[0])
    for reader in readers.get(inner, []):
        rename_reads(reader, inner, output)
    source.output[position] = output
