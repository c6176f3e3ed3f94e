"""What OpenVINO executes: the compiled graph's own nodes, with the precision that each runs in.

Work is weighted by multiply-adds of the matrix kernels for one row; see ``headway.runtime.censuses.onnx_runtime`` for why. A graph of
quantized operators that OpenVINO only knows as float arithmetic (dynamic quantization) shows as work left in float32. Shapes are those of a
run on zeros; where the graph does not run on zeros, a free dimension counts 1. Products that OpenVINO fuses into a ``Subgraph`` (attention
without its projections) are not counted: the compiled graph does not tell what is inside.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import onnx
import openvino as ov

from headway.records import Census
from headway.runtime.executed import OTHER_SIZES
from headway.runtime.hope import narrow_weights
from headway.runtime.runtimes.openvino import compile_graph

KINDS = {"i8": "integer", "u8": "integer", "i4": "integer", "u4": "integer", "bf16": "bfloat16", "f16": "float16", "f32": "float32"}
RECURRENT = {"LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell"}
ATTENTION = {"MHA", "ScaledDotProductAttention"}
MATRIX = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", *RECURRENT, *ATTENTION}
MOVED = {"Reorder", "Transpose", "Convert", "FakeQuantize"}
QUIET = {"Const", "Input", "Output"}


def census(path: Path, variant: str) -> Census:
    """The Census of a graph on the CPU, compiled as it would be to serve.

    Raises:
        ModelError, Unsupported: OpenVINO cannot read or compile the graph.
    """
    compiled = compile_graph(path, 1)
    _run(compiled)
    nodes = compiled.get_runtime_model().get_ordered_ops()
    kernels: Counter[str] = Counter()
    work: Counter[str] = Counter()
    wide: Counter[str] = Counter()
    unpacked = 0
    for node in nodes:
        kind = _fact(node, "layerType")
        if kind in QUIET:
            continue
        kernels[kind] += 1
        if kind in MATRIX:
            arithmetic = _arithmetic(node)
            work[arithmetic] += _macs(node, kind)
            if arithmetic != _kind(_fact(node, "runtimePrecision")):
                unpacked += 1
            elif arithmetic == "float32":
                wide[kind] += 1
    total = sum(work.values())
    shares = {kind: macs / total for kind, macs in work.items()} if total else {"float32": 1.0}
    narrow = 1.0 - shares.get("float32", 0.0)
    quantized = narrow > 0 or kernels["FakeQuantize"] > 0 or (not unpacked and _quantized(path))
    fallbacks = tuple(f"{count} x {kind} in float32" for kind, count in wide.most_common()) if quantized else ()
    inserted = {name: kernels[name] for name in sorted(MOVED) if kernels[name]}
    sentence = f"{narrow:.0%} of the multiply-adds run in narrow kernels" if quantized else ""
    if sentence and fallbacks:
        sentence += f"; left wide: {fallbacks[0]}"
    sentence = "; ".join(part for part in (sentence, narrow_weights(unpacked)) if part)
    return Census(
        variant=variant,
        runtime="openvino",
        shares=shares,
        kernels=dict(kernels.most_common()),
        fallbacks=fallbacks,
        inserted=inserted,
        sentence=sentence,
    )


def _run(compiled: ov.CompiledModel) -> None:
    """Run one row of zeros, if some size of the free dimensions lets it: from then on the compiled graph tells shapes and kernels."""
    request = compiled.create_infer_request()
    for size in OTHER_SIZES:
        feeds = []
        for port in compiled.inputs:
            stated = enumerate(port.partial_shape)
            shape = [(1 if axis == 0 else size) if extent.is_dynamic else int(extent.get_length()) for axis, extent in stated]
            feeds.append(np.zeros(shape, port.element_type.to_dtype()))
        try:
            request.infer(feeds)
        except RuntimeError:
            continue
        return


def _quantized(path: Path) -> bool:
    """Whether the graph on disk carries quantization, which reading may have dissolved into plain arithmetic."""
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return any("Quantize" in node.op_type or "Integer" in node.op_type for node in nodes)


def _arithmetic(node: ov.Node) -> str:
    """The type that a product computes in.

    The runtime states that of the weights; when those are narrow and the activations are not, they are unpacked first and the product
    is a float one.
    """
    stated = _kind(_fact(node, "runtimePrecision"))
    if stated != "integer" or not node.get_input_size():
        return stated
    source = node.input(0).get_source_output()
    types = _fact(source.get_node(), "outputPrecisions").split(",")
    return _kind(types[min(source.get_index(), len(types) - 1)])


def _kind(precision: str) -> str:
    return KINDS.get(precision, "float32")


def _fact(node: ov.Node, name: str) -> str:
    facts = node.get_rt_info()
    return str(facts[name].value) if name in facts else ""


def _macs(node: ov.Node, kind: str) -> int:
    """Multiply-adds of one node, at least 1; a free dimension counts 1. ``headway.runtime.executed`` has the formulas."""
    given = [_sizes(port.get_source_output().get_partial_shape()) for port in node.inputs()]
    out = _sizes(node.output(0).get_partial_shape())
    if not given:
        return 1
    left, right = given[0], given[1] if len(given) > 1 else [1]
    if kind == "Convolution":
        return max(1, prod(out) * prod(right) // max(1, out[1] if len(out) > 1 else 1))
    if kind == "Deconvolution":
        return max(1, prod(left) * prod(right) // max(1, left[1] if len(left) > 1 else 1))
    if kind in RECURRENT:
        return max(1, prod(left[:-1]) * sum(prod(weight) for weight in given[-3:-1]))
    if kind in ATTENTION:
        return max(1, 2 * prod(left) * (right[-2] if len(right) > 1 else 1))
    return max(1, prod(left) * out[-1])


def _sizes(shape: ov.PartialShape) -> list[int]:
    return [1 if size.is_dynamic else int(size.get_length()) for size in shape] if shape.rank.is_static else [1]
