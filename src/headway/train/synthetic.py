"""Inputs made up from a model alone, for data that may not be used.

Where the model holds batch normalisation, float inputs are trained so that the values before each normalisation have the mean and the
variance stored there: Cai et al., "ZeroQ" (arXiv 2001.00281, section 3.1), with class targets as in Yin et al., "Dreaming to distill"
(arXiv 1912.08795, section 3.2). Everywhere else they are noise, which a network answers confidently and wrongly: far weaker than rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from onnx import GraphProto, numpy_helper
from torch import Tensor
from torch.nn import functional

from headway.lift import Lifted, lift
from headway.model import Model, synthetic_inputs
from headway.records import DataError, TensorSpec
from headway.train.repeatable import repeatable
from headway.train.rows import Array, Feeds

PASSING = frozenset({"Cast", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Transpose", "Slice", "Clip"})
SCALES = (1, 2, 4)
CLASS_SHARE = 0.1
PACE = 0.1


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Made-up rows.

    Attributes:
        inputs: one array per model input, first axis the row.
        message: one sentence on what they were made from.
    """

    inputs: dict[str, Array]
    message: str


@dataclass(frozen=True)
class Statistics:
    """What one normalisation remembers of the values it was trained on: mean and standard deviation of each channel."""

    value: str
    mean: Tensor
    deviation: Tensor


def synthetic_rows(
    model: Model, rows: int, *, seed: int = 0, steps: int = 200, batch: int = 64, like: Mapping[str, Array] | None = None
) -> Synthetic:
    """``rows`` rows for ``model``; the same arguments give the same rows.

    Args:
        steps: of the training of inputs, where there is batch normalisation.
        batch: rows trained together.
        like: samples of which only sizes and ranges are taken, never values.

    Raises:
        Unsupported: the graph cannot be lifted.
        ModelError: an input is not numeric.
        DataError: no rows.
    """
    if rows < 1:
        raise DataError(f"synthetic rows: must be at least 1, got {rows}")
    graph = model.to_proto().graph
    rng = np.random.default_rng(seed)
    shaped = synthetic_inputs(model.inputs, rows, seed, like=like)
    inputs = {spec.name: _fill(spec, shaped[spec.name], graph, rng, (like or {}).get(spec.name)) for spec in model.inputs}
    floats = [name for name, array in inputs.items() if array.dtype == np.float32]
    known = statistics(graph)
    if not known or not floats or not steps:
        return Synthetic(inputs, f"{rows} rows of noise of the inputs' shapes: the model holds no batch normalisation to shape them by")
    with repeatable(seed) as generator:
        _train(lift(model).eval(), inputs, floats, known, steps, batch, generator, like)
    return Synthetic(inputs, f"{rows} rows trained for {steps} steps to match the statistics of {len(known)} batch normalisations")


def statistics(graph: GraphProto) -> tuple[Statistics, ...]:
    """Of every batch normalisation whose mean and variance are initializers."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "BatchNormalization" and node.input[3] in held and node.input[4] in held:
            mean, variance = (np.array(numpy_helper.to_array(held[name]), np.float32) for name in node.input[3:5])
            found.append(Statistics(node.input[0], torch.from_numpy(mean), torch.from_numpy(np.sqrt(variance + 1e-6))))
    return tuple(found)


def mismatch(values: Mapping[str, Tensor], known: tuple[Statistics, ...]) -> Tensor:
    """Mean over normalisations of the squared distance of mean and of deviation, in units of the stored deviation."""
    total = torch.zeros(())
    for each in known:
        held = values[each.value].movedim(1, -1).flatten(0, -2)
        mean, deviation = held.mean(0), held.var(0, unbiased=False).add(1e-6).sqrt()
        total = (
            total + ((mean - each.mean) / each.deviation).square().mean() + ((deviation - each.deviation) / each.deviation).square().mean()
        )
    return total / len(known)


def _train(
    lifted: Lifted, inputs: dict[str, Array], floats: list[str], known: tuple[Statistics, ...], steps: int, batch: int,
    generator: torch.Generator, like: Mapping[str, Array] | None,
) -> None:  # fmt: skip
    for weight in lifted.parameters():
        weight.requires_grad_(False)
    count = len(inputs[floats[0]])
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        feeds = {name: torch.from_numpy(array[rows].copy()) for name, array in inputs.items()}
        for name in floats:
            feeds[name].requires_grad_(True)
        _match(lifted, feeds, floats, known, steps, generator)
        for name in floats:
            array = feeds[name].detach().numpy()
            inputs[name][rows] = np.clip(array, *_range(like[name])) if like and name in like else array


def _match(lifted: Lifted, feeds: Feeds, floats: list[str], known: tuple[Statistics, ...], steps: int, generator: torch.Generator) -> None:
    optimiser = torch.optim.Adam([feeds[name] for name in floats], PACE)
    names = tuple(dict.fromkeys(each.value for each in known))
    wanted: Tensor | None = None
    for _ in range(steps):
        found = lifted(feeds, keep=names)
        loss = mismatch(found, known)
        scores = next(value for name, value in found.items() if name not in names)
        if scores.ndim == 2 and scores.shape[1] > 1 and scores.is_floating_point():
            if wanted is None:
                wanted = torch.randint(scores.shape[1], (len(scores),), generator=generator)
            loss = loss + CLASS_SHARE * functional.cross_entropy(scores, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def _fill(spec: TensorSpec, shaped: Array, graph: GraphProto, rng: np.random.Generator, like: Array | None) -> Array:
    """Noise for one input: random numbers of an index, prefixes of ones for other whole numbers, smooth noise for pictures."""
    if shaped.dtype.kind in "iu":
        count = _table_rows(graph, spec.name)
        if count:
            return rng.integers(0, count, shaped.shape).astype(shaped.dtype)
        if shaped.ndim > 1:
            length = rng.integers(1, shaped.shape[-1] + 1, (*shaped.shape[:-1], 1))
            return (np.arange(shaped.shape[-1]) < length).astype(shaped.dtype)
        return shaped
    if shaped.dtype.kind != "f":
        return shaped
    noise = _smooth(shaped.shape, rng) if shaped.ndim == 4 else rng.normal(size=shaped.shape)
    if like is not None:
        low, high = _range(like)
        noise = np.clip((low + high) / 2 + (high - low) / 4 * noise, low, high)
    return noise.astype(shaped.dtype)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Normal noise of several grains laid over each other, about unit variance."""
    total = np.zeros(shape)
    for scale in SCALES:
        small = rng.normal(size=(*shape[:2], -(-shape[2] // scale), -(-shape[3] // scale)))
        total += small.repeat(scale, axis=2).repeat(scale, axis=3)[:, :, : shape[2], : shape[3]]
    return total / len(SCALES) ** 0.5


def _range(array: Array) -> tuple[float, float]:
    return float(np.min(array)), float(np.max(array))


def _table_rows(graph: GraphProto, name: str) -> int:
    """Rows of the smallest table that an input indexes (0: none)."""
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) >= 2}
    same, found = {name}, []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
        elif node.op_type in PASSING and node.input[0] in same:
            same.update(node.output)
        elif node.op_type == "Gather" and len(node.input) == 2 and node.input[1] in same and node.input[0] in sizes:
            found.append(sizes[node.input[0]])
    return int(min(found, default=0))
