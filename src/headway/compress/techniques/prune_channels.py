"""Cut whole channels, heads and hidden units: coupled ones together, as many as a budget of time asks (HALP, arXiv 2110.10811, sec. 3).

The result is a smaller dense graph. ``keep`` is the share of the layers' time (by a measured table) or multiply-adds that stays.
"""

from __future__ import annotations

from headway.compress import importances
from headway.compress.context import Context
from headway.compress.coupling import Coupling, couple, cut
from headway.compress.graph import why_not_float
from headway.compress.layer_costs import Costs
from headway.compress.repair import repaired
from headway.compress.settings import did_you_mean, read_settings
from headway.compress.techniques.contract import Range, Space
from headway.compress.widths import budgeted, uniform
from headway.discovery import find, names
from headway.model import Model
from headway.records import ConfigError, MissingPackage, Setting, Unsupported

ORDER = 20
HARSHNESS = 5
FOLLOWS: tuple[str, ...] = ()
LARGEST_ERROR = 2.0
DEFAULTS: dict[str, Setting] = {
    "keep": 0.75,
    "importance": "activation",
    "by": "mac",
    "round_to": 8,
    "floor": 0.2,
    "rounds": 1,
    "repair": True,
}
CHOICES: dict[str, tuple[Setting, ...]] = {"by": ("latency", "mac", "uniform")}
KEEP = Range(0.3, 0.95)


def ladder(model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
    """Three quarters, a half, a third; by time where a table of this model is there."""
    if refuse(model, context):
        return ()
    by = "latency" if _served(model, context) else "mac"
    more: dict[str, Setting] = {} if context.rows else {"importance": "magnitude", "repair": False}
    return tuple({"keep": keep, "by": by, **more} for keep in (0.75, 0.5, 0.35))


def space(model: Model, context: Context) -> Space:
    """Any share from a little under the harshest rung to nearly all, counted as the ladder counts."""
    return {name: KEEP if name == "keep" else (value,) for rung in ladder(model, context)[:1] for name, value in rung.items()}


def refuse(model: Model, context: Context) -> str | None:
    """Needs a float model with channels that nothing holds."""
    proto = model.to_proto()
    reason = why_not_float(proto, "prune before quantizing")
    if reason:
        return f"prune_channels: {reason}"
    try:
        coupling = couple(proto, context.samples)
    except Unsupported as error:
        return str(error).rstrip(".").replace("\n", " ").strip()
    if not any(len(family.units) > 1 for family in coupling.families):
        why = next(iter(coupling.pinned.values()), "no layer makes more than one channel")
        return f"no channels can be cut: {why}"
    return None


def apply(model: Model, settings: dict[str, Setting], context: Context) -> Model:
    """The smaller model.

    Settings: ``keep``; ``by`` (``mac``; ``latency``: the table's times; ``uniform``: the same share of every family); ``importance``;
    ``round_to``, widths are multiples of it where a family is wide enough; ``floor``, the least share of a family that stays in one round;
    ``rounds``; ``repair``.

    Raises:
        ConfigError: a setting is not known or out of range.
        Unsupported: nothing can be cut, the importance needs samples and there are none, or by ``latency`` the table does not know a layer.
    """
    chosen = read_settings("prune_channels", settings, DEFAULTS, CHOICES)
    keep, round_to, rounds, floor = float(chosen["keep"]), int(chosen["round_to"]), int(chosen["rounds"]), float(chosen["floor"])
    if not (0 < keep < 1 and 0 <= floor < 1 and round_to >= 1 and rounds >= 1):
        raise ConfigError(
            "prune_channels: keep must be between 0 and 1, floor too or 0, round_to and rounds at least 1, "
            f"got {keep}, {floor}, {round_to}, {rounds}"
        )
    reason = refuse(model, context)
    if reason:
        raise Unsupported(reason)
    for _ in range(rounds):
        model = _once(model, keep ** (1 / rounds), chosen, context)
    return model


def _once(model: Model, keep: float, chosen: dict[str, Setting], context: Context) -> Model:
    coupling = couple(model.to_proto(), context.samples)
    scores = _scores(coupling, str(chosen["importance"]), context)
    round_to, floor = int(chosen["round_to"]), float(chosen["floor"])
    if chosen["by"] == "uniform":
        gone = uniform(coupling, scores, keep, round_to, floor)
    else:
        gone = budgeted(coupling, _costs(coupling, str(chosen["by"]), context), scores, keep, round_to, floor)
    values = repaired(coupling, gone, context.samples) if chosen["repair"] and context.rows else {}
    return Model.from_proto(cut(coupling, gone, values), model.name, model.origin)


def _costs(coupling: Coupling, by: str, context: Context) -> Costs:
    if by == "latency" and context.latency is None:
        raise Unsupported("prune_channels: by 'latency' needs measured times of the layers, got none; use by 'mac'")
    return Costs(coupling, context.latency if by == "latency" else None)


def _served(model: Model, context: Context) -> bool:
    """Whether the table knows every layer of this model at its width."""
    if context.latency is None:
        return False
    try:
        Costs(couple(model.to_proto(), context.samples), context.latency)
    except Unsupported:
        return False
    return True


def _scores(coupling: Coupling, name: str, context: Context) -> dict[int, float]:
    found = find(importances, name)
    if name in found.missing:
        raise MissingPackage(f"importance {name!r} {found.missing[name]}")
    if name not in found.present:
        raise ConfigError(f"prune_channels: importance must be known, got {name!r}; {did_you_mean(name, names(importances))}")
    module = found.present[name]
    if module.NEEDS_SAMPLES and not context.rows:
        raise Unsupported(f"importance {name!r} needs calibration samples, got none; use importance 'magnitude'")
    scores: dict[int, float] = module.score(coupling, context)
    return scores
