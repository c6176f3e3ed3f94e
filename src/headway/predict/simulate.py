"""One engine on a virtual clock: its instances take batches by the real policy, service times come from measured samples."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from headway.batching import take
from headway.records import Plan, ServiceCurve

DRAWS = 257
"""Service times kept ready for each batch size; an odd number, so that draws do not fall into step with anything."""


class ServiceTimes:
    """Service times of any batch size, drawn from a curve's raw samples; between measured sizes, the nearest above is scaled."""

    def __init__(self, curve: ServiceCurve, seed: int) -> None:
        self._curve = curve
        self._rng = np.random.default_rng(seed)
        self._drawn: dict[int, list[float]] = {}
        self._next: dict[int, int] = {}

    def draw_s(self, batch: int) -> float:
        """One service time [s]."""
        times = self._drawn.get(batch)
        if times is None:
            times = self._drawn[batch] = self._sample(batch)
            self._next[batch] = 0
        at = self._next[batch]
        self._next[batch] = at + 1 if at + 1 < len(times) else 0
        return times[at]

    def _sample(self, batch: int) -> list[float]:
        timings = self._curve.timings
        nearest = next((timing for timing in timings if timing.batch >= batch), timings[-1])
        scale = self._curve.tau_s(batch) / nearest.median_s
        drawn: list[float] = self._rng.choice(np.asarray(nearest.service_s) * scale, DRAWS).tolist()
        return drawn


def simulate(
    curve: ServiceCurve, plan: Plan, due_s: NDArray[np.float64], *, seed: int = 0, front_end_s: float = 0.0
) -> NDArray[np.float64]:
    """Latency of each request [s], in the order of ``due_s``.

    Args:
        curve: measured with ``plan.instances`` running; its raw samples are drawn with replacement.
        due_s: arrival times, ascending [s].
        front_end_s: time that each request spends in a front end of its own, one after another, before it is queued [s].

    Deterministic by ``seed``. What it leaves out: cores shared between front end and model, and the machine's jitter.
    """
    count = len(due_s)
    arrived = due_s if front_end_s <= 0 else _through_front_end(due_s, front_end_s)
    at: list[float] = arrived.tolist()
    done = np.empty(count)
    times = ServiceTimes(curve, seed)
    idle = plan.instances
    busy: list[float] = []
    first = 0  # oldest waiting request
    last = 0  # one past the newest request that has arrived
    now = 0.0
    limit = plan.max_batch
    ones = [1] * (limit + 1)
    while first < count:
        while last < count and at[last] <= now:
            last += 1
        while busy and busy[0] <= now:
            heapq.heappop(busy)
            idle += 1
        wake = None
        if idle and first < last:
            waiting = min(last - first, limit + 1)
            decision = take(ones[:waiting], at[first : first + waiting], now, max_batch=limit, max_wait_s=plan.max_wait_s)
            if decision.items:
                ends = now + times.draw_s(decision.items)
                done[first : first + decision.items] = ends
                first += decision.items
                idle -= 1
                heapq.heappush(busy, ends)
                continue
            wake = decision.wake_at_s
        moments = [at[last]] if last < count else []
        if busy:
            moments.append(busy[0])
        if wake is not None:
            moments.append(wake)
        now = min(moments)
    return done - due_s


def _through_front_end(due_s: NDArray[np.float64], front_end_s: float) -> NDArray[np.float64]:
    """When each request leaves a single server of constant time (Lindley's recursion in closed form) [s]."""
    index = np.arange(len(due_s))
    return np.asarray(np.maximum.accumulate(due_s - index * front_end_s) + (index + 1) * front_end_s)
