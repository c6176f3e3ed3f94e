"""Which layers of a graph can work in 8 bits, and which operators between them come along."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from headway.compress.graph import consumers, fresh_name, initializers, producers, reads, rename_reads, subgraphs, value_names

CONVOLUTIONS = ("Conv",)
PRODUCTS = ("MatMul", "Gemm")
# Between 8-bit layers these have 8-bit kernels or only move data; with a float neighbour they stay float.
BETWEEN = frozenset(
    {
        "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip", "LeakyRelu", "Sigmoid",
        "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Pad", "Slice", "Split",
    }
)  # fmt: skip
SEVERAL_VALUES = frozenset({"Add", "Mul", "Concat"})


@dataclass(frozen=True)
class Layer:
    """A node with a constant float32 weight; ``axis`` counts output channels."""

    name: str
    op_type: str
    value: str
    weight: str
    output: str
    axis: int


def layers(graph: GraphProto, op_types: Iterable[str] = CONVOLUTIONS + PRODUCTS) -> tuple[Layer, ...]:
    """The layers of the given types that 8-bit kernels can take, in graph order. Expects the form of ``graph.normalise``."""
    wanted = set(op_types)
    fixed = initializers(graph)
    found = []
    for node in graph.node:
        if node.op_type not in wanted or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
            continue
        weight = fixed.get(node.input[1])
        if weight is None or node.input[0] in fixed or weight.data_type != TensorProto.FLOAT or 0 in weight.dims:
            continue
        if node.op_type in PRODUCTS and len(weight.dims) != 2:
            continue
        found.append(Layer(node.name, node.op_type, node.input[0], node.input[1], node.output[0], _axis(node)))
    return tuple(found)


def _axis(node: NodeProto) -> int:
    if node.op_type in CONVOLUTIONS:
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def is_transformer(graph: GraphProto) -> bool:
    """Whether a graph normalises layers or multiplies two activations: there only MatMul and Gemm bear 8 bits.

    Quantizing every operator of MiniLM left a cosine of 0.364 to the original; MatMul alone 0.937 in our trial.
    """
    kinds = {node.op_type for node in graph.node}
    if any("LayerNormalization" in kind or "RMSNorm" in kind or kind in ("Attention", "MultiHeadAttention") for kind in kinds):
        return True
    if {"ReduceMean", "Sqrt"} <= kinds:  # LayerNormalization written out
        return True
    fixed = initializers(graph)
    return any(node.op_type == "MatMul" and not any(name in fixed for name in node.input) for node in graph.node)


def between(graph: GraphProto, chosen: Iterable[str]) -> tuple[str, ...]:
    """Names of the nodes around the chosen layers that can stay in 8 bits: all their values come from 8-bit nodes.

    A node that makes an output of the graph stays float, so that the answer itself is not rounded; so does one that a branch or a loop
    reads from outside: the writer takes a Relu out and renames its readers, but not those in a subgraph.
    """
    outputs = {value.name for value in graph.output} | {
        name for node in graph.node for inner in subgraphs(node) for name in _read_inside(inner)
    }
    fixed = initializers(graph)
    made_by = producers(graph)
    integer = set(chosen)
    found = []
    for node in graph.node:
        if node.op_type not in BETWEEN or node.domain not in ("", "ai.onnx") or node.name in integer or outputs & set(node.output):
            continue
        values = list(node.input) if node.op_type in SEVERAL_VALUES else [node.input[0]]
        if all(name and name not in fixed and name in made_by and made_by[name].name in integer for name in values):
            integer.add(node.name)
            found.append(node.name)
    return tuple(found)


def _read_inside(graph: GraphProto) -> set[str]:
    return {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}


def unshare(proto: ModelProto, chosen: Iterable[str]) -> ModelProto:
    """The same model (changed in place, and returned) in which a weight shared with anything but an equal chosen layer is copied."""
    graph = proto.graph
    names = set(chosen)
    own = [layer for layer in layers(graph) if layer.name in names]
    taken = value_names(graph)
    for layer in own:
        readers = consumers(graph)[layer.weight]
        alike = {other.name for other in own if (other.weight, other.op_type, other.axis) == (layer.weight, layer.op_type, layer.axis)}
        if all(reader.name in alike for reader in readers):
            continue
        copy = TensorProto()
        copy.CopyFrom(initializers(graph)[layer.weight])
        copy.name = fresh_name(f"{layer.name}.weight", taken)
        graph.initializer.append(copy)
        node = next(node for node in graph.node if node.name == layer.name)
        rename_reads(node, layer.weight, copy.name)
    return proto
