"""The constant tensors of a graph sorted by role: what learns, what is stored, what is fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto
from torch import Tensor

from headway.lift.quantizing import Grid, dequantized
from headway.lift.tensors import FLOATS, RANGES, from_proto

MASK = 1e4
"""A float constant with a value of this size or larger, or none that is finite, is a mask and does not learn."""

FIXED_USES = frozenset(
    {
        ("Resize", 1), ("Resize", 2), ("Upsample", 1), ("Clip", 1), ("Clip", 2), ("Pad", 2), ("OneHot", 2), ("Range", 0), ("Range", 1), ("Range", 2),
        ("RoiAlign", 1), ("NonMaxSuppression", 0), ("NonMaxSuppression", 1), ("QuantizeLinear", 2), ("Pow", 1), ("Dropout", 1),
        ("STFT", 2), ("RotaryEmbedding", 1), ("RotaryEmbedding", 2),
    }
)  # fmt: skip
"""Inputs (operator, position) whose constants are settings rather than weights."""


@dataclass(frozen=True, slots=True)
class Place:
    """A constant tensor of a graph: the key it is known by, its name where it stands, and the tensor itself."""

    key: str
    name: str
    graph: int
    tensor: TensorProto


@dataclass(eq=False)
class Store:
    """Tensors by key.

    Attributes:
        weights: what learns.
        statistics: stored statistics of batch normalization.
        fixed: the rest, and what was computed from it beforehand.
        narrow: types of weights that are held in float32 and computed in 16 bits.
        latents: how a float latent weight becomes integers, by key.
        keys: by graph (its number in the walk) and name there.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    narrow: dict[str, torch.dtype] = field(default_factory=dict)
    latents: dict[str, Grid] = field(default_factory=dict)
    keys: dict[tuple[int, str], str] = field(default_factory=dict)

    def add(self, value: Any) -> str:
        """Keep a value that was computed beforehand; gives its key."""
        key = f"computed {len(self.fixed)}"
        self.fixed[key] = value
        return key


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs inside it, outer first; the position in this order is a graph's number."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def places(graph: GraphProto) -> list[Place]:
    """All constant tensors; a key is the name, and is told apart by the graph's number where the name is taken."""
    found: dict[str, Place] = {}
    for number, inner in enumerate(graphs(graph)):
        tensors = [(tensor.name, tensor) for tensor in inner.initializer]
        for node in inner.node:
            tensors += [(node.output[0], each.t) for each in node.attribute if node.op_type == "Constant" and each.name == "value"]
        for name, tensor in tensors:
            key = name if name not in found else f"{name} (graph {number})"
            found[key] = Place(key, name, number, tensor)
    return list(found.values())


def collect(graph: GraphProto, learn_scales: bool) -> Store:
    """Sort the constants of a graph by what reads them."""
    store = Store()
    all_graphs = list(graphs(graph))
    all_places = places(graph)
    uses = _uses(all_graphs)
    tensors = {place.name: place.tensor for place in all_places}
    measured = {node.output[1] for each in all_graphs for node in each.node if node.op_type == "DynamicQuantizeLinear"}
    for place in all_places:
        store.keys[place.graph, place.name] = place.key
        readers = uses.get(place.name, [])
        if any(node.op_type == "Mul" and measured & set(node.input) for node, _ in readers):
            store.fixed[place.key] = from_proto(place.tensor)  # the scale of a weight, times that of its input
        else:
            _sort(store, place, readers, tensors, learn_scales)
    return store


def _uses(all_graphs: list[GraphProto]) -> dict[str, list[tuple[NodeProto, int]]]:
    found: dict[str, list[tuple[NodeProto, int]]] = {}
    for graph in all_graphs:
        for node in graph.node:
            for position, name in enumerate(node.input):
                found.setdefault(name, []).append((node, position))
    return found


def _sort(store: Store, place: Place, uses: list[tuple[NodeProto, int]], tensors: Mapping[str, TensorProto], learn_scales: bool) -> None:
    value = from_proto(place.tensor)
    kinds = {(node.op_type, position) for node, position in uses}
    is_float = place.tensor.data_type in FLOATS
    grid = None if is_float else _grid(place, uses, tensors)
    if grid is not None:
        store.latents[place.key] = grid
        store.weights[place.key] = dequantized(value, grid, grid.scale)
    elif is_float and kinds & {("BatchNormalization", 3), ("BatchNormalization", 4)}:
        store.statistics[place.key] = value
    elif is_float and kinds & {("QuantizeLinear", 1), ("DequantizeLinear", 1)}:
        learns = learn_scales and not any(_is_bias(node, tensors) for node, _ in uses)
        (store.weights if learns else store.fixed)[place.key] = value
    elif is_float and value.numel() > 1 and not kinds & FIXED_USES and not _is_mask(value):
        narrow = value.dtype in (torch.float16, torch.bfloat16)
        if narrow:
            store.narrow[place.key] = value.dtype
        store.weights[place.key] = value.float() if narrow else value
    else:
        store.fixed[place.key] = value


def _is_mask(value: Tensor) -> bool:
    size = value.abs().max()
    return not bool(torch.isfinite(size)) or float(size) >= MASK


def _is_bias(node: NodeProto, tensors: Mapping[str, TensorProto]) -> bool:
    tensor = tensors.get(node.input[0])
    return node.op_type == "DequantizeLinear" and tensor is not None and tensor.data_type == TensorProto.INT32


def _grid(place: Place, uses: list[tuple[NodeProto, int]], tensors: Mapping[str, TensorProto]) -> Grid | None:
    """The grid that all readers agree on; none when the tensor is anything but a quantized weight."""
    settings = {_reading(node, position) for node, position in uses}
    if place.tensor.data_type not in RANGES or len(settings) != 1:
        return None
    operator, position, scale, zero, axis, block = next(iter(settings))
    known = scale in tensors and (not zero or zero in tensors)
    if operator != "DequantizeLinear" or position != 0 or not known:
        return None
    return Grid(
        kind=place.tensor.data_type, scale_name=scale, scale=from_proto(tensors[scale]),
        zero=from_proto(tensors[zero]) if zero else None, axis=axis, block=block,
    )  # fmt: skip


def _reading(node: NodeProto, position: int) -> tuple[str, int, str, str, int, int]:
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    names = [*node.input, "", "", ""]
    return node.op_type, position, names[1], names[2], numbers.get("axis", 1), numbers.get("block_size", 0)
