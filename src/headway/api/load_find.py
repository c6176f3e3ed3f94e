"""``load --find``: the highest rate that keeps the objective, by bisection, searched for several times."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import msgspec

from headway.api.load_session import LoadAsked, Loading, loading
from headway.api.progress import Progress, Silent
from headway.load import OPEN_STEP, Bracket, find_capacity
from headway.records import ConfigError, LoadPoint, MeasurementError, Objective, Record

SEARCHES = 3
TRIALS = 12
TRIALS_AGAIN = 6
STEP_AGAIN = 1.12
SHORTEST_S = 2.0
LONGEST_S = 10.0
TRIAL_REQUESTS = 500
"""A trial lasts long enough for this many requests, within its limits of time, so that a percentile has something to stand on."""
START_SHARE = 0.5
"""The search begins at this share of the rate that answers one request after another."""
Tell = Callable[[int, LoadPoint, Objective], None]
"""Called after each trial with the number of its search, its point, and the objective that it is judged by."""


class FoundCapacity(Record, frozen=True, kw_only=True):
    """The SLO capacity of a target.

    Attributes:
        rate_per_s: highest rate that held; the median of the searches, 0 when nothing held [1/s].
        low_per_s, high_per_s: the smallest rate that a search says held, and the largest that one says did not [1/s].
        searches: how often it was searched for, with other seeds each time.
        open_above: in most searches everything that was tried held: the true capacity lies above.
        generator_bound: in most searches the upper end is where the generator became late, not where the target did.
        points: every trial, in order.
    """

    objective: Objective
    target: str
    rate_per_s: float
    low_per_s: float
    high_per_s: float
    searches: int
    open_above: bool
    generator_bound: bool
    points: tuple[LoadPoint, ...] = msgspec.field(default_factory=tuple)


def find(
    asked: LoadAsked,
    *,
    start_per_s: float | None = None,
    trial_s: float | None = None,
    searches: int = SEARCHES,
    tell: Tell = lambda search, point, objective: None,
    progress: Progress | None = None,
) -> FoundCapacity:
    """The capacity of a target under the objective asked for, or the bundle's own.

    Args:
        start_per_s: first guess; none: half the rate that answers one request after another [1/s].
        trial_s: shortest length of a trial [s].
        tell: hears of each trial.

    Raises:
        InputError: the target, the samples or the objective is wrong.
        MeasurementError: the target does not answer.
    """
    with loading(asked) as opened:
        return find_target(opened, start_per_s=start_per_s, trial_s=trial_s, searches=searches, tell=tell, progress=progress or Silent())


def find_target(
    opened: Loading, *, start_per_s: float | None, trial_s: float | None, searches: int, tell: Tell, progress: Progress
) -> FoundCapacity:
    """``find`` on a target that is open already."""
    _check(opened)
    progress.stage(f"find the capacity: {opened.objective}", searches * TRIALS)
    progress.step("one request at a time")
    start = start_per_s or START_SHARE / max(opened.alone_s(), 1e-6)
    trials = _Trials(opened, trial_s or SHORTEST_S, tell, progress)
    found = [trials.search(start, TRIALS, OPEN_STEP)]
    while len(found) < searches and found[0].low_per_s > 0:
        found.append(trials.search(found[0].low_per_s, TRIALS_AGAIN, STEP_AGAIN))
    return _together(opened, found)


class _Trials:
    """Runs the trials of all searches, each with a seed of its own."""

    def __init__(self, opened: Loading, shortest_s: float, tell: Tell, progress: Progress) -> None:
        self._opened, self._shortest_s, self._tell, self._progress = opened, shortest_s, tell, progress
        self._count = 0
        self._search = 0

    def search(self, start_per_s: float, trials: int, step: float) -> Bracket:
        """One search."""
        self._search += 1
        quantile = self._opened.objective.percentile
        return find_capacity(self._trial, start_per_s=start_per_s, trials=trials, percentile=quantile, step=step)

    def _trial(self, rate_per_s: float) -> LoadPoint:
        self._count += 1
        seed = self._opened.asked.seed + self._count
        seconds = max(self._shortest_s, min(LONGEST_S, TRIAL_REQUESTS / rate_per_s))
        self._progress.step(f"search {self._search}: {rate_per_s:.4g}/s for {seconds:.3g} s")
        try:
            point = self._opened.point(self._opened.ran(rate_per_s, seconds, seed), rate_per_s, seed)
        except MeasurementError:
            if rate_per_s * seconds > 5:
                raise
            point = self._opened.point(self._opened.ran(rate_per_s, 10 * seconds, seed), rate_per_s, seed)  # chance gave no arrival
        self._tell(self._search, point, self._opened.objective)
        return point


def _check(opened: Loading) -> None:
    if not opened.stated or opened.objective.latency_s is None:
        raise ConfigError("a capacity is the highest rate within a bound on latency, and none was given; add --slo 'p99<=20ms'")


def _together(opened: Loading, found: list[Bracket]) -> FoundCapacity:
    return FoundCapacity(
        objective=opened.objective,
        target=opened.target.kind,
        rate_per_s=statistics.median(bracket.low_per_s for bracket in found),
        low_per_s=min(bracket.low_per_s for bracket in found),
        high_per_s=max(bracket.high_per_s for bracket in found),
        searches=len(found),
        open_above=2 * sum(bracket.open_above for bracket in found) > len(found),
        generator_bound=2 * sum(bracket.generator_bound for bracket in found) > len(found),
        points=tuple(point for bracket in found for point in bracket.points),
    )
