"""Queries one after another until the rules are satisfied: what the single- and the multi-stream scenario share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headway.load.early_stopping import early_stopping_estimate, queries_for_estimate
from headway.load.generator import OK, RawLoad
from headway.load.scenarios.contract import Drive, Rules, ScenarioResult, shortfalls
from headway.records import Percentile

PILOT = 16
PART_S = 5.0
"""A run is made of parts of about this length, so that none has to guess how long all will take [s]."""
QUANTILES = (0.5, 0.9, 0.99)


def stream_latency_s(raw: RawLoad) -> NDArray[np.float64]:
    """Latency of each query of a closed loop, from the end of the one before it to its own end [s].

    Queries that failed are left out with their time; the next one starts where they ended.
    """
    ended_s = np.where(np.isnan(raw.done_s), raw.end_s, raw.done_s)
    latency_s = np.diff(ended_s, prepend=0.0)
    answered_s: NDArray[np.float64] = latency_s[raw.status == OK]
    return answered_s


def stream(name: str, drive: Drive, rules: Rules, conforming: Rules) -> ScenarioResult:
    """Send queries of ``rules.rows`` samples until duration and count are reached; the early-stopping estimate of percentile ``rules.q``."""
    parts: list[NDArray[np.float64]] = []
    queries, failed, spent_s = 0, 0, 0.0
    needed = max(rules.queries, queries_for_estimate(rules.q))
    following = PILOT
    while queries < needed or spent_s < rules.seconds:
        raw = drive.one_by_one(following, rules.rows)
        parts.append(stream_latency_s(raw))
        queries += len(raw.status)
        failed += int(np.count_nonzero(raw.status != OK))
        spent_s += raw.end_s
        if failed > queries / 2:
            break
        drive.say(f"{queries:,} queries in {spent_s:.0f} s")
        following = _following(queries, spent_s, needed, rules.seconds)
    return _result(name, np.sort(np.concatenate(parts)), rules, conforming, queries, failed, spent_s)


def _following(queries: int, spent_s: float, needed: int, seconds: float) -> int:
    """How many queries the next part should hold: what is still missing, but about ``PART_S`` at most."""
    each_s = max(spent_s / queries, 1e-6)
    missing = max(needed - queries, math.ceil((seconds - spent_s) / each_s), 1)
    return min(missing, max(1, math.ceil(PART_S / each_s)))


def _result(
    name: str, ordered_s: NDArray[np.float64], rules: Rules, conforming: Rules, queries: int, failed: int, spent_s: float
) -> ScenarioResult:
    found = early_stopping_estimate(ordered_s, rules.q)
    reasons = [f"{failed:,} of {queries:,} queries failed or were refused"] if failed else []
    if found is None:
        needed = queries_for_estimate(rules.q)
        reasons.append(f"a percentile needs at least {needed:,} answered queries to be stated, got {len(ordered_s):,}")
    short = shortfalls(conforming, queries=queries, samples=queries * rules.rows, seconds=spent_s)
    percentiles = tuple(
        Percentile(q=q, latency_s=value, low_s=value, high_s=value)
        for q in QUANTILES
        for value in ([float(ordered_s[min(len(ordered_s) - 1, int(q * len(ordered_s)))])] if len(ordered_s) else [])
    )
    return ScenarioResult(
        scenario=name,
        metric=f"p{100 * rules.q:g} latency, early-stopping estimate",
        value=found.latency_s if found else 0.0,
        unit="s",
        valid=not reasons,
        conforming=not reasons and not short,
        queries=queries,
        samples=queries * rules.rows,
        duration_s=spent_s,
        failed=failed,
        percentiles=percentiles,
        discarded=found.allowed - 1 if found else 0,
        reasons=(*reasons, *short),
    )
