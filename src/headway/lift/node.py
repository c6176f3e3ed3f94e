"""One node of a graph as its operator sees it when it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from headway.lift.tensors import from_proto
from headway.records import DataError, Unsupported


@dataclass(eq=False)
class Node:
    """A node: names, attributes as Python values, and the opset it is written in.

    Attributes:
        compile: makes a runnable program of a subgraph.
        ghost: the integers it makes may be carried as floats with a gradient (``ghosts``).
        latent: ONNX element type of the integers that a float latent weight stands for at input 0; 0: it is no latent.
        carried: ONNX element type of the integers that floats at input 0 stand for (``ghosts``); 0: the integers are integers.
        scales: the scales learn.
        kinds: ONNX element types of the graph's inputs and constants by name.
    """

    proto: NodeProto
    opset: int
    compile: Callable[[GraphProto], Any]
    ghost: bool = False
    latent: int = 0
    carried: int = 0
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

    @property
    def quantizes_to(self) -> int:
        """Of QuantizeLinear and DynamicQuantizeLinear: ONNX element type of the integers; 0 when only the zero point's tensor tells."""
        asked = self.get("output_dtype", 0)
        return asked or (self.kind(2) if self.has(2) else TensorProto.UINT8)

    def makes(self, position: int) -> bool:
        """Whether an optional output is asked for."""
        return len(self.proto.output) > position and bool(self.proto.output[position])

    def refuse(self, reason: str) -> Unsupported:
        """The error that names this node."""
        return Unsupported(f"lift: node {self.label} ({self.operator}, opset {self.opset}) {reason}")

    def misfit(self, reason: str) -> DataError:
        """The error that names this node when values do not fit it."""
        return DataError(f"lift: node {self.label} ({self.operator}) {reason}")


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    if attribute.type == AttributeProto.TENSOR:
        return from_proto(value)
    return list(value) if isinstance(value, tuple) else value
