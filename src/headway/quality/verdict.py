"""Proven, held or violated, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.quality.evidence import Evidence
from headway.quality.metric import Metric
from headway.records import Calibration, Interval, Objective
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


def judge(
    metric: Metric, objective: Objective | None, overall: Evidence, groups: Mapping[str, Evidence], calibration: Calibration | None = None
) -> Verdict:
    """The verdict on the objective's ``drop``, ``group_drop`` and ``ece``.

    Overall, and for the rise of the calibration error: ``violated`` when the estimate is beyond the bound, ``proven`` when its whole
    interval is within, else ``held``. Groups: see ``judge_many``.
    """
    if objective is None:
        return Verdict("", "")
    parts = []
    if objective.drop is not None:
        parts.append(_overall(metric, objective.drop, overall))
    if objective.group_drop is not None:
        parts.append(judge_many(metric, objective.group_drop, groups, overall.drop.confidence, "group"))
    if objective.ece is not None and calibration is not None:
        parts.append(_calibration(objective.ece, calibration))
    return together(parts)


def together(parts: Sequence[Verdict]) -> Verdict:
    """The worst of several verdicts, with the reasons of all that are as bad."""
    for word in ("violated", "held", "proven"):
        reasons = [part.reason for part in parts if part.word == word]
        if reasons:
            return Verdict(word, "; ".join(reasons))
    return Verdict("", "")


def _overall(metric: Metric, bound: float, evidence: Evidence) -> Verdict:
    drop = evidence.drop
    found = (
        f"{metric.name} {moved(metric, drop.value)} on {evidence.n} rows "
        f"({drop.confidence:.0%} interval {drop.low * 100:.3g} to {amount(metric, drop.high)})"
    )
    return _by_estimate(found, drop, bound, amount(metric, bound))


def _calibration(bound: float, calibration: Calibration) -> Verdict:
    rise = calibration.rise
    way = "rose" if rise.value > 0 else "fell"
    found = (
        f"the calibration error {way} from {calibration.parent_value * 100:.3g} to {points(calibration.value)} on {calibration.n} rows "
        f"({rise.confidence:.0%} interval of the rise {rise.low * 100:.3g} to {points(rise.high)})"
    )
    return _by_estimate(found, rise, bound, points(bound))


def _by_estimate(found: str, moved_by: Interval, bound: float, allowed: str) -> Verdict:
    if moved_by.value > bound + _SLACK:
        return Verdict("violated", f"{found}, beyond the {allowed} allowed")
    if moved_by.high <= bound + _SLACK:
        return Verdict("proven", f"{found}, surely within the {allowed} allowed")
    return Verdict("held", f"{found}, within the {allowed} allowed, but more rows would be needed to prove it")


def judge_many(metric: Metric, bound: float, parts: Mapping[str, Evidence], confidence: float, noun: str) -> Verdict:
    """The verdict on one bound for many parts of the rows (groups), or for many versions of them (corruptions).

    Many comparisons find something by chance, and small groups have large estimates, so an estimate beyond the bound alone rejects
    nobody. ``violated`` when in some part of at least 5 rows, with Holm's correction over all parts at the intervals' confidence,

    (a) the drop is surely beyond the bound; or
    (b) the estimate is beyond the bound, the part is so large that the bound means at least ten net flips (rows >= 10 / bound, and at
        least 200), and there surely is a drop at all.

    So a variant that harms no part is called ``violated`` at most as often as the confidence leaves (5%), however many parts there are, and so
    is one that keeps the bound in parts too small for (b); in large parts the estimate decides, as it does overall. ``proven`` when every part's
    own interval is within the bound: all of them must be, so this needs no correction (intersection-union test, Berger 1982). Else
    ``held``; the reason names a part beyond the bound even then.
    """
    tested = {name: evidence for name, evidence in parts.items() if evidence.n >= FEWEST_ROWS}
    if not tested:
        return Verdict("held", f"no {noun} has the {FEWEST_ROWS} rows that a bound on {noun}s needs")
    beyond = holm([evidence.p_above(bound) for evidence in tested.values()], 1 - confidence)
    lost = holm([evidence.p_above(0.0) for evidence in tested.values()], 1 - confidence)
    trusted = max(TRUSTED_ROWS, TRUSTED_FLIPS / bound if bound > 0 else float("inf"))
    failed = [
        name
        for (name, evidence), surely, somewhat in zip(tested.items(), beyond, lost, strict=True)
        if evidence.drop.value > bound + _SLACK and (surely or (somewhat and evidence.n >= trusted))
    ]
    worst = max(failed or tested, key=lambda name: tested[name].drop.value)
    evidence, allowed = tested[worst], amount(metric, bound)
    found = f"in group {worst!r}" if noun == "group" else f"under {worst}"
    found = f"{found} {metric.name} {moved(metric, evidence.drop.value)} on {evidence.n} rows"
    if failed:
        more = f" (and beyond it in {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Verdict("violated", f"{found}, beyond the {allowed} allowed{more}")
    if evidence.drop.value > bound + _SLACK:
        noise = f"the noise of {len(tested)} small groups" if noun == "group" else f"the noise of so few rows and {len(tested)} {noun}s"
        return Verdict("held", f"{found}, beyond the {allowed} allowed but within {noise}")
    if all(evidence.drop.high <= bound + _SLACK for evidence in parts.values()):
        return Verdict("proven", f"every {noun} is surely within the {allowed} allowed")
    return Verdict("held", f"every {noun} is within the {allowed} allowed, but more rows would be needed to prove it")


def moved(metric: Metric, drop: float) -> str:
    """``lost 1.2 points``, ``gained 0.3 points`` or ``did not change``."""
    if abs(drop) < _SLACK:
        return "did not change"
    return f"{'lost' if drop > 0 else 'gained'} {amount(metric, abs(drop))}"


def amount(metric: Metric, drop: float) -> str:
    """A drop as people read it: percent of the parent's value for relative metrics, else points (hundredths)."""
    return f"{drop * 100:.3g}%" if metric.relative else points(drop)


def points(share: float) -> str:
    """A share in hundredths: ``1 point``, ``2.5 points``."""
    number = f"{share * 100:.3g}"
    return f"{number} point{'' if number == '1' else 's'}"
