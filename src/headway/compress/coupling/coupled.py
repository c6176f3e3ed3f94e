"""What the coupling analysis finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

Row = np.ndarray  # one label per index of an axis; -1: never cut


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer whose cost depends on channels that may be cut.

    Attributes:
        name: the node.
        kind: its operator.
        inside: labels of its input channels; none: they stay.
        outside: labels of its output channels; none: they stay.
        weight: the initializer that holds the slices of ``inside``.
        weight_axis: the axis of ``weight`` along ``inside``.
        inside_value: the value it reads.
        output: the value it makes.
        bias: initializer added to its output; empty when there is none.
        macs: multiply-adds for one sample [1].
        tied: inside and outside are the same channels (depthwise, whole groups).
    """

    name: str
    kind: str
    inside: Row | None
    outside: Row | None
    weight: str
    weight_axis: int
    inside_value: str
    output: str
    bias: str
    macs: float
    tied: bool = False


@dataclass(frozen=True, eq=False)
class Family:
    """Coupled layers. A unit is a set of channels that goes or stays whole; the units of a family are comparable.

    Attributes:
        layers: the nodes that make the channels.
        units: the standing label of each unit that may be cut, rising.
        width: channels that one unit takes from its first layer (the size multiple: heads, groups, flattened positions).
    """

    layers: tuple[str, ...]
    units: tuple[int, ...]
    width: int


@dataclass(frozen=True, eq=False)
class Coupling:
    """The cleaned graph with everything that cutting needs.

    Attributes:
        proto: the graph in the form of ``graph.normalise``, with private shape constants.
        slices: (initializer, axis) to the standing label of each index.
        consumed: the keys of ``slices`` along which a layer sums over its input channels.
        counts: (initializer, flat position) to labels: the constant holds how many of these are left.
        attributes: (node, attribute) to labels: the same for an attribute; a position counts for a list.
        rows: every distinct row of labels that some value carries; each must keep a channel.
        families: what may be cut, in graph order.
        pinned: layer name to the reason why (some of) its channels stay.
        shapes: of every value, on the sample that was run.
    """

    proto: ModelProto
    slices: Mapping[tuple[str, int], Row]
    consumed: frozenset[tuple[str, int]]
    counts: Mapping[tuple[str, int], Row]
    attributes: Mapping[tuple[str, str, int], Row]
    rows: tuple[Row, ...]
    families: tuple[Family, ...]
    layers: tuple[Layer, ...]
    pinned: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
