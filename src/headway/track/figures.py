"""Numbers and sentences of a record, named for a tracker. This file knows records and no tracker."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from headway.records import (
    Capacity,
    Choice,
    Comparison,
    Failure,
    LoadRun,
    Prediction,
    Quality,
    Record,
    Rejection,
    RunStarted,
    ServiceCurve,
    StageTime,
    Variant,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one series.

    Attributes:
        series: what was measured, slashes make groups; ``series`` and ``name`` together are unique within a run.
        name: the quantity with its unit (``p99_s``).
        value: finite.
        axis: what ``step`` counts (``batch``, ``offered_rate_per_s``, ``round``); empty where the series is one number.
        step: where on that axis the number stands.
    """

    series: str
    name: str
    value: float
    axis: str = ""
    step: float = 0.0

    @property
    def tag(self) -> str:
        """``series/name``."""
        return f"{self.series}/{self.name}"


def figures(record: Record) -> tuple[Figure, ...]:
    """The numbers of a record worth a curve or a column; none for records that hold only words."""
    found: list[Figure] = []
    match record:
        case Variant():
            pairs = {
                "parameters": record.parameters,
                "flop": record.flop,
                "weight_bytes": record.weight_bytes,
                "file_bytes": record.file_bytes,
            }
            found = [Figure(f"variant/{_plain(record.name)}", name, float(value)) for name, value in pairs.items()]
        case Quality():
            found = _quality(record)
        case ServiceCurve():
            series = f"service/{_plain(record.variant)}/{_plain(record.runtime)}_{record.instances}x{record.threads}t"
            found = [Figure(series, "median_s", timing.median_s, "batch", timing.batch) for timing in record.timings]
        case Prediction():
            series = f"predicted/{_plain(str(record.candidate))}"
            found = [
                Figure(series, "capacity_per_s", record.capacity_per_s),
                Figure(series, f"p{record.percentile * 100:g}_s", record.latency_s),
            ]
        case Capacity():
            found = [Figure(f"capacity/{record.role}/{record.target}/{_plain(str(record.candidate))}", "rate_per_s", record.rate_per_s)]
        case LoadRun():
            found = _load(record)
        case Comparison():
            found = _comparison(record)
        case StageTime():
            found = [Figure(f"stage/{_plain(record.stage)}", "duration_s", record.duration_s)]
        case _:
            pass
    return tuple(figure for figure in found if math.isfinite(figure.value))


def notes(record: Record) -> tuple[tuple[str, str], ...]:
    """Named texts of a record: what was asked, the choice, and each reason for a loss."""
    match record:
        case RunStarted():
            machine = f"{record.environment.cpu}, {record.environment.cores} cores, {', '.join(record.environment.instruction_sets)}"
            return (
                ("run/objective", str(record.objective)),
                ("run/config", json.dumps(record.config, sort_keys=True, default=str)),
                ("run/environment", machine),
            )
        case Choice():
            words = f"{'met' if record.met else 'not met'}: {record.candidate or 'no candidate'}"
            return (("choice", " ".join((words, *record.reasons, record.shortfall)).strip()),)
        case Rejection() | Failure():
            kind = "rejected" if isinstance(record, Rejection) else "failed"
            plan = f"/{_plain(str(record.plan))}" if record.plan else ""
            return ((f"{kind}/{_plain(record.stage)}/{_plain(record.variant)}{plan}", record.reason),)
        case _:
            return ()


def _quality(record: Quality) -> list[Figure]:
    series = f"quality/{_plain(record.variant)}/{_plain(record.runtime)}/{record.part}"
    pairs = {
        _plain(record.metric): record.value.value,
        "drop": record.drop.value,
        "drop_high": record.drop.high,
        "agreement": record.agreement,
    }
    if record.worst_group is not None:
        pairs["worst_group_drop"] = record.worst_group.drop.value
    return [Figure(series, name, value) for name, value in pairs.items()]


def _load(record: LoadRun) -> list[Figure]:
    point = record.point
    axis, step = ("offered_rate_per_s", point.offered_rate_per_s) if record.role == "candidate" else ("round", float(record.round))
    series = f"load/{record.role}/{point.target}/{_plain(str(record.candidate))}"
    if record.role != "candidate":
        series += f"/{point.offered_rate_per_s:g}_per_s"
    pairs = {f"p{percentile.q * 100:g}_s": percentile.latency_s for percentile in point.percentiles}
    pairs |= {"achieved_rate_per_s": point.achieved_rate_per_s, "miss_fraction": point.miss_fraction}
    return [Figure(series, name, value, axis, step) for name, value in pairs.items()]


def _comparison(record: Comparison) -> list[Figure]:
    found = [Figure(f"comparison/capacity/{role}", "rate_per_s", interval.value) for role, interval in record.capacity_per_s.items()]
    for kind, ratios in (("capacity_ratio", record.capacity_ratio), ("latency_ratio", record.latency_ratio)):
        for role, interval in ratios.items():
            series = f"comparison/{kind}/against_{role}"
            found += [Figure(series, "value", interval.value), Figure(series, "low", interval.low), Figure(series, "high", interval.high)]
    return found


def _plain(text: str) -> str:
    """Letters, digits and ``_ . = -`` only: what every tracker takes in a tag."""
    return re.sub(r"[^\w.=\-]+", "_", text).strip("_")
