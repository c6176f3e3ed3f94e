"""Engines on a virtual clock, one or a fleet of them: batches by the real policy, service times from measured samples.

The loop itself is in ``kernel``; here are its inputs and what comes out.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headway.batching import batch_within
from headway.predict import kernel
from headway.predict.kernel import NOBODY, REFUSED, ROUTERS
from headway.records import ConfigError, Plan, ServiceCurve

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outage:
    """A replica that is gone from ``from_s`` until ``until_s``: what it held is lost, and no request is sent to it meanwhile."""

    replica: int
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class FleetRun:
    """What became of each request, in the order of arrival.

    Attributes:
        latency_s: from its arrival to its answer [n]; infinite where it was refused or lost [s].
        front_s, wait_s, service_s: its parts: until it was queued, until its batch started, while that ran [n]; not a number where it was refused or lost [s].
        batch: requests in its batch [n]; 0: none.
        refused, lost: how many.
        busy: share of the instances' time that batches took, from the first arrival to the last end.
    """

    latency_s: Floats
    front_s: Floats
    wait_s: Floats
    service_s: Floats
    batch: NDArray[np.int32]
    refused: int
    lost: int
    busy: float


def simulate(
    curve: ServiceCurve,
    plan: Plan,
    due_s: Floats,
    *,
    seed: int = 0,
    front_end_s: float | Sequence[float] = 0.0,
    front_joined_s: float | None = None,
    front_steals: bool = False,
    jitter_s: Sequence[float] = (),
    deadline_s: float = math.inf,
) -> Floats:
    """Latency of each request to one engine [s], in the order of ``due_s``, infinite where it was refused; as ``simulate_fleet``."""
    return simulate_fleet(
        curve, plan, due_s, seed=seed, front_end_s=front_end_s, front_joined_s=front_joined_s, front_steals=front_steals, jitter_s=jitter_s,
        deadline_s=deadline_s,
    ).latency_s  # fmt: skip


def simulate_fleet(
    curve: ServiceCurve,
    plan: Plan,
    due_s: Floats,
    *,
    replicas: int = 1,
    router: str = "round_robin",
    seed: int = 0,
    front_end_s: float | Sequence[float] = 0.0,
    front_joined_s: float | None = None,
    front_steals: bool = False,
    jitter_s: Sequence[float] = (),
    deadline_s: float = math.inf,
    outages: Sequence[Outage] = (),
) -> FleetRun:
    """Equal engines behind a router that takes no time, each with a front end of its own; deterministic by ``seed``.

    What it leaves out: items of several rows, the event loop's own lag, and what a client does that is refused.

    Args:
        curve: measured with ``plan.instances`` running; its raw samples are drawn with replacement.
        due_s: arrival times, ascending [s].
        router: one of ``ROUTERS``.
        front_end_s: time that each request spends in its replica's front end, one after another, before it is queued [s]: one figure, or
            measured ones to draw from.
        front_joined_s: that time of a request which joins others: the front end is at work when it comes, or lies still because a batch has its
            cores. An event loop that wakes up for one request spends several times what a further one costs. None: the same [s].
        front_steals: the front end has no core of its own: while all instances are at work, its time comes out of the batch that ends first.
        jitter_s: measured delays of this machine and transport to draw from, added to each request without holding up others [s]: the
            latencies of a model that does nothing, behind the same server.
        deadline_s: when an answer is of no more use, counted from the request's arrival in the queue; the policy then refuses what cannot make
            it [s].
        outages: at most one at a time for each replica.

    Raises:
        ConfigError: no replica, an unknown router, or an outage of a replica that is not there.
    """
    if replicas < 1 or router not in ROUTERS:
        raise ConfigError(f"a fleet needs at least one replica and a router out of {', '.join(ROUTERS)}, got {replicas} and {router!r}")
    if any(not 0 <= outage.replica < replicas or not outage.from_s < outage.until_s for outage in outages):
        raise ConfigError(f"an outage must be of a replica from 0 to {replicas - 1} and begin before it ends, got {list(outages)}")
    due_s = np.ascontiguousarray(due_s, np.float64)
    requests, batches = np.zeros(len(due_s), kernel.REQUEST), np.zeros(len(due_s), kernel.BATCH)
    rules = _rules(plan, deadline_s, router, front_steals)
    tau_s = np.array([0.0, *(curve.tau_s(size) for size in range(1, plan.max_batch + 1))])
    kernel.run(
        due_s, requests, batches, _replicas(replicas, plan, tau_s, deadline_s), _instances(replicas, plan), rules, _sizes(curve, plan),
        np.tile(tau_s, (replicas + 1, 1)),
        np.concatenate([np.asarray(timing.service_s, np.float64) for timing in curve.timings]), _slots(plan), _tree(replicas, router),
        np.atleast_1d(np.asarray(front_end_s, np.float64)), -1.0 if front_joined_s is None else float(front_joined_s), _outages(outages), seed,
    )  # fmt: skip
    run = _run(due_s, requests, batches[: int(rules[0]["batches"])], replicas * plan.instances)
    if len(jitter_s):
        extra_s = np.random.default_rng(seed).choice(np.asarray(jitter_s, np.float64), len(due_s))
        np.add(run.latency_s, extra_s, out=run.latency_s)
    return run


def _run(due_s: Floats, requests: NDArray[np.void], batches: NDArray[np.void], instances: int) -> FleetRun:
    count = len(due_s)
    ran = requests["batch"] >= 0
    place = requests["batch"][ran]
    ends_s = np.full(count, math.inf)
    ends_s[ran] = batches["end_s"][place]
    answered = np.isfinite(ends_s)
    starts_s, rows = np.full(count, math.nan), np.zeros(count, np.int32)
    starts_s[ran], rows[ran] = batches["start_s"][place], batches["rows"][place]
    starts_s[~answered], rows[~answered] = math.nan, 0
    refused = int((requests["batch"] == REFUSED).sum())
    ended = batches[np.isfinite(batches["end_s"])]
    span_s = float(ended["end_s"].max() - due_s[0]) if len(ended) else 0.0
    busy_s = float((ended["end_s"] - ended["start_s"]).sum())
    return FleetRun(
        latency_s=ends_s - due_s,
        front_s=np.where(answered, requests["queued_s"] - due_s, math.nan),
        wait_s=starts_s - requests["queued_s"],
        service_s=np.where(answered, ends_s, math.nan) - starts_s,
        batch=rows,
        refused=refused,
        lost=int(count - answered.sum()) - refused,
        busy=busy_s / (instances * span_s) if span_s > 0 else 0.0,
    )


def _rules(plan: Plan, deadline_s: float, router: str, front_steals: bool) -> NDArray[np.void]:
    rules = np.zeros(1, kernel.RULES)
    rules[0] = (
        plan.instances, plan.max_batch, plan.max_wait_s, deadline_s, not math.isinf(deadline_s), router == "least_loaded", front_steals,
        ROUTERS.index(router), 0,
    )  # fmt: skip
    return rules


def _replicas(count: int, plan: Plan, tau_s: Floats, deadline_s: float) -> NDArray[np.void]:
    replicas = np.zeros(count, kernel.REPLICA)
    replicas["alive"], replicas["head"], replicas["tail"], replicas["demand_since_s"] = 1, NOBODY, NOBODY, -1.0
    replicas["pace_mean"] = replicas["pace_used"] = 1.0
    replicas["limit"] = batch_within(tau_s.tolist(), plan.max_batch, deadline_s)
    return replicas


def _instances(replicas: int, plan: Plan) -> NDArray[np.void]:
    instances = np.zeros(replicas * plan.instances, kernel.INSTANCE)
    instances["running"], instances["learned"] = NOBODY, 1
    return instances


def _slots(plan: Plan) -> NDArray[np.void]:
    slots = np.zeros(plan.max_batch + 1, kernel.SLOT)
    slots["rows"] = 1
    return slots


def _tree(replicas: int, router: str) -> NDArray[np.int64]:
    """Minima over pairs of replicas, over pairs of those, ...: the root is the first; used by the router that looks at all."""
    leaves = 1 << (replicas - 1).bit_length() if router == "least_loaded" else 1
    tree = np.full(2 * leaves, kernel.FAR, np.int64)
    tree[leaves : leaves + replicas] = 0
    for node in range(leaves - 1, 0, -1):
        tree[node] = min(tree[2 * node], tree[2 * node + 1])
    return tree


def _outages(given: Sequence[Outage]) -> NDArray[np.void]:
    outages = np.zeros(len(given), kernel.OUTAGE)
    for place, outage in enumerate(given):
        outages[place] = (outage.replica, outage.from_s, outage.until_s, 0)
    return outages


def _sizes(curve: ServiceCurve, plan: Plan) -> NDArray[np.void]:
    """Between two measured sizes the samples of the larger are scaled by the ratio of the interpolated medians, so that both the level and the
    spread follow the curve; beyond the largest its samples are scaled up."""
    measured = [timing.batch for timing in curve.timings]
    begins = np.cumsum([0, *(len(timing.service_s) for timing in curve.timings)])
    sizes = np.zeros(plan.max_batch + 1, kernel.SIZE)
    for size in range(1, plan.max_batch + 1):
        place = min(bisect.bisect_left(measured, size), len(measured) - 1)
        timing = curve.timings[place]
        sizes[size] = (begins[place], len(timing.service_s), curve.tau_s(size) / timing.median_s)
    return sizes
