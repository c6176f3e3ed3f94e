"""The simulator's inner loop, compiled: a fleet of engines on a virtual clock, every decision by the functions of ``headway.batching`` themselves.

Numba compiles those functions and these from their one source; the server runs the same ones in Python. A replica is looked at only when
something reaches it, so that the cost of a request does not grow with the fleet; only ``least_loaded`` sees every end of a batch.

State lies in structured arrays, and functions are given the arrays they need: counting references to arrays that are taken out of a tuple cost
more than the simulation.
"""

from __future__ import annotations

import hashlib
import heapq
import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
from numba.extending import register_jitable

from headway.batching import overload, pace, policy
from headway.batching.overload import spare_after, window_over
from headway.batching.pace import pace_after, pace_moved
from headway.batching.policy import batch_within, finish_s, first_part, fit, overloaded, take, tau

ROUTERS = ("round_robin", "random", "two_choices", "least_loaded")
"""How a request finds its replica: in turn; by chance; the one of two by chance, or of all, that has fewer requests in flight."""
ROUND_ROBIN, RANDOM, TWO_CHOICES, LEAST_LOADED = range(4)
REFUSED, LOST, QUEUED = -1, -2, -3
"""In place of a request's batch."""
NOBODY = -1
FAR = 2**60
REST_S = 0.002
"""The longest that the server's event loop leaves requests lying while every instance is at work on the cores that they share [s]."""
IN_LOOP_S = 0.003
"""The longest batch that one instance runs on the event loop's own thread where they share the cores, as ``serve.turns.SHORT_S`` [s]."""
POLICY = (take, fit, first_part, finish_s, batch_within, overloaded, tau, window_over, spare_after, pace_after, pace_moved)
"""What the server decides by, and the simulator too."""

REQUEST = np.dtype([("queued_s", "f8"), ("batch", "i8"), ("following", "i8")])
BATCH = np.dtype([("start_s", "f8"), ("end_s", "f8"), ("rows", "i8")])
REPLICA = np.dtype(
    [
        ("alive", "i8"), ("head", "i8"), ("tail", "i8"), ("waiting", "i8"), ("limit", "i8"), ("front_free_s", "f8"), ("turn_s", "f8"), ("spare_s", "f8"),
        ("overloaded", "i8"), ("pace_mean", "f8"), ("pace_used", "f8"), ("demand_per_s", "f8"), ("demand_rows", "i8"), ("demand_since_s", "f8"),
    ]
)  # fmt: skip
INSTANCE = np.dtype([("free_s", "f8"), ("expected_s", "f8"), ("late_after_s", "f8"), ("running", "i8"), ("learned", "i8")])
"""Those of replica r stand from ``r * instances`` on."""
SIZE = np.dtype([("first", "i8"), ("count", "i8"), ("scale", "f8")])
"""By rows of a batch: where its samples begin, how many there are, and what they are multiplied by."""
SLOT = np.dtype([("id", "i8"), ("rows", "i8"), ("arrived_s", "f8"), ("until_s", "f8")])
"""Room for the head of a queue while the policy looks at it."""
RULES = np.dtype(
    [
        ("instances", "i8"), ("max_batch", "i8"), ("max_wait_s", "f8"), ("deadline_s", "f8"), ("guarded", "i8"), ("watched", "i8"),
        ("front_steals", "i8"), ("router", "i8"), ("batches", "i8"),
    ]
)  # fmt: skip
"""What holds for the whole fleet, and how many batches there were so far."""
OUTAGE = np.dtype([("replica", "i8"), ("from_s", "f8"), ("until_s", "f8"), ("state", "i8")])

for _function in POLICY:
    register_jitable(_function)
inlined = register_jitable(inline="always")


@inlined
def earliest(instances: Any, base: int, count: int) -> int:
    """The instance that is free first."""
    best = base
    for place in range(base + 1, base + count):
        if instances[place].free_s < instances[best].free_s:
            best = place
    return best


@register_jitable
def weigh(tree: Any, replica: int, change: int, exact: bool) -> None:
    """Change, or set, what a replica has in flight, in the tree of minima."""
    node = len(tree) // 2 + replica
    tree[node] = change if exact else tree[node] + change
    node //= 2
    while node > 0:
        tree[node] = min(tree[2 * node], tree[2 * node + 1])
        node //= 2


@inlined
def lightest(tree: Any) -> int:
    """The first of the replicas with the least in flight."""
    half = len(tree) // 2
    node = 1
    while node < half:
        node = 2 * node if tree[2 * node] <= tree[2 * node + 1] else 2 * node + 1
    return node - half


@register_jitable
def settle(replicas: Any, rules: Any, tau_s: Any, replica: int) -> None:
    """Demand or pace has changed: how large batches may be, and whether more is asked for than they can answer."""
    demand_per_s, instances = replicas[replica].demand_per_s, rules[0].instances
    limit = batch_within(tau_s[replica], rules[0].max_batch, rules[0].deadline_s, demand_per_s=demand_per_s, instances=instances)
    replicas[replica].limit = limit
    replicas[replica].overloaded = overloaded(tau_s[replica], limit, demand_per_s, instances)


@register_jitable
def learn(batches: Any, replicas: Any, instances: Any, rules: Any, tau_s: Any, replica: int, instance: int) -> None:
    """Take from the instance's last batch how long it took and whether it was late, once."""
    if instances[instance].learned or not rules[0].guarded:
        return
    instances[instance].learned = 1
    batch = instances[instance].running
    measured_s = tau_s[len(replicas)]
    service_s, expected_s = batches[batch].end_s - batches[batch].start_s, measured_s[batches[batch].rows]
    if expected_s > 0:
        mean = pace_after(replicas[replica].pace_mean, service_s / expected_s)
        replicas[replica].pace_mean = mean
        if pace_moved(mean, replicas[replica].pace_used):
            replicas[replica].pace_used = mean
            tau_s[replica] = mean * measured_s
            settle(replicas, rules, tau_s, replica)
    if replicas[replica].overloaded:
        late = instances[instance].free_s > instances[instance].late_after_s
        replicas[replica].spare_s = spare_after(replicas[replica].spare_s, late, rules[0].deadline_s)


@inlined
def collect(requests: Any, replicas: Any, rules: Any, slots: Any, replica: int, now_s: float) -> int:
    """The first of the queue that had come by now, at most one more than a batch holds; how many."""
    seen, one, limit, deadline_s = 0, replicas[replica].head, replicas[replica].limit, rules[0].deadline_s
    while one != NOBODY and seen <= limit and requests[one].queued_s <= now_s:
        slots[seen].id = one
        slots[seen].arrived_s = requests[one].queued_s
        slots[seen].until_s = requests[one].queued_s + deadline_s
        seen += 1
        one = requests[one].following
    return seen


@inlined
def unlink(requests: Any, replicas: Any, slots: Any, replica: int, looked: int) -> None:
    """Close the queue over those of its first ``looked`` that have left it."""
    rest = requests[slots[looked - 1].id].following
    before = NOBODY
    for place in range(looked):
        one = slots[place].id
        if requests[one].batch != QUEUED:
            replicas[replica].waiting -= 1
            continue
        if before == NOBODY:
            replicas[replica].head = one
        else:
            requests[before].following = one
        before = one
    if before == NOBODY:
        replicas[replica].head = rest
    else:
        requests[before].following = rest
    if rest == NOBODY:
        replicas[replica].tail = before


@inlined
def choose(
    requests: Any, replicas: Any, instances: Any, rules: Any, tau_s: Any, slots: Any, tree: Any, replica: int, instance: int, looked: int,
    now_s: float,
) -> int:  # fmt: skip
    """Which of the first of a queue run, and which are refused; how many run."""
    backlog = replicas[replica].waiting > looked or looked >= replicas[replica].limit
    chosen = fit(slots.rows[:looked], slots.until_s[:looked], now_s, tau_s[replica], backlog=backlog)
    for place in chosen.refuse:
        requests[slots[place].id].batch = REFUSED
    if len(chosen.refuse) > 0 and replicas[replica].overloaded:
        replicas[replica].spare_s = spare_after(replicas[replica].spare_s, True, rules[0].deadline_s)
    if len(chosen.refuse) > 0 and rules[0].watched:
        weigh(tree, replica, -len(chosen.refuse), False)
    for place in chosen.run:
        requests[slots[place].id].batch = rules[0].batches
    if len(chosen.run) > 0:
        instances[instance].late_after_s = slots[chosen.run[0]].until_s
    return len(chosen.run)


@register_jitable
def start_batches(
    requests: Any, batches: Any, replicas: Any, instances: Any, rules: Any, sizes: Any, tau_s: Any, samples_s: Any, slots: Any, tree: Any,
    ends: Any, replica: int, upto_s: float,
) -> None:  # fmt: skip
    """Let a replica start all batches that start before ``upto_s``."""
    while replicas[replica].waiting > 0:
        instance = earliest(instances, replica * rules[0].instances, rules[0].instances)
        now_s = max(instances[instance].free_s, requests[replicas[replica].head].queued_s)
        if now_s >= upto_s:
            return
        limit = replicas[replica].limit
        seen = collect(requests, replicas, rules, slots, replica, now_s)
        decision = take(slots.rows[:seen], slots.arrived_s[:seen], now_s, max_batch=limit, max_wait_s=rules[0].max_wait_s)
        while decision.items == 0:
            # until the policy's moment, or until one more has come: it may fill the batch
            after_s = requests[requests[slots[seen - 1].id].following].queued_s if seen < replicas[replica].waiting else math.inf
            now_s = min(decision.wake_at_s, after_s)
            if now_s >= upto_s:
                return
            seen = collect(requests, replicas, rules, slots, replica, now_s)
            decision = take(slots.rows[:seen], slots.arrived_s[:seen], now_s, max_batch=limit, max_wait_s=rules[0].max_wait_s)
        learn(batches, replicas, instances, rules, tau_s, replica, instance)
        batch, looked = rules[0].batches, decision.items
        rows = looked
        if rules[0].guarded:
            rows = choose(requests, replicas, instances, rules, tau_s, slots, tree, replica, instance, looked, now_s)
        else:
            for place in range(looked):
                requests[slots[place].id].batch = batch
        unlink(requests, replicas, slots, replica, looked)
        if rows > 0:
            drawn = sizes[rows].first + int(np.random.random() * sizes[rows].count)
            end_s = now_s + samples_s[drawn] * sizes[rows].scale
            rules[0].batches += 1
            batches[batch].start_s = now_s
            batches[batch].end_s = end_s
            batches[batch].rows = rows
            instances[instance].free_s = end_s
            instances[instance].expected_s = now_s + tau_s[replica, rows]
            instances[instance].running = batch
            instances[instance].learned = 0
            if rules[0].watched:
                heapq.heappush(ends, (end_s, replica, batch))


@register_jitable
def fail(requests: Any, batches: Any, replicas: Any, instances: Any, rules: Any, tree: Any, replica: int, now_s: float) -> None:
    """A replica is gone, and what it held is lost."""
    replicas[replica].alive = 0
    one = replicas[replica].head
    while one != NOBODY:
        requests[one].batch = LOST
        one = requests[one].following
    replicas[replica].head = NOBODY
    replicas[replica].tail = NOBODY
    replicas[replica].waiting = 0
    base = replica * rules[0].instances
    for instance in range(base, base + rules[0].instances):
        batch = instances[instance].running
        if batch != NOBODY and batches[batch].end_s > now_s:
            batches[batch].end_s = math.inf
        instances[instance].running = NOBODY
        instances[instance].learned = 1
    if rules[0].watched:
        weigh(tree, replica, FAR, True)


@register_jitable
def recover(replicas: Any, instances: Any, rules: Any, tree: Any, replica: int, now_s: float) -> None:
    """It is back, with nothing to do."""
    replicas[replica].alive = 1
    replicas[replica].front_free_s = replicas[replica].turn_s = now_s
    base = replica * rules[0].instances
    for instance in range(base, base + rules[0].instances):
        instances[instance].free_s = now_s
        instances[instance].expected_s = now_s
    if rules[0].watched:
        weigh(tree, replica, 0, True)


@register_jitable
def in_flight(batches: Any, replicas: Any, instances: Any, rules: Any, replica: int, now_s: float) -> int:
    """Requests that a replica holds."""
    held = replicas[replica].waiting
    base = replica * rules[0].instances
    for instance in range(base, base + rules[0].instances):
        batch = instances[instance].running
        if batch != NOBODY and batches[batch].end_s > now_s:
            held += batches[batch].rows
    return int(held)


@register_jitable
def some_alive(replicas: Any) -> int:
    """A replica by chance among those that are there; one must be."""
    replica = int(np.random.random() * len(replicas))
    while not replicas[replica].alive:
        replica = int(np.random.random() * len(replicas))
    return replica


@inlined
def in_time(batches: Any, replicas: Any, instances: Any, rules: Any, tau_s: Any, ready_s: Any, replica: int, now_s: float) -> bool:
    """Whether a request that reaches the queue now is taken, as the batcher decides it."""
    base, count = replica * rules[0].instances, rules[0].instances
    for place in range(count):
        instance = base + place
        ready_s[place] = instances[instance].expected_s
        if instances[instance].free_s <= now_s:
            learn(batches, replicas, instances, rules, tau_s, replica, instance)
            ready_s[place] = min(ready_s[place], now_s)
    if replicas[replica].demand_since_s < 0:
        replicas[replica].demand_since_s = now_s
    replicas[replica].demand_rows += 1
    span_s = now_s - replicas[replica].demand_since_s
    if window_over(replicas[replica].demand_rows, span_s):
        replicas[replica].demand_per_s = replicas[replica].demand_rows / span_s
        replicas[replica].demand_rows = 0
        replicas[replica].demand_since_s = now_s
        settle(replicas, rules, tau_s, replica)
    demand_per_s = replicas[replica].demand_per_s if replicas[replica].demand_per_s > 0 else math.inf
    end_s = finish_s(now_s, replicas[replica].waiting, 1, ready_s, tau_s[replica], replicas[replica].limit, demand_per_s)
    spare_s = replicas[replica].spare_s if replicas[replica].overloaded else 0.0
    return bool(end_s <= now_s + rules[0].deadline_s - spare_s)


@inlined
def front_time(
    batches: Any, replicas: Any, instances: Any, rules: Any, replica: int, now_s: float, alone_s: float, joined_s: float
) -> float:
    """What a request costs the front end: less when it joins a turn that is under way, or one that waits for a batch on the same cores [s].

    A short batch runs on the event loop's own thread: whatever comes meanwhile wakes nobody and is seen when it ends.
    """
    if joined_s < 0.0:
        return alone_s
    if now_s < max(replicas[replica].front_free_s, replicas[replica].turn_s):
        return joined_s
    if rules[0].front_steals:
        instance = earliest(instances, replica * rules[0].instances, rules[0].instances)
        running = instances[instance].running
        if running != NOBODY and instances[instance].free_s > now_s:
            if rules[0].instances == 1 and instances[instance].free_s - batches[running].start_s <= IN_LOOP_S:
                return joined_s
            replicas[replica].turn_s = min(instances[instance].free_s, now_s + REST_S)
    return alone_s


@inlined
def through_front(batches: Any, replicas: Any, instances: Any, rules: Any, replica: int, now_s: float, front_s: float) -> float:
    """When a request that reaches the replica now is in its queue: one after another, and out of a running batch's time if cores are shared [s]."""
    begin_s = max(now_s, replicas[replica].front_free_s)
    replicas[replica].front_free_s = begin_s + front_s
    if rules[0].front_steals:
        instance = earliest(instances, replica * rules[0].instances, rules[0].instances)
        if instances[instance].free_s > begin_s and instances[instance].running != NOBODY:
            instances[instance].free_s += front_s
            instances[instance].expected_s += front_s
            batches[instances[instance].running].end_s += front_s
    return float(begin_s + front_s)


@register_jitable
def happen(
    requests: Any, batches: Any, replicas: Any, instances: Any, rules: Any, sizes: Any, tau_s: Any, samples_s: Any, slots: Any, tree: Any,
    ends: Any, outages: Any, now_s: float,
) -> int:  # fmt: skip
    """Everything that comes before an arrival, in the order of time: ends of batches (for the router that watches), failures, returns. By how
    many more replicas are there."""
    change = 0
    while True:
        moment_s, which = ends[0][0], NOBODY
        for place in range(len(outages)):
            next_s = outages[place].from_s if outages[place].state == 0 else outages[place].until_s
            if outages[place].state < 2 and next_s < moment_s:
                moment_s, which = next_s, place
        if moment_s > now_s or math.isinf(moment_s):
            return change
        if which == NOBODY:
            end_of_batch(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, moment_s)
        else:
            gone = outages[which].replica
            if outages[which].state == 0:
                start_batches(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, gone, moment_s)
                fail(requests, batches, replicas, instances, rules, tree, gone, moment_s)
                change -= 1
            else:
                recover(replicas, instances, rules, tree, gone, moment_s)
                change += 1
            outages[which].state += 1


@register_jitable
def end_of_batch(
    requests: Any, batches: Any, replicas: Any, instances: Any, rules: Any, sizes: Any, tau_s: Any, samples_s: Any, slots: Any, tree: Any,
    ends: Any, moment_s: float,
) -> None:  # fmt: skip
    """The first of the ends to come: the router counts less, and the replica starts what waits."""
    _, replica, batch = heapq.heappop(ends)
    if batch != NOBODY and moment_s < batches[batch].end_s < math.inf:  # the front end has held it up
        heapq.heappush(ends, (batches[batch].end_s, replica, batch))
    elif replicas[replica].alive:
        if batch != NOBODY and batches[batch].end_s <= moment_s:
            weigh(tree, replica, -batches[batch].rows, False)
        start_batches(
            requests,
            batches,
            replicas,
            instances,
            rules,
            sizes,
            tau_s,
            samples_s,
            slots,
            tree,
            ends,
            replica,
            np.nextafter(moment_s, math.inf),
        )


@inlined
def route(
    requests: Any, batches: Any, replicas: Any, instances: Any, rules: Any, sizes: Any, tau_s: Any, samples_s: Any, slots: Any, tree: Any,
    ends: Any, alive: int, last: int, now_s: float,
) -> int:  # fmt: skip
    """The replica for a request; what it starts before now has started."""
    router = rules[0].router
    if router == LEAST_LOADED:
        replica = lightest(tree)
    elif router == ROUND_ROBIN:
        replica = (last + 1) % len(replicas)
        while not replicas[replica].alive:
            replica = (replica + 1) % len(replicas)
    else:
        replica = some_alive(replicas)
    start_batches(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, replica, now_s)
    if router == TWO_CHOICES and alive > 1:
        other = replica
        while other == replica:
            other = some_alive(replicas)
        start_batches(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, other, now_s)
        held = in_flight(batches, replicas, instances, rules, replica, now_s)
        if in_flight(batches, replicas, instances, rules, other, now_s) < held:
            replica = other
    return replica


@inlined
def enqueue(requests: Any, replicas: Any, rules: Any, tree: Any, ends: Any, replica: int, number: int) -> None:
    """Put a request at the end of its replica's queue."""
    requests[number].batch = QUEUED
    requests[number].following = NOBODY
    if replicas[replica].tail == NOBODY:
        replicas[replica].head = number
    else:
        requests[replicas[replica].tail].following = number
    replicas[replica].tail = number
    replicas[replica].waiting += 1
    if rules[0].watched:
        weigh(tree, replica, 1, False)
        heapq.heappush(ends, (requests[number].queued_s, replica, NOBODY))


def play(
    due_s: Any, requests: Any, batches: Any, replicas: Any, instances: Any, rules: Any, sizes: Any, tau_s: Any, samples_s: Any, slots: Any,
    tree: Any, front_end_s: Any, front_joined_s: float, outages: Any, seed: int,
) -> None:  # fmt: skip
    """All arrivals, in order; what happened to them is in the arrays."""
    np.random.seed(seed)
    ends = [(math.inf, 0, NOBODY)]
    alive, replica = len(replicas), NOBODY
    ready_s = np.zeros(rules[0].instances)
    for number in range(len(due_s)):
        now_s = due_s[number]
        if rules[0].watched or len(outages) > 0:
            alive += happen(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, outages, now_s)
        if alive == 0:
            requests[number].batch = LOST
            continue
        replica = route(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, alive, replica, now_s)
        front_s = front_end_s[int(np.random.random() * len(front_end_s))] if len(front_end_s) > 1 else front_end_s[0]
        front_s = front_time(batches, replicas, instances, rules, replica, now_s, front_s, front_joined_s)
        queued_s = now_s
        if front_s > 0.0:
            queued_s = through_front(batches, replicas, instances, rules, replica, now_s, front_s)
            start_batches(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, replica, queued_s)
        requests[number].queued_s = queued_s
        if rules[0].guarded and not in_time(batches, replicas, instances, rules, tau_s, ready_s, replica, queued_s):
            requests[number].batch = REFUSED
        else:
            enqueue(requests, replicas, rules, tree, ends, replica, number)
    happen(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, outages, math.inf)
    for each in range(len(replicas)):
        start_batches(requests, batches, replicas, instances, rules, sizes, tau_s, samples_s, slots, tree, ends, each, math.inf)


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile on the first call, and keep the machine code in a folder of its own for these sources, where one can be made.

    Numba's cache looks at the source of the function itself only, and would keep an old policy alive.
    """
    sources = "".join(inspect.getsource(module) for module in (policy, overload, pace)) + Path(__file__).read_text() + numba.__version__
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway" / "compiled"
    folder = home / hashlib.sha256(sources.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = os.access(folder, os.W_OK)
    except OSError:
        kept = False
    config = cast(Any, numba.config)
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        made: Callable[..., None] = numba.njit(cache=kept)(function)
    finally:
        config.CACHE_DIR = before
    return made


run = compiled(play)
"""``play``, as machine code."""
