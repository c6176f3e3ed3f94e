"""Small questions to, and edits of, an ONNX graph in its protobuf form. Every edit works on a copy the caller owns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from headway.records import Unsupported

PRECISION_KEY = "headway.precision"
INTEGER_OPERATORS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul",
        "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "QAttention", "DynamicQuantizeLSTM", "MatMulNBits", "GatherBlockQuantized",
    }
)  # fmt: skip


def copied(proto: ModelProto) -> ModelProto:
    """A copy that may be changed."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


def opset(proto: ModelProto) -> int:
    """The version of the default operator set; 0 when the model names none."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a control-flow node (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def reads(node: NodeProto) -> Iterator[str]:
    """Every value name that a node reads, also from inside its subgraphs (a superset: inner names are not told apart)."""
    yield from (name for name in node.input if name)
    for inner in subgraphs(node):
        for child in inner.node:
            yield from reads(child)
        yield from (value.name for value in inner.output)


def rename_reads(node: NodeProto, old: str, new: str) -> None:
    """Make a node, and its subgraphs, read ``new`` wherever it read ``old``."""
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new
    for inner in subgraphs(node):
        for child in inner.node:
            rename_reads(child, old, new)
        for value in inner.output:
            if value.name == old:
                value.name = new


def initializers(graph: GraphProto) -> dict[str, TensorProto]:
    """The constant tensors of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that makes each value."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each value, once each, in graph order."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(reads(node)):
            found.setdefault(name, []).append(node)
    return found


def every_node(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those inside subgraphs too."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from every_node(inner)


def constants(graph: GraphProto) -> Iterator[TensorProto]:
    """All constant tensors: initializers and tensors inside Constant nodes, those of subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR)
        for inner in subgraphs(node):
            yield from constants(inner)


def tensor_digest(tensor: TensorProto) -> str:
    """A digest of a tensor's type, shape and values; its name does not matter."""
    array = numpy_helper.to_array(tensor)
    content = array.tobytes() if array.dtype != object else repr(array.tolist()).encode()
    return hashlib.sha256(f"{tensor.data_type}{array.shape}".encode() + content).hexdigest()


def first_integer_node(proto: ModelProto) -> NodeProto | None:
    """The first node that works on quantized values; none for a float model."""
    return next((node for node in every_node(proto.graph) if node.op_type in INTEGER_OPERATORS), None)


def why_not_float(proto: ModelProto, advice: str) -> str | None:
    """Why a technique that needs a float model refuses this one, ending with ``advice``; none for a float model."""
    node = first_integer_node(proto)
    return None if node is None else f"the model must be float, but node {node.name!r} ({node.op_type}) works on integers; {advice}"


def weight_left_out(graph: GraphProto, kinds: Iterable[str]) -> str:
    """What the first node of these operators reads for a weight (``; node 'a' (MatMul) reads...``), to end a refusal with; empty without such a node."""
    node = next((node for node in graph.node if node.op_type in kinds and len(node.input) > 1), None)
    if node is None:
        return ""
    tensor, maker = initializers(graph).get(node.input[1]), producers(graph).get(node.input[1])
    if tensor is not None:
        what = f"{TensorProto.DataType.Name(tensor.data_type).lower()} weights of shape {list(tensor.dims)}"
    else:
        what = f"what node {maker.name!r} ({maker.op_type}) makes" if maker is not None else f"the graph's input {node.input[1]!r}"
    return f"; node {node.name!r} ({node.op_type}) reads {what}"


def precision_request(proto: ModelProto) -> str | None:
    """What the graph's metadata asks a runtime to compute float32 nodes in; none for exactly float32."""
    return next((entry.value for entry in proto.metadata_props if entry.key == PRECISION_KEY), None)


def precision(proto: ModelProto) -> str:
    """The narrowest arithmetic the graph asks for: ``int8``, ``bfloat16``, ``float16`` or ``float32``."""
    if first_integer_node(proto) is not None:
        return "int8"
    asked = precision_request(proto)
    if asked:
        return asked
    types = Counter(tensor.data_type for tensor in constants(proto.graph) if numpy_helper.to_array(tensor).size > 1)
    narrow = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    return next((name for kind, name in narrow.items() if types[kind] > types[TensorProto.FLOAT]), "float32")


def fresh_name(wanted: str, taken: set[str]) -> str:
    """``wanted``, or ``wanted_2``, ``wanted_3``... when it is taken; the answer is taken afterwards."""
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name


def value_names(graph: GraphProto) -> set[str]:
    """Every value name in use, in subgraphs too."""
    used = {value.name for value in (*graph.input, *graph.output)} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        used.update(name for name in (*node.input, *node.output) if name)
        for inner in subgraphs(node):
            used |= value_names(inner)
    return used


def normalise(proto: ModelProto) -> ModelProto:
    """The same model (changed in place, and returned) in the one form that techniques read.

    Every node has a name of its own; constants are initializers, not Constant nodes; no initializer is an overridable input.
    """
    graph = proto.graph
    taken = {node.name for node in graph.node if node.name}
    seen: set[str] = set()
    for node in graph.node:
        if not node.name or node.name in seen:
            node.name = fresh_name(node.name or (node.output[0] if node.output else node.op_type), taken)
        seen.add(node.name)
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        tensor = _constant_of(node)
        if tensor is None or node.output[0] in outputs:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    replace(graph.node, kept)
    fixed = initializers(graph)
    replace(graph.input, [value for value in graph.input if value.name not in fixed])
    proto.ir_version = max(proto.ir_version, 4)
    return proto


def _constant_of(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    makers: dict[str, Callable[[], TensorProto]] = {
        "value": lambda: attribute.t,
        "value_float": lambda: numpy_helper.from_array(np.array(attribute.f, np.float32)),
        "value_floats": lambda: numpy_helper.from_array(np.array(attribute.floats, np.float32)),
        "value_int": lambda: numpy_helper.from_array(np.array(attribute.i, np.int64)),
        "value_ints": lambda: numpy_helper.from_array(np.array(attribute.ints, np.int64)),
    }
    maker = makers.get(attribute.name)
    if maker is None:
        return None
    copy = TensorProto()
    copy.CopyFrom(maker())
    return copy


def replace(field: Any, items: Iterable[Any]) -> None:
    """Give a repeated protobuf field new items; the items may come from the field itself."""
    copies = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del field[:]
    field.extend(copies)


def drop_unused(graph: GraphProto) -> None:
    """Remove nodes whose outputs nobody reads, then initializers and shape notes of values that are gone."""
    outputs = {value.name for value in graph.output}
    while True:
        used = outputs | {name for node in graph.node for name in reads(node)}
        kept = [node for node in graph.node if any(name in used for name in node.output)]
        if len(kept) == len(graph.node):
            break
        replace(graph.node, kept)
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    made = {name for node in graph.node for name in node.output}
    replace(graph.value_info, [value for value in graph.value_info if value.name in made])


def sort_nodes(graph: GraphProto) -> None:
    """Put nodes in an order in which every value is made before it is read; nodes that may keep their place do.

    Raises:
        Unsupported: the graph has a cycle.
    """
    own = {name for node in graph.node for name in node.output if name}
    available = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    missing = {index: {name for name in reads(node) if name in own} - available for index, node in enumerate(graph.node)}
    waiting: dict[str, list[int]] = {}
    for index, names in missing.items():
        for name in sorted(names):
            waiting.setdefault(name, []).append(index)
    ready = [index for index, names in missing.items() if not names]
    order = []
    while ready:
        index = min(ready)
        ready.remove(index)
        order.append(index)
        for name in graph.node[index].output:
            for reader in waiting.get(name, ()):
                if name in missing[reader]:
                    missing[reader].discard(name)
                    if not missing[reader]:
                        ready.append(reader)
    if len(order) != len(graph.node):
        stuck = next(node.name for index, node in enumerate(graph.node) if index not in set(order))
        raise Unsupported(f"the graph must have no cycle, but node {stuck!r} waits for its own output")
    replace(graph.node, [graph.node[index] for index in order])


def signature(proto: ModelProto) -> tuple[object, ...]:
    """Input and output names, element types and shapes: what no technique may change."""

    def describe(value: onnx.ValueInfoProto) -> tuple[object, ...]:
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else "?" for d in kind.shape.dim)
        return value.name, kind.elem_type, shape

    fixed = initializers(proto.graph)
    inputs = tuple(describe(value) for value in proto.graph.input if value.name not in fixed)
    return inputs, tuple(describe(value) for value in proto.graph.output)


def content(proto: ModelProto) -> tuple[object, ...]:
    """What a model computes with, apart from names: operators with attributes, constants, and the precision asked for."""
    operators = Counter(
        (node.domain, node.op_type, tuple(sorted(_attribute_text(a) for a in node.attribute if node.op_type != "Constant")))
        for node in every_node(proto.graph)
    )
    tensors = Counter(tensor_digest(tensor) for tensor in constants(proto.graph))
    return operators, tensors, precision_request(proto), opset(proto)


def _attribute_text(attribute: AttributeProto) -> bytes:
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        return attribute.name.encode()
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    copy.ClearField("doc_string")
    return bytes(copy.SerializeToString(deterministic=True))
