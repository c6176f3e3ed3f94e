"""Cutting units out of a graph, and masking them instead: both must give the same answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from headway.compress.coupling.coupled import Coupling, Row
from headway.compress.graph import copied, replace
from headway.records import Unsupported

Arrays = Mapping[str, np.ndarray]


def cut(coupling: Coupling, units: Collection[int], values: Arrays | None = None) -> ModelProto:
    """The graph without these units; ``values`` replaces initializers (at their full size) before they are cut.

    Raises:
        Unsupported: nothing would be left of some value.
    """
    gone = np.array(sorted(units), np.int64)
    if any(np.isin(row, gone).all() for row in coupling.rows):
        raise Unsupported("every value must keep a channel; cut fewer units")
    proto = copied(coupling.proto)
    changed = {name for name, _ in coupling.slices} | {name for name, _ in coupling.counts} | set(values or ())
    for tensor in proto.graph.initializer:
        if tensor.name in changed:
            array = np.array((values or {}).get(tensor.name, numpy_helper.to_array(tensor)))
            for (name, axis), row in coupling.slices.items():
                if name == tensor.name:
                    array = np.compress(~np.isin(row, gone), array, axis=axis)
            for (name, place), row in coupling.counts.items():
                if name == tensor.name:
                    array.reshape(-1)[place] = left(row, gone)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if (node.name, attribute.name, 0) in coupling.attributes:
                if attribute.ints:
                    items = enumerate(list(attribute.ints))
                    attribute.ints[:] = [left(coupling.attributes[node.name, attribute.name, place], gone) for place, _ in items]
                else:
                    attribute.i = left(coupling.attributes[node.name, attribute.name, 0], gone)
    replace(proto.graph.value_info, [])
    return proto


def left(row: Row, gone: np.ndarray) -> int:
    """How many channels of a row are left."""
    return int((~np.isin(row, gone)).sum())


def masked(coupling: Coupling, units: Collection[int]) -> ModelProto:
    """The whole graph in which no layer listens to these units: the weights that read them are 0."""
    gone = np.array(sorted(units), np.int64)
    proto = copied(coupling.proto)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for axis in range(array.ndim):
            if (tensor.name, axis) in coupling.consumed:
                keep = ~np.isin(coupling.slices[tensor.name, axis], gone)
                array = array * keep.astype(array.dtype).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
        tensor.CopyFrom(numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)), tensor.name))
    return proto
