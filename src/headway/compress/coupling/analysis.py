"""Coupling analysis: one pass over the graph, one rule per operator; what has no rule pins the channels that it reads.

The idea of cutting coupled channels together is that of DepGraph (Fang et al., arXiv 2301.12900); here labels flow through the values of an
ONNX graph instead of modules.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from headway.compress.coupling import elementwise, layers, moving, recurrent
from headway.compress.coupling.coupled import Coupling, Family, Layer, Row
from headway.compress.coupling.preparing import prepared, shapes_of
from headway.compress.coupling.walk import Walk
from headway.compress.graph import reads, subgraphs

FOLLOWERS = ("Expand", "ConstantOfShape")  # as wide as their readers want, no layers
RULES = {**elementwise.RULES, **layers.RULES, **moving.RULES, **recurrent.RULES}


def couple(proto: ModelProto, samples: Mapping[str, np.ndarray]) -> Coupling:
    """Which channels of a graph must be cut together, and every constant that follows.

    Args:
        proto: the graph; it is not changed.
        samples: one array per input, first axis is the sample; used for shapes only. Zeros are used when it is empty.

    Raises:
        Unsupported: ONNX Runtime cannot run the graph.
    """
    proto = prepared(proto)
    walk = Walk(proto, shapes_of(proto, samples))
    for node in proto.graph.node:
        _visit(walk, node)
    for value in proto.graph.output:
        walk_rows = walk.axes.get(value.name, [])
        for row in walk_rows:
            if row is not None:
                walk.labels.pin(row, f"output {value.name!r} of the graph holds them")
    slices = _slices(walk)
    return _coupling(walk, slices)


def _visit(walk: Walk, node: NodeProto) -> None:
    used = {name: len(walk.uses.get(name, ())) for name in reads(node) if name in walk.fixed}
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") and not any(True for _ in subgraphs(node)) else None
    sized = all(walk.known(name) for name in (*node.input, *node.output[:1]) if name)
    if rule is not None and sized:
        rule(walk, node)
    else:
        for name in reads(node):
            walk.pin(node, "has no rule", *(walk.axes.get(name) or []))
    for name, count in used.items():
        if len(walk.uses.get(name, ())) == count:
            walk.use(name, {})


def _slices(walk: Walk) -> dict[tuple[str, int], Row]:
    found: dict[tuple[str, int], Row] = {}
    for name, uses in walk.uses.items():
        for axis in sorted({axis for use in uses for axis in use}):
            rows = [use[axis] for use in uses if axis in use]
            why = f"initializer {name!r} is also read where they stay"
            for row in rows[1:]:
                walk.labels.unite(rows[0], row, why)
            if len(rows) < len(uses) or any(value.name == name for value in walk.proto.graph.output):
                walk.labels.pin(rows[0], why)
            found[name, axis] = rows[0]
    return found


def _coupling(walk: Walk, slices: dict[tuple[str, int], Row]) -> Coupling:
    labels = walk.labels
    rows: dict[bytes, Row] = {}
    for axes in walk.axes.values():
        for row in axes:
            if row is not None:
                standing = labels.roots(row)
                rows.setdefault(standing.tobytes(), standing)
    return Coupling(
        proto=walk.proto,
        slices={key: labels.roots(row) for key, row in slices.items()},
        consumed=frozenset(walk.consumed),
        counts={key: labels.roots(row) for key, row in walk.counts.items()},
        attributes={key: labels.roots(row) for key, row in walk.attributes.items()},
        rows=tuple(row for row in rows.values() if (row >= 0).any()),
        families=_families(walk),
        layers=tuple(_standing(walk, layer) for layer in walk.layers),
        pinned=_pinned(walk),
        shapes=walk.shapes,
    )


def _standing(walk: Walk, layer: Layer) -> Layer:
    values = dict(vars(layer))
    for side in ("inside", "outside"):
        if values[side] is not None:
            values[side] = walk.labels.roots(values[side])
    return Layer(**values)


def _families(walk: Walk) -> tuple[Family, ...]:
    labels = walk.labels
    roots = labels.roots(np.arange(len(labels)))
    sources = np.array(labels.sources, np.int64)
    makers = {node.name for node in walk.proto.graph.node if node.op_type not in FOLLOWERS}
    joined = _joined(roots, sources, len(walk.sources))
    found = []
    for family in sorted(set(joined)):
        members = [index for index, other in enumerate(joined) if other == family]
        inside = roots[np.isin(sources, members)]
        units = np.unique(inside[inside >= 0])
        names = [walk.sources[index] for index in members]
        if not len(units) or not makers & set(names):
            continue
        counted = roots[sources == next(i for i in members if (roots[sources == i] == units[0]).any())]
        found.append(Family(tuple(dict.fromkeys(names)), tuple(units.tolist()), int((counted == units[0]).sum())))
    return tuple(found)


def _joined(roots: np.ndarray, sources: np.ndarray, count: int) -> list[int]:
    """For each source the first source that shares a unit with it, directly or through others."""
    first = list(range(count))

    def find(index: int) -> int:
        while first[index] != index:
            index = first[index]
        return index

    owner: dict[int, int] = {}
    for root, source in zip(roots.tolist(), sources.tolist(), strict=True):
        if root >= 0:
            a, b = find(owner.setdefault(root, source)), find(source)
            first[max(a, b)] = min(a, b)
    return [find(index) for index in range(count)]


def _pinned(walk: Walk) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for label, source in enumerate(walk.labels.sources):
        why = walk.labels.reasons.get(walk.labels.root(label))
        if why:
            reasons.setdefault(walk.sources[source], why)
    return reasons
