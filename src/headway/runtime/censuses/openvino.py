"""What OpenVINO executes: the compiled graph's own nodes, with the precision that each runs in.

Work is weighted by output elements times weight size where the weight's shape is in the graph, so that layers count by about what
they cost; see ``headway.runtime.censuses.onnx_runtime`` for what counts.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import openvino as ov

from headway.records import Census
from headway.runtime.runtimes.openvino import compile_graph

KINDS = {"i8": "integer", "u8": "integer", "i4": "integer", "u4": "integer", "bf16": "bfloat16", "f16": "float16", "f32": "float32"}
MATRIX = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell", "MHA", "ScaledDotProductAttention"}
MOVED = {"Reorder", "Transpose", "Convert", "FakeQuantize"}
QUIET = {"Const", "Input", "Output"}


def census(path: Path, variant: str) -> Census:
    """The Census of a graph on the CPU, compiled as it would be to serve.

    Raises:
        ModelError, Unsupported: OpenVINO cannot read or compile the graph.
    """
    nodes = compile_graph(path, 1).get_runtime_model().get_ordered_ops()
    kernels: Counter[str] = Counter()
    work: Counter[str] = Counter()
    wide: Counter[str] = Counter()
    for node in nodes:
        kind = _fact(node, "layerType")
        if kind in QUIET:
            continue
        kernels[kind] += 1
        if kind in MATRIX:
            precision = _fact(node, "runtimePrecision")
            work[KINDS.get(precision, "float32")] += _macs(node, kind)
            if KINDS.get(precision, "float32") == "float32":
                wide[kind] += 1
    total = sum(work.values())
    shares = {kind: macs / total for kind, macs in work.items()} if total else {"float32": 1.0}
    narrow = 1.0 - shares.get("float32", 0.0)
    fallbacks = tuple(f"{count} x {kind} in float32" for kind, count in wide.most_common()) if narrow > 0 else ()
    inserted = {name: kernels[name] for name in sorted(MOVED) if kernels[name]}
    if kernels["FakeQuantize"] and not fallbacks:
        fallbacks = tuple(f"{count} x {kind} in float32" for kind, count in wide.most_common())
    sentence = "" if narrow == 0 and not kernels["FakeQuantize"] else f"{narrow:.0%} of the multiply-adds run in narrow kernels"
    if sentence and fallbacks:
        sentence += f"; left wide: {fallbacks[0]}"
    return Census(
        variant=variant, runtime="openvino", shares=shares, kernels=dict(kernels.most_common()), fallbacks=fallbacks, inserted=inserted, sentence=sentence
    )


def _fact(node: ov.Node, name: str) -> str:
    facts = node.get_rt_info()
    return str(facts[name].value) if name in facts else ""


def _macs(node: ov.Node, kind: str) -> int:
    """Output elements times the elements of one weight column; 1 for an unknown dimension."""
    out = _sizes(node.output(0).get_partial_shape())
    if node.get_input_size() < 2:
        return prod(out)
    weight = _sizes(node.input(1).get_partial_shape())
    if kind in ("Convolution", "Deconvolution"):
        return prod(out) * max(1, prod(weight) // max(1, out[1] if len(out) > 1 else 1))
    return max(prod(weight), prod(out)) * max(1, prod(out[1:-1]))


def _sizes(shape: ov.PartialShape) -> list[int]:
    return [1 if size.is_dynamic else int(size.get_length()) for size in shape] if shape.rank.is_static else [1]
