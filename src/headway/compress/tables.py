"""Embedding tables in 8 or 4 bits: a look-up reads a row of codes and the row's scale.

ONNX Runtime 1.32 and OpenVINO 2026.4 both give the exact rows, in standard operators at 8 bits and by ``GatherBlockQuantized`` at 4.
Source: Guan et al., "Post-Training 4-bit Quantization on Embedding Tables" (arXiv 1911.02079), scales by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress.graph import consumers, drop_unused, fresh_name, initializers, replace, value_names
from headway.compress.narrow_weights import CONTRIB, Codes, add_constant, need_contrib, packed
from headway.compress.rounding import nearest, scales

LEAST_4_BIT_VALUES = 4096
_HALF = np.finfo(np.float16)


@dataclass(frozen=True)
class Table:
    """A constant float32 matrix [rows, width] that only look-ups by row read; ``nodes`` are their names."""

    weight: str
    nodes: tuple[str, ...]
    shape: tuple[int, int]


def tables(graph: GraphProto) -> tuple[Table, ...]:
    """The matrices that are read by Gather along axis 0 and by nothing else. Expects the form of ``graph.normalise``."""
    fixed, found = initializers(graph), []
    readers = consumers(graph)
    outputs = {value.name for value in graph.output}
    for name, tensor in fixed.items():
        nodes = readers.get(name, [])
        if len(tensor.dims) != 2 or tensor.data_type != TensorProto.FLOAT or 0 in tensor.dims or not nodes or name in outputs:
            continue
        if all(node.op_type == "Gather" and node.input[0] == name and _axis(node) in (0, -2) for node in nodes):
            found.append(Table(name, tuple(node.name for node in nodes), (tensor.dims[0], tensor.dims[1])))
    return tuple(found)


def narrow_tables(proto: ModelProto, *, bits: int = 8, clipped: bool = False, least: int = LEAST_4_BIT_VALUES) -> ModelProto:
    """The same model (changed in place, and returned) with narrow tables of ``least`` values or more.

    At 4 bits a table below 4,096 values, or of a width that blocks of 16 do not divide, takes 8.
    """
    graph = proto.graph
    fixed, by_name = initializers(graph), {node.name: node for node in graph.node}
    written: dict[str, list[NodeProto]] = {}
    for table in tables(graph):
        if math.prod(table.shape) >= least:
            codes = _codes(numpy_helper.to_array(fixed[table.weight]), bits, clipped=clipped)
            names = _constants(graph, table.weight, codes)
            written |= {name: _look_up(graph, by_name[name], names, codes) for name in table.nodes}
    if written:
        nodes = [made for node in graph.node for made in written.get(node.name, [node])]
        need_contrib(proto, nodes)
        replace(graph.node, nodes)
        drop_unused(graph)
    return proto


def _codes(weight: np.ndarray, bits: int, *, clipped: bool) -> Codes:
    width = weight.shape[1]
    narrow = bits == 4 and weight.size >= LEAST_4_BIT_VALUES and width % 16 == 0
    bits, block = (4, 32 if width % 32 == 0 else 16) if narrow else (8, width)
    by_block = scales(weight, bits, block, clipped=clipped)
    if bits == 8 and _HALF.tiny < by_block.min() and by_block.max() < _HALF.max:
        by_block = by_block.astype(np.float16)
    return Codes(nearest(weight, by_block, bits, block), by_block, bits, block)


def _look_up(graph: GraphProto, node: NodeProto, table: tuple[str, str], codes: Codes) -> list[NodeProto]:
    """The nodes in place of a Gather; ``table`` names the codes and scales that ``_constants`` added.

    8 bits: the row's codes times the row's scale, in standard operators. 4 bits: ``GatherBlockQuantized``.
    """
    taken = value_names(graph)
    data, scales = table
    indices, made = node.input[1], node.output[0]
    if codes.bits == 4:
        settings = {"gather_axis": 0, "quantize_axis": 1, "block_size": codes.block, "bits": 4}
        return [helper.make_node("GatherBlockQuantized", [data, indices, scales], [made], node.name, domain=CONTRIB, **settings)]
    row, wide, scale, factor = (fresh_name(f"{node.name}_{part}", taken) for part in ("codes", "wide", "scale", "factor"))
    nodes = [
        helper.make_node("Gather", [data, indices], [row], node.name, axis=0),
        helper.make_node("Cast", [row], [wide], wide, to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, indices], [scale], scale, axis=0),
    ]
    if codes.scales.dtype == np.float16:
        nodes.append(helper.make_node("Cast", [scale], [factor], factor, to=TensorProto.FLOAT))
    else:
        factor = scale
    return [*nodes, helper.make_node("Mul", [wide, factor], [made], fresh_name(f"{node.name}_rows", taken))]


def _constants(graph: GraphProto, name: str, codes: Codes) -> tuple[str, str]:
    """Adds a table's codes and scales to the graph; their names."""
    taken = value_names(graph)
    data = codes.codes if codes.bits == 8 else packed(codes).reshape(len(codes.codes), -1)
    return add_constant(graph, f"{name}_codes", data, taken), add_constant(graph, f"{name}_scales", codes.scales, taken)


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
