"""The constants of a graph: initializers of the main graph and of bodies, and tensors in Constant nodes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx_ir as ir

from headway.model.graph import Model

# positions of scales and zero points among the inputs of quantizing operators
_SCALES = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3), "MatMulInteger": (2, 3), "DynamicQuantizeMatMul": (2, 3), "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3), "QGemm": (1, 2, 4, 5, 7, 8),
}  # fmt: skip
# positions of whole-number data that stand for weights (quantized weights and biases)
_WHOLE = {
    "DequantizeLinear": (0,), "QLinearConv": (3, 8), "QLinearMatMul": (0, 3), "ConvInteger": (0, 1), "MatMulInteger": (0, 1),
    "QGemm": (0, 3, 6),
    "DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (0, 1), "MatMulNBits": (1,), "QAttention": (1,), "DynamicQuantizeLSTM": (1, 2),
}  # fmt: skip
_FLOATS = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ,
    ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ, ir.DataType.FLOAT4E2M1,
}  # fmt: skip


def weights(model: Model) -> dict[str, np.ndarray]:
    """Every constant tensor by value name, those in Constant nodes too; copies, free to be changed."""
    return {name: np.array(tensor.numpy()) for name, tensor in constants(model.ir)}


def weight_bytes(model: Model) -> int:
    """Bytes of all constant tensors, wherever they sit [B]."""
    return sum(tensor.nbytes for _, tensor in constants(model.ir))


def graph_bytes(model: Model) -> int:
    """Bytes of the model as an ONNX file, weights inside [B]."""
    whole = sum(tensor.nbytes for _, tensor in constants(model.ir))
    return len(model.to_bytes()) if whole < 1_500_000_000 else whole


def node_count(model: Model) -> int:
    """Number of operators in the main graph, in control-flow bodies and in functions; constants are none."""
    bodies = [*model.ir.graphs(), *model.ir.functions.values()]
    return sum(node.op_type != "Constant" for body in bodies for node in body)


def parameters(model: Model) -> int:
    """Number of learned values: floating-point constants, and whole-number ones that stand for quantized weights.

    Not counted: scales and zero points, and whole numbers that are shapes, axes or indices. Packed 4-bit weights count each value.
    """
    scales, whole, packed = _roles(model.ir)
    total = 0
    for name, tensor in constants(model.ir):
        if name in scales or (tensor.dtype not in _FLOATS and name not in whole):
            continue
        total += packed.get(name, prod(tensor.shape.numpy()))
    return total


def constants(graph: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Value name and tensor of each constant, each once."""
    for each in graph.graphs():
        for name, value in each.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
    for body in (*graph.graphs(), *graph.functions.values()):
        for node in body:
            if node.op_type == "Constant" and node.outputs[0].name:
                tensor = ir.convenience.get_const_tensor(node.outputs[0])
                if tensor is not None:
                    yield node.outputs[0].name, tensor


def _roles(graph: ir.Model) -> tuple[set[str], set[str], dict[str, int]]:
    """Names used as scales, names used as whole-number weights, and true sizes of packed weights."""
    scales: set[str] = set()
    whole: set[str] = set()
    packed: dict[str, int] = {}
    for body in (*graph.graphs(), *graph.functions.values()):
        for node in body:
            name_at = {index: value.name for index, value in enumerate(node.inputs) if value is not None and value.name}
            scales.update(name_at[index] for index in _SCALES.get(node.op_type, ()) if index in name_at)
            whole.update(name_at[index] for index in _WHOLE.get(node.op_type, ()) if index in name_at)
            table = node.inputs[0].const_value if node.op_type == "Gather" and node.inputs[0] is not None else None
            if table is not None and table.dtype.bitwidth <= 8:
                whole.add(name_at[0])
            if node.op_type == "MatMulNBits" and 1 in name_at:
                packed[name_at[1]] = node.attributes["K"].as_int() * node.attributes["N"].as_int()
    return scales, whole, packed
