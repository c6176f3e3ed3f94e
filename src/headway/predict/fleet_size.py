"""How many replicas hold an objective, by simulation: the least number, its headroom, a failure among them, and where the time goes.

A law bounds the search from below: a fleet whose rate is beyond its capacity holds nothing, however long it takes to show. Everything else
is simulated, all sizes with the same random numbers, and with no deadline: a plan must not hold because the server refuses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headway.load import arrival_times
from headway.load.arriving import parse_arrivals
from headway.predict.simulate import FleetRun, Outage, simulate_fleet
from headway.records import ConfigError, FleetLatency, LatencyBudget, Plan, ReplicaFailure, ServiceCurve

Floats = NDArray[np.float64]
ROUGH, STEADY, FINAL = (10_000, 100_000), (50_000, 300_000), (300_000, 4_000_000)
"""At least and at most so many requests: for a first look, for the search of a rate, for the figures that are told. Near capacity the percentile
of few wavers."""
BEYOND = 100
"""Requests beyond the percentile: p99.9 then rests on 100,000."""
EACH = 50
"""Requests that each replica sees at least."""
BOUNDS = 100
"""Times the latency bound that a simulation lasts: overload of a hundredth then shows as a wait of the bound."""
SYMMETRIC = 64
"""Replicas simulated in place of more, at the same load each, where the requests would be too many."""
MOST_TIMES = 100
"""A fleet that needs this many times what its capacity asks for is called none."""
WARM_SHARE = 0.05
HELD_STEPS = 10
NEAR = 0.01
FEWEST_NEAR = 100
FAILURES = 10
WINDOW_REQUESTS = 1000
COURSE_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Demand:
    """What a fleet must hold: requests a second [1/s], a percentile in (0, 1) and its bound [s], arrivals, how requests find a replica."""

    rate_per_s: float
    percentile: float
    latency_s: float
    arrivals: str = "poisson"
    router: str = "random"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """One server of a plan.

    Attributes:
        correction: capacity measured over capacity predicted: a replica at a rate is simulated at the rate over this.
        front_s: front end and transport, added to each latency [s].
    """

    curve: ServiceCurve
    plan: Plan
    correction: float = 1.0
    front_s: float = 0.0

    @property
    def capacity_per_s(self) -> float:
        """mu, corrected [1/s]."""
        return self.correction * self.curve.capacity_per_s(self.plan.max_batch)

    def alone_s(self, percentile: float) -> float:
        """The percentile of latency where nobody waits: a batch of one and the front [s]. No fleet is faster."""
        first = self.curve.timings[0]
        scale = self.curve.tau_s(1) / first.median_s
        return self.front_s + scale * float(np.quantile(first.service_s, percentile, method="higher"))

    def fewest(self, rate_per_s: float) -> int:
        """The least number of replicas whose capacity is above a rate: fewer are never enough."""
        return math.floor(rate_per_s / self.capacity_per_s) + 1


@dataclass(frozen=True, slots=True)
class Observed:
    """A simulated fleet.

    Attributes:
        due_s: arrivals, over ``duration_s`` [s].
        replicas: how many were simulated, perhaps fewer than were meant.
        failed_at_s: when some of them went [s].
        warm: requests at the start that are left out of figures.
    """

    run: FleetRun
    due_s: Floats
    duration_s: float
    replicas: int
    failed_at_s: float
    warm: int

    @property
    def latency_s(self) -> Floats:
        """Latencies after the start [s]."""
        return self.run.latency_s[self.warm :]

    def percentile_s(self, percentile: float) -> float:
        """An order statistic of latency [s]; infinite where so many were lost."""
        return float(np.quantile(self.latency_s, percentile, method="higher"))

    @property
    def mean_s(self) -> float:
        """Mean latency [s]."""
        return float(np.mean(self.latency_s))


def observe(
    replica: Replica,
    demand: Demand,
    replicas: int,
    *,
    rate_per_s: float | None = None,
    failed: int = 0,
    requests: tuple[int, int] = FINAL,
    whole: bool = False,
) -> Observed:
    """A fleet under the demand, or under another rate of the same kind.

    Args:
        failed: replicas that go in the middle of the run and stay away.
        requests: at least and at most so many. Where more would be needed, ``SYMMETRIC`` replicas stand for all.
        whole: every replica is simulated all the same, and the run cut short.

    Raises:
        ConfigError: arrivals so irregular that none came.
    """
    load_per_s = (rate_per_s or demand.rate_per_s) / replica.correction
    simulated, count = replicas, _requests(demand, replicas, load_per_s, requests[0])
    if count > requests[1] and replicas > SYMMETRIC and not whole:
        simulated = SYMMETRIC
        load_per_s *= SYMMETRIC / replicas
        count = _requests(demand, SYMMETRIC, load_per_s, requests[0])
    duration_s = min(count, requests[1]) / load_per_s
    due_s = arrival_times(demand.arrivals, load_per_s, duration_s, demand.seed)
    if not len(due_s):
        raise ConfigError(
            f"arrivals must be regular enough that a simulation of about {count} sees some, got none of {demand.arrivals!r}; lower its variation, or give another seed"
        )
    run = simulate_fleet(
        replica.curve, replica.plan, due_s, replicas=simulated, router=demand.router, seed=demand.seed,
        jitter_s=(replica.front_s,) if replica.front_s > 0 else (),
        outages=[Outage(each, duration_s / 2, math.inf) for each in range(failed)],
    )  # fmt: skip
    return Observed(run, due_s, duration_s, simulated, duration_s / 2, int(WARM_SHARE * len(due_s)))


def _requests(demand: Demand, replicas: int, load_per_s: float, fewest: int) -> int:
    return math.ceil(max(fewest, BEYOND / (1 - demand.percentile), EACH * replicas, BOUNDS * demand.latency_s * load_per_s))


def rough_replicas(replica: Replica, demand: Demand) -> int | None:
    """As ``least_replicas``, but with at most ``SYMMETRIC`` replicas simulated for a larger fleet: fast, and exact for smaller ones."""
    if replica.alone_s(demand.percentile) > demand.latency_s:
        return None
    fewest = replica.fewest(demand.rate_per_s)
    return least_that(lambda n: _holds(replica, demand, n, ROUGH), fewest - 1, fewest, MOST_TIMES * fewest)


def least_replicas(replica: Replica, demand: Demand, *, spare: int = 0) -> int | None:
    """The least number of replicas that holds the demand; none where no number is enough.

    It holds in simulation, one fewer does not, and it holds with the spare added too: near capacity chance alone can part neighbours.
    """
    guess = rough_replicas(replica, demand)
    if guess is None:
        return None
    seen: dict[int, bool] = {}

    def holds(replicas: int) -> bool:
        if replicas not in seen:
            seen[replicas] = _holds(replica, demand, replicas, FINAL)
        return seen[replicas]

    fewest = replica.fewest(demand.rate_per_s)
    found = least_that(holds, fewest - 1, guess, MOST_TIMES * fewest)
    while found is not None and not (holds(found) and holds(found + spare)):
        found = found + 1 if found < MOST_TIMES * fewest else None
    return found


def _holds(replica: Replica, demand: Demand, replicas: int, requests: tuple[int, int]) -> bool:
    return observe(replica, demand, replicas, requests=requests).percentile_s(demand.percentile) <= demand.latency_s


def least_that(holds: Callable[[int], bool], low: int, start: int, most: int) -> int | None:
    """A number from ``low + 1`` to ``most`` that holds while the one below does not, searched from ``start``; none if ``most`` does not hold.

    Steps double away from the start until they bracket, then halve: where holding is not quite monotonic, it is a number near the start.

    Args:
        low: known not to hold.
    """
    step = max(1, start // 200)
    high = start
    if holds(start):
        while high - low > 1:
            at = max(low + 1, high - step)
            if not holds(at):
                low = at
                break
            high, step = at, 2 * step
    else:
        while True:
            low, high = high, min(most, high + step)
            if high == low:
                return None
            if holds(high):
                break
            step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def held_rate(replica: Replica, demand: Demand, replicas: int, *, from_per_s: float = 0.0) -> float:
    """The largest rate that a fleet holds, by bisection up to its capacity [1/s]; ``from_per_s`` is known to be held."""
    low, high = from_per_s, max(from_per_s, replicas * replica.capacity_per_s)
    for _ in range(HELD_STEPS):
        middle = (low + high) / 2
        seen = observe(replica, demand, replicas, rate_per_s=middle, requests=STEADY)
        low, high = (middle, high) if seen.percentile_s(demand.percentile) <= demand.latency_s else (low, middle)
    return low


def latency(replica: Replica, demand: Demand, replicas: int, seen: Observed) -> FleetLatency:
    """What was seen, as a record."""
    return FleetLatency(
        replicas=replicas, utilisation=demand.rate_per_s / (replicas * replica.capacity_per_s), mean_s=seen.mean_s,
        percentile_s=seen.percentile_s(demand.percentile),
    )  # fmt: skip


def failure(replica: Replica, demand: Demand, replicas: int, failed: int) -> ReplicaFailure | None:
    """Some replicas fail at once and stay away; none where the fleet is too large to be simulated one by one.

    Several failures are simulated and pooled. With arrivals whose rate has a course, it happens at the busiest rate.
    """
    course = rate_course(demand.arrivals)
    steady = dataclasses.replace(demand, rate_per_s=demand.rate_per_s * course[1], arrivals="poisson") if course else demand
    if EACH * replicas > FINAL[1]:
        return None
    load_per_s = steady.rate_per_s / replica.correction
    count = min(FINAL[1], _requests(steady, replicas, load_per_s, ROUGH[0]))
    times = max(1, min(FAILURES, FINAL[1] // count))
    window_s = max(demand.latency_s, WINDOW_REQUESTS / (times * load_per_s))
    windows = int(count / load_per_s / 2 // window_s) + 1
    counts, lates, lost = np.zeros(windows), np.zeros(windows), 0
    for number in range(times):
        again = dataclasses.replace(steady, seed=steady.seed + number)
        seen = observe(replica, again, replicas, failed=failed, requests=(ROUGH[0], FINAL[1]), whole=True)
        after = seen.due_s >= seen.failed_at_s
        window = ((seen.due_s[after] - seen.failed_at_s) // window_s).astype(np.int64)
        late = (seen.run.latency_s[after] > demand.latency_s).astype(np.float64)
        counts += np.bincount(window, minlength=windows)[:windows]
        lates += np.bincount(window, late, windows)[:windows]
        lost += seen.run.lost
    return ReplicaFailure(
        failed=failed, lost=lost / times, holds_again_after_s=_holds_again_s(counts, lates, demand.percentile, window_s), window_s=window_s,
        lost_per_s=steady.rate_per_s * failed / replicas,
    )  # fmt: skip


def _holds_again_s(counts: Floats, lates: Floats, percentile: float, window_s: float) -> float | None:
    """The start of the first window whose late requests are not beyond the objective by more than two standard deviations of chance."""
    for window in range(max(1, len(counts) - 1)):  # the last is cut short
        allowed = float(counts[window]) * (1 - percentile)
        if lates[window] <= allowed + 2 * math.sqrt(allowed * percentile):
            return window * window_s
    return None


def rate_course(arrivals: str) -> tuple[float, float] | None:
    """The lowest and the highest rate of a process over its mean rate; none for one whose rate stays."""
    parsed = parse_arrivals(arrivals)
    cumulative = getattr(parsed.module, "cumulative", None)
    if cumulative is None:
        return None
    share = np.diff(cumulative(np.linspace(0.0, 1.0, COURSE_STEPS + 1), **parsed.settings)) * COURSE_STEPS
    return max(0.0, float(share.min())), float(share.max())


def budget(replica: Replica, demand: Demand, seen: Observed) -> tuple[LatencyBudget, LatencyBudget]:
    """Where the time goes, at the mean and at the percentile: there the mean over requests whose latency is within 1% of it (the
    hundred nearest, where that is fewer)."""
    run, start = seen.run, seen.warm
    total_s = run.latency_s[start:]
    answered = np.isfinite(total_s)
    at_s = seen.percentile_s(demand.percentile)
    near = answered & (np.abs(total_s - at_s) <= NEAR * at_s)
    if near.sum() < FEWEST_NEAR:
        near = np.zeros(len(total_s), np.bool_)
        near[np.argsort(np.abs(total_s - at_s))[:FEWEST_NEAR]] = True
        near &= answered
    one_s = replica.curve.tau_s(1)
    parts = []
    for name, rows in (("mean", answered), (f"p{demand.percentile * 100:.6g}", near)):
        wait_s, took_s = float(run.wait_s[start:][rows].mean()), run.service_s[start:][rows]
        own_s = np.where(run.batch[start:][rows] > 1, np.minimum(took_s, one_s), took_s)
        parts.append(
            LatencyBudget(
                at=name, front_s=float(total_s[rows].mean()) - wait_s - float(took_s.mean()), wait_s=wait_s,
                batch_s=float((took_s - own_s).mean()), service_s=float(own_s.mean()),
            )
        )  # fmt: skip
    return parts[0], parts[1]
