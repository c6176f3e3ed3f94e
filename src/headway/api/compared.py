"""The comparison that a run prints: the chosen deployment against the naive one and against the best without compression."""

from __future__ import annotations

from collections.abc import Sequence

from headway.api.run import Run
from headway.records import Candidate, Capacity, Comparison, Interval, LoadPoint, LoadRun
from headway.search import NAIVE
from headway.stats import Estimate, ratio_interval

WIDE = 1.5
"""An interval whose ends differ by more than this factor is called unstable."""


def compare_roles(run: Run, chosen: Candidate, plain: Candidate | None, naive: Candidate) -> Comparison:
    """Ratios with intervals over rounds, from the records of the contest; what is missing is said in the notes."""
    who = {"chosen": (chosen, False), NAIVE: (naive, True)}
    notes: list[str] = []
    if plain == chosen:
        notes.append("the chosen deployment is itself the best without compression: here the gain is serving alone")
    elif plain is None:
        notes.append("the best deployment without compression was not measured over HTTP")
    else:
        who["uncompressed"] = (plain, False)
    rates = {role: capacities(run, candidate, is_naive) for role, (candidate, is_naive) in who.items()}
    late = {role: latencies(run, candidate, is_naive) for role, (candidate, is_naive) in who.items()}
    points = {role: _points(run, candidate, is_naive) for role, (candidate, is_naive) in who.items()}
    capacity_ratio: dict[str, Interval] = {}
    latency_ratio: dict[str, Interval] = {}
    for role in who:
        if role == "chosen":
            continue
        if not rates[role]:
            notes.append(f"the {role} deployment was not measured over HTTP")
            continue
        _ratio(capacity_ratio, notes, role, "capacity", rates["chosen"], rates[role])
        _ratio(latency_ratio, notes, role, run.objective.percentile_name, late[role], late["chosen"])
        if points[role] and max(rates[role].values()) < 0.95 * next(iter(points[role].values())).offered_rate_per_s:
            notes.append(f"the {role} deployment cannot hold the rate of comparison: its latency there grows with the length of the run")
    offered = [point.offered_rate_per_s for point in points["chosen"].values()]
    return Comparison(
        rate_per_s=offered[0] if offered else 0.0, points={role: tuple(by.values()) for role, by in points.items() if by},
        capacity_per_s={role: _spread(list(by.values())) for role, by in rates.items() if by}, capacity_ratio=capacity_ratio,
        latency_ratio=latency_ratio, notes=tuple(notes),
    )  # fmt: skip


def capacities(run: Run, candidate: Candidate, naive: bool) -> dict[int, float]:
    """SLO capacity over HTTP by round [1/s]."""
    return {
        c.round: c.rate_per_s
        for c in run.journal.of(Capacity)
        if c.target == "http" and c.candidate == candidate and (c.role == NAIVE) == naive
    }


def latencies(run: Run, candidate: Candidate, naive: bool) -> dict[int, float]:
    """The objective's percentile at the common rate over HTTP, by round [s]."""
    return {number: point.percentile(run.objective.percentile).latency_s for number, point in _points(run, candidate, naive).items()}


def _points(run: Run, candidate: Candidate, naive: bool) -> dict[int, LoadPoint]:
    lines = [
        line for line in run.journal.of(LoadRun) if line.purpose == "at-rate" and line.point.target == "http" and line.point.percentiles
    ]
    return {line.round: line.point for line in lines if line.candidate == candidate and (line.role == NAIVE) == naive}


def _ratio(into: dict[str, Interval], notes: list[str], role: str, what: str, over: dict[int, float], under: dict[int, float]) -> None:
    estimate, rounds = _estimate(over, under)
    if estimate is None:
        notes.append(f"no {what} ratio against the {role} deployment: it held no rate within the bound")
        return
    into[role] = Interval(**estimate._asdict())
    if rounds == 1:
        notes.append(f"the {what} ratio against the {role} deployment comes from one round and has no interval")
    elif estimate.high > WIDE * estimate.low:
        notes.append(f"unstable: the {what} ratio against the {role} deployment varies from round to round; run again on a quieter machine")


def _estimate(over: dict[int, float], under: dict[int, float]) -> tuple[Estimate | None, int]:
    """The ratio over the rounds in which both sides held something, and how many those were."""
    rounds = [number for number in over if number in under and over[number] > 0 and under[number] > 0]
    return (ratio_interval([over[n] for n in rounds], [under[n] for n in rounds]) if rounds else None), len(rounds)


def unstable(over: dict[int, float], under: dict[int, float]) -> bool:
    """Whether the interval of a ratio over rounds is too wide to act on."""
    estimate, _ = _estimate(over, under)
    return estimate is not None and estimate.high > WIDE * estimate.low


def _spread(values: Sequence[float]) -> Interval:
    """Median over rounds with the smallest and the largest: too few rounds for a narrower claim."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Interval(value=median, low=ordered[0], high=ordered[-1], confidence=1 - 2 * 0.5 ** len(ordered))
