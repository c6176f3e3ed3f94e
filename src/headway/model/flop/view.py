"""What a FLOP rule sees of a node: operator, attributes, and concrete shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class ShapeUnknown(Exception):
    """A shape that a rule needs could not be inferred."""


@dataclass(frozen=True)
class NodeView:
    """One node at concrete shapes.

    Attributes:
        inputs, outputs: shapes in order; none where absent or unknown.
        constants: values of small constant inputs (axes, sizes) by position.
        given: for each input, whether it is there at all.
    """

    op_type: str
    domain: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Shape | None, ...] = ()
    outputs: tuple[Shape | None, ...] = ()
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    given: tuple[bool, ...] = ()

    def input(self, index: int) -> Shape:
        """Shape of an input; ShapeUnknown when it is not known."""
        if index >= len(self.inputs) or (shape := self.inputs[index]) is None:
            raise ShapeUnknown(f"{self.op_type}: input {index}")
        return shape

    def output(self, index: int = 0) -> Shape:
        """Shape of an output; ShapeUnknown when it is not known."""
        if index >= len(self.outputs) or (shape := self.outputs[index]) is None:
            raise ShapeUnknown(f"{self.op_type}: output {index}")
        return shape

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.given) and self.given[index]

    def elements_in(self, index: int = 0) -> int:
        """Number of elements of an input."""
        return prod(self.input(index))

    def elements_out(self, index: int = 0) -> int:
        """Number of elements of an output."""
        return prod(self.output(index))
