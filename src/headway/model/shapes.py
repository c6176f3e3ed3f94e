"""A graph at concrete shapes: one request, every size known. Inferred first; what cannot be inferred is seen in one run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, ShapeInferencePass

from headway.model.agreement import Runner
from headway.model.graph import Model
from headway.model.specs import size_of, sizes_from, synthetic_inputs
from headway.records import ModelError

Shape = tuple[int, ...]


def at_one_request(
    model: Model, samples: Mapping[str, np.ndarray] | None, sizes: Mapping[str, int] | None
) -> tuple[ir.Model, dict[str, Shape]]:
    """The graph with functions inlined and constants lifted to initializers, and the shape of every value that is known, at batch one.

    Free dimensions other than the batch take their size from ``sizes`` by name, then from samples, then ``specs.size_of``'s default.
    """
    known = {**sizes_from(model.inputs, samples), **(sizes or {})}
    graph = _inferable(model, known, samples)
    shapes = {value.name: shape for value in _values(graph) if value.name and (shape := _concrete(value)) is not None}
    unknown = [
        value.name for node in graph.graph for value in node.outputs if value.name and value.name not in shapes and _may_be_tensor(value)
    ]
    if unknown:
        shapes.update(_seen(graph, unknown, synthetic_inputs(model.inputs, 1, sizes=known, like=samples)))
    return graph, shapes


def _inferable(model: Model, known: Mapping[str, int], samples: Mapping[str, np.ndarray] | None) -> ir.Model:
    graph = model.ir.clone()
    if graph.functions:
        InlinePass()(graph)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    for each in graph.graphs():
        for node in each:
            for value in node.outputs:
                value.shape = None
    fitting = synthetic_inputs(model.inputs, 1, sizes=known, like=samples) if samples else {}
    for value in graph.graph.inputs:
        if value.name in fitting:
            value.shape = ir.Shape(fitting[value.name].shape)
        elif value.shape is not None and value.name not in graph.graph.initializers:
            dims = [dim if isinstance(dim, int) else (dim.value or "?") for dim in value.shape]
            value.shape = ir.Shape([size_of(dim, axis, known) for axis, dim in enumerate(dims)])
    logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
    level = logger.level
    logger.setLevel(logging.ERROR)  # a failure is no news: the run that follows tells the shapes
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)
    finally:
        logger.setLevel(level)
    return graph


def _values(graph: ir.Model) -> list[ir.Value]:
    found: list[ir.Value] = []
    for each in graph.graphs():
        found.extend(each.inputs)
        found.extend(each.initializers.values())
        found.extend(value for node in each for value in node.outputs)
    return found


def _concrete(value: ir.Value) -> Shape | None:
    shape = value.const_value.shape if value.const_value is not None else value.shape
    dims = [dim for dim in shape if isinstance(dim, int)] if shape is not None else []
    return tuple(dims) if shape is not None and len(dims) == len(shape) else None


def _may_be_tensor(value: ir.Value) -> bool:
    return value.type is None or isinstance(value.type, ir.TensorType)


def _seen(graph: ir.Model, names: list[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """Shapes of the named values in a run on the feeds; none when the graph does not run."""
    proto = ir.to_proto(graph)
    wanted = set(names) - {port.name for port in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name in wanted)
    del proto.graph.value_info[:]
    try:
        values = Runner(proto, "shapes", optimize=False)(feeds)
    except ModelError:
        return {}
    return {name: np.shape(values[name]) for name in names if isinstance(values.get(name), np.ndarray)}
