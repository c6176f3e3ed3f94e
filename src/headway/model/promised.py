"""What another server's configuration says of a model's tensors, against the graph that lies there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.model.feeds import Samples
from headway.model.graph import Model
from headway.model.served.contract import Inside
from headway.model.specs import synthetic_inputs
from headway.records import TensorSpec

ROWS = 4


def ordered_rows(inside: Inside, samples: Samples | None) -> Samples | None:
    """The samples in the order of the configuration, where its names stand for places; made up from it where there are none."""
    if not inside.positional or not inside.inputs:
        return samples
    if samples is None:
        return synthetic_inputs(inside.inputs, ROWS)
    names = [spec.name for spec in inside.inputs]
    return {name: samples[name] for name in names} if set(names) <= set(samples) else samples


def differences(inside: Inside, model: Model) -> tuple[str, ...]:
    """Where the configuration and the graph do not agree, one sentence each."""
    found: list[str] = []
    if not inside.positional:
        found += _of("input", inside.inputs, model.inputs)
        found += _of("output", inside.outputs, model.outputs)
    first = next((spec.shape[0] for spec in model.inputs if spec.shape), None)
    if inside.served_by is not None and isinstance(first, int) and first < inside.served_by.max_batch:
        found.append(f"the configuration allows batches of up to {inside.served_by.max_batch}, but the graph has a fixed batch of {first}")
    return tuple(found)


def _of(kind: str, told: Sequence[TensorSpec], graph: Sequence[TensorSpec]) -> Iterator[str]:
    if not told:
        return
    there = {spec.name: spec for spec in graph}
    for spec in told:
        if spec.name not in there:
            yield f"the configuration names the {kind} {spec.name!r}, but the graph has only {', '.join(map(repr, there))}"
        elif problem := _problem(spec, there[spec.name]):
            yield f"the configuration says that the {kind} {spec.name!r} {problem}"
    lacking = [name for name in there if name not in {spec.name for spec in told}] if kind == "input" else []
    if lacking:
        yield f"the configuration does not name the graph's input {', '.join(map(repr, lacking))}"


def _problem(told: TensorSpec, graph: TensorSpec) -> str:
    if told.dtype != graph.dtype and "undefined" not in (told.dtype, graph.dtype):
        return f"is {told.dtype}, but in the graph it is {graph.dtype}"
    pairs = list(zip(told.shape[1:], graph.shape[1:], strict=False))
    if len(told.shape) != len(graph.shape) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        return f"has the shape {_shape(told)}, but in the graph it has {_shape(graph)}"
    return ""


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join(map(str, spec.shape))}]"
