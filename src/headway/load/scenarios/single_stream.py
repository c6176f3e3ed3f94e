"""One query of one sample at a time, the next when the last has ended; the result is the 90th percentile of latency."""

from __future__ import annotations

from headway.load.scenarios.contract import Asked, Drive, Rules, ScenarioResult
from headway.load.streams import stream

RULES = Rules(seconds=600.0, queries=64, samples=64, q=0.9)
QUICK = Rules(seconds=10.0, queries=64, samples=64, q=0.9)


def run(drive: Drive, rules: Rules, asked: Asked) -> ScenarioResult:
    """The early-stopping estimate of the 90th percentile, 99% sure."""
    return stream("single-stream", drive, rules, RULES)
