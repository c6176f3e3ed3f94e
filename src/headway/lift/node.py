"""One node of a graph as its operator sees it when it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, helper

from headway.lift.tensors import from_proto
from headway.records import Unsupported


@dataclass(eq=False)
class Node:
    """A node: names, attributes as Python values, and the opset it is written in.

    Attributes:
        compile: makes a runnable program of a subgraph.
        ghost: of QuantizeLinear: only DequantizeLinear reads it, so integers may be carried as floats with a gradient.
        latent: ONNX element type of the integers that a float latent weight stands for at input 0; 0: it is no latent.
        scales: the scales learn.
        kinds: ONNX element types of the graph's inputs and constants by name.
    """

    proto: NodeProto
    opset: int
    compile: Callable[[GraphProto], Any]
    ghost: bool = False
    latent: int = 0
    scales: bool = False
    kinds: Mapping[str, int] = field(default_factory=dict)
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = {attribute.name: _value(attribute) for attribute in self.proto.attribute}

    @property
    def operator(self) -> str:
        """The operator's name."""
        return self.proto.op_type

    @property
    def label(self) -> str:
        """What a message calls the node."""
        return self.proto.name or f"(without name, makes {', '.join(self.proto.output)})"

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default."""
        return self.attributes.get(name, default)

    def has(self, position: int) -> bool:
        """Whether an optional input is given."""
        return len(self.proto.input) > position and bool(self.proto.input[position])

    def kind(self, position: int) -> int:
        """ONNX element type of an input that is a constant or an input of the graph; 0 when it is not known."""
        return self.kinds.get(self.proto.input[position], 0)

    def makes(self, position: int) -> bool:
        """Whether an optional output is asked for."""
        return len(self.proto.output) > position and bool(self.proto.output[position])

    def refuse(self, reason: str) -> Unsupported:
        """The error that names this node."""
        return Unsupported(f"lift: node {self.label} ({self.operator}, opset {self.opset}) {reason}")


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    if attribute.type == AttributeProto.TENSOR:
        return from_proto(value)
    return list(value) if isinstance(value, tuple) else value
