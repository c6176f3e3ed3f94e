"""From evidence to a choice: the cheapest candidate that holds the objective, or the nearest one and the bound that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headway.records import Choice, Objective
from headway.search.evidence import Evidence

MEMORY_STEP_BYTES = 64_000_000
"""Resident memory is compared in steps of this size: smaller differences are the allocator's mood [B]."""


def order(evidence: Sequence[Evidence], objective: Objective) -> tuple[Evidence, ...]:
    """Candidates that hold the objective, best first (design, section 5, step 8).

    With a stated rate: fewest cores, then memory, then latency. Without: highest SLO capacity. Equals stand in the order of their
    names, so that the order of measuring decides nothing.
    """
    able = [e for e in evidence if shortfall(e, objective) is None]
    if objective.rate_per_s is None:
        return tuple(sorted(able, key=lambda e: (-_rate(e), str(e.candidate))))
    return tuple(sorted(able, key=lambda e: (e.cores, e.memory_bytes // MEMORY_STEP_BYTES, _latency_s(e), -_rate(e), str(e.candidate))))


def nearest(evidence: Sequence[Evidence], objective: Objective) -> tuple[Evidence, ...]:
    """All candidates, the one that comes nearest to the objective first."""
    return tuple(sorted(evidence, key=lambda e: (_distance(e, objective), str(e.candidate))))


def choose(evidence: Sequence[Evidence], objective: Objective) -> Choice:
    """The Choice: the first of ``order``, or the candidate that comes nearest with the bound that it fails and by how much."""
    able = order(evidence, objective)
    if able:
        return _won(able, objective)
    if not evidence:
        return Choice(
            met=False,
            candidate=None,
            reasons=("no candidate could be measured",),
            failing_bound="none",
            shortfall="no candidate could be measured",
        )
    near = nearest(evidence, objective)[0]
    bound, text = shortfall(near, objective) or ("", "")
    return Choice(
        met=False, candidate=near.candidate, reasons=(f"nearest is {near.candidate}: {text}",), latency_s=near.latency_s,
        rate_per_s=near.rate_per_s, quality=near.confirmed or near.quality, failing_bound=bound, shortfall=text,
    )  # fmt: skip


def shortfall(e: Evidence, objective: Objective) -> tuple[str, str] | None:
    """The first bound that a candidate fails and by how much, in one sentence; none when it holds them all."""
    return _quality_shortfall(e, objective) or _guard_shortfall(e) or _memory_shortfall(e, objective) or _speed_shortfall(e, objective)


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


def _won(able: Sequence[Evidence], objective: Objective) -> Choice:
    best = able[0]
    name = objective.percentile_name
    quality = best.confirmed or best.quality
    where = "over HTTP" if best.target == "http" else "in-process"
    within = f" with {name} within {objective.latency_s * 1e3:g} ms" if objective.latency_s is not None else ""
    reasons = [f"holds {_rate(best):.4g}/s{within}, measured {where}"]
    others = f"{len(able)} candidate{'s' if len(able) > 1 else ''} that hold{'' if len(able) > 1 else 's'} the objective"
    if objective.rate_per_s is not None:
        reasons.append(f"cheapest of {others}: {best.cores} core{'s' if best.cores > 1 else ''}, {name} {_latency_s(best) * 1e3:.3g} ms")
    else:
        reasons.append(f"highest rate of {others}")
    if quality is not None and quality.reason:
        reasons.append(quality.reason)
    return Choice(
        met=True, candidate=best.candidate, reasons=tuple(reasons), latency_s=best.latency_s, rate_per_s=best.rate_per_s, quality=quality
    )


def _rate(e: Evidence) -> float:
    return e.rate_per_s if e.rate_per_s is not None else 0.0


def _latency_s(e: Evidence) -> float:
    return e.latency_s if e.latency_s is not None else math.inf


def _distance(e: Evidence, objective: Objective) -> tuple[bool, bool, float]:
    """How far a candidate is from the objective: a broken bound of quality or memory weighs more than missing speed."""
    heavy = (_quality_shortfall(e, objective) or _memory_shortfall(e, objective)) is not None
    if _rate(e) > 0:
        return heavy, False, -_rate(e)
    return heavy, True, min(_latency_s(e), e.best_latency_s if e.best_latency_s is not None else math.inf)
