"""Operators that only move values: reshape, transpose, concat, split, slice, pad, resize. Constants that hold channel counts follow."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from headway.compress.coupling.coupled import Row
from headway.compress.coupling.walk import Rule, Walk

Place = tuple[str, int]


def places(walk: Walk, name: str) -> list[Place | None]:
    """Where each integer of a shape stands: (initializer, position), or none for one that is computed."""
    if name in walk.fixed:
        return [(name, position) for position in range(int(np.prod(walk.shape(name), dtype=int)))]
    maker = walk.makers.get(name)
    if maker is None or maker.op_type != "Concat":
        return [None] * (walk.shape(name)[0] if walk.known(name) and len(walk.shape(name)) == 1 else 0)
    found: list[Place | None] = []
    for part in maker.input:
        size = int(np.prod(walk.shape(part), dtype=int))
        found += [(part, position) if part in walk.fixed else None for position in range(size)]
    return found


def count(walk: Walk, node: NodeProto, place: Place | None, row: Row) -> None:
    """A constant holds the length of ``row``: it follows, or the row stays."""
    if place is None:
        walk.pin(node, "takes their number from a computed shape", row)
        return
    before = walk.counts.setdefault(place, row)
    if len(before) != len(row):
        walk.pin(node, "has one constant for two numbers of channels", before, row)
    elif before is not row:
        walk.unite(node, before, row)


def blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Axes of two shapes grouped so that each group holds equally many elements."""
    found, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        ins, outs, left, right = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left, ins, i = left * before[i], [*ins, i], i + 1
            elif j < len(after):
                right, outs, j = right * after[j], [*outs, j], j + 1
            else:
                break
        found.append((ins, outs))
    if found:
        found[-1][0].extend(range(i, len(before)))
        found[-1][1].extend(range(j, len(after)))
    return found


def _refold(walk: Walk, node: NodeProto, flat: Row, sizes: list[int]) -> list[Row | None]:
    """Rows for the axes that a flat row of labels is folded into: one axis carries them, the others stay."""
    folded = flat.reshape(sizes)
    wide = [axis for axis, size in enumerate(sizes) if size > 1]
    rows: list[Row | None] = [None] * len(sizes)
    for axis in wide:
        lines = np.moveaxis(folded, axis, 0).reshape(sizes[axis], -1)
        if (lines == lines[:, :1]).all():
            rows[axis] = lines[:, 0].copy()
            return rows
    lines = folded.reshape([*sizes[: wide[0]], sizes[wide[0]], -1]).reshape(sizes[wide[0]], -1)
    for column in range(1, lines.shape[1]):
        walk.unite(node, lines[:, 0], lines[:, column])
    rows[wide[0]] = lines[:, 0].copy()
    return rows


def refold(walk: Walk, node: NodeProto) -> list[Row | None]:
    """The rows of a reshaped value, whatever named the new shape."""
    axes, before, after = walk.read(node.input[0]), walk.shape(node.input[0]), walk.shape(node.output[0])
    result: list[Row | None] = [None] * len(after)
    for ins, outs in blocks(before, after):
        labelled = [axis for axis in ins if axes[axis] is not None]
        if len(labelled) != 1 or 0 in (before[labelled[0]], len(outs)):
            walk.pin(node, "mixes several of them", *(axes[axis] for axis in labelled))
            continue
        row = axes[labelled[0]]
        assert row is not None
        shape = [len(row) if axis == labelled[0] else 1 for axis in ins]
        flat = np.broadcast_to(row.reshape(shape), [before[axis] for axis in ins]).ravel()
        for axis, found in zip(outs, _refold(walk, node, flat, [after[axis] for axis in outs]), strict=True):
            result[axis] = found
    return result


def reshape(walk: Walk, node: NodeProto) -> None:
    """Reshape: the shape's constants follow; 0 copies an axis and -1 works itself out."""
    axes, result = walk.read(node.input[0]), refold(walk, node)
    spots = places(walk, node.input[1]) if len(node.input) > 1 else []
    for axis, row in enumerate(result):
        if row is None:
            continue
        place = spots[axis] if axis < len(spots) else None
        values = walk.constant(place[0]) if place is not None else None
        stated = None if place is None or values is None else int(values.ravel()[place[1]])
        own = axes[axis] if axis < len(axes) else None
        same_axis = own is not None and np.array_equal(own, row)
        if stated == -1 or (stated == 0 and same_axis and not walk.integer(node, "allowzero", 0)):
            continue
        count(walk, node, place if stated else None, row)
    walk.write(node.output[0], result)


def fold(walk: Walk, node: NodeProto) -> None:
    """Flatten, Squeeze, Unsqueeze: the new shape follows by itself."""
    walk.write(node.output[0], refold(walk, node))


def transpose(walk: Walk, node: NodeProto) -> None:
    """Axes in a new order."""
    axes = walk.read(node.input[0])
    order = walk.attribute(node, "perm") or list(reversed(range(len(axes))))
    walk.write(node.output[0], [axes[item] for item in order])  # type: ignore[attr-defined]


def concat(walk: Walk, node: NodeProto) -> None:
    """Channels one after the other along the axis; along other axes they go together. A constant part stays."""
    shape = walk.shape(node.output[0])
    at = walk.integer(node, "axis", 0) % max(len(shape), 1)
    parts = [walk.read(name) for name in node.input]
    result: list[Row | None] = []
    for axis, size in enumerate(shape):
        rows = [part[axis] for part in parts]
        if all(row is None for row in rows):
            result.append(None)
        elif axis == at:
            sizes = [walk.shape(name)[axis] for name in node.input]
            result.append(np.concatenate([np.full(n, -1) if r is None else r for r, n in zip(rows, sizes, strict=True)]))
        else:
            whole = [np.full(size, -1) if row is None else row for row in rows]
            for row in whole[1:]:
                walk.unite(node, whole[0], row)
            result.append(next(row for row in rows if row is not None))
    walk.write(node.output[0], result)


def split(walk: Walk, node: NodeProto) -> None:
    """Parts of a row; their sizes are constants that follow."""
    axes = walk.read(node.input[0])
    at = walk.integer(node, "axis", 0) % max(len(axes), 1)
    row, start = axes[at], 0
    named = len(node.input) > 1 and bool(node.input[1])
    listed = walk.attribute(node, "split") is not None
    for position, name in enumerate(node.output):
        size = walk.shape(name)[at]
        part = None if row is None else row[start : start + size]
        start += size
        if part is not None and named:
            spots = places(walk, node.input[1])
            count(walk, node, spots[position] if position < len(spots) else None, part)
        elif part is not None and listed:
            walk.attributes[node.name, "split", position] = part
        elif part is not None and position:
            first = walk.read(node.output[0])[at]
            if first is None or len(first) != size:
                walk.pin(node, "splits them unevenly", first, part)
            else:
                walk.unite(node, first, part)
        walk.write(name, [*axes[:at], part, *axes[at + 1 :]])


def cut_out(walk: Walk, node: NodeProto) -> None:
    """Slice: along channels, constant bounds with step 1 follow; other axes pass."""
    axes, shape, after = walk.read(node.input[0]), walk.shape(node.input[0]), walk.shape(node.output[0])
    if not any(row is not None for row in axes):
        return
    names = [*node.input[1:], *[""] * 4][:4]
    starts, ends, over, steps = (walk.constant(name) if name else None for name in names)
    if starts is None or ends is None or (names[2] and over is None) or (names[3] and steps is None):
        walk.pin_inputs(node, "has bounds that are not constant")
        return
    result = [row if shape[axis] == after[axis] else None for axis, row in enumerate(axes)]
    for position, named in enumerate(over.tolist() if over is not None else range(len(starts))):
        axis = named % len(shape)
        row = axes[axis]
        if row is None:
            continue
        step = 1 if steps is None else int(steps[position])
        begin, end, _ = slice(int(starts[position]), int(ends[position]), step).indices(len(row))
        if step != 1 or end <= begin:
            walk.pin(node, "takes them in steps", row)
            continue
        if begin:
            count(walk, node, (names[0], position), row[:begin])
        if end < len(row):
            count(walk, node, (names[1], position), row[:end])
        result[axis] = row[begin:end]
    walk.write(node.output[0], result)


def keep_equal(walk: Walk, node: NodeProto) -> None:
    """Pad and Resize: an axis that keeps its size passes; a constant size along it follows."""
    axes, before, after = walk.read(node.input[0]), walk.shape(node.input[0]), walk.shape(node.output[0])
    if not any(row is not None for row in axes):
        return
    for axis, row in enumerate(axes):
        if before[axis] != after[axis]:
            walk.pin(node, "changes their number", row)
    if node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
        walk.pin_inputs(node, "pads chosen axes")
        return
    if node.op_type == "Pad":
        pads = walk.integers(node, "pads", 1)
        if pads is None or any(row is not None and (pads[i] or pads[i + len(axes)]) for i, row in enumerate(axes)):
            walk.pin_inputs(node, "pads them, or its pads are not constant")
            return
    if len(node.input) > 3 and node.input[3]:
        if walk.attribute(node, "axes") is not None:
            walk.pin_inputs(node, "resizes chosen axes")
            return
        spots = places(walk, node.input[3])
        for axis, row in enumerate(axes):
            if row is not None:
                count(walk, node, spots[axis] if axis < len(spots) else None, row)
    walk.write(node.output[0], [row if before[i] == after[i] else None for i, row in enumerate(axes)])


def expand(walk: Walk, node: NodeProto) -> None:
    """Expand: axes that keep their size pass. A last axis made out of one value is as wide as its reader wants."""
    value = node.input[0] if node.op_type == "Expand" else ""
    shape, spots = walk.shape(node.output[0]), places(walk, node.input[-1])
    if len(spots) != len(shape) or not shape:
        walk.pin_inputs(node, "takes a computed shape")
        return
    axes = walk.read(value) if value else []
    own = walk.shape(value) if value else ()
    lead = len(shape) - len(own)
    result: list[Row | None] = [None] * len(shape)
    for axis, size in enumerate(shape):
        row = axes[axis - lead] if axis >= lead else None
        stretched = axis < lead or own[axis - lead] != size
        if row is not None and stretched:
            walk.pin(node, "stretches them", row)
            continue
        if row is None and stretched and axis == len(shape) - 1 and spots[axis] is not None:
            row = walk.source(node, size)
        if row is not None:
            count(walk, node, spots[axis], row)
        result[axis] = row
    walk.write(node.output[0], result)


def shape_of(walk: Walk, node: NodeProto) -> None:
    """Shape: its readers may pick the sizes of axes that hold no channels."""
    axes = walk.read(node.input[0])
    labelled = {axis for axis, row in enumerate(axes) if row is not None}
    if not labelled:
        return
    plain = walk.attribute(node, "start") is None and walk.attribute(node, "end") is None
    picked: set[int] = set() if plain else labelled
    for reader in (other for other in walk.proto.graph.node if node.output[0] in other.input):
        indices = walk.constant(reader.input[1]) if reader.op_type == "Gather" else None
        picked |= labelled if indices is None else {int(item) % len(axes) for item in np.ravel(indices)}
    if any(value.name == node.output[0] for value in walk.proto.graph.output):
        picked = labelled
    walk.pin(node, "counts them", *(axes[axis] for axis in labelled & picked))


RULES: dict[str, Rule] = {
    "Reshape": reshape,
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), fold),
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": cut_out,
    **dict.fromkeys(("Pad", "Resize"), keep_equal),
    **dict.fromkeys(("Expand", "ConstantOfShape"), expand),
    "Shape": shape_of,
}
