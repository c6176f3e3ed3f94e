"""Weights alone in 8 or 4 bits, activations in float: matrices in blocks, embedding tables by row; for size and for memory traffic.

MatMul, Gemm and Gather; needs samples only for the second-order rounding at 4 bits. Source: Frantar et al., GPTQ (arXiv 2210.17323) for
blocks and rounding; Dettmers et al., LLM.int8() (arXiv 2208.07339) for scales by row. Convolutions and recurrent layers are left alone: no
runtime here computes them from narrow weights and float activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from headway.compress.calibration import products
from headway.compress.constants import join_constants
from headway.compress.context import Context
from headway.compress.graph import consumers, drop_unused, first_integer_node, initializers, normalise, opset, replace, sort_nodes
from headway.compress.layers import PRODUCTS, Layer, layers
from headway.compress.narrow_weights import Codes, cheapest, dividing, matrix, need_contrib, product, readable
from headway.compress.opset import raised
from headway.compress.rounding import ROUNDINGS, nearest, scales, second_order
from headway.compress.sensitivity import spread
from headway.compress.settings import read_settings
from headway.compress.tables import LEAST_4_BIT_VALUES, Table, narrow_tables, tables
from headway.compress.techniques.contract import Space
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported

ORDER = 60
HARSHNESS = 4
FOLLOWS: tuple[str, ...] = ()
FORMS = ("blocks", "standard")
DEFAULTS: dict[str, Setting] = {
    "bits": 8,
    "block": 0,
    "rounding": "nearest",
    "form": "blocks",
    "accuracy_level": 0,
    "tables": True,
    "rows": 256,
}
CHOICES: dict[str, tuple[Setting, ...]] = {
    "bits": (4, 8), "block": (0, 16, 32, 64, 128, 256), "rounding": ROUNDINGS, "form": FORMS, "accuracy_level": (0, 4),
}  # fmt: skip
BLOCK = {8: 128, 4: 32}
LEAST_VALUES = 128
LEAST_SHARE = 0.1
STANDARD_OPSET = 21


def refuse(model: Model, context: Context) -> str | None:
    """Why it cannot work: quantized already, or too few weights in matrices that a MatMul, Gemm or look-up reads."""
    proto = _prepared(model)
    integer = first_integer_node(proto)
    if integer is not None:
        return f"quantize_weights: the model is quantized already (node {integer.name!r} is a {integer.op_type})"
    if not _matrices(proto) and not _tables(proto):
        return (
            f"quantize_weights: the model holds no MatMul, Gemm or Gather with a constant float32 matrix of {LEAST_VALUES} values or more"
        )
    return _too_few_weights(proto)


def _too_few_weights(proto: ModelProto) -> str | None:
    read_by = consumers(proto.graph)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in proto.graph.initializer if tensor.name in read_by}
    own = {item.layer.weight for item in _matrices(proto)} | {table.weight for table in _tables(proto)}
    share = sum(sizes[name] for name in own) / sum(sizes.values())
    if share >= LEAST_SHARE:
        return None
    left = max((name for name in sizes if name not in own), key=lambda name: sizes[name])
    node = read_by[left][0]
    why = f"the largest weight belongs to node {node.name!r}, a {node.op_type}"
    return f"quantize_weights: matrices and tables hold {share:.1%} of the weights, too little to gain from; {why}"


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """8 bits; 8 bits with 8-bit activations; 4 bits rounded by what the layers see (by least error where there are no samples)."""
    if refuse(model, context):
        return ()
    proto = _prepared(model)
    rungs: list[dict[str, Setting]] = [{"bits": 8}]
    if _matrices(proto):
        rungs.append({"bits": 8, "accuracy_level": 4})
    sizes = [item.shape for item in _matrices(proto)] + [table.shape for table in _tables(proto)]
    if any(math.prod(shape) >= LEAST_4_BIT_VALUES for shape in sizes):
        rungs.append({"bits": 4, "rounding": "second_order" if context.rows else "clipped"})
    return tuple(rungs)


def space(model: Model, context: Context) -> Space:
    """Both widths where the ladder has both, in blocks of any size, with either arithmetic, rounded in each way that the samples allow."""
    rungs = ladder(model, context)
    if not rungs:
        return {}
    narrow: dict[str, tuple[Setting, ...]] = {"bits": tuple(dict.fromkeys(rung["bits"] for rung in rungs))}
    if any("rounding" in rung for rung in rungs):
        narrow["rounding"] = ROUNDINGS if context.rows else tuple(name for name in ROUNDINGS if name != "second_order")
    if _matrices(_prepared(model)):
        narrow |= {"block": (0, 32, 64, 128), "accuracy_level": (0, 4)}
    return narrow


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model with narrow weights.

    Settings: ``bits`` (8 or 4; matrices and tables below 4,096 values keep 8); ``block``, inputs that share a scale (0: up to 128 at 8 bits and
    32 at 4, whatever takes the fewest bytes); ``rounding`` (``nearest``, ``clipped``: least squared error of the weights, ``second_order``: GPTQ, needs samples); ``form``
    (``blocks``: MatMulNBits, ``standard``: DequantizeLinear with block_size, operator set 21); ``accuracy_level`` (4: ONNX Runtime may
    round activations to 8 bits, 0: it must not); ``tables``, whether embeddings too; ``rows``, the most samples used.
    """
    chosen = read_settings("quantize_weights", settings, DEFAULTS, CHOICES)
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    if chosen["rounding"] == "second_order" and not context.rows:
        raise Unsupported("quantize_weights: rounding 'second_order' needs calibration samples, and there are none; use 'clipped'")
    if int(chosen["rows"]) < 1:
        raise ConfigError(f"quantize_weights: rows must be at least 1, got {chosen['rows']}")
    proto = _prepared(model)
    if chosen["form"] == "standard" and opset(proto) < STANDARD_OPSET:
        proto = raised(proto, STANDARD_OPSET, "quantize_weights")
    if not chosen["tables"] and not _matrices(proto):
        raise Unsupported("quantize_weights: with tables false, nothing is left to quantize; the model holds no MatMul or Gemm")
    written = _write_products(proto, chosen, context)
    nodes = [made for node in proto.graph.node for made in written.get(node.name, [node])]
    need_contrib(proto, nodes)
    replace(proto.graph.node, nodes)
    if chosen["tables"]:
        narrow_tables(proto, bits=int(chosen["bits"]), clipped=chosen["rounding"] != "nearest", least=LEAST_VALUES)
    drop_unused(proto.graph)
    sort_nodes(proto.graph)
    return Model.from_proto(proto, model.name, model.origin)


@dataclass(frozen=True)
class _Matrix:
    layer: Layer
    shape: tuple[int, ...]


def _prepared(model: Model) -> ModelProto:
    return join_constants(normalise(model.to_proto()))


def _matrices(proto: ModelProto) -> tuple[_Matrix, ...]:
    fixed, by_name = initializers(proto.graph), {node.name: node for node in proto.graph.node}
    found = []
    for layer in layers(proto.graph, PRODUCTS):
        shape = tuple(fixed[layer.weight].dims)
        if math.prod(shape) >= LEAST_VALUES and readable(by_name[layer.name]):
            found.append(_Matrix(layer, shape))
    return tuple(found)


def _tables(proto: ModelProto) -> tuple[Table, ...]:
    return tuple(table for table in tables(proto.graph) if math.prod(table.shape) >= LEAST_VALUES)


def _write_products(proto: ModelProto, chosen: dict[str, Setting], context: Context) -> dict[str, list[NodeProto]]:
    own, rows = _matrices(proto), int(chosen["rows"])
    seen: dict[str, np.ndarray] = {}
    if chosen["rounding"] == "second_order":
        seen = products(proto, [item.layer.value for item in own], spread(context.samples, rows), rows)
    fixed, by_name = initializers(proto.graph), {node.name: node for node in proto.graph.node}
    written: dict[str, list[NodeProto]] = {}
    for item in own:
        node = by_name[item.layer.name]
        codes = _codes(matrix(node, numpy_helper.to_array(fixed[item.layer.weight])), chosen, seen.get(item.layer.value))
        level = int(chosen["accuracy_level"])
        written[node.name] = product(proto.graph, node, codes, standard=chosen["form"] == "standard", accuracy_level=level)
    return written


def _codes(weight: np.ndarray, chosen: dict[str, Setting], seen: np.ndarray | None) -> Codes:
    bits = 4 if chosen["bits"] == 4 and weight.size >= LEAST_4_BIT_VALUES else 8
    block = int(chosen["block"]) or cheapest(weight.shape[1], bits, BLOCK[bits])
    if chosen["form"] == "standard":
        block = dividing(weight.shape[1], block)
    by_block = scales(weight, bits, block, clipped=chosen["rounding"] != "nearest")
    if seen is not None and seen.any():
        return Codes(second_order(weight, by_block, bits, block, seen), by_block, bits, block)
    return Codes(nearest(weight, by_block, bits, block), by_block, bits, block)
