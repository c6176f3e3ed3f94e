"""How fast the simulator is: one engine, and a fleet of a thousand at a million requests a second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from headway.load import arrival_times
from headway.predict import ROUTERS, simulate_fleet
from headway.records import BatchTiming, Plan, ServiceCurve

ENGINE_REQUESTS = 1_000_000
REPLICAS, FLEET_PER_S = 1000, 1e6
PLAN = Plan(runtime="null", max_batch=64)
CURVE = ServiceCurve(
    variant="affine", runtime="null", device="cpu", instances=1, threads=1, tau0_s=0.002, alpha_s=0.0003, peak_bytes=0,
    timings=tuple(BatchTiming(batch=size, service_s=(0.002 + 0.0003 * size,)) for size in range(1, 65)),
)  # fmt: skip


def speeds(fleet_s: float) -> Iterator[dict[str, Any]]:
    """A line each: compiling, one engine with and without deadlines, the fleet by router over ``fleet_s`` of traffic."""
    began_s = time.perf_counter()
    simulate_fleet(CURVE, PLAN, np.arange(1.0, 9.0))
    yield {"stage": "speed", "what": "first call", "wall_s": time.perf_counter() - began_s}
    for what, rate_per_s, deadline_s in (
        ("half load", 1000.0, math.inf),
        ("half load, deadlines", 1000.0, 0.05),
        ("overload, deadlines", 9000.0, 0.05),
    ):
        due_s = arrival_times("poisson", rate_per_s, ENGINE_REQUESTS / rate_per_s, 1)
        yield {"stage": "speed", "what": what, **_timed(due_s, 1, "round_robin", deadline_s)}
    due_s = arrival_times("poisson", FLEET_PER_S, fleet_s, 1)
    for router in ROUTERS:
        yield {
            "stage": "speed",
            "what": f"{REPLICAS} replicas, {fleet_s:g} s of {FLEET_PER_S:,.0f}/s, {router}",
            **_timed(due_s, REPLICAS, router, math.inf),
        }


def _timed(due_s: np.ndarray, replicas: int, router: str, deadline_s: float) -> dict[str, float]:
    began_s = time.perf_counter()
    simulate_fleet(CURVE, PLAN, due_s, replicas=replicas, router=router, deadline_s=deadline_s)
    wall_s = time.perf_counter() - began_s
    return {"requests": len(due_s), "wall_s": wall_s, "requests_per_s": len(due_s) / wall_s}
