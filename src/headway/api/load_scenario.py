"""``load --scenario``: an MLPerf scenario on a target."""

from __future__ import annotations

import numpy as np

from headway.api.load_inputs import Feeds
from headway.api.load_session import LoadAsked, Loading, loading
from headway.api.load_target import Picks
from headway.api.progress import Progress, Silent
from headway.load import RawLoad, arrival_times
from headway.load.playing import play, scenario_rules
from headway.load.scenarios.contract import Asked, ScenarioResult

DRAWN = 4096
"""So many draws of a sample are made before they repeat."""
LONGEST_S = 3600.0
AT_ONCE = 64
"""Requests of an offline run that are on their way at the same time; a protocol of single requests has no larger hand-over."""


def scenario(
    name: str,
    asked: LoadAsked,
    *,
    rate_per_s: float | None = None,
    seconds: float | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> ScenarioResult:
    """One run of a scenario.

    Args:
        rate_per_s: of the server scenario [1/s]; its bound is the objective's.
        seconds: shortest duration instead of MLPerf's 600 s.
        quick: shorter minimum counts and durations; the result says that it does not conform.

    Raises:
        InputError: no such scenario, or target, samples or objective are wrong.
    """
    progress = progress or Silent()
    rules = scenario_rules(name, quick=quick, seconds=seconds)
    with loading(asked) as opened:
        progress.stage(f"{name}, at least {rules.seconds:g} s", 1)
        progress.step("warm up")
        opened.alone_s()
        bound_s = opened.objective.latency_s if opened.stated else None
        return play(name, TargetDrive(opened, progress), rules, Asked(rate_per_s=rate_per_s, latency_s=bound_s))


class TargetDrive:
    """What a scenario may do, done with a target. Samples are drawn with replacement by the run's seed."""

    def __init__(self, opened: Loading, progress: Progress) -> None:
        self._opened, self._progress = opened, progress
        self._rng = np.random.default_rng(opened.asked.seed)
        self._requests: dict[int, list[Feeds]] = {}

    def one_by_one(self, queries: int, rows: int) -> RawLoad:
        """Each query when the one before it has ended."""
        requests = self._of(rows)
        picks = self._drawn(len(requests), queries)
        return self._opened.target.run(requests, np.zeros(queries), picks=picks, most_in_flight=1, drain_s=LONGEST_S).raw

    def at_once(self, queries: int) -> RawLoad:
        """All queries at the start, ``AT_ONCE`` of them on their way."""
        requests = self._of(1)
        picks = self._drawn(len(requests), queries)
        return self._opened.target.run(requests, np.zeros(queries), picks=picks, most_in_flight=AT_ONCE, drain_s=LONGEST_S).raw

    def arriving(self, rate_per_s: float, seconds: float) -> RawLoad:
        """Poisson arrivals, open loop."""
        requests = self._of(1)
        due_s = arrival_times("poisson", rate_per_s, seconds, self._opened.asked.seed)
        self._progress.step(f"{len(due_s):,} queries in {seconds:.0f} s")
        return self._opened.target.run(requests, due_s, picks=self._drawn(len(requests), len(due_s))).raw

    def say(self, text: str) -> None:
        """Tell what is going on."""
        self._progress.step(text)

    def _of(self, rows: int) -> list[Feeds]:
        if rows not in self._requests:
            self._requests[rows] = self._opened.samples.requests(size=rows)
        return self._requests[rows]

    def _drawn(self, requests: int, queries: int) -> Picks:
        return self._rng.integers(0, requests, min(DRAWN, max(1, queries)))
