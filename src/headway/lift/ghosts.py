"""Integers that a lifted graph may carry as floats, so that a gradient passes: nobody but quantized arithmetic looks at them."""

from __future__ import annotations

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from headway.lift.tensors import FLOATS

QUANTIZING = ("QuantizeLinear", "DynamicQuantizeLinear")
PRODUCTS = ("MatMulInteger", "ConvInteger")
Uses = dict[str, list[tuple[NodeProto | None, int]]]


def ghosts(graph: GraphProto) -> frozenset[str]:
    """Names of quantized values of a graph that only ``DequantizeLinear`` reads, or integer products whose sums are only cast to float."""
    uses = _uses(graph)

    def summed(node: NodeProto) -> bool:
        readers = uses.get(node.output[0], [])
        return bool(readers) and all(reader is not None and reader.op_type == "Cast" and _to(reader) in FLOATS for reader, _ in readers)

    def lets_pass(reader: NodeProto | None, position: int) -> bool:
        if reader is None:
            return False
        return (reader.op_type == "DequantizeLinear" and position == 0) or (reader.op_type in PRODUCTS and position < 2 and summed(reader))

    made = {node.output[0] for node in graph.node if node.op_type in QUANTIZING}
    return frozenset(name for name in made if uses.get(name) and all(lets_pass(reader, position) for reader, position in uses[name]))


def _to(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), TensorProto.UNDEFINED)


def _uses(graph: GraphProto) -> Uses:
    """Every reader of each value with the input's position; none for the graph's outputs and for inner graphs."""
    found: Uses = {value.name: [(None, 0)] for value in graph.output}
    for node in graph.node:
        for position, name in enumerate(node.input):
            found.setdefault(name, []).append((node, position))
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                for name in _uses(attribute.g):
                    found.setdefault(name, []).append((None, 0))
    return found
