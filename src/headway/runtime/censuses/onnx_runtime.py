"""What ONNX Runtime executes: its own optimized graph, written out and read back.

Work is weighted by multiply-adds of the matrix kernels alone (convolutions, products, recurrent layers): they are what a narrow type
can speed up. Shapes come from shape inference at batch 1; where a shape is unknown, the size of the weights stands in.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from math import prod
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import shape_inference

from headway.records import Census, ModelError

INTEGER = {
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger", "QAttention",
    "DynamicQuantizeLSTM", "QLinearConvTranspose", "MatMulNBits",
}  # fmt: skip
FLOAT = {"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention"}
MOVED = {"ReorderInput", "ReorderOutput", "Transpose", "Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def census(path: Path, variant: str) -> Census:
    """The Census of a graph on the CPU provider with all of its optimizations.

    Raises:
        ModelError: ONNX Runtime cannot load the graph.
    """
    graph = _optimized(path).graph
    shapes = _shapes(graph)
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kernels = Counter(node.op_type for node in graph.node)
    work = {"integer": 0, "float32": 0}
    for node in graph.node:
        if node.op_type in INTEGER:
            work["integer"] += _macs(node, shapes, weights)
        elif node.op_type in FLOAT:
            work["float32"] += _macs(node, shapes, weights)
    total = sum(work.values())
    shares = {kind: macs / total for kind, macs in work.items()} if total else {"integer": 0.0, "float32": 1.0}
    fallbacks = _fallbacks(graph)
    inserted = {name: kernels[name] for name in sorted(MOVED) if kernels[name]}
    return Census(
        variant=variant, runtime="onnx_runtime", shares=shares, kernels=dict(kernels.most_common()), fallbacks=fallbacks, inserted=inserted,
        sentence=_sentence(shares, fallbacks, inserted, kernels),
    )  # fmt: skip


def _optimized(path: Path) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "optimized.onnx")
        options = ort.SessionOptions()
        options.optimized_model_filepath = file
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises its own types, which share no base
            raise ModelError(f"{path}: must be a graph that ONNX Runtime can load, got: {' '.join(str(error).split())[:300]}") from error
        return onnx.load(file)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Known shapes by value name; an unknown dimension counts 1, as the batch does."""
    inferred = graph
    try:
        model = onnx.helper.make_model(graph)
        inferred = shape_inference.infer_shapes(model).graph
    except (shape_inference.InferenceError, ValueError):
        pass  # a graph of the runtime's own operators need not be inferable; weights stand in
    found = {}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(size.dim_value if size.HasField("dim_value") else 1 for size in value.type.tensor_type.shape.dim)
    return found


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]]) -> int:
    """Multiply-adds of one node: weight elements, times the output positions that each is used at."""
    sizes = [weights[name] for name in node.input if len(weights.get(name, ())) >= 2]
    if not sizes:
        left = shapes.get(node.input[0], (1,))
        out = shapes.get(node.output[0], (1,))
        return max(1, prod(out) * (left[-1] if left else 1))
    weight = max(sizes, key=prod)
    out = shapes.get(node.output[0], ())
    if "Conv" in node.op_type:
        # the blocked layout pads channels; the output's spatial size is what counts
        return prod(weight) * max(1, prod(out[2:]) if len(out) > 2 else 1)
    return prod(weight) * max(1, prod(out[:-1]) if len(out) > 1 else 1)


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
