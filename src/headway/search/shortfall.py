"""Which bounds of the objective a candidate fails, and by how much, in sentences."""

from __future__ import annotations

from headway.records import Objective
from headway.search.evidence import Evidence


def shortfall(e: Evidence, objective: Objective) -> tuple[str, str] | None:
    """The first bound that a candidate fails and by how much, in one sentence; none when it holds them all."""
    return next(iter(shortfalls(e, objective)), None)


def shortfalls(e: Evidence, objective: Objective) -> tuple[tuple[str, str], ...]:
    """Every bound that a candidate fails and by how much: those on quality first, then the guards', the memory's and the speed's."""
    found = (_quality_shortfall(e, objective), _guard_shortfall(e), _memory_shortfall(e, objective), _speed_shortfall(e, objective))
    return tuple(one for one in found if one is not None)


def _quality_shortfall(e: Evidence, objective: Objective) -> tuple[str, str] | None:
    quality = e.confirmed or e.quality
    if quality is None:
        return "drop", "its quality was not measured"
    if quality.verdict != "violated":
        return None
    if objective.ece is not None and quality.calibration is not None and quality.calibration.rise.value > objective.ece:
        return "ece", quality.reason
    overall = objective.drop is not None and quality.drop.value > objective.drop
    return "drop" if overall or objective.group_drop is None else "group_drop", quality.reason


def _guard_shortfall(e: Evidence) -> tuple[str, str] | None:
    return next(((f"{result.guard}_drop", result.reason) for result in e.guards if result.verdict == "violated"), None)


def _memory_shortfall(e: Evidence, objective: Objective) -> tuple[str, str] | None:
    if objective.memory_bytes is None or e.memory_bytes <= objective.memory_bytes:
        return None
    return "memory", f"uses {e.memory_bytes / 1e6:.0f} MB, the bound is {objective.memory_bytes / 1e6:.0f} MB"


def _speed_shortfall(e: Evidence, objective: Objective) -> tuple[str, str] | None:
    if e.rate_per_s is None:
        return "rate", "was not load-tested"
    name, bound_s = objective.percentile_name, objective.latency_s
    if e.rate_per_s <= 0:
        return (
            (name, _never(e, name, bound_s))
            if bound_s is not None
            else ("rate", "held no rate that was tried: requests were lost or refused")
        )
    if objective.rate_per_s is None:
        return None
    if e.rate_per_s < objective.rate_per_s:
        within = f" with {name} within {bound_s * 1e3:g} ms" if bound_s is not None else ""
        short = 1 - e.rate_per_s / objective.rate_per_s
        return "rate", f"holds {e.rate_per_s:.4g}/s{within}, the bound is {objective.rate_per_s:g}/s ({short:.0%} short)"
    if bound_s is not None and e.latency_s is not None and e.latency_s > bound_s:
        return name, _late(name, e.latency_s, e.at_rate_per_s, bound_s)
    return None


def _never(e: Evidence, name: str, bound_s: float) -> str:
    """How far a candidate is from a latency bound that it held at no rate."""
    if e.latency_s is not None and e.latency_s > bound_s:
        return _late(name, e.latency_s, e.at_rate_per_s, bound_s)
    if e.best_latency_s is not None and e.best_latency_s > bound_s:
        return f"{_late(name, e.best_latency_s, e.best_at_per_s, bound_s)}, and no better at any rate tried"
    return f"more requests were late, lost or refused than {name} within {bound_s * 1e3:g} ms allows, at every rate tried"


def _late(name: str, latency_s: float, at_per_s: float | None, bound_s: float) -> str:
    at = f" at {at_per_s:.3g}/s" if at_per_s is not None else ""
    return f"{name} is {latency_s * 1e3:.3g} ms{at}, {latency_s / bound_s:.1f} times the bound of {bound_s * 1e3:g} ms"
