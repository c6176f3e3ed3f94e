"""Layers in 8 bits with ranges fixed from samples: quantize/dequantize nodes around Conv, MatMul and Gemm and what lies between them.

Activation type by instruction set, weights int8 per output channel, biases int32, batch norms folded first. In a transformer only MatMul
and Gemm are quantized; LayerNormalization, Softmax and the residual sums stay float. Source: Jacob et al. (arXiv 1712.05877); Wu et al.
(arXiv 2004.09602) for per-channel weights and the calibrators; what stays float is chosen by ``compress.sensitivity``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

import numpy as np
import onnx
from onnx import ModelProto

from headway.compress.arithmetic import integer_arithmetic
from headway.compress.batchnorm import fold_batch_norms
from headway.compress.bias_correction import corrected
from headway.compress.calibration import METHODS, Range, StreamingHistogram, collect
from headway.compress.constants import join_constants
from headway.compress.context import Context
from headway.compress.equalize import equalize, pairs
from headway.compress.graph import copied, drop_unused, first_integer_node, normalise, opset, sort_nodes
from headway.compress.layer_products import layer_products
from headway.compress.layers import CONVOLUTIONS, PRODUCTS, Layer, between, is_transformer, layers, unshare
from headway.compress.opset import raised
from headway.compress.products import join_biases
from headway.compress.qdq import activations, write
from headway.compress.recode import recode
from headway.compress.sensitivity import output_errors, spread, within, worst
from headway.compress.settings import read_settings
from headway.compress.smooth import smooth
from headway.compress.tables import narrow_tables
from headway.compress.techniques import contract
from headway.compress.techniques.fold import remove_pass_through
from headway.model import Model
from headway.records import ConfigError, Setting, Unsupported

ORDER = 60
HARSHNESS = 3
FOLLOWS: tuple[str, ...] = ()
Ladder = tuple[dict[str, Setting], ...]
BUT_SENSITIVE, ALL = "but_sensitive", "all"
NEAREST, SECOND_ORDER = "nearest", "second_order"
BIAS_ROWS = 64
SMOOTH = 0.8
OPSET = 13  # the first with one scale per channel in DequantizeLinear
FEW_LAYERS = 3
"""With no more layers than this, none is left in float."""
DEFAULTS: dict[str, Setting] = {
    "scope": ALL, "calibrator": "mse", "keep_float": 0.1, "rows": 256, "equalize": False, "correct_bias": False, "smooth": 0.0,
    "error_bound": 0.0, "tables": True, "rounding": NEAREST,
}  # fmt: skip
CHOICES = {"scope": (BUT_SENSITIVE, ALL), "calibrator": tuple(METHODS), "rounding": (NEAREST, SECOND_ORDER)}


def refuse(model: Model, context: Context) -> str | None:
    """Why it cannot work: quantized already, no layer to quantize, no samples, or too old an operator set."""
    try:
        proto = _prepared(model)
    except Unsupported as error:
        return str(error)
    if not layers(proto.graph, _kinds(proto)):
        kinds = "MatMul or Gemm" if is_transformer(proto.graph) else "Conv, MatMul or Gemm"
        return f"quantize_static: the model holds no {kinds} with a constant float32 weight"
    if not context.rows:
        return "quantize_static: needs calibration samples to fix the ranges of activations, and there are none"
    return None


def ladder(model: Model, context: Context) -> Ladder:
    """First with the most sensitive quarter, then tenth, of the layers in float; then everything: plain by each calibrator, then mended, which is as fast and
    comes last since a short run tries that one first.

    Mended is what moved the answers least in our trials, with 4 photos or 256 reviews to calibrate on, as the outputs' error and the share of
    other inputs whose class stayed: biases corrected on EfficientNet-Lite0 (0.073 and 98.3%; plain 0.123 and 97.9%), equalized as well
    (0.081 and 98.6%), smoothed at 0.8 on MiniLM (0.055 and 98.7%; plain 0.122 and 96.6%). Weights rounded to second order took a fifth off the
    error on MiniLM (0.064 to 0.050); on EfficientNet-Lite0 the error fell too but fewer classes stayed, so there they round to the nearest.
    """
    if refuse(model, context):
        return ()
    proto = _prepared(model)
    transformer = is_transformer(proto.graph)
    best: dict[str, Setting] = {"smooth": SMOOTH} if transformer else {"correct_bias": True}
    rounded: dict[str, Setting] = {"rounding": SECOND_ORDER} if transformer else {}
    mild: Ladder = tuple({"scope": BUT_SENSITIVE, "calibrator": "mse", "keep_float": share, **best} for share in (0.25, 0.1))
    mended: Ladder = ({"scope": ALL, "calibrator": "mse", **best, **rounded},)
    if not transformer and pairs(proto.graph):
        mended = ({"scope": ALL, "calibrator": "mse", "equalize": True, **best}, *mended)
    plain: Ladder = tuple({"scope": ALL, "calibrator": name} for name in ("mse", "min_max", "percentile", "entropy"))
    return (mild if len(layers(proto.graph, _kinds(proto))) > FEW_LAYERS else ()) + plain + mended


def space(model: Model, context: Context) -> contract.Space:
    """Every layer or all but up to three tenths of them, by each calibrator, with what mends and suits the graph on or off."""
    if refuse(model, context):
        return {}
    proto = _prepared(model)
    offered: dict[str, contract.Range | tuple[Setting, ...]] = {"scope": (ALL,), "calibrator": ("mse", "min_max", "percentile", "entropy")}
    if len(layers(proto.graph, _kinds(proto))) > FEW_LAYERS:
        offered |= {"scope": (ALL, BUT_SENSITIVE), "keep_float": contract.Range(0.02, 0.3, when=("scope", BUT_SENSITIVE))}
    if is_transformer(proto.graph):
        return {**offered, "smooth": contract.Range(0.0, 1.0), "rounding": (NEAREST, SECOND_ORDER)}
    return {**offered, "correct_bias": (False, True), **({"equalize": (False, True)} if pairs(proto.graph) else {})}


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model with quantize/dequantize nodes.

    Ranges and sensitivities of the last two models are remembered: asking for the next rung of the ladder costs only the writing.

    Settings: ``scope`` (``but_sensitive`` keeps the worst layers in float, ``all`` none); ``keep_float``, the share of layers
    that count as worst; ``calibrator`` (``mse``, ``percentile``, ``min_max``, ``entropy``);
    ``rows``, the most samples used, evenly spread; ``equalize`` (cross-layer equalization) and ``smooth`` (SmoothQuant's strength, 0: off),
    both before anything is rounded; ``correct_bias``; ``error_bound``: the worst layers go back to float until the relative
    error of the outputs on 32 samples is within it (0: off); ``tables``, whether embedding tables take 8 bits too, by row;
    ``rounding`` of the layers' weights (``nearest``, or ``second_order``: so that each layer's answers on the samples move least).
    """
    chosen = read_settings("quantize_static", settings, DEFAULTS, CHOICES)
    _check(chosen)
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    bench = _bench(model, context, int(chosen["rows"]), bool(chosen["equalize"]), float(chosen["smooth"]))
    proto = bench.made(chosen)
    if chosen["tables"]:
        sort_nodes(narrow_tables(proto).graph)
    return Model.from_proto(proto, model.name, model.origin)


def _check(chosen: dict[str, Setting]) -> None:
    share, rows = float(chosen["keep_float"]), int(chosen["rows"])
    if not 0 <= share < 1 or rows < 1:
        raise ConfigError(f"quantize_static: keep_float must lie in [0, 1) and rows be at least 1, got {share} and {rows}")
    strength, bound = float(chosen["smooth"]), float(chosen["error_bound"])
    if not 0 <= strength <= 1 or bound < 0:
        raise ConfigError(f"quantize_static: smooth must lie in [0, 1] and error_bound be 0 or more, got {strength} and {bound}")


class _Bench:
    """A model ready to be quantized; histograms and sensitivities are collected once and shared by all rungs of the ladder."""

    def __init__(self, model: Model, context: Context, rows: int, equalized: bool, strength: float) -> None:
        self._samples = spread(context.samples, rows)
        proto = _rescaled(model, self._samples, equalized, strength)
        self.proto = onnx.shape_inference.infer_shapes(proto)
        self.layers = layers(self.proto.graph, _kinds(self.proto))
        self._arithmetic = integer_arithmetic(context.instruction_sets)
        self._histograms: dict[str, StreamingHistogram] = {}
        self._errors: dict[str, dict[str, float]] = {}

    def ranges(self, names: Sequence[str], method: str) -> dict[str, Range]:
        """Ranges of the float32 values among ``names``."""
        lacking = [name for name in names if name not in self._histograms]
        if lacking:
            self._histograms |= collect(self.proto, lacking, self._samples, len(next(iter(self._samples.values()))))
        return {name: METHODS[method](self._histograms[name]) for name in names if name in self._histograms}

    @cached_property
    def products(self) -> dict[str, np.ndarray]:
        """What the layers see, for the rounding of their weights."""
        return layer_products(self.proto, self.layers, self._samples)

    def errors(self, method: str) -> dict[str, float]:
        """What each layer costs the answers when it alone is quantized."""
        if method not in self._errors:
            self.ranges(activations(self.proto.graph, _nodes(self.proto, self.layers)), method)  # all in one pass
            self._errors[method] = output_errors(self.proto, self.layers, self._samples, lambda own: self.written(own, method, NEAREST))
        return self._errors[method]

    def made(self, chosen: Mapping[str, Setting]) -> ModelProto:
        """The model that the settings ask for."""
        own, method, rounding = self.layers, str(chosen["calibrator"]), str(chosen["rounding"])
        if chosen["scope"] == BUT_SENSITIVE and chosen["keep_float"]:
            kept = worst(self.errors(method), float(chosen["keep_float"]))
            own = tuple(layer for layer in own if layer.name not in kept)
        if own and chosen["error_bound"]:
            bound = float(chosen["error_bound"])
            own = within(own, self.errors(method), self.proto, self._samples, lambda some: self.written(some, method, rounding), bound)
        if not own:
            how = (
                f"no layer may be quantized at error_bound {chosen['error_bound']}; raise it"
                if chosen["error_bound"]
                else "use scope 'all'"
            )
            raise Unsupported(f"quantize_static: every layer counts as sensitive, so none is left to quantize; {how}")
        narrow = self.written(own, method, rounding)
        if not chosen["correct_bias"]:
            return narrow
        return self.written(own, method, rounding, corrected(self.proto, own, narrow, spread(self._samples, BIAS_ROWS)))

    def written(self, own: Sequence[Layer], method: str, rounding: str, proto: ModelProto | None = None) -> ModelProto:
        """A new model with these layers, and what lies between them, in 8 bits; ``proto`` differs from the bench's in its biases alone."""
        proto = copied(proto or self.proto)
        nodes = _nodes(proto, own)
        unshare(proto, [layer.name for layer in own])
        narrow = write(proto, nodes, self.ranges(activations(proto.graph, nodes), method), self._arithmetic)
        return recode(narrow, self.proto, own, self.products, 7 if self._arithmetic.reduce_range else 8) if rounding != NEAREST else narrow


def rescaled(model: Model, settings: Mapping[str, Setting], context: Context) -> ModelProto | None:
    """The float graph that is rounded where ``settings`` equalize or smooth; none where they do neither."""
    chosen = {**DEFAULTS, **settings}
    equalized, strength = bool(chosen["equalize"]), float(chosen["smooth"])
    return _rescaled(model, spread(context.samples, int(chosen["rows"])), equalized, strength) if equalized or strength else None


def _rescaled(model: Model, samples: Mapping[str, np.ndarray], equalized: bool, strength: float) -> ModelProto:
    proto = _prepared(model)
    if equalized:
        equalize(proto)
    if strength:
        unshare(proto, [layer.name for layer in layers(proto.graph, PRODUCTS)])
        smooth(proto, samples, strength)
    return proto


@lru_cache(maxsize=3)
def _bench(model: Model, context: Context, rows: int, equalized: bool, strength: float) -> _Bench:
    return _Bench(model, context, rows, equalized, strength)


def _kinds(proto: ModelProto) -> tuple[str, ...]:
    return PRODUCTS if is_transformer(proto.graph) else CONVOLUTIONS + PRODUCTS


def _nodes(proto: ModelProto, own: Sequence[Layer]) -> tuple[str, ...]:
    names = tuple(layer.name for layer in own)
    return names if is_transformer(proto.graph) else names + between(proto.graph, names)


def _prepared(model: Model) -> ModelProto:
    """The graph with batch norms folded and at least the oldest operator set that has per-channel scales."""
    proto = normalise(model.to_proto())
    integer = first_integer_node(proto)
    if integer is not None:
        raise Unsupported(f"quantize_static: the model is quantized already (node {integer.name!r} is a {integer.op_type})")
    if opset(proto) < OPSET:
        proto = raised(proto, OPSET, "quantize_static")
    join_constants(proto)
    remove_pass_through(proto)
    fold_batch_norms(proto)
    join_biases(proto)
    drop_unused(proto.graph)
    return proto
