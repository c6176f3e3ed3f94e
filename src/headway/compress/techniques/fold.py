"""Cleans the graph without changing answers: constants joined, batch norms and biases folded, identity and dropout removed, onnxslim.

Source: batch norm folding after Jacob et al. (arXiv 1712.05877, section 3.2); the rest by onnxslim, whose result is taken only
when it is no worse: same inputs and outputs, no more nodes, weights at most 5% larger, answers the same within 1e-4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx
import onnxslim
from onnx import GraphProto, ModelProto

from headway.compress.batchnorm import fold_batch_norms
from headway.compress.constants import join_constants
from headway.compress.context import Context
from headway.compress.graph import (
    constants,
    consumers,
    copied,
    drop_unused,
    first_integer_node,
    initializers,
    normalise,
    opset,
    producers,
    rename_reads,
    replace,
    signature,
    sort_nodes,
)
from headway.compress.products import join_biases
from headway.compress.session import answers, relative_error
from headway.compress.settings import read_settings
from headway.compress.zero_states import drop_zero_states
from headway.model import Model
from headway.records import Setting

ORDER = 0
HARSHNESS = 0
FOLLOWS: tuple[str, ...] = ()
ROWS = 4
TOLERANCE = 1e-4
LARGEST_CONSTANT_BYTES = 1_000_000  # a folded constant above this would trade a cheap node for memory traffic

_log = logging.getLogger(__name__)


def refuse(model: Model, context: Context) -> str | None:
    """None: any graph can be cleaned; a graph that is clean already is said to be unchanged."""
    return None


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """One rung."""
    return ({},)


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model cleaned; the model itself, byte for byte, when nothing is to be done."""
    read_settings("fold", settings, {})
    before = model.to_proto()
    folded = normalise(copied(before))
    remove_pass_through(folded)
    fold_batch_norms(folded)
    join_biases(folded)
    drop_zero_states(folded)
    drop_unused(folded.graph)
    sort_nodes(folded.graph)
    for candidate in _candidates(folded):
        if _no_worse(before, candidate, context):
            return Model.from_proto(candidate, model.name, model.origin)
    _log.warning("fold: no cleaned graph was as good as the original, which is kept")
    return model


def _candidates(folded: ModelProto) -> Iterator[ModelProto]:
    """Best first: with constants joined (which doubles one that is read both as it is and moved) and without, each by onnxslim and as it is."""
    for graph in (join_constants(copied(folded)), folded):
        slimmed = _slim(graph)
        if slimmed is not None:
            yield slimmed
        yield graph


def remove_pass_through(proto: ModelProto) -> None:
    """Remove Identity nodes and Dropout nodes (which do nothing outside training), in place."""
    graph = proto.graph
    gone = set()
    for node in graph.node:
        if _passes_through(graph, node, opset(proto)) and _bypass(graph, node.input[0], node.output[0]):
            gone.add(node.name)
            del node.input[:], node.output[:]  # nobody shall take it for a reader or a maker before it is removed
    if gone:
        replace(graph.node, [node for node in graph.node if node.name not in gone])


def _passes_through(graph: GraphProto, node: onnx.NodeProto, version: int) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or version < 7:
        return False
    mask_read = (
        len(node.output) > 1
        and node.output[1]
        and (consumers(graph).get(node.output[1]) or any(value.name == node.output[1] for value in graph.output))
    )
    if mask_read:
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = initializers(graph).get(node.input[2])
    return training is not None and not onnx.numpy_helper.to_array(training).any()


def _bypass(graph: GraphProto, value: str, copy: str) -> bool:
    """Give the readers of ``copy`` the original ``value``; false when both names belong to the outside."""
    outputs = {item.name for item in graph.output}
    if copy not in outputs:
        for reader in consumers(graph).get(copy, []):
            rename_reads(reader, copy, value)
        return True
    source = producers(graph).get(value)
    if source is None or value in outputs:
        return False
    for reader in consumers(graph).get(value, []):
        rename_reads(reader, value, copy)
    source.output[list(source.output).index(value)] = copy
    return True


def _slim(proto: ModelProto) -> ModelProto | None:
    """The graph after onnxslim; none for a quantized graph, whose patterns it would break, or when onnxslim fails."""
    if first_integer_node(proto) is not None:
        return None
    try:
        slimmed: ModelProto | None = onnxslim.slim(copied(proto), size_threshold=LARGEST_CONSTANT_BYTES)
    except Exception as error:  # third-party code over any graph
        _log.warning("fold: onnxslim failed (%s: %s); the graph is cleaned without it", type(error).__name__, error)
        return None
    if slimmed is None:
        return None
    normalise(slimmed)
    drop_unused(slimmed.graph)
    replace(slimmed.metadata_props, proto.metadata_props)
    slimmed.ir_version = proto.ir_version
    slimmed.producer_name, slimmed.producer_version = proto.producer_name, proto.producer_version
    replace(slimmed.graph.input, proto.graph.input)
    replace(slimmed.graph.output, proto.graph.output)
    return slimmed


def _no_worse(before: ModelProto, after: ModelProto, context: Context) -> bool:
    if signature(before) != signature(after) or opset(before) != opset(after) or len(after.graph.node) > len(before.graph.node):
        return False
    size = [sum(tensor.ByteSize() for tensor in constants(proto.graph)) for proto in (before, after)]
    if size[1] > 1.05 * size[0] + 4096:
        return False
    if not context.rows:
        return True
    rows = min(ROWS, context.rows)
    return relative_error(answers(before, context.samples, rows), answers(after, context.samples, rows)) <= TOLERANCE
