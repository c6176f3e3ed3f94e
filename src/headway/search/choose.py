"""From evidence to a choice: the cheapest candidate that holds the objective, or the nearest one and the bound that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headway.records import Choice, Objective, Prediction
from headway.search.evidence import Evidence
from headway.search.margin import indistinct
from headway.search.relaxing import relaxed
from headway.search.shortfall import shortfall, shortfalls

MEMORY_STEP_BYTES = 64_000_000
"""Resident memory is compared in steps of this size: smaller differences are the allocator's mood [B]."""
HEAVY = frozenset({"drop", "group_drop", "ece", "memory"})
"""Bounds that no faster machine mends: who fails one of them is farther from the objective than who is too slow."""


def order(evidence: Sequence[Evidence], objective: Objective) -> tuple[Evidence, ...]:
    """Candidates that hold the objective, best first (design, section 5, step 8).

    By what it prefers; of equals by cores, then memory, then latency, then rate. Equals in all stand in the order of their names, so that the
    order of measuring decides nothing. Where only the rate is preferred, it is all that counts.
    """
    able = [e for e in evidence if shortfall(e, objective) is None]
    return tuple(sorted(able, key=lambda e: (*_standing(e, objective.preference), str(e.candidate))))


def _standing(e: Evidence, preference: str) -> tuple[float, ...]:
    """The preferred figure, then the others; less is better."""
    figures = {"cores": e.cores, "memory": e.memory_bytes // MEMORY_STEP_BYTES, "latency": _latency_s(e), "rate": -_rate(e)}
    if preference == "rate":
        return (figures["rate"],)
    return (figures[preference], *figures.values())


def nearest(evidence: Sequence[Evidence], objective: Objective) -> tuple[Evidence, ...]:
    """All candidates, the one that comes nearest to the objective first."""
    return tuple(sorted(evidence, key=lambda e: (_distance(e, objective), str(e.candidate))))


def choose(evidence: Sequence[Evidence], objective: Objective, expected: Sequence[Prediction] = ()) -> Choice:
    """The Choice: the first of ``order``; or the candidate that comes nearest, the bound that it fails and by how much, and what would hold.

    Args:
        expected: predictions, which tell at which latency a rate would hold where no run could.
    """
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
        feasible=relaxed(evidence, objective, expected),
    )  # fmt: skip


def _won(able: Sequence[Evidence], objective: Objective) -> Choice:
    best = able[0]
    name = objective.percentile_name
    quality = best.confirmed or best.quality
    where = "over HTTP" if best.target == "http" else "in-process"
    within = f" with {name} within {objective.latency_s * 1e3:g} ms" if objective.latency_s is not None else ""
    reasons = [f"holds {_rate(best):.4g}/s{within}, measured {where}"]
    others = f"{len(able)} candidate{'s' if len(able) > 1 else ''} that hold{'' if len(able) > 1 else 's'} the objective"
    if objective.preference == "rate":
        reasons.append(f"highest rate of {others}")
        if len(able) > 1 and indistinct(best, able[1]):
            reasons.append(f"but not surely more than {able[1].candidate}: their rounds differ as much as they do")
    else:
        first = {"cores": "cheapest", "memory": "smallest", "latency": "fastest to answer"}[objective.preference]
        memory = f", {best.memory_bytes / 1e6:.0f} MB" if objective.preference == "memory" else ""
        reasons.append(
            f"{first} of {others}: {best.cores} core{'s' if best.cores > 1 else ''}{memory}, {name} {_latency_s(best) * 1e3:.3g} ms"
        )
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
    heavy = any(bound in HEAVY for bound, _ in shortfalls(e, objective))
    if _rate(e) > 0:
        return heavy, False, -_rate(e)
    return heavy, True, min(_latency_s(e), e.best_latency_s if e.best_latency_s is not None else math.inf)
