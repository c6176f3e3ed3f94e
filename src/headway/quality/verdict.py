"""Proven, held or violated, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headway.quality.evidence import Evidence
from headway.quality.metric import Metric
from headway.records import Objective
from headway.stats import holm

FEWEST_ROWS = 5
TRUSTED_ROWS = 200
TRUSTED_FLIPS = 10
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word`` is proven, held, violated, or empty when nothing is bounded."""

    word: str
    reason: str


def judge(metric: Metric, objective: Objective | None, overall: Evidence, groups: Mapping[str, Evidence]) -> Verdict:
    """The verdict on the objective's ``drop`` and ``group_drop``.

    Overall: ``violated`` when the estimate of the drop is beyond the bound, ``proven`` when its whole interval is within, else ``held``.

    Groups are many and small, so an estimate beyond the bound alone rejects nobody. ``violated`` when
    (a) the drop of some group of at least 5 rows is surely beyond the bound: one-sided test, Holm's correction over all groups,
    at the interval's confidence; or (b) the estimate is beyond the bound in a group so large that the bound means at least ten
    net flips (rows >= 10 / bound, and at least 200). ``proven`` when every group's own interval is within the bound, else
    ``held``; the reason names a group beyond the bound even then.
    """
    if objective is None or (objective.drop is None and objective.group_drop is None):
        return Verdict("", "")
    parts = []
    if objective.drop is not None:
        parts.append(_overall(metric, objective.drop, overall))
    if objective.group_drop is not None:
        parts.append(_groups(metric, objective.group_drop, groups, overall.drop.confidence))
    for word in ("violated", "held"):
        reasons = [part.reason for part in parts if part.word == word]
        if reasons:
            return Verdict(word, "; ".join(reasons))
    return Verdict("proven", "; ".join(part.reason for part in parts))


def _overall(metric: Metric, bound: float, evidence: Evidence) -> Verdict:
    drop = evidence.drop
    found = (
        f"{metric.name} {moved(metric, drop.value)} on {evidence.n} rows "
        f"({drop.confidence:.0%} interval {drop.low * 100:.3g} to {amount(metric, drop.high)})"
    )
    if drop.value > bound + _SLACK:
        return Verdict("violated", f"{found}, beyond the {amount(metric, bound)} allowed")
    if drop.high <= bound + _SLACK:
        return Verdict("proven", f"{found}, surely within the {amount(metric, bound)} allowed")
    return Verdict("held", f"{found}, within the {amount(metric, bound)} allowed, but more rows would be needed to prove it")


def _groups(metric: Metric, bound: float, groups: Mapping[str, Evidence], confidence: float) -> Verdict:
    tested = {name: evidence for name, evidence in groups.items() if evidence.n >= FEWEST_ROWS}
    if not tested:
        return Verdict("held", f"no group has the {FEWEST_ROWS} rows that a bound on groups needs")
    rejected = holm([evidence.p_above(bound) for evidence in tested.values()], 1 - confidence)
    trusted = max(TRUSTED_ROWS, TRUSTED_FLIPS / bound if bound > 0 else float("inf"))
    failed = [
        name
        for (name, evidence), sure in zip(tested.items(), rejected, strict=True)
        if evidence.drop.value > bound + _SLACK and (sure or evidence.n >= trusted)
    ]
    worst = max(failed or tested, key=lambda name: tested[name].drop.value)
    evidence = tested[worst]
    found = f"in group {worst!r} {metric.name} {moved(metric, evidence.drop.value)} on {evidence.n} rows"
    if failed:
        more = f" (and beyond it in {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Verdict("violated", f"{found}, beyond the {amount(metric, bound)} allowed{more}")
    if evidence.drop.value > bound + _SLACK:
        return Verdict("held", f"{found}, beyond the {amount(metric, bound)} allowed but within the noise of {len(tested)} small groups")
    if all(evidence.drop.high <= bound + _SLACK for evidence in groups.values()):
        return Verdict("proven", f"every group is surely within the {amount(metric, bound)} allowed")
    return Verdict("held", f"every group is within the {amount(metric, bound)} allowed, but more rows would be needed to prove it")


def moved(metric: Metric, drop: float) -> str:
    """``lost 1.2 points``, ``gained 0.3 points`` or ``did not change``."""
    if abs(drop) < _SLACK:
        return "did not change"
    return f"{'lost' if drop > 0 else 'gained'} {amount(metric, abs(drop))}"


def amount(metric: Metric, drop: float) -> str:
    """A drop as people read it: percent of the parent's value for relative metrics, else points (hundredths)."""
    number = f"{drop * 100:.3g}"
    return f"{number}%" if metric.relative else f"{number} point{'' if number == '1' else 's'}"
