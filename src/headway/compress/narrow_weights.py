"""Products that hold their weights in 8 or 4 bits, in blocks, and compute in float.

What each form becomes was tried on ONNX Runtime 1.32 and OpenVINO 2026.4: both read ``MatMulNBits`` and give the exact product; ONNX Runtime turns the standard form (DequantizeLinear with ``block_size``, operator set 21) into ``MatMulNBits`` with
8-bit activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress.graph import fresh_name, value_names

CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class Codes:
    """A matrix [outputs, inputs] as int8 codes and scales [outputs, blocks], float32 (float16 where they bear it)."""

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    block: int


def cheapest(inputs: int, bits: int, most: int) -> int:
    """The block from 16 to ``most`` that takes the fewest bytes: the last one is filled up, and each has a scale of 4 bytes."""
    blocks = [size for size in (128, 64, 32, 16) if size <= most]
    return min(blocks, key=lambda size: -(-inputs // size) * (size * bits / 8 + 4))


def dividing(inputs: int, block: int) -> int:
    """The largest block up to ``block`` that divides the inputs, one for all of them where that is below 16: OpenVINO reads no other."""
    while block >= 16 and inputs % block:
        block //= 2
    return block if block >= 16 else inputs


def readable(node: NodeProto) -> bool:
    """Whether ``matrix`` and ``product`` know the node's form: a Gemm that transposes its input is left alone."""
    return not any(attribute.name == "transA" and attribute.i for attribute in node.attribute)


def matrix(node: NodeProto, weight: np.ndarray) -> np.ndarray:
    """A layer's weight as [outputs, inputs], with a Gemm's ``alpha`` in it."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return np.asarray((weight if values.get("transB") else weight.T) * np.float32(values.get("alpha", 1.0)), np.float32)


def product(graph: GraphProto, node: NodeProto, codes: Codes, *, standard: bool, accuracy_level: int) -> list[NodeProto]:
    """The nodes in place of a MatMul or Gemm; their constants are added to the graph."""
    taken = value_names(graph)
    beta = next((attribute.f for attribute in node.attribute if attribute.name == "beta"), 1.0)
    bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] and beta else ""
    made = fresh_name(f"{node.name}_product", taken) if bias else node.output[0]
    write = _standard_product if standard else _block_product
    nodes = write(graph, node, codes, made, accuracy_level)
    if not bias:
        return nodes
    if beta != 1:
        factor = add_constant(graph, f"{node.name}_beta", np.array(beta, np.float32), taken)
        scaled = fresh_name(f"{node.name}_bias", taken)
        nodes.append(helper.make_node("Mul", [bias, factor], [scaled], scaled))
        bias = scaled
    return [*nodes, helper.make_node("Add", [made, bias], [node.output[0]], fresh_name(f"{node.name}_add", taken))]


def _block_product(graph: GraphProto, node: NodeProto, codes: Codes, made: str, accuracy_level: int) -> list[NodeProto]:
    taken = value_names(graph)
    outputs, inputs = codes.codes.shape
    weight = add_constant(graph, f"{node.name}_packed", packed(codes), taken)
    scales = add_constant(graph, f"{node.name}_scales", codes.scales, taken)
    settings = {"K": inputs, "N": outputs, "bits": codes.bits, "block_size": codes.block, "accuracy_level": accuracy_level}
    return [helper.make_node("MatMulNBits", [node.input[0], weight, scales], [made], node.name, domain=CONTRIB, **settings)]


def _standard_product(graph: GraphProto, node: NodeProto, codes: Codes, made: str, accuracy_level: int) -> list[NodeProto]:
    taken = value_names(graph)
    weight = fresh_name(f"{node.name}_codes", taken)
    across = np.ascontiguousarray(codes.codes.T)
    if codes.bits == 8:
        graph.initializer.append(numpy_helper.from_array(across, weight))
    else:
        nibbles = (across & 15).astype(np.uint8).reshape(-1)
        pairs = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8)).reshape(-1, 2)
        raw = (pairs[:, 0] | (pairs[:, 1] << 4)).astype(np.uint8).tobytes()
        graph.initializer.append(TensorProto(name=weight, data_type=TensorProto.INT4, dims=across.shape, raw_data=raw))
    scales = add_constant(graph, f"{node.name}_scales", np.ascontiguousarray(codes.scales.T), taken)
    wide = fresh_name(f"{node.name}_weight", taken)
    return [
        helper.make_node("DequantizeLinear", [weight, scales], [wide], wide, axis=0, block_size=codes.block),
        helper.make_node("MatMul", [node.input[0], wide], [made], node.name),
    ]


def packed(codes: Codes) -> np.ndarray:
    """Codes as ``MatMulNBits`` reads them: uint8 [outputs, blocks, bytes], shifted to be positive, the lower half of a byte first."""
    outputs, inputs = codes.codes.shape
    padded = np.zeros((outputs, codes.scales.shape[1] * codes.block), np.int16)
    padded[:, :inputs] = codes.codes
    positive = (padded + 2 ** (codes.bits - 1)).astype(np.uint8).reshape(outputs, -1, codes.block)
    return positive if codes.bits == 8 else positive[..., 0::2] | (positive[..., 1::2] << 4)


def need_contrib(proto: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Name the operator set of ONNX Runtime's own operators if a node needs it."""
    if any(node.domain == CONTRIB for node in nodes) and all(entry.domain != CONTRIB for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def add_constant(graph: GraphProto, name: str, array: np.ndarray, taken: set[str]) -> str:
    """Adds an initializer; the name it got."""
    name = fresh_name(name, taken)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name
