"""Where a variant's answers leave its parent's: the noise in every value that both graphs have, and what became of every layer.

Noise is the difference between variant and parent on the same samples; the signal is the parent's value. Both graphs run in ONNX Runtime on
one thread as they are written, so quantized layers are emulated with their rounding: a serving runtime may round otherwise in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress.graph import INTEGER_OPERATORS, consumers, initializers, producers, reads
from headway.compress.session import batches, open_cpu, run

ROWS, ROWS_AT_ONCE = 64, 8
MOST_BYTES = 256_000_000
"""Inner values of both graphs held at a time [B]."""
PRODUCTS = ("MatMul", "Gemm", "Conv")
SCALING = ("Mul", "Add", "Cast", "Reshape")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

Arrays = Mapping[str, NDArray[Any]]


class LayerNoise(msgspec.Struct, frozen=True, kw_only=True):
    """One value of the parent's graph, with the node that makes it, in the graph's order.

    Attributes:
        noise: power of the difference over power of the parent's value; none when the variant has no such value or another shape.
        snr_db: 10 log10(1 / noise) [dB]; none as above, and when there is no difference at all.
        entered: noise that this node and those between add: ``noise`` less that of the noisiest value upstream.
        between: layers from there to here that have no comparable value of their own, such as a convolution whose activation was merged.
        state: what became of the layer, in words; empty for nodes without weights.
    """

    value: str
    node: str
    op_type: str
    noise: float | None
    snr_db: float | None
    entered: float
    between: tuple[str, ...]
    state: str


@dataclass(frozen=True, slots=True)
class _Value:
    """A value that both graphs have in the same shape, its name in the variant, and its bytes for one row [B]."""

    name: str
    twin: str
    row_bytes: int


def layer_noise(parent: ModelProto, variant: ModelProto, samples: Arrays, *, rows: int = ROWS) -> tuple[LayerNoise, ...]:
    """The noise of every float value of the parent's main graph, and the state of every layer.

    Expects both in the form of ``compress.graph.normalise``. Values are matched by name, so it tells most where the parent is the graph that
    compression started from. Peak memory: both graphs and about ``MOST_BYTES`` of their values.

    Raises:
        Unsupported: a graph does not run in ONNX Runtime on the CPU.
        DataError: the samples lack an input.
    """
    noise = _noises(parent, variant, samples, rows)
    fates = {node.output[0]: state(node, parent.graph, variant.graph) for node in parent.graph.node if _weights(node, parent.graph)}
    made_by = producers(parent.graph)
    found = []
    for node in parent.graph.node:
        for name in (name for name in node.output if name in noise or name in fates):
            here = noise.get(name)
            upstream, passed = _upstream(node, made_by, noise)
            before = max((noise[other] for other in upstream), default=0.0)
            found.append(
                LayerNoise(
                    value=name,
                    node=node.name,
                    op_type=node.op_type,
                    noise=here,
                    snr_db=-10 * math.log10(here) if here else None,
                    entered=max(0.0, here - before) if here is not None else 0.0,
                    between=tuple(other.name for other in parent.graph.node if other.name in passed and other.output[0] in fates),
                    state=fates.get(name, ""),
                )
            )
    return tuple(found)


def _upstream(node: NodeProto, made_by: Mapping[str, NodeProto], known: Mapping[str, float]) -> tuple[set[str], set[str]]:
    """The nearest values upstream whose noise is known, and the names of the nodes passed on the way."""
    found: set[str] = set()
    passed: set[str] = set()
    seen: set[str] = set()
    waiting = list(reads(node))
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            found.add(name)
        elif name in made_by:
            passed.add(made_by[name].name)
            waiting += reads(made_by[name])
    return found, passed


def _noises(parent: ModelProto, variant: ModelProto, samples: Arrays, rows: int) -> dict[str, float]:
    """Noise by name of value."""
    twins = _twins(parent.graph, variant.graph)
    power = dict.fromkeys(twins, 0.0)
    difference = dict.fromkeys(twins, 0.0)
    for part in _parts(_comparable(parent, variant, twins, samples)):
        names, others = [value.name for value in part], [value.twin for value in part]
        ours, theirs = open_cpu(parent, names), open_cpu(variant, list(dict.fromkeys(others)))
        for feeds in batches(ours, samples, rows=rows, size=ROWS_AT_ONCE):
            for name, left, right in zip(names, run(ours, feeds, names), run(theirs, feeds, others), strict=True):
                wide = left.astype(np.float64)
                kept = np.isfinite(wide)
                power[name] += float(np.square(wide[kept]).sum())
                difference[name] += float(np.square(np.nan_to_num(right.astype(np.float64)[kept]) - wide[kept]).sum())
    return {name: difference[name] / power[name] for name in twins if power[name] > 0}


def _twins(parent: GraphProto, variant: GraphProto) -> dict[str, str]:
    """For each value of the parent the one in the variant that stands for it: what later layers read, so rounded where it is rounded.

    An activation that only clips may be merged into that rounding, and before it the value of the same name is not clipped yet.
    """
    read_by = consumers(variant)
    theirs = {name for node in variant.node for name in node.output if name}
    found = {}
    for name in (name for node in parent.node for name in node.output if name in theirs):
        quantized = next((node.output[0] for node in read_by.get(name, []) if node.op_type == "QuantizeLinear"), "")
        rounded = next((node.output[0] for node in read_by.get(quantized, []) if node.op_type == "DequantizeLinear"), name)
        found[name] = rounded
    return found


def _comparable(parent: ModelProto, variant: ModelProto, twins: Mapping[str, str], samples: Arrays) -> list[_Value]:
    """Values that are float arrays of one shape in both, by a run of one batch of the smallest size."""
    if not twins:
        return []
    ours, theirs = _shapes(parent, list(twins), samples), _shapes(variant, list(dict.fromkeys(twins.values())), samples)
    return [_Value(name, twin, ours[name][1]) for name, twin in twins.items() if name in ours and ours[name] == theirs.get(twin)]


def _shapes(proto: ModelProto, names: Sequence[str], samples: Arrays) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of each float value for one batch of the smallest size, and its bytes a row."""
    session = open_cpu(proto, names)
    feeds = next(batches(session, samples, rows=ROWS_AT_ONCE, size=1))
    count = len(next(iter(feeds.values())))
    made = zip(names, run(session, feeds, names), strict=True)
    return {
        name: (array.shape, max(1, array.nbytes // count))
        for name, array in made
        if isinstance(array, np.ndarray) and array.dtype.kind == "f"
    }


def _parts(values: Sequence[_Value]) -> Iterator[list[_Value]]:
    """Values in parts that fit the memory, both graphs counted."""
    part: list[_Value] = []
    held = 0
    for value in values:
        size = 2 * ROWS_AT_ONCE * value.row_bytes
        if part and held + size > MOST_BYTES:
            yield part
            part, held = [], 0
        part.append(value)
        held += size
    if part:
        yield part


def state(node: NodeProto, parent: GraphProto, variant: GraphProto) -> str:
    """What became of a layer of the parent: as it was, cut, in 8 bits, in float, of another kind, or gone."""
    made_by = producers(variant)
    twin = next((made_by[name] for name in node.output if name in made_by), None)
    named = next((other for other in variant.node if other.name == node.name and other.op_type == node.op_type), None)
    if twin is None or twin.op_type in ("DequantizeLinear", "Relu", "Clip"):
        twin = named or twin
    if twin is None:
        return "gone"
    if twin.op_type != node.op_type:
        inner = _integer(twin, made_by)
        return f"{inner} on integers made as it runs" if inner else f"became {twin.op_type}"
    feeding = made_by.get(twin.input[0])
    if feeding is not None and feeding.op_type in PRODUCTS and feeding.output[0] not in producers(parent):
        rank = [list(tensor.dims) for each in (feeding, twin) for tensor in _weights(each, variant)]
        return f"two factors, {' and '.join(map(str, rank))}"
    before, after = (_weights(each, graph) for each, graph in ((node, parent), (twin, variant)))
    narrow = sorted({helper.tensor_dtype_to_np_dtype(tensor.data_type).name for tensor in after if tensor.data_type not in FLOATS})
    shapes = [(list(old.dims), list(new.dims)) for old, new in zip(before, after, strict=False) if list(old.dims) != list(new.dims)]
    words = [f"cut from {old} to {new}" for old, new in shapes if math.prod(new) < math.prod(old)]
    if narrow:
        rounded = any(_dequantized(name, made_by, variant) for name in twin.input)
        words.append(f"{' and '.join(narrow)} weights, {'8-bit' if rounded else 'float'} input")
    elif after and not shapes:
        words.append("float, as it was" if all(map(_equal, before, after)) else "float, with new values")
    return "; ".join(words) or f"rearranged ({len(before)} weights, now {len(after)})"


def _integer(node: NodeProto, made_by: Mapping[str, NodeProto], *, depth: int = 4) -> str:
    """The integer product behind the scaling that ends a layer quantized as it runs; empty without one."""
    if node.op_type in INTEGER_OPERATORS:
        return node.op_type
    if depth == 0 or node.op_type not in SCALING:
        return ""
    sources = (made_by[name] for name in node.input if name in made_by)
    return next((found for source in sources if (found := _integer(source, made_by, depth=depth - 1))), "")


def _weights(node: NodeProto, graph: GraphProto) -> list[TensorProto]:
    """Constant float matrices that a node reads, directly or through a DequantizeLinear, whose integers then stand for them."""
    fixed, made_by = initializers(graph), producers(graph)
    found = []
    for name in node.input:
        source = made_by.get(name)
        if name in fixed:
            tensor = fixed[name] if fixed[name].data_type in FLOATS else None
        else:
            tensor = fixed.get(source.input[0]) if source is not None and source.op_type == "DequantizeLinear" else None
        if tensor is not None and len(tensor.dims) >= 2:
            found.append(tensor)
    return found


def _dequantized(name: str, made_by: Mapping[str, NodeProto], graph: GraphProto) -> bool:
    source = made_by.get(name)
    return source is not None and source.op_type == "DequantizeLinear" and source.input[0] not in initializers(graph)


def _equal(left: TensorProto, right: TensorProto) -> bool:
    return np.array_equal(numpy_helper.to_array(left), numpy_helper.to_array(right))
