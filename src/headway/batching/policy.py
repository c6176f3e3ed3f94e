"""What an idle instance runs next, and what is not worth queueing. Pure: the batcher asks on the real clock, the simulator on a virtual one.

The simulator compiles these functions with Numba and gives them arrays, so they keep to what it knows: loops, numbers,
lists of numbers, and no keyword-only arguments.

Predicted service times come as ``tau_s``, where ``tau_s[b]`` is the time of a batch of b rows and ``tau_s[0]`` is not used; a batch beyond its
end (one item with more rows than a batch may hold) takes the last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Take(NamedTuple):
    """How many of the first items to run now; when none, the moment to ask again [s], infinite: when something arrives."""

    items: int
    wake_at_s: float


class Fit(NamedTuple):
    """Places of the items of a batch to run, and of those to refuse; the others stay in the queue."""

    run: list[int]
    refuse: list[int]


def take(
    rows: Sequence[int], arrived_s: Sequence[float], now_s: float, max_batch: int, max_wait_s: float, start_by_s: float = math.inf
) -> Take:
    """The first items that fit into one batch, or how long to wait for a fuller one.

    Greedy with ``max_wait_s`` of 0: an idle instance never waits while something is queued, since with affine service times a
    timer buys efficiency, not latency (design, section 7). A wait is counted from the first item's arrival, and never passes ``start_by_s``.

    Args:
        rows: rows of each waiting item, in the order in which they are to run; only the first ``max_batch`` are looked at.
        arrived_s: arrival time of each, same order [s].
        max_batch: most rows in one batch; an item with more rows runs alone.
        start_by_s: when a batch must start for the deadlines of its items [s].
    """
    if len(rows) == 0:
        return Take(0, math.inf)
    count = 0
    total = 0
    for size in rows:
        if count and total + size > max_batch:
            break
        count += 1
        total += size
        if total >= max_batch:
            break
    full = total >= max_batch or count < len(rows)
    until_s = min(arrived_s[0] + max_wait_s, start_by_s)
    if full or now_s >= until_s:
        return Take(count, math.inf)
    return Take(0, until_s)


def alike(keys: Sequence[object]) -> list[int]:
    """Places of the items that may share a batch with the first: those with an equal key, in their order.

    The first item decides, so no kind of item starves another: whichever is first in the queue runs next.
    """
    return [place for place, key in enumerate(keys) if key == keys[0]]


def fit(rows: Sequence[int], deadline_s: Sequence[float], now_s: float, tau_s: Sequence[float], backlog: bool) -> Fit:
    """Which items of a batch to run, so that none is run in vain.

    When all are in time together, all run. Otherwise, with nothing else waiting, the batch is cut in two, if both parts are in time one after the
    other. Else the items in danger are refused and the rest runs, for smaller batches would lower the throughput when it is needed most (early
    drop: Shen et al., Nexus, SOSP 2019, section 6.3).

    Args:
        rows, deadline_s: of each item, in the order in which they are to run; a deadline may be infinite [s].
        backlog: whether more is waiting than this batch, or it is as large as it may be.
    """
    run, refuse = list(range(len(rows))), list(range(0))
    while len(run) > 0:
        urgent, together = 0, 0
        for at, place in enumerate(run):
            together += rows[place]
            if deadline_s[place] < deadline_s[run[urgent]]:
                urgent = at
        if now_s + tau(tau_s, together) <= deadline_s[run[urgent]]:
            break
        count = 0 if backlog else first_part(run, rows, deadline_s, now_s, tau_s)
        if count > 0:
            return Fit(run[:count], refuse)
        refuse.append(run.pop(urgent))
    return Fit(run, refuse)


def first_part(run: Sequence[int], rows: Sequence[int], deadline_s: Sequence[float], now_s: float, tau_s: Sequence[float]) -> int:
    """How many of the first items of a batch can run so that they and, in a batch after them, the rest are in time; 0: it cannot be done."""
    first_until_s, first_rows = [math.inf for _ in run], [0 for _ in run]
    until_s, together = math.inf, 0
    for at, place in enumerate(run):
        until_s = min(until_s, deadline_s[place])
        together += rows[place]
        first_until_s[at], first_rows[at] = until_s, together
    rest_until_s, rest_rows = math.inf, 0
    for count in range(len(run) - 1, 0, -1):
        rest_until_s = min(rest_until_s, deadline_s[run[count]])
        rest_rows += rows[run[count]]
        first_end_s = now_s + tau(tau_s, first_rows[count - 1])
        if first_end_s <= first_until_s[count - 1] and first_end_s + tau(tau_s, rest_rows) <= rest_until_s:
            return count
    return 0


def finish_s(
    now_s: float,
    ahead_rows: int,
    rows: int,
    free_s: Sequence[float],
    tau_s: Sequence[float],
    max_batch: int,
    demand_per_s: float = math.inf,
) -> float:
    """When an item that arrives now will be done, if what is ahead of it and itself run in full batches [s].

    Args:
        ahead_rows: rows waiting that will run before it.
        free_s: when each instance is expected to be free, in any order; in the past: it is free now [s].
        demand_per_s: rows asked for lately; infinite when that is not known [1/s].

    An item that runs at once takes its own time. One that waits is joined by what comes meanwhile; its batch is full at most.
    """
    before, full_s = ahead_rows // max_batch, tau(tau_s, max_batch)
    ready_s = sorted([max(now_s, at_s) for at_s in free_s])
    while before > 0 and ready_s[-1] - ready_s[0] > full_s:
        ready_s[0] += full_s
        ready_s.sort()
        before -= 1
    start_s = ready_s[before % len(ready_s)] + before // len(ready_s) * full_s  # from here on the instances take turns
    if start_s <= now_s:
        return start_s + tau(tau_s, min(ahead_rows + rows, max(max_batch, rows)))
    joined = ahead_rows % max_batch + rows + demand_per_s * (start_s - now_s)
    return start_s + (full_s if joined >= max_batch else tau(tau_s, math.ceil(joined)))


def done_by_s(now_s: float, ahead_rows: int, free_s: Sequence[float], full_s: float, max_batch: int) -> float:
    """A moment that ``finish_s`` of an item of one row never passes, found with less work [s].

    Args:
        full_s: the time of a full batch [s].
    """
    return max(now_s, *free_s) + (ahead_rows // (max_batch * len(free_s)) + 1) * full_s


OVERLOADED_SHARE = 0.85
"""Of the latency, for a batch under overload to be gathered and run in: the rest is for what predictions do not know."""


def batch_within(tau_s: Sequence[float], max_batch: int, latency_s: float, demand_per_s: float = 0.0, instances: int = 1) -> int:
    """Most rows a batch may have for ``latency_s`` to be held under full load; at least 1.

    An item that arrives just after a batch started waits for that one and then runs in one as large: ``2 tau(b) <= latency``. When more is asked
    for than can be answered, somebody is refused anyhow; then only those need to be in time who come in the last ``k b / demand`` before a batch
    starts, for they fill it: ``k b / demand + tau(b) <= 0.85 latency``. Larger batches answer more of them.

    Args:
        demand_per_s: rows that were asked for lately, refused ones included [1/s]; 0 when it is not known.
        instances: k.
    """
    if math.isinf(latency_s):
        return max_batch
    within = 1
    for size in range(1, max_batch + 1):
        time_s = tau(tau_s, size)
        overloaded = demand_per_s * time_s > instances * size
        if 2 * time_s <= latency_s or (overloaded and instances * size / demand_per_s + time_s <= OVERLOADED_SHARE * latency_s):
            within = size
    return within


def overloaded(tau_s: Sequence[float], batch: int, demand_per_s: float, instances: int) -> bool:
    """Whether more is asked for than full batches of this size on all instances can answer.

    Somebody must be refused then, and the sooner the better. While it is not so, a refusal saves nothing: the queue becomes short again by
    itself, and an item that was predicted to be late may yet be in time.
    """
    return demand_per_s * tau(tau_s, batch) > instances * batch


def capacity_per_s(tau_s: Sequence[float], max_batch: int, instances: int) -> float:
    """Rows a second with batches of the best size up to ``max_batch``, on all instances [1/s]: ``max_b k b / tau(b)`` (design, section 7)."""
    return max(instances * size / tau(tau_s, size) for size in range(1, max_batch + 1))


STEP_ABOVE = 0.95
STEP_BACK_BELOW = 0.7
REFUSED_SHARE = 0.01
CALM_S = 5.0


def level(now: int, demand_per_s: float, refused_share: float, capacities_per_s: Sequence[float], calm_s: float) -> int:
    """Which variant of the frontier is to answer from now on: 0 is the best answer, each further one faster and less accurate.

    One step at a time. To the faster one at once, when demand passes 95% of what the present one can do or more than 1% had to be refused for
    their deadlines. Back only when demand was below 70% of what the better one can do for ``CALM_S``: the gap and the wait keep it from swinging.

    Args:
        demand_per_s: rows a second that came lately, refused ones included [1/s].
        refused_share: share of them refused for their deadlines or a full queue.
        capacities_per_s: of each variant [1/s].
        calm_s: how long demand has been below the mark of the better variant [s].
    """
    if now + 1 < len(capacities_per_s) and (demand_per_s > STEP_ABOVE * capacities_per_s[now] or refused_share > REFUSED_SHARE):
        return now + 1
    if now > 0 and calm_s >= CALM_S:
        return now - 1
    return now


def calm(now: int, demand_per_s: float, capacities_per_s: Sequence[float]) -> bool:
    """Whether demand would suit the next better variant."""
    return now > 0 and demand_per_s < STEP_BACK_BELOW * capacities_per_s[now - 1]


def tau(tau_s: Sequence[float], rows: int) -> float:
    """Predicted time of a batch [s]."""
    return tau_s[min(rows, len(tau_s) - 1)]
