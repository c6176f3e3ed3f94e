"""What ONNX Runtime executes: its own optimized graph, written out and read back, and its profile of one run.

Work is weighted by multiply-adds of the matrix kernels alone (convolutions, products, recurrent layers): they are what a narrow type
can speed up. Their shapes are those of a run of one row; where a graph does not run on zeros, the number of weights stands in.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from math import prod
from pathlib import Path

import onnx

from headway.records import Census
from headway.runtime.executed import executed, multiply_adds
from headway.runtime.hope import narrow_weights

INTEGER = {
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger", "QAttention",
    "DynamicQuantizeLSTM", "QLinearConvTranspose", "MatMulNBits",
}  # fmt: skip
FLOAT = {
    "Conv",
    "FusedConv",
    "ConvTranspose",
    "MatMul",
    "FusedMatMul",
    "Gemm",
    "FusedGemm",
    "LSTM",
    "GRU",
    "RNN",
    "Attention",
    "MultiHeadAttention",
}
MOVED = {"ReorderInput", "ReorderOutput", "Transpose", "Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def census(path: Path, variant: str) -> Census:
    """The Census of a graph on the CPU provider with all of its optimizations.

    Raises:
        ModelError: ONNX Runtime cannot load the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        ran = executed(path, optimized)
        graph = onnx.load(str(optimized), load_external_data=False).graph
    kernels = Counter(node.op_type for node in graph.node)
    work = {"integer": 0, "float32": 0}
    integer = INTEGER - {"MatMulNBits"} if _float_products_of_narrow_weights(graph) else INTEGER
    for op_type, macs in [(kernel.op_type, multiply_adds(kernel)) for kernel in ran] or _by_weights(graph):
        if op_type in integer:
            work["integer"] += macs
        elif op_type in FLOAT or op_type in INTEGER:
            work["float32"] += macs
    total = sum(work.values())
    shares = {kind: macs / total for kind, macs in work.items()} if total else {"integer": 0.0, "float32": 1.0}
    fallbacks = _fallbacks(graph)
    inserted = {name: kernels[name] for name in sorted(MOVED) if kernels[name]}
    return Census(
        variant=variant, runtime="onnx_runtime", shares=shares, kernels=dict(kernels.most_common()), fallbacks=fallbacks, inserted=inserted,
        sentence=_sentence(shares, fallbacks, inserted, kernels) or narrow_weights(_float_products_of_narrow_weights(graph)),
    )  # fmt: skip


def _float_products_of_narrow_weights(graph: onnx.GraphProto) -> int:
    """Products that unpack narrow weights and compute in float32; accuracy level 4 is the one that computes in int8."""
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    return sum(not any(a.name == "accuracy_level" and a.i == 4 for a in node.attribute) for node in products)


def _by_weights(graph: onnx.GraphProto) -> list[tuple[str, int]]:
    """Operators with the number of weights of each."""
    sizes = {tensor.name: prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims) >= 2}
    return [(node.op_type, max(1, sum(sizes.get(name, 0) for name in node.input))) for node in graph.node]


def _fallbacks(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Kernels that run in float between dequantize and quantize nodes, counted by cause."""
    made_by = {output: node for node in graph.node for output in node.output}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    causes: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type not in FLOAT:
            continue
        sources = [made_by.get(name) for name in node.input]
        dequantized = [source for source in sources if source is not None and source.op_type == "DequantizeLinear"]
        if not dequantized:
            continue
        signed = any(len(s.input) > 2 and types.get(s.input[2]) == onnx.TensorProto.INT8 and s.input[0] not in types for s in dequantized)
        if signed:
            causes[f"{node.op_type} with signed 8-bit activations: x86 kernels fuse unsigned ones"] += 1
        elif sources[0] is None or sources[0].op_type != "DequantizeLinear":
            causes[f"{node.op_type} whose input is not quantized"] += 1
        elif len(dequantized) < 2:
            causes[f"{node.op_type} whose weights are not quantized"] += 1
        else:
            causes[f"{node.op_type} whose output is not quantized, or whose pattern the runtime does not fuse"] += 1
    return tuple(f"{count} x {cause}" for cause, count in causes.most_common())


def _sentence(shares: dict[str, float], fallbacks: tuple[str, ...], inserted: dict[str, int], kernels: Counter[str]) -> str:
    if kernels["ConvInteger"]:
        return f"{kernels['ConvInteger']} convolutions run as ConvInteger, which has no fast kernel"
    if shares["integer"] == 0 and not fallbacks:
        return ""
    parts = [f"{shares['integer']:.0%} of the multiply-adds run in integer kernels"]
    if fallbacks:
        parts.append(f"left in float: {fallbacks[0]}")
    conversions = sum(inserted.get(name, 0) for name in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
    if conversions:
        parts.append(f"{conversions} conversions between float and integer remain")
    return "; ".join(parts)
