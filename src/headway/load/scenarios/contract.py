"""What a scenario is given, what it may do, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from headway.load.generator import RawLoad
from headway.records import Percentile, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a run must hold to count.

    Attributes:
        seconds: shortest duration [s].
        queries: fewest queries; early stopping may ask for more.
        samples: fewest samples.
        rows: samples of one query.
        q: which percentile of latency; 0 where none is asked.
    """

    seconds: float
    queries: int
    samples: int
    rows: int = 1
    q: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What only the server scenario needs: its arrival rate [1/s] and its bound on latency [s]."""

    rate_per_s: float | None = None
    latency_s: float | None = None


class Drive(Protocol):
    """What a scenario may do with a target. Samples are drawn with replacement by the run's seed; queries hold ``rows`` of them."""

    def one_by_one(self, queries: int, rows: int) -> RawLoad:
        """Send each query when the one before it has ended; all are due at 0."""

    def at_once(self, queries: int) -> RawLoad:
        """Hand over all queries of one sample at the start; all are due at 0."""

    def arriving(self, rate_per_s: float, seconds: float) -> RawLoad:
        """Send queries of one sample by a Poisson process, open loop."""

    def say(self, text: str) -> None:
        """Tell what is going on."""


class ScenarioResult(Record, frozen=True, kw_only=True):
    """The result of one scenario.

    Attributes:
        metric: what ``value`` is, in words; ``unit``: ``s`` or ``1/s``.
        value: 0 when there is none, and a reason says why.
        valid: whether the run proves its value by the scenario's own rules, minimum counts and durations apart.
        conforming: whether it also held MLPerf's minimum counts and durations.
        reasons: why it is not valid, or not conforming; empty when it is both.
        percentiles: of latency, plain ones beside the early-stopping estimate; both ends equal the value.
        discarded: how many of the slowest queries the early-stopping estimate leaves above itself.
    """

    scenario: str
    metric: str
    value: float
    unit: str
    valid: bool
    conforming: bool
    queries: int
    samples: int
    duration_s: float
    failed: int
    percentiles: tuple[Percentile, ...] = ()
    discarded: int = 0
    reasons: tuple[str, ...] = msgspec.field(default_factory=tuple)


class Scenario(Protocol):
    """What a scenario's file holds."""

    RULES: Rules
    QUICK: Rules

    def run(self, drive: Drive, rules: Rules, asked: Asked) -> ScenarioResult:
        """Make a run by the rules."""


def shortfalls(rules: Rules, *, queries: int, samples: int, seconds: float) -> list[str]:
    """Sentences for each minimum of the rules that a run did not reach."""
    told = []
    if seconds < rules.seconds:
        told.append(f"a conforming run lasts at least {rules.seconds:g} s, this one {seconds:.1f} s")
    if queries < rules.queries:
        told.append(f"a conforming run holds at least {rules.queries:,} queries, this one {queries:,}")
    if samples < rules.samples:
        told.append(f"a conforming run holds at least {rules.samples:,} samples, this one {samples:,}")
    return told
