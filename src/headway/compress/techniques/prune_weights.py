"""Zeros among the weights, for a smaller compressed file only: dense kernels gain nothing from them (magnitude; Wanda, arXiv 2306.11695).

Every runtime here multiplies zeros like other numbers, so neither time nor memory falls, nor the file before compression. ``ladder`` holds
one rung of 2 zeros in each 4 (the pattern that sparse GPU kernels read), the harshest of all techniques and combined with nothing unasked, so
that a search comes to it last; whoever wants zeros asks for them in a recipe.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from headway.compress.context import Context
from headway.compress.factors import Target, moments, targets
from headway.compress.graph import consumers, initializers, normalise, weight_left_out, why_not_float
from headway.compress.settings import read_settings
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported

ORDER = 40
HARSHNESS = 9
FOLLOWS: tuple[str, ...] = ()
LARGEST_ERROR = 2.0
DEFAULTS: dict[str, Setting] = {"share": 0.5, "pattern": "2:4", "score": "magnitude", "least": 256, "rows": 256}
CHOICES: dict[str, tuple[Setting, ...]] = {"score": ("magnitude", "wanda"), "pattern": ("free", "1:2", "2:4", "4:8")}


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """Two zeros in each four, by weight times input where there are samples."""
    if refuse(model, context):
        return ()
    return ({"pattern": "2:4", "score": "wanda" if context.rows else "magnitude"},)


def refuse(model: Model, context: Context) -> str | None:
    """Needs a float model with a layer that holds a weight of some size."""
    proto = normalise(model.to_proto())
    reason = why_not_float(proto, "prune before quantizing")
    if reason:
        return f"prune_weights: {reason}"
    if not _own(proto, int(DEFAULTS["least"])):
        left = weight_left_out(proto.graph, ("MatMul", "Gemm", "Conv"))
        return f"prune_weights: no MatMul, Gemm or ungrouped convolution holds {DEFAULTS['least']} float32 weights or more{left}"
    return None


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The same graph with zeros. No runtime here is faster for it.

    Settings: ``pattern``, zeros in each group of inputs to one output (``2:4``), or ``free``: the ``share`` of all weights (``magnitude``: over
    all layers together; ``wanda``: of each output's inputs) with the least score; ``score`` (``magnitude``: |w|; ``wanda``: |w| times the norm
    of its input, needs samples); ``least``, values of the smallest weight that is touched; ``rows``, samples used.

    Raises:
        ConfigError: a setting is not known or out of range.
        Unsupported: no weight can be pruned, or ``wanda`` has no samples.
    """
    chosen = read_settings("prune_weights", settings, DEFAULTS, CHOICES)
    share = float(chosen["share"])
    if not 0 < share < 1 or int(chosen["least"]) < 1 or int(chosen["rows"]) < 1:
        raise ConfigError(
            f"prune_weights: share must be between 0 and 1, least and rows at least 1, got {share}, {chosen['least']}, {chosen['rows']}"
        )
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    if chosen["score"] == "wanda" and not context.rows:
        raise Unsupported("prune_weights: score 'wanda' needs calibration samples, got none; use 'magnitude'")
    proto = normalise(model.to_proto())
    found = _own(proto, int(chosen["least"]))
    seen = moments(proto, found, context.samples, int(chosen["rows"]))[0] if chosen["score"] == "wanda" else {}
    scores = {target.weight: _score(target, seen.get(target.nodes[0])) for target in found}
    masks = _masks(scores, chosen)
    for target in found:
        tensor = initializers(proto.graph)[target.weight]
        kept = np.where(masks[target.weight], target.kernel, 0.0)
        array = kept.swapaxes(0, 1) if target.turned else kept
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), tensor.name))
    return Model.from_proto(proto, model.name, model.origin)


def _own(proto: ModelProto, least: int) -> tuple[Target, ...]:
    """Each weight once, and only where nothing but its layers reads it."""
    found, readers = targets(proto.graph, least), consumers(proto.graph)
    own: dict[str, Target] = {}
    for target in found:
        names = {name for other in found if other.weight == target.weight for name in other.nodes}
        if all(reader.name in names for reader in readers[target.weight]):
            own.setdefault(target.weight, target)
    return tuple(own.values())


def _score(target: Target, moment: np.ndarray | None) -> np.ndarray:
    score: np.ndarray = np.abs(target.kernel)
    if moment is None:
        return score
    norm = np.sqrt(np.maximum(np.diag(moment), 0.0))
    return np.asarray(score * norm.reshape(-1, *[1] * (score.ndim - 1)))


def _masks(scores: dict[str, np.ndarray], chosen: dict[str, Setting]) -> dict[str, np.ndarray]:
    """True where a weight stays."""
    if chosen["pattern"] != "free":
        zeros, group = (int(part) for part in str(chosen["pattern"]).split(":"))
        return {name: _pattern(score, zeros, group) for name, score in scores.items()}
    share = float(chosen["share"])
    if chosen["score"] == "magnitude":
        every = np.concatenate([score.ravel() for score in scores.values()])
        gone = np.zeros(every.size, bool)
        gone[np.argsort(every, kind="stable")[: int(share * every.size)]] = True
        ends = np.cumsum([score.size for score in scores.values()])[:-1]
        return {name: ~part.reshape(scores[name].shape) for name, part in zip(scores, np.split(gone, ends), strict=True)}
    return {name: _ranked(_rows(score), int(share * _rows(score).shape[1]), score.shape) for name, score in scores.items()}


def _rows(score: np.ndarray) -> np.ndarray:
    """One row for each output; its inputs side by side, those of one window position together."""
    return np.asarray(np.moveaxis(np.moveaxis(score, 1, 0), 1, -1).reshape(score.shape[1], -1))


def _back(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    inputs, outputs, *window = shape
    return np.asarray(np.moveaxis(np.moveaxis(rows.reshape(outputs, *window, inputs), -1, 1), 0, 1))


def _ranked(rows: np.ndarray, zeros: int, shape: tuple[int, ...]) -> np.ndarray:
    kept = np.ones(rows.shape, bool)
    np.put_along_axis(kept, np.argsort(rows, axis=1, kind="stable")[:, :zeros], False, axis=1)
    return _back(kept, shape)


def _pattern(score: np.ndarray, zeros: int, group: int) -> np.ndarray:
    """At least ``zeros`` zeros in each ``group`` inputs of an output; inputs that fill no group stay."""
    inputs = score.shape[0]
    full = inputs - inputs % group
    if not full:
        return np.ones(score.shape, bool)
    parts = _rows(score[:full])
    kept = np.ones(parts.shape, bool).reshape(-1, group)
    order = np.argsort(parts.reshape(-1, group), axis=1, kind="stable")
    np.put_along_axis(kept, order[:, :zeros], False, axis=1)
    mask = np.ones(score.shape, bool)
    mask[:full] = _back(kept.reshape(parts.shape), (full, *score.shape[1:]))
    return mask
