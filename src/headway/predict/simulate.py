"""One engine on a virtual clock: its instances take batches by the real policy, service times come from measured samples."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headway.batching import Demand, Spare, batch_within, finish_s, fit, take
from headway.records import Plan, ServiceCurve

FIRST_DRAWS = 32
MOST_DRAWS = 4096


class ServiceTimes:
    """Service times of any batch size, drawn with replacement from a curve's raw samples.

    Between two measured sizes the samples of the larger are scaled by the ratio of the interpolated medians, so that both the level and
    the spread follow the curve; beyond the largest its samples are scaled up.
    """

    def __init__(self, curve: ServiceCurve, rng: np.random.Generator) -> None:
        self._curve = curve
        self._rng = rng
        self._sizes = [timing.batch for timing in curve.timings]
        self._samples: dict[int, NDArray[np.float64]] = {}
        self._drawn: dict[int, list[float]] = {}
        self._count: dict[int, int] = {}

    def draw_s(self, batch: int) -> float:
        """One service time [s]."""
        drawn = self._drawn.get(batch)
        if not drawn:
            drawn = self._draw(batch)
        return drawn.pop()

    def _draw(self, batch: int) -> list[float]:
        samples = self._samples.get(batch)
        if samples is None:
            timing = self._curve.timings[min(bisect.bisect_left(self._sizes, batch), len(self._sizes) - 1)]
            scale = self._curve.tau_s(batch) / timing.median_s
            samples = self._samples[batch] = np.asarray(timing.service_s, dtype=np.float64) * scale
        count = self._count[batch] = min(MOST_DRAWS, 2 * self._count.get(batch, FIRST_DRAWS))
        drawn: list[float] = self._rng.choice(samples, count).tolist()
        self._drawn[batch] = drawn
        return drawn


def simulate(
    curve: ServiceCurve,
    plan: Plan,
    due_s: NDArray[np.float64],
    *,
    seed: int = 0,
    front_end_s: float | Sequence[float] = 0.0,
    jitter_s: Sequence[float] = (),
    deadline_s: float = math.inf,
) -> NDArray[np.float64]:
    """Latency of each request [s], in the order of ``due_s``, infinite where it was refused; deterministic by ``seed``.

    What it leaves out: cores that front end and model share, and items of several rows.

    Args:
        curve: measured with ``plan.instances`` running; its raw samples are drawn with replacement.
        due_s: arrival times, ascending [s].
        front_end_s: time that each request spends in a front end, one after another, before it is queued [s]: one figure, or measured
            ones to draw from. Per request it shares nothing with the model.
        jitter_s: measured delays of this machine and transport to draw from, added to each request without holding up others [s]: the
            latencies of a model that does nothing, behind the same server.
        deadline_s: when an answer is of no more use, counted from the request's arrival in the queue; the policy then refuses what cannot make it [s].
    """
    rng = np.random.default_rng(seed)
    extra_s = rng.choice(np.asarray(jitter_s, dtype=np.float64), len(due_s)) if len(jitter_s) else np.zeros(len(due_s))
    times = ServiceTimes(curve, rng)
    queued_s = _through_front_end(due_s, front_end_s, rng)
    if math.isinf(deadline_s):
        done_s = _through_engine(queued_s.tolist(), plan, times)
    else:
        tau_s = [0.0, *(curve.tau_s(size) for size in range(1, plan.max_batch + 1))]
        done_s = _through_guarded_engine(queued_s.tolist(), plan, times, tau_s, deadline_s)
    latency_s: NDArray[np.float64] = done_s - due_s + extra_s
    return latency_s


def _through_engine(at: list[float], plan: Plan, times: ServiceTimes) -> NDArray[np.float64]:
    """When each request is done [s]. Time jumps to the next arrival, the next free instance, or the moment the policy names."""
    count = len(at)
    done = np.empty(count)
    limit, wait_s, draw_s = plan.max_batch, plan.max_wait_s, times.draw_s
    ones = [1] * (limit + 1)
    free = [0.0] * plan.instances  # when each instance becomes free; a heap
    first = 0  # oldest request not started
    now = 0.0
    while first < count:
        now = max(now, free[0], at[first])
        last = bisect.bisect_right(at, now, first, min(count, first + limit + 1))  # the policy looks no further
        number, wake = take(ones[: last - first], at[first:last], now, max_batch=limit, max_wait_s=wait_s)
        if number == 0:
            now = min(at[last] if last < count else math.inf, math.inf if wake is None else wake)
            continue
        ends = now + draw_s(number)
        done[first : first + number] = ends
        first += number
        heapq.heapreplace(free, ends)
    return done


def _through_guarded_engine(at: list[float], plan: Plan, times: ServiceTimes, tau_s: list[float], deadline_s: float) -> NDArray[np.float64]:
    """When each request is done [s]; infinite: refused, on arrival or when its batch was formed. Deadlines as the batcher keeps them."""
    done = np.full(len(at), math.inf)
    demand, spare = Demand(), Spare(deadline_s)
    limit = batch_within(tau_s, plan.max_batch, deadline_s)
    ended: list[tuple[float, bool]] = []
    free, expected = [0.0] * plan.instances, [0.0] * plan.instances
    queue: list[int] = []

    def run_until(moment: float) -> None:
        while queue:
            instance = min(range(plan.instances), key=free.__getitem__)
            now = max(free[instance], at[queue[0]])
            decision = take(
                [1] * len(queue[: limit + 1]), [at[i] for i in queue[: limit + 1]], now, max_batch=limit, max_wait_s=plan.max_wait_s
            )
            if decision.wake_at_s is not None:
                now = decision.wake_at_s
            if now > moment:
                return
            head = queue[: decision.items or min(len(queue), limit)]
            chosen = fit(
                [1] * len(head), [at[i] + deadline_s for i in head], now, tau_s, backlog=len(queue) > len(head) or len(head) >= limit
            )
            gone = {head[place] for place in (*chosen.run, *chosen.refuse)}
            queue[:] = [i for i in queue if i not in gone]
            if chosen.refuse:
                spare.learn(True)
            if chosen.run:
                free[instance] = now + times.draw_s(len(chosen.run))
                expected[instance] = now + tau_s[len(chosen.run)]
                done[[head[place] for place in chosen.run]] = free[instance]
                heapq.heappush(ended, (free[instance], free[instance] > min(at[head[place]] for place in chosen.run) + deadline_s))

    for number, moment in enumerate(at):
        run_until(moment)
        while ended and ended[0][0] <= moment:
            spare.learn(heapq.heappop(ended)[1])
        if demand.add(1, moment):
            limit = batch_within(tau_s, plan.max_batch, deadline_s, demand_per_s=demand.per_s, instances=plan.instances)
        ready = [min(expected[i], moment) if free[i] <= moment else expected[i] for i in range(plan.instances)]
        if finish_s(moment, len(queue), 1, ready, tau_s, limit, demand.per_s or math.inf) <= moment + deadline_s - spare.seconds:
            queue.append(number)
    run_until(math.inf)
    return done


def _through_front_end(due_s: NDArray[np.float64], front_end_s: float | Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """When each request leaves a single server, first come first served: Lindley's recursion in closed form [s]."""
    if isinstance(front_end_s, float | int):
        if front_end_s <= 0:
            return due_s
        service_s = np.full(len(due_s), float(front_end_s))
    else:
        service_s = rng.choice(np.asarray(front_end_s, dtype=np.float64), len(due_s))
    through_s = np.cumsum(service_s)
    left_s: NDArray[np.float64] = through_s + np.maximum.accumulate(due_s - (through_s - service_s))
    return left_s
