"""What one step changed, measured on the graph and on the answers; a step that changed nothing is said to have done nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from onnx import ModelProto, numpy_helper

from headway.compress.graph import constants, content, every_node, precision_request, tensor_digest
from headway.compress.session import relative_error
from headway.records import Effect, Step

Answers = Sequence[Sequence[np.ndarray]]


def weight_bytes(proto: ModelProto) -> int:
    """Bytes of all constant tensors [B]."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in constants(proto.graph))


def measure_effect(step: Step, graphs: tuple[ModelProto, ModelProto], outputs: tuple[Answers, Answers], duration_s: float) -> Effect:
    """The Effect of a step from the graphs and the outputs before and after it (empty outputs when there were no samples)."""
    before, after = graphs
    had, has = (Counter(tensor_digest(tensor) for tensor in constants(proto.graph)) for proto in graphs)
    error = relative_error(*outputs) if outputs[0] else None
    idle = content(before) == content(after) and not error
    effect = Effect(
        step=str(step),
        nodes_before=sum(1 for _ in every_node(before.graph)),
        nodes_after=sum(1 for _ in every_node(after.graph)),
        weight_bytes_before=weight_bytes(before),
        weight_bytes_after=weight_bytes(after),
        changed_weights=sum((has - had).values()),
        output_error=error,
        did_nothing=idle,
        message="",
        duration_s=duration_s,
    )
    asked, asks = (precision_request(proto) for proto in graphs)
    return msgspec.structs.replace(effect, message=_sentence(effect, None if asked == asks else asks or "float32"))


def _sentence(effect: Effect, new_precision: str | None) -> str:
    if effect.did_nothing:
        return f"{effect.step} did nothing: same operators, same weights, same answers."
    parts = []
    if new_precision:
        parts.append(f"asks the runtime to compute float32 nodes in {new_precision}")
    if effect.nodes_before != effect.nodes_after:
        parts.append(f"{effect.nodes_before} nodes became {effect.nodes_after}")
    if effect.changed_weights:
        parts.append(f"{effect.changed_weights} constants are new")
    if effect.weight_bytes_before != effect.weight_bytes_after:
        parts.append(f"{effect.weight_bytes_before / 1e6:.3g} MB of constants became {effect.weight_bytes_after / 1e6:.3g} MB")
    if effect.output_error is None:
        parts.append("the answers were not compared, for want of samples")
    elif effect.output_error:
        parts.append(f"the answers moved by {effect.output_error:.2g} (relative L2)")
    return f"{effect.step}: {'; '.join(parts) or 'the graph changed form only'}."
