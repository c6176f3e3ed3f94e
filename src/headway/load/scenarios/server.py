"""Queries of one sample arriving by a Poisson process; the result is the rate, if its 99th percentile of latency is within the bound."""

from __future__ import annotations

import math

import numpy as np

from headway.load.early_stopping import queries_missing
from headway.load.generator import OK
from headway.load.scenarios.contract import Asked, Drive, Rules, ScenarioResult, shortfalls
from headway.records import ConfigError, Percentile
from headway.stats import requests_to_prove

Q = 0.99
CONFIDENCE = 0.99
QUANTILES = (0.5, 0.9, 0.99)
MARGIN = 1.05
"""A Poisson process gives a random number of queries: the run is planned a little longer than the rules ask."""
LATE_SHARE = 0.2
"""The generator is the bottleneck when its 99th percentile of lateness passes this share of the bound."""
RULES = Rules(seconds=600.0, queries=requests_to_prove(Q, CONFIDENCE), samples=requests_to_prove(Q, CONFIDENCE), q=Q)
QUICK = Rules(seconds=10.0, queries=requests_to_prove(Q, CONFIDENCE), samples=requests_to_prove(Q, CONFIDENCE), q=Q)


def run(drive: Drive, rules: Rules, asked: Asked) -> ScenarioResult:
    """The offered rate, valid when the queries over the bound are few enough to prove the percentile with 99% confidence.

    Raises:
        ConfigError: no rate, or no bound on latency.
    """
    if asked.rate_per_s is None or asked.latency_s is None:
        raise ConfigError("the server scenario needs a rate and a bound on p99, got only one or none; add --rate R --slo 'p99<=20ms'")
    seconds = max(rules.seconds, MARGIN * rules.queries / asked.rate_per_s + 3 * math.sqrt(rules.queries) / asked.rate_per_s)
    raw = drive.arriving(asked.rate_per_s, seconds)
    queries = len(raw.due_s)
    ok = raw.status == OK
    latency_s = np.where(ok, raw.done_s, raw.end_s) - raw.due_s
    over = int(np.count_nonzero(~ok | (latency_s > asked.latency_s)))
    failed = int(np.count_nonzero(~ok))
    reasons = [f"{failed:,} of {queries:,} queries failed or were refused"] if failed else []
    missing = queries_missing(over, queries, rules.q, CONFIDENCE)
    if missing:
        reasons.append(
            f"{over:,} of {queries:,} queries were over {asked.latency_s * 1e3:g} ms: so many need {missing:,} more, all in time; lower the rate"
        )
    lateness_s = float(np.quantile(raw.sent_s - raw.due_s, 0.99)) if queries else 0.0
    if lateness_s > LATE_SHARE * asked.latency_s:
        reasons.append(f"the generator itself was late by {lateness_s * 1e3:.3g} ms (p99): lower the rate, or use another machine")
    short = shortfalls(RULES, queries=queries, samples=queries, seconds=seconds)
    ordered_s = np.sort(latency_s)
    quoted = [(q, float(ordered_s[min(queries - 1, int(q * queries))])) for q in QUANTILES] if queries else []
    return ScenarioResult(
        scenario="server",
        metric=f"rate with p{100 * rules.q:g} within {asked.latency_s * 1e3:g} ms",
        value=asked.rate_per_s if not reasons else 0.0,
        unit="1/s",
        valid=not reasons,
        conforming=not reasons and not short,
        queries=queries,
        samples=queries,
        duration_s=raw.end_s,
        failed=failed,
        percentiles=tuple(Percentile(q=q, latency_s=value, low_s=value, high_s=value) for q, value in quoted),
        reasons=(*reasons, *short),
    )
