"""Residual blocks of a graph: a value, what is computed from it alone, and the Add that joins both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, shape_inference

from headway.compress.graph import consumers, copied, drop_unused, fresh_name, initializers, producers, reads, rename_reads, value_names
from headway.compress.session import batches, open_cpu, run

_LEARNED = frozenset({"Conv", "MatMul", "Gemm"})
_NORM_STEPS = frozenset({"ReduceMean", "Sub", "Pow", "Mul", "Add", "Sqrt", "Div", "Cast", "Reciprocal", "Identity"})
_NORMS = frozenset({"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"})


@dataclass(frozen=True)
class Block:
    """``exit = entry + f(entry)``.

    Attributes:
        name: name of the Add.
        entry: the value that goes around f.
        exit: the Add's output.
        norm: output of the normalisation that alone reads the Add (post-norm); none elsewhere.
        nodes: names of f's nodes, in graph order.
    """

    name: str
    entry: str
    exit: str
    norm: str | None
    nodes: tuple[str, ...]


def blocks(proto: ModelProto, samples: Mapping[str, np.ndarray] | None = None) -> tuple[Block, ...]:
    """The residual blocks, in graph order. Expects the form of ``graph.normalise``.

    Nobody outside f and the Add reads what f makes; f holds a convolution or a matrix product; entry and exit have the same type and shape
    (on the first samples, or by inference where there are none). f may read side values that do not come from the entry, such as a mask.
    """
    graph = proto.graph
    readers, outputs = consumers(graph), {value.name for value in graph.output}
    found = []
    for node in graph.node:
        if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
            continue
        for entry, made in (tuple(node.input), tuple(reversed(node.input))):
            inner = _between(graph, entry, made)
            if not inner or not any(item.op_type in _LEARNED for item in inner):
                continue
            names = {item.name for item in inner} | {node.name}
            values = {value for item in inner for value in item.output if value}
            if values & outputs or any(reader.name not in names for value in values for reader in readers.get(value, [])):
                continue
            found.append(Block(node.name, entry, node.output[0], _norm(graph, node.output[0]), tuple(item.name for item in inner)))
            break
    same = _alike(proto, [(b.entry, b.exit) for b in found] + [(b.entry, b.norm) for b in found if b.norm], samples)
    return tuple(
        Block(b.name, b.entry, b.exit, b.norm if b.norm and (b.entry, b.norm) in same else None, b.nodes)
        for b in found
        if (b.entry, b.exit) in same
    )


def chains(found: Iterable[Block], span: int) -> tuple[tuple[Block, ...], ...]:
    """Runs of ``span`` blocks, each of which begins where the one before ends."""
    own = list(found)
    by_entry = {block.entry: block for block in reversed(own)}
    made = []
    for block in own:
        run_ = [block]
        while len(run_) < span:
            last = run_[-1]
            after = by_entry.get(last.norm or last.exit) or by_entry.get(last.exit)
            if after is None:
                break
            run_.append(after)
        if len(run_) == span:
            made.append(tuple(run_))
    return tuple(made)


def without(proto: ModelProto, dropped: Iterable[Block], *, with_norm: bool = False) -> ModelProto:
    """A copy in which each block is its entry; ``with_norm``: the normalisation after the Add goes as well."""
    copy = copied(proto)
    renamed: dict[str, str] = {}
    for block in dropped:
        gone = block.norm if with_norm and block.norm else block.exit
        entry = block.entry
        while entry in renamed:
            entry = renamed[entry]
        renamed[gone] = entry
        _bypass(copy.graph, gone, entry)
    drop_unused(copy.graph)
    return copy


def _bypass(graph: GraphProto, gone: str, entry: str) -> None:
    for node in graph.node:
        rename_reads(node, gone, entry)
    if gone in {value.name for value in graph.output}:
        node = producers(graph)[gone]
        spare = fresh_name(f"{gone}_unused", value_names(graph))
        for position, name in enumerate(node.output):
            if name == gone:
                node.output[position] = spare
        place = next(index for index, other in enumerate(graph.node) if other.name == node.name)
        name = fresh_name(f"{node.name}_skipped", {other.name for other in graph.node})
        graph.node.insert(place + 1, helper.make_node("Identity", [entry], [gone], name=name))


def _between(graph: GraphProto, entry: str, made: str) -> list[NodeProto]:
    """Nodes on paths from ``entry`` to ``made``; none when ``made`` does not come from ``entry``."""
    reached, forward = {entry}, []
    for node in graph.node:
        if any(name in reached for name in reads(node)):
            forward.append(node)
            reached.update(name for name in node.output if name)
    if entry == made or made not in reached:
        return []
    needed, inner = {made}, []
    for node in reversed(forward):
        if needed & set(node.output):
            inner.append(node)
            needed.update(reads(node))
    return inner[::-1]


def _norm(graph: GraphProto, value: str) -> str | None:
    """The output of the normalisation that alone reads ``value``, one operator or written out; none when something else reads it."""
    if value in {output.name for output in graph.output}:
        return None
    readers = consumers(graph)
    first = readers.get(value, [])
    if len(first) == 1 and first[0].op_type in _NORMS:
        return first[0].output[0] if first[0].input[0] == value else None
    fixed = set(initializers(graph))
    inside = {value}
    own: list[NodeProto] = []
    for node in graph.node:
        dynamic = [name for name in reads(node) if name not in fixed]
        pools = node.op_type == "ReduceMean" and any(item.op_type == "Sqrt" for item in own)
        if node.op_type in _NORM_STEPS and not pools and dynamic and all(name in inside for name in dynamic):
            own.append(node)
            inside.update(node.output)
    if not {"ReduceMean", "Sqrt"} <= {node.op_type for node in own}:
        return None
    names = {node.name for node in own}
    outputs = {output.name for output in graph.output}
    left = [name for name in inside if name in outputs or any(reader.name not in names for reader in readers.get(name, []))]
    return left[0] if len(left) == 1 and left[0] != value else None


def _alike(proto: ModelProto, pairs: list[tuple[str, str]], samples: Mapping[str, np.ndarray] | None) -> set[tuple[str, str]]:
    """The pairs whose values have the same element type and shape."""
    wanted = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not wanted:
        return set()
    kinds = _seen(proto, wanted, samples) if samples else _inferred(proto)
    return {pair for pair in pairs if kinds.get(pair[0]) is not None and kinds.get(pair[0]) == kinds.get(pair[1])}


def _seen(proto: ModelProto, names: list[str], samples: Mapping[str, np.ndarray]) -> dict[str, object]:
    session = open_cpu(proto, names)
    feeds = next(batches(session, samples, rows=2, size=2))
    made = [name for name in names if name not in feeds]
    values = {**feeds, **dict(zip(made, run(session, feeds, made), strict=True))}
    return {name: (values[name].dtype, values[name].shape) for name in names}


def _inferred(proto: ModelProto) -> dict[str, object]:
    graph = shape_inference.infer_shapes(proto).graph
    kinds: dict[str, object] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        axes = [axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim]
        kinds[value.name] = (value.type.tensor_type.elem_type, tuple(axes)) if axes and all(axes) else None
    return kinds
