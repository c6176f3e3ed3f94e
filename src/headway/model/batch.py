"""The first dimension made free where the graph allows it, and proof that a batch gives the answers of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from headway.model.agreement import Runner, difference, one_line, rows, stack
from headway.model.specs import BATCH
from headway.records import ModelError

CHECK_ROWS = 2


def fixed_batch(proto: onnx.ModelProto) -> int | None:
    """The batch size that a graph insists on; none when the first dimension of some input is free."""
    firsts = [_first(port) for port in _ports(proto)]
    if not firsts or any(first is None for first in firsts) or len(set(firsts)) != 1:
        return None
    return firsts[0]


def settle_batch(proto: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph with a free batch dimension if batches answer as their rows do; else with a fixed one; and notes.

    Args:
        feeds: at least two rows (and at least twice the fixed batch of a graph that has one).

    Raises:
        ModelError: the graph does not run on the rows at all.
    """
    if not _ports(proto) or any(array.ndim == 0 for array in feeds.values()):
        return proto, ("an input has no batch dimension: every request runs alone",)
    size = fixed_batch(proto)
    if size is None:
        return _check_free(proto, name, feeds)
    single = Runner(proto, name)
    wanted = stack([single(rows(feeds, start, start + size)) for start in range(0, CHECK_ROWS * size, size)])
    problem = ""
    for candidate in _freed(proto, size):
        problem = _batch_problem(candidate, name, rows(feeds, 0, CHECK_ROWS * size), wanted)
        if not problem:
            return candidate, (f"fixed batch of {size} made free; batches of 1 and {CHECK_ROWS * size} answer as before",)
    return proto, (f"the batch stays fixed at {size}: with a free batch {problem}",)


def _check_free(proto: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    if any(_first(port) is not None for port in _ports(proto)):
        return proto, ("inputs differ in their first dimension: every request runs alone",)
    run = Runner(proto, name)
    try:
        wanted = stack([run(rows(feeds, row, row + 1)) for row in range(CHECK_ROWS)])
    except (ModelError, ValueError) as error:
        run(rows(feeds, 0, CHECK_ROWS))
        return proto, (f"single rows do not run: {one_line(error.__cause__ or error)}",)
    problem = _batch_problem(proto, name, rows(feeds, 0, CHECK_ROWS), wanted)
    if not problem:
        return proto, ()
    pinned = onnx.ModelProto()
    pinned.CopyFrom(proto)
    for port in _ports(pinned):
        port.type.tensor_type.shape.dim[0].dim_value = 1
    return pinned, (f"the batch is fixed at 1: in a batch of {CHECK_ROWS} {problem}",)


def _batch_problem(proto: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> str:
    """Empty when the whole batch and each of its rows give the wanted answers; else what goes wrong."""
    try:
        run = Runner(proto, name)
        together = difference(run(feeds), wanted)
        total = len(next(iter(feeds.values())))
        return together or difference(stack([run(rows(feeds, row, row + 1)) for row in range(total)]), wanted)
    except (ModelError, ValueError) as error:
        return f"it does not run ({one_line(error.__cause__ or error)})"


def _freed(proto: onnx.ModelProto, size: int) -> Iterator[onnx.ModelProto]:
    """Copies with a free first dimension: as it is, then with Reshape targets that name the batch made free as well."""
    for reshape in (False, True):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        del copy.graph.value_info[:]
        for port in _ports(copy):
            port.type.tensor_type.shape.dim[0].dim_param = BATCH
        for port in copy.graph.output:
            first = _first(port)
            if first is not None and first % size == 0:
                port.type.tensor_type.shape.dim[0].dim_param = BATCH
        if reshape and not _free_reshapes(copy, size):
            return
        yield copy


def _free_reshapes(proto: onnx.ModelProto, size: int) -> bool:
    """Whether a constant Reshape target that starts with the batch was changed to start with "the rest" (-1) or "as before" (0)."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    changed = False
    for node in proto.graph.node:
        tensor = constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        if tensor is None:
            continue
        target = onnx.numpy_helper.to_array(tensor).copy()
        if target.size > 1 and target[0] == size:
            target[0] = 0 if -1 in target else -1
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(target, name))
            changed = True
    return changed


def _ports(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [port for port in proto.graph.input if port.name not in weights]


def _first(port: onnx.ValueInfoProto) -> int | None:
    """The fixed size of a port's first dimension; none when it is free or there is none."""
    dims = port.type.tensor_type.shape.dim
    return dims[0].dim_value if dims and dims[0].WhichOneof("value") == "dim_value" else None
