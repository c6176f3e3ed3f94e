"""Write layers as two thinner ones by truncated SVD, weighted by what the layers see (SVD-LLM, arXiv 2403.07378; windows: 1405.3866).

MatMul, Gemm and ungrouped convolutions; ranks from one budget of multiply-adds (or measured time) over all layers, or by energy. A rank is
taken only where it saves a tenth of its layer. Embedding tables on request. Recurrent layers are left alone: their gates share one input, and
the operator takes no factored matrix. On MiniLM at keep 0.75 the share of other reviews whose class stays is 91% weighted by activations, 86% by Fisher
information, 84% plain (300 rows): so activations are the default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from headway.compress import weightings
from headway.compress.context import Context
from headway.compress.factors import Factors, Target, factor, inferred_positions, moments, split, targets
from headway.compress.graph import (
    consumers,
    drop_unused,
    fresh_name,
    initializers,
    normalise,
    replace,
    sort_nodes,
    value_names,
    why_not_float,
)
from headway.compress.knapsack import Option, choose
from headway.compress.settings import read_settings
from headway.compress.techniques.contract import Range, Space
from headway.compress.weightings.contract import Weighting
from headway.discovery import find
from headway.model import Model
from headway.records import ConfigError, MissingPackage, Setting, Unsupported

ORDER = 30
HARSHNESS = 4
FOLLOWS: tuple[str, ...] = ()
LARGEST_ERROR = 2.0
DEFAULTS: dict[str, Setting] = {
    "keep": 0.75, "weight": "activation", "by": "mac", "energy": 0.0, "round_to": 8, "least": 1024, "tables": False, "rows": 256,
}  # fmt: skip
CHOICES: dict[str, tuple[Setting, ...]] = {"weight": ("activation", "plain", "fisher"), "by": ("mac", "latency")}
KEEP = Range(0.3, 0.95)
MARGIN = 0.9
STEPS = 24


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """Three quarters, a half and a third of the cost of the layers that can be factored."""
    if refuse(model, context):
        return ()
    more: dict[str, Setting] = {} if context.rows else {"weight": "plain"}
    return tuple({"keep": keep, **more} for keep in (0.75, 0.5, 0.35))


def space(model: Model, context: Context) -> Space:
    """Any share from a little under the harshest rung to nearly all."""
    return {name: KEEP if name == "keep" else (value,) for rung in ladder(model, context)[:1] for name, value in rung.items()}


def refuse(model: Model, context: Context) -> str | None:
    """Needs a float model with a layer wide enough that two thinner ones cost less."""
    return _refusal(model, int(DEFAULTS["least"]))


def _refusal(model: Model, least: int) -> str | None:
    proto = normalise(model.to_proto())
    reason = why_not_float(proto, "factor before quantizing")
    if reason:
        return f"low_rank: {reason}"
    if any(_ranks(target, form, 1) for target in targets(proto.graph, least) for form in target.forms):
        return None
    left = next((node for node in proto.graph.node if _left_alone(node)), None)
    why = f"; node {left.name!r} ({left.op_type}) cannot be factored" if left is not None else ""
    return f"low_rank: no MatMul, Gemm or ungrouped convolution is wide enough that two thinner layers cost less{why}"


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The model with factored layers.

    Settings: ``keep``, the share of the cost of all layers that can be factored; ``energy``, above 0: instead the share of each layer's output
    energy that its rank must hold; ``weight`` (``activation``: least error in the layers' outputs; ``fisher``: in the weights, by what they mean to
    the model's answers; both need samples; ``plain``: in the weights); ``by``
    (``mac``, or ``latency``: the table's times by rank, where it has them for every layer); ``round_to``, ranks are multiples of it where a layer
    is wide enough; ``least``, values of the smallest weight that is factored; ``tables``, embedding tables too, for size; ``rows``, samples used.

    Raises:
        ConfigError: a setting is not known or out of range.
        Unsupported: no layer can be factored, or the samples that the weighting needs are missing.
    """
    chosen = read_settings("low_rank", settings, DEFAULTS, CHOICES)
    _check(chosen)
    reason = _refusal(model, int(chosen["least"]))
    if reason:
        raise Unsupported(reason)
    if chosen["weight"] != "plain" and not context.rows:
        raise Unsupported(f"low_rank: weight {chosen['weight']!r} needs calibration samples, got none; use 'plain'")
    proto = normalise(model.to_proto())
    found = targets(proto.graph, int(chosen["least"]))
    seen: dict[str, np.ndarray] = {}
    if context.rows:
        seen, positions = moments(proto, found, context.samples, int(chosen["rows"]))
    else:
        positions = inferred_positions(proto, found)
    weighted = {"activation": seen, "plain": {}}.get(str(chosen["weight"]))
    if weighted is None:
        weighted = _weighting(str(chosen["weight"])).moments(proto, found, context)
    plans = [_plan(target, weighted.get(target.nodes[0]), positions[target.nodes[0]], int(chosen["round_to"])) for target in found]
    plans = _timed(plans, context) if chosen["by"] == "latency" else plans
    made = _factored(proto, plans, chosen)
    replace(proto.graph.node, [new for node in proto.graph.node for new in made.get(node.name, [node])])
    if chosen["tables"]:
        _split_tables(proto, float(chosen["keep"]), int(chosen["least"]))
    drop_unused(proto.graph)
    sort_nodes(proto.graph)
    return Model.from_proto(proto, model.name, model.origin)


def _weighting(name: str) -> Weighting:
    plugins = find(weightings, name)
    if name in plugins.missing:
        raise MissingPackage(f"low_rank: weight {name!r} {plugins.missing[name]}")
    weighting: Weighting = plugins.present[name]
    return weighting


@dataclass(frozen=True)
class _Choice:
    form: str
    rank: int
    cost: float
    loss: float


@dataclass(frozen=True)
class _Plan:
    target: Target
    factors: dict[str, Factors]
    whole: float
    choices: tuple[_Choice, ...]


def _check(chosen: dict[str, Setting]) -> None:
    keep, energy = float(chosen["keep"]), float(chosen["energy"])
    if not 0 < keep < 1 or not 0 <= energy <= 1:
        raise ConfigError(f"low_rank: keep must be between 0 and 1 and energy at most 1, got {keep} and {energy}")
    for key in ("round_to", "least", "rows"):
        if int(chosen[key]) < 1:
            raise ConfigError(f"low_rank: {key} must be at least 1, got {chosen[key]}")


def _ranks(target: Target, form: str, round_to: int) -> list[int]:
    """Ranks that pay, ``STEPS`` at most: multiples of ``round_to``, or all where none of those pays."""
    highest = int(MARGIN * target.macs / target.rank_macs(form))
    step = round_to if highest >= round_to else 1
    ranks = list(range(step, highest + 1, step))
    return ranks if len(ranks) <= STEPS else sorted({ranks[int(place)] for place in np.linspace(0, len(ranks) - 1, STEPS).round()})


def _plan(target: Target, moment: np.ndarray | None, positions: float, round_to: int) -> _Plan:
    down, across = target.strides
    scale = positions / (down * across)
    factors, choices = {}, []
    for form in target.forms:
        ranks = _ranks(target, form, round_to)
        if ranks:
            factors[form] = factor(target, form, moment)
            cost = scale * target.rank_macs(form)
            choices += [_Choice(form, rank, cost * rank, factors[form].lost(rank)) for rank in ranks if rank <= len(factors[form].sizes)]
    return _Plan(target, factors, scale * target.macs, tuple(choices))


def _timed(plans: list[_Plan], context: Context) -> list[_Plan]:
    """The plans in seconds, where the table has times by rank for every layer; else as they are."""
    times = context.latency.times if context.latency is not None else ()
    made = []
    for plan in plans:
        own = [(time.rank, time.time_s) for time in times if time.layer in plan.target.nodes and time.precision == "float32"]
        ranked = dict(item for item in own if item[0])
        whole = max((time for rank, time in own if not rank), default=0.0)
        if not plan.choices:
            made.append(_Plan(plan.target, plan.factors, whole, ()))
            continue
        if not ranked or not whole:
            return plans
        ranks = sorted(ranked)
        steps = np.maximum.accumulate([ranked[rank] for rank in ranks])
        uses = len(plan.target.nodes)
        cost = [uses * float(np.interp(choice.rank, ranks, steps)) for choice in plan.choices]
        kept = [_Choice(c.form, c.rank, time, c.loss) for c, time in zip(plan.choices, cost, strict=True) if time <= MARGIN * uses * whole]
        made.append(_Plan(plan.target, plan.factors, uses * whole, tuple(kept)))
    return made


def _factored(proto: ModelProto, plans: list[_Plan], chosen: dict[str, Setting]) -> dict[str, list[NodeProto]]:
    taken = _names(proto)
    picks = _by_energy(plans, float(chosen["energy"])) if chosen["energy"] else _by_budget(plans, float(chosen["keep"]))
    made: dict[str, list[NodeProto]] = {}
    for plan, pick in zip(plans, picks, strict=True):
        if pick is not None:
            made.update(split(proto.graph, plan.target, pick.form, plan.factors[pick.form], pick.rank, taken))
    return made


def _by_budget(plans: list[_Plan], keep: float) -> list[_Choice | None]:
    open_ = [plan for plan in plans if plan.choices]
    items = [[Option(plan.whole, 0.0), *(Option(choice.cost, choice.loss) for choice in plan.choices)] for plan in open_]
    places = dict(zip((plan.target.nodes[0] for plan in open_), choose(items, keep * sum(plan.whole for plan in open_)), strict=True))
    return [plan.choices[place - 1] if (place := places.get(plan.target.nodes[0], 0)) else None for plan in plans]


def _by_energy(plans: list[_Plan], energy: float) -> list[_Choice | None]:
    fits = [[choice for choice in plan.choices if choice.loss <= 1 - energy + 1e-12] for plan in plans]
    return [min(options, key=lambda choice: (choice.cost, choice.loss)) if options else None for options in fits]


def _left_alone(node: NodeProto) -> bool:
    grouped = node.op_type == "Conv" and any(item.name == "group" and item.i > 1 for item in node.attribute)
    return grouped or node.op_type in ("LSTM", "GRU", "RNN")


def _split_tables(proto: ModelProto, keep: float, least: int) -> None:
    """Each table that only look-ups along its first axis read becomes a thinner table and a matrix, at ``keep`` of its size."""
    graph, fixed, readers = proto.graph, initializers(proto.graph), consumers(proto.graph)
    taken = _names(proto)
    made: dict[str, list[NodeProto]] = {}
    for name, tensor in fixed.items():
        users = readers.get(name, [])
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or not users or not all(_looks_up(node, name) for node in users):
            continue
        rows, width = tensor.dims
        rank = int(keep * rows * width / (rows + width))
        if rows * width < least or not 0 < rank < width:
            continue
        array = numpy_helper.to_array(tensor).astype(np.float64)
        basis = np.linalg.eigh(array.T @ array)[1][:, ::-1][:, :rank]
        names = [fresh_name(f"{name}_{suffix}", taken) for suffix in ("into", "out")]
        for label, part in zip(names, (array @ basis, basis.T), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(part, np.float32), label))
        for node in users:
            thin = NodeProto()
            thin.CopyFrom(node)
            thin.name, middle = fresh_name(f"{node.name}_rank", taken), fresh_name(f"{node.output[0]}_rank", taken)
            thin.input[0], thin.output[0] = names[0], middle
            made[node.name] = [thin, helper.make_node("MatMul", [middle, names[1]], list(node.output), node.name)]
    replace(graph.node, [new for node in graph.node for new in made.get(node.name, [node])])


def _looks_up(node: NodeProto, name: str) -> bool:
    return node.op_type == "Gather" and node.input[0] == name and not any(item.name == "axis" and item.i for item in node.attribute)


def _names(proto: ModelProto) -> set[str]:
    return value_names(proto.graph) | {node.name for node in proto.graph.node}
