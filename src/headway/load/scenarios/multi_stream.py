"""One query of eight samples at a time, the next when the last has ended; the result is the 99th percentile of the queries' latency."""

from __future__ import annotations

from headway.load.scenarios.contract import Asked, Drive, Rules, ScenarioResult
from headway.load.streams import stream

ROWS = 8
RULES = Rules(seconds=600.0, queries=662, samples=662 * ROWS, rows=ROWS, q=0.99)
QUICK = Rules(seconds=10.0, queries=662, samples=662 * ROWS, rows=ROWS, q=0.99)


def run(drive: Drive, rules: Rules, asked: Asked) -> ScenarioResult:
    """The early-stopping estimate of the 99th percentile, 99% sure."""
    return stream("multi-stream", drive, rules, RULES)
