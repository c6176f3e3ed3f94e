"""A Run as rows for charts: plain dictionaries of numbers and strings, latencies already in milliseconds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from headway.records import Candidate, LoadPoint, LoadRun, Percentile, Quality, ServiceCurve
from headway.report.fold import ROLES, Run
from headway.report.wording import drop_words, interval, ms, plan_words, rate

Row = dict[str, object]
IN_PROCESS, OVER_HTTP, PREDICTED = "measured in process", "measured over HTTP", "predicted"
ROLE_NAMES = {"naive": "naive", "uncompressed": "best uncompressed", "chosen": "chosen"}
_MOST_PREDICTED = 200


@dataclass(frozen=True)
class Panel:
    """One small chart of several: its title, a line below it, and its rows."""

    title: str
    note: str
    rows: tuple[Row, ...]


def frontier_rows(run: Run) -> tuple[Row, ...]:
    """One row for each candidate that has both a rate and a latency: measured in process, over HTTP by role, and predicted."""
    measured = [row for candidate in run.loaded() if (row := _measured(run, candidate))]
    named = {row["candidate"] for row in measured}
    roles = [row for role in ROLES if (row := _role(run, role))]
    predicted = sorted((p for p in run.predictions if str(p.candidate) not in named), key=lambda p: -p.capacity_per_s)
    rows = [
        _point(run, p.candidate, PREDICTED, p.capacity_per_s, p.latency_s, at=rate(p.rate_per_s), reach=rate(p.capacity_per_s))
        for p in predicted[:_MOST_PREDICTED]
    ]
    return tuple(row for row in (*rows, *measured, *roles) if _drawable(row))


def curve_panels(run: Run) -> tuple[Panel, ...]:
    """One panel for each runtime and split; a row for each variant and batch size, with the raw spread and the fitted time."""
    panels: dict[tuple[str, str, int, int], list[ServiceCurve]] = {}
    for curve in run.curves:
        panels.setdefault((curve.runtime, curve.device, curve.instances, curve.threads), []).append(curve)
    found = []
    for (runtime, device, instances, threads), curves in sorted(panels.items()):
        rows = tuple(row for curve in curves for row in _curve_rows(curve))
        shaky = ", ".join(curve.variant for curve in curves if curve.unstable)
        title = f"{runtime} · {instances}×{threads} thread{'s' if threads != 1 else ''}"  # noqa: RUF001
        found.append(Panel(title if device == "cpu" else f"{title} · {device}", f"unstable: {shaky}" if shaky else "", rows))
    return tuple(found)


def load_panels(run: Run) -> tuple[Panel, ...]:
    """One panel for each loaded candidate, the chosen one first; a row for each rate and percentile."""
    found = []
    for candidate in run.loaded():
        loads = run.loads_of(candidate)
        if rows := tuple(row for load in loads for row in _load_rows(load)):
            found.append(Panel(candidate.variant, plan_words(candidate.plan), rows))
    return tuple(found)


def round_rows(run: Run) -> tuple[Row, ...]:
    """The compared percentile of each role in each round over HTTP."""
    if run.comparison is None:
        return ()
    q = run.objective.percentile
    rows: list[Row] = []
    for role in sorted(run.comparison.points, key=_role_order):
        for index, point in enumerate(run.comparison.points[role]):
            if point.percentiles:
                found = point.percentile(q)
                rows.append({"role": ROLE_NAMES.get(role, role), "round": str(index + 1), **_spread(found), "verdict": point.verdict})
    return tuple(row for row in rows if _drawable(row))


def parity_rows(run: Run) -> tuple[Row, ...]:
    """Predicted against measured capacity, and latency at the rate of the prediction, for candidates that have both."""
    rows: list[Row] = []
    for prediction in run.predictions:
        capacity = run.capacity_of(prediction.candidate)
        load = _nearest([x for x in run.loads_of(prediction.candidate) if x.point.percentiles], prediction.rate_per_s)
        close = (
            load is not None and abs(load.point.offered_rate_per_s / prediction.rate_per_s - 1) < 0.02 if prediction.rate_per_s else False
        )
        measured_s = load.point.percentile(prediction.percentile).latency_s if load and close else math.nan
        if capacity is None and not close:
            continue
        rows.append(
            {
                "candidate": str(prediction.candidate),
                "variant": prediction.candidate.variant,
                "plan": plan_words(prediction.candidate.plan),
                "predicted_per_s": prediction.capacity_per_s,
                "measured_per_s": capacity.rate_per_s if capacity else math.nan,
                "low_per_s": capacity.low_per_s if capacity else math.nan,
                "high_per_s": capacity.high_per_s if capacity else math.nan,
                "open_above": capacity is not None and capacity.open_above,
                "predicted_ms": prediction.latency_s * 1e3,
                "measured_ms": measured_s * 1e3,
                "at_per_s": prediction.rate_per_s,
                "percentile": f"p{prediction.percentile * 100:g}",
            }
        )
    return tuple(rows)


def _measured(run: Run, candidate: Candidate) -> Row | None:
    """A candidate measured in process: as the frontier states it, else its capacity and its latency near the stated rate."""
    stated = next((p for p in run.frontier.points if p.candidate == candidate and p.measured), None) if run.frontier else None
    capacity, loads = run.capacity_of(candidate), [load for load in run.loads_of(candidate) if load.point.percentiles]
    held = [load for load in loads if load.point.verdict == "held"]
    reached = max((load.point.offered_rate_per_s for load in held), default=math.nan)
    load = _nearest(held or loads, run.objective.rate_per_s or 0.0)
    latency_s = load.point.percentile(run.objective.percentile).latency_s if load else math.nan
    row = _point(
        run,
        candidate,
        IN_PROCESS,
        stated.rate_per_s if stated else capacity.rate_per_s if capacity else reached,
        stated.latency_s if stated else latency_s,
        at="" if stated or load is None else rate(load.point.offered_rate_per_s),
        reach=f"{rate(capacity.rate_per_s)} (held {rate(capacity.low_per_s)}, tried {rate(capacity.high_per_s)})"
        if capacity
        else rate(reached),
    )
    row["chosen"] = bool(run.choice and run.choice.candidate == candidate)
    row["frontier"] = stated is not None
    return row


def _role(run: Run, role: str) -> Row | None:
    """A role of the comparison over HTTP: its capacity, and the median over rounds of its percentile at the compared rate."""
    candidate, comparison = run.candidate_of(role), run.comparison
    points: tuple[LoadPoint, ...] = comparison.points.get(role, ()) if comparison else ()
    if not points and candidate:
        points = tuple(load.point for load in run.loads_of(candidate, role))
    points = tuple(point for point in points if point.percentiles)
    held = comparison.capacity_per_s.get(role) if comparison else None
    capacity = run.capacity_of(candidate, role) if candidate else None
    per_s = held.value if held else capacity.rate_per_s if capacity else math.nan
    if not points or math.isnan(per_s):
        return None
    latency_s = statistics.median(point.percentile(run.objective.percentile).latency_s for point in points)
    at = comparison.rate_per_s if comparison else points[0].offered_rate_per_s
    row = _point(run, candidate or role, OVER_HTTP, per_s, latency_s, at=rate(at), reach=f"{interval(held)}/s" if held else rate(per_s))
    return {**row, "label": ROLE_NAMES[role]}


def _point(run: Run, who: Candidate | str, kind: str, rate_per_s: float, latency_s: float, *, at: str, reach: str) -> Row:
    variant, plan, quality = (who, "", None) if isinstance(who, str) else (who.variant, plan_words(who.plan), run.quality_of(who))
    name = run.objective.percentile_name
    return {
        "candidate": str(who),
        "variant": variant,
        "plan": plan,
        "kind": kind,
        "label": "",
        "rate_per_s": rate_per_s,
        "latency_ms": latency_s * 1e3,
        "drop": quality.drop.value if quality else None,
        "rate": reach,
        "latency": f"{name} {ms(latency_s)}" + (f" at {at}" if at else ""),
        "quality": _drops(quality) if quality else "not scored",
        "chosen": False,
        "frontier": False,
    }


def _drops(quality: Quality) -> str:
    """The drop; of several tasks, each with the name of its metric."""
    return ", ".join(f"{task.metric} {drop_words(task)}" for task in quality.by_task) or drop_words(quality)


def _curve_rows(curve: ServiceCurve) -> list[Row]:
    rows: list[Row] = []
    for timing in curve.timings:
        ordered = sorted(timing.service_s)
        quartile = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else [ordered[0]] * 3
        rows.append(
            {
                "variant": curve.variant,
                "batch": timing.batch,
                "median_ms": timing.median_s * 1e3,
                "low_ms": ordered[0] * 1e3,
                "high_ms": ordered[-1] * 1e3,
                "q1_ms": quartile[0] * 1e3,
                "q3_ms": quartile[2] * 1e3,
                "fitted_ms": (curve.tau0_s + curve.alpha_s * timing.batch) * 1e3,
                "samples": len(ordered),
                "capacity": rate(curve.capacity_per_s()),
                "median": ms(timing.median_s),
            }
        )
    return rows


def _load_rows(load: LoadRun) -> list[Row]:
    point = load.point
    return [
        {"rate_per_s": point.offered_rate_per_s, "percentile": f"p{p.q * 100:g}", **_spread(p), "verdict": point.verdict}
        for p in point.percentiles
        if math.isfinite(p.latency_s) and p.latency_s > 0
    ]


def _spread(found: Percentile) -> Row:
    """A percentile with its interval; an end that is not finite falls back to the value, as a picture has no infinity."""
    value = found.latency_s * 1e3
    low, high = (x * 1e3 if math.isfinite(x) and x > 0 else value for x in (found.low_s, found.high_s))
    words = f"{ms(found.latency_s)} [{ms(found.low_s)}, {ms(found.high_s)}]"
    return {"latency_ms": value, "low_ms": low, "high_ms": high, "latency": words}


def _nearest(loads: list[LoadRun], rate_per_s: float) -> LoadRun | None:
    return min(loads, key=lambda load: abs(load.point.offered_rate_per_s - rate_per_s), default=None)


def _role_order(role: str) -> int:
    return ROLES.index(role) if role in ROLES else len(ROLES)


def _drawable(row: Row) -> bool:
    """Whether a row can stand on logarithmic axes."""
    values = [row[key] for key in ("rate_per_s", "latency_ms") if key in row]
    return all(isinstance(value, (int, float)) and math.isfinite(value) and value > 0 for value in values)
