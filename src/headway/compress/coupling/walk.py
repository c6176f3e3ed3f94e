"""The state of one pass over a graph: which channel of which value carries which label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from headway.compress.coupling.coupled import Layer, Row
from headway.compress.coupling.labels import Labels
from headway.compress.graph import initializers, opset, producers

Axes = list[Row | None]
Rule = Callable[["Walk", NodeProto], None]


class Walk:
    """Values, initializers and constants with their labels; operator rules read and extend it in graph order."""

    def __init__(self, proto: ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
        self.proto, self.shapes = proto, shapes
        self.opset = opset(proto)
        self.fixed = initializers(proto.graph)
        self.makers = producers(proto.graph)
        self.labels = Labels()
        self.sources: list[str] = []
        self.axes: dict[str, Axes] = {}
        self.uses: dict[str, list[dict[int, Row]]] = {}
        self.consumed: set[tuple[str, int]] = set()
        self.counts: dict[tuple[str, int], Row] = {}
        self.attributes: dict[tuple[str, str, int], Row] = {}
        self.layers: list[Layer] = []

    def source(self, node: NodeProto, count: int) -> Row | None:
        """Labels of channels that this node makes; none for a single channel, which must stay."""
        if count < 2:
            return None
        self.sources.append(node.name)
        return self.labels.new(count, len(self.sources) - 1)

    def shape(self, value: str) -> tuple[int, ...]:
        """The shape of a value or an initializer."""
        return tuple(self.fixed[value].dims) if value in self.fixed else self.shapes[value]

    def known(self, value: str) -> bool:
        """Whether the shape of a value is known."""
        return value in self.fixed or value in self.shapes

    def read(self, value: str) -> Axes:
        """Labels by axis; all none for what has no labels."""
        if value in self.axes:
            return list(self.axes[value])
        return [None] * (len(self.shape(value)) if self.known(value) else 0)

    def write(self, value: str, axes: Sequence[Row | None]) -> None:
        """Give a value its labels."""
        if value and any(row is not None for row in axes):
            assert tuple(len(r) if r is not None else d for r, d in zip(axes, self.shape(value), strict=True)) == self.shape(value), value
            self.axes[value] = list(axes)

    def use(self, name: str, rows: dict[int, Row | None], *, sums: int | None = None) -> None:
        """Say which labels the axes of an initializer follow in one use; ``sums`` is the axis that is summed over."""
        kept = {axis: row for axis, row in rows.items() if row is not None}
        self.uses.setdefault(name, []).append(kept)
        if sums is not None and sums in kept:
            self.consumed.add((name, sums))

    def pin(self, node: NodeProto, why: str, *rows: Row | None) -> None:
        """These channels stay, because of this node."""
        for row in rows:
            if row is not None:
                self.labels.pin(row, f"{node.op_type} {node.name!r} {why}")

    def unite(self, node: NodeProto, left: Row, right: Row) -> None:
        """These channels go together."""
        self.labels.unite(left, right, f"{node.op_type} {node.name!r} joins them with channels that stay")

    def pin_inputs(self, node: NodeProto, why: str) -> None:
        """All channels that this node reads stay."""
        for name in node.input:
            self.pin(node, why, *(self.axes.get(name) or []))

    def constant(self, name: str) -> np.ndarray | None:
        """The values of an initializer; none for anything else."""
        return numpy_helper.to_array(self.fixed[name]) if name in self.fixed else None

    def attribute(self, node: NodeProto, name: str, default: object = None) -> object:
        """The value of an attribute."""
        return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)

    def integer(self, node: NodeProto, name: str, default: int) -> int:
        """The value of an integer attribute."""
        value = self.attribute(node, name, default)
        assert isinstance(value, int)
        return value

    def integers(self, node: NodeProto, name: str, position: int) -> list[int] | None:
        """Integers from an attribute or, in later operator sets, from a constant input; none when neither holds them."""
        value = self.attribute(node, name)
        if value is not None:
            return [int(item) for item in value]  # type: ignore[attr-defined]
        array = self.constant(node.input[position]) if len(node.input) > position else None
        return None if array is None else [int(item) for item in array.ravel()]
