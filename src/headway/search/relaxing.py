"""The nearest objectives that hold, when the one that was asked for does not: one bound relaxed at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from headway.records import Candidate, Feasible, Objective, Prediction
from headway.search.evidence import Evidence
from headway.search.shortfall import shortfalls

DIGITS = 2
"""A relaxed bound is rounded to this many digits, away from the promise: what was measured once is not held to the last digit."""
LARGEST_DROP = 0.9
FARTHEST = 10.0
"""A bound that must move by a larger factor than this is not worth proposing."""


def relaxed(evidence: Sequence[Evidence], objective: Objective, expected: Sequence[Prediction] = ()) -> tuple[Feasible, ...]:
    """Objectives with one bound relaxed just so far that some candidate holds it, the least relaxed first; at most one a bound.

    How far a bound moves is compared as a factor: 20 ms to 30 ms is as far as 300/s to 200/s. A candidate that fails several bounds proposes
    nothing. At which latency a rate would hold is only predicted: a server that refuses what would be late never shows it.
    """
    found: dict[str, tuple[float, str, Feasible]] = {}
    for bound, factor, proposal in _proposals(evidence, objective, expected):
        standing = (factor, str(proposal.candidate), proposal)
        if factor <= FARTHEST and (bound not in found or standing[:2] < found[bound][:2]):
            found[bound] = standing
    return tuple(proposal for *_, proposal in sorted(found.values(), key=lambda standing: (standing[0], str(standing[2].objective))))


def _proposals(evidence: Sequence[Evidence], objective: Objective, expected: Sequence[Prediction]) -> Iterator[tuple[str, float, Feasible]]:
    """By bound: how far it must move for some candidate, and the objective then."""
    sound = set()
    for e in evidence:
        failed = [bound for bound, _ in shortfalls(e, objective)]
        if not set(failed) - {"rate", objective.percentile_name}:
            sound.add(e.candidate)
        if len(failed) == 1 and (moved := _moved(e, objective, failed[0])) is not None:
            yield failed[0], moved[0], Feasible(objective=moved[1], candidate=e.candidate, measured=True)
    yield from _by_prediction(sound, objective, expected)


def _moved(e: Evidence, objective: Objective, bound: str) -> tuple[float, Objective] | None:
    """How far a bound must move for this candidate, and the objective then; none when its measurements do not tell."""
    quality = e.confirmed or e.quality
    if bound == "rate" and objective.rate_per_s is not None and e.rate_per_s is not None and e.rate_per_s > objective.rate_per_s / FARTHEST:
        rate_per_s = rounded(e.rate_per_s, up=False)
        return objective.rate_per_s / rate_per_s, msgspec.structs.replace(objective, rate_per_s=rate_per_s)
    if bound == objective.percentile_name and objective.latency_s is not None and e.rate_per_s and e.latency_s is not None:
        latency_s = rounded(e.latency_s, up=True)
        return latency_s / objective.latency_s, msgspec.structs.replace(objective, latency_s=latency_s)
    if bound == "memory" and objective.memory_bytes is not None:
        memory_bytes = round(rounded(e.memory_bytes, up=True))
        return memory_bytes / objective.memory_bytes, msgspec.structs.replace(objective, memory_bytes=memory_bytes)
    if bound == "drop" and objective.drop and quality is not None and 0 < quality.drop.value < LARGEST_DROP:
        drop = rounded(quality.drop.value, up=True)
        return drop / objective.drop, msgspec.structs.replace(objective, drop=drop)
    return None


def _by_prediction(sound: set[Candidate], objective: Objective, expected: Sequence[Prediction]) -> Iterator[tuple[str, float, Feasible]]:
    """The latency that a candidate without other faults is predicted to have at the stated rate."""
    bound_s, rate_per_s = objective.latency_s, objective.rate_per_s
    if bound_s is None or rate_per_s is None:
        return
    for told in expected:
        if told.candidate in sound and told.rate_per_s >= rate_per_s and bound_s < told.latency_s < math.inf:
            latency_s = rounded(told.latency_s, up=True)
            proposal = msgspec.structs.replace(objective, latency_s=latency_s)
            yield objective.percentile_name, latency_s / bound_s, Feasible(objective=proposal, candidate=told.candidate, measured=False)


def rounded(value: float, *, up: bool) -> float:
    """To two digits, up or down; the value is above zero."""
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - DIGITS)
    return float(f"{(math.ceil if up else math.floor)(round(value / unit, 6)) * unit:.{DIGITS}g}")
