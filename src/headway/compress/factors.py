"""A layer as two thinner ones: which forms it can take, what each rank costs and loses, and the nodes that stand in for it.

A weight W of which the layer's inputs see the second moment C = E[x x^T] loses least output, not least weight, when C^(1/2) W is truncated
(SVD-LLM, arXiv 2403.07378, sec. 3.1; the diagonal alone: ASVD, 2312.05821). For k x k convolutions C counts channels; neighbouring positions are
taken as unrelated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from headway.compress.calibration.stream import stream
from headway.compress.graph import fresh_name, initializers

RIDGE = 1e-6  # of the largest eigenvalue: directions that no sample showed still count a little
POSITIONS = 2048  # of one value in one batch


@dataclass(frozen=True)
class Target:
    """Layers that share a weight and are of one shape, factored together.

    Attributes:
        nodes: names of the nodes.
        values: what they read, in the same order.
        weight: name of the initializer.
        kind: ``right`` (x W), ``left`` (W x), ``Gemm`` or ``Conv``.
        kernel: the weight as (inputs, outputs) or, for a convolution, (inputs, outputs, height, width).
        strides: of a convolution, else (1, 1).
        turned: whether the initializer holds outputs before inputs.
    """

    nodes: tuple[str, ...]
    values: tuple[str, ...]
    weight: str
    kind: str
    kernel: np.ndarray
    strides: tuple[int, int]
    turned: bool = False

    @property
    def forms(self) -> tuple[str, ...]:
        """Ways to split: ``plain`` for a matrix; for windows two convolutions in turn (1405.3866, sec. 2.2), or 1x1 before or after."""
        if self.kernel.ndim == 2 or self.kernel.shape[2:] == (1, 1):
            return ("plain",)
        return ("after", "before", "windows") if min(self.kernel.shape[2:]) > 1 else ("after", "before")

    @property
    def macs(self) -> float:
        """Multiply-adds of one output position."""
        return float(self.kernel.size)

    def rank_macs(self, form: str) -> float:
        """Multiply-adds of one output position that one rank costs."""
        inputs, outputs = self.kernel.shape[:2]
        if form == "plain":
            return float(inputs + outputs)
        height, width = self.kernel.shape[2:]
        down, across = self.strides
        if form == "after":
            return float(inputs * height * width + outputs)
        if form == "before":
            return float(inputs * down * across + outputs * height * width)
        return float(inputs * height * across + outputs * width)


@dataclass(frozen=True)
class Factors:
    """All ranks of one form: ``first`` (inputs', rank) and ``second`` (rank, outputs'), by falling singular value ``sizes``."""

    first: np.ndarray
    second: np.ndarray
    sizes: np.ndarray

    def lost(self, rank: int) -> float:
        """Share of the output's energy that a rank loses."""
        energy = np.square(self.sizes)
        return float(energy[rank:].sum() / energy.sum()) if energy.sum() else 0.0


def targets(graph: GraphProto, least: int) -> tuple[Target, ...]:
    """What can be factored: float32 weights of ``least`` values or more. Grouped convolutions and other ranks than 2 and 4 are left out."""
    fixed = initializers(graph)
    groups: dict[tuple[object, ...], list[tuple[NodeProto, str]]] = {}
    for node in graph.node:
        place = _weight_place(node, fixed)
        if place is None:
            continue
        tensor = fixed[node.input[place]]
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < least or not _splits(node, tensor):
            continue
        kind = {"MatMul": "right" if place else "left"}.get(node.op_type, node.op_type)
        attributes = tuple(sorted(item.SerializeToString(deterministic=True) for item in node.attribute))
        groups.setdefault((tensor.name, kind, attributes), []).append((node, node.input[1 - place]))
    made = []
    for (weight, kind, _), members in groups.items():
        node = members[0][0]
        array = numpy_helper.to_array(fixed[str(weight)]).astype(np.float64)
        turned = kind in ("Conv", "left") or (kind == "Gemm" and bool(_integer(node, "transB")))
        kernel = array.swapaxes(0, 1) if turned else array
        strides = tuple(_integers(node, "strides")) or (1, 1)
        names, values = tuple(item.name for item, _ in members), tuple(value for _, value in members)
        made.append(Target(names, values, str(weight), str(kind), kernel, (strides[0], strides[-1]), turned))
    return tuple(made)


def factor(target: Target, form: str, moment: np.ndarray | None) -> Factors:
    """The best factors of every rank, in the output when ``moment`` (inputs, inputs) is given, else in the weight."""
    kernel = target.kernel
    root = back = None
    if moment is not None:
        values, vectors = np.linalg.eigh(moment)
        values = np.sqrt(np.maximum(values, RIDGE * max(values[-1], 1e-30)))
        root, back = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
        kernel = np.tensordot(root, kernel, axes=(1, 0))
    matrix = _unfold(kernel, form)
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    half = np.sqrt(sizes)
    first = left * half
    if back is not None:
        rows = first.reshape(len(back), -1)
        first = (back @ rows).reshape(first.shape)
    return Factors(first, half[:, None] * right, sizes)


def _unfold(kernel: np.ndarray, form: str) -> np.ndarray:
    if kernel.ndim == 2:
        return kernel
    inputs, outputs, height, width = kernel.shape
    if form in ("plain", "before"):
        return kernel.reshape(inputs, -1)
    if form == "after":
        return kernel.transpose(0, 2, 3, 1).reshape(-1, outputs)
    return kernel.transpose(0, 2, 1, 3).reshape(inputs * height, outputs * width)


def moments(
    proto: ModelProto, found: Sequence[Target], samples: Mapping[str, np.ndarray], rows: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Second moment of the inputs by weight and node, and the positions of one sample that each target reads.

    Memory: one batch, and one square matrix for each target, whatever the number of samples.
    """
    names = list(dict.fromkeys(value for target in found for value in target.values))
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    positions: dict[str, float] = {}
    total = 0
    for count, values in stream(proto, names, samples, rows):
        total += count
        for target in found:
            key = target.nodes[0]
            for value in target.values:
                flat = _flat(target, values[value])
                positions[key] = positions.get(key, 0.0) + len(flat)
                flat = flat[:: -(-len(flat) // POSITIONS)].astype(np.float64)
                sums[key] = sums.get(key, 0.0) + flat.T @ flat
                counts[key] = counts.get(key, 0) + len(flat)
    return {key: value / max(counts[key], 1) for key, value in sums.items()}, {key: value / total for key, value in positions.items()}


def inferred_positions(proto: ModelProto, found: Sequence[Target]) -> dict[str, float]:
    """Positions of one sample that each target reads, by shape inference; an axis that is not known counts 1."""
    graph = shape_inference.infer_shapes(proto).graph
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in (*graph.value_info, *graph.input)}
    return {target.nodes[0]: float(sum(_positions(target.kind, shapes.get(value, [])) for value in target.values)) for target in found}


def _positions(kind: str, shape: list[int]) -> int:
    if kind == "Conv":
        axes = shape[2:]
    else:
        axes = [*shape[1:-2], *shape[-1:]] if kind == "left" else shape[1:-1]
    return math.prod(max(size, 1) for size in axes)


def _flat(target: Target, value: np.ndarray) -> np.ndarray:
    axis = {"Conv": 1, "left": -2}.get(target.kind, -1)
    moved = np.moveaxis(value, axis, -1) if value.ndim > 1 else value
    return np.asarray(moved.reshape(-1, moved.shape[-1]))


def split(graph: GraphProto, target: Target, form: str, factors: Factors, rank: int, taken: set[str]) -> dict[str, list[NodeProto]]:
    """The nodes in place of each node of the target; the two weights are added to the graph. ``taken``: names of values and nodes in use."""
    first, second = _weights(target, form, factors.first[:, :rank], factors.second[:rank])
    names = []
    for suffix, array in (("into", first), ("out", second)):
        names.append(fresh_name(f"{target.weight}_{suffix}", taken))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), names[-1]))
    by_name = {node.name: node for node in graph.node}
    return {name: _pair(by_name[name], target.kind, form, (names[0], names[1]), taken) for name in target.nodes}


def _weights(target: Target, form: str, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if target.kind in ("right", "Gemm"):
        return first, second
    if target.kind == "left":
        return first.T, second.T
    rank = first.shape[1]
    inputs, outputs, height, width = target.kernel.shape
    if form == "plain":
        return first.T.reshape(rank, inputs, 1, 1), second.T.reshape(outputs, rank, 1, 1)
    if form == "before":
        return first.T.reshape(rank, inputs, 1, 1), second.reshape(rank, outputs, height, width).swapaxes(0, 1)
    if form == "after":
        return first.T.reshape(rank, inputs, height, width), second.T.reshape(outputs, rank, 1, 1)
    return first.T.reshape(rank, inputs, height, 1), second.reshape(rank, outputs, 1, width).swapaxes(0, 1)


def _pair(node: NodeProto, kind: str, form: str, names: tuple[str, str], taken: set[str]) -> list[NodeProto]:
    middle = fresh_name(f"{node.output[0]}_rank", taken)
    label = fresh_name(f"{node.name}_rank", taken)
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    rest = list(node.input[2:])
    if kind == "left":
        return [
            helper.make_node("MatMul", [names[0], node.input[1]], [middle], label),
            helper.make_node("MatMul", [names[1], middle], list(node.output), node.name),
        ]
    if kind in ("right", "Gemm"):
        scale = {key: given[key] for key in ("alpha", "beta") if key in given}
        return [
            helper.make_node(node.op_type, [node.input[0], names[0]], [middle], label),
            helper.make_node(node.op_type, [middle, names[1], *rest], list(node.output), node.name, **scale),
        ]
    first, second = _windows(given, form)
    return [
        helper.make_node("Conv", [node.input[0], names[0]], [middle], label, **first),
        helper.make_node("Conv", [middle, names[1], *rest], list(node.output), node.name, **second),
    ]


def _windows(given: dict[str, Any], form: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes of the two convolutions."""
    given = {key: value for key, value in given.items() if key not in ("kernel_shape", "group")}
    if form in ("plain", "after"):
        return given, {}
    if form == "before":
        return {}, given
    halves: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for side, half in enumerate(halves):
        for key in ("strides", "dilations"):
            if key in given:
                half[key] = [value if place == side else 1 for place, value in enumerate(given[key])]
        if "pads" in given:
            half["pads"] = [value if place % 2 == side else 0 for place, value in enumerate(given["pads"])]
        if "auto_pad" in given:
            half["auto_pad"] = given["auto_pad"]
    return halves


def _weight_place(node: NodeProto, fixed: Mapping[str, TensorProto]) -> int | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.input) < 2:
        return None
    held = [name in fixed for name in node.input[:2]]
    if held == [False, True]:
        return 1
    return 0 if held == [True, False] and node.op_type == "MatMul" else None


def _splits(node: NodeProto, tensor: TensorProto) -> bool:
    if node.op_type == "Conv":
        return len(tensor.dims) == 4 and _integer(node, "group", 1) == 1
    return len(tensor.dims) == 2 and not _integer(node, "transA")


def _integer(node: NodeProto, name: str, default: int = 0) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _integers(node: NodeProto, name: str) -> list[int]:
    return next((list(item.ints) for item in node.attribute if item.name == name), [])
