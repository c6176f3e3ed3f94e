"""Open-loop load on a server or on the bare runtime: one rate for a few seconds, the warm-up cut away, the machine watched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from client import Client
from running import Running

from headway.load import RawLoad, arrival_times, run_http, summarise
from headway.measure.environment import Watch
from headway.records import LoadPoint, Objective

WARM_S, MEASURED_S, DRAIN_S = 0.7, 3.0, 2.0
SETTLED_S, SETTLE_LIMIT_S = 0.05, 30.0
QUIET_STEAL, QUIET_OTHERS = 0.02, 0.06


@dataclass(frozen=True)
class Target:
    """What load is offered to.

    Attributes:
        run: offers requests at these due times [s].
        cpu_s: CPU time of the target so far [s].
        settled: waits until it has come to rest; false when it does not.
        beside: whether it is other processes than this one.
    """

    run: Callable[[np.ndarray], RawLoad]
    cpu_s: Callable[[], float]
    settled: Callable[[], bool]
    beside: bool = True


@dataclass(frozen=True)
class Trial:
    """One rate offered.

    Attributes:
        raw: without the warm-up.
        cpu_s: of the target's processes, warm-up included, for each request that ended well [s].
        steal_fraction: of all CPU time.
        others_cores: cores that neither the load nor the target used.
    """

    raw: RawLoad
    rate_per_s: float
    seed: int
    cpu_s: float
    steal_fraction: float
    others_cores: float

    @property
    def quiet(self) -> bool:
        """Whether the machine was this benchmark's own."""
        return self.steal_fraction <= QUIET_STEAL and self.others_cores <= QUIET_OTHERS

    def point(self, bound_s: float) -> LoadPoint:
        """The trial against a bound on p99."""
        objective = Objective(latency_s=bound_s)
        told = {"target": "benchmark", "arrivals": "poisson", "rate_per_s": self.rate_per_s, "steal_fraction": self.steal_fraction}
        return summarise(self.raw, objective=objective, seed=self.seed, **told)

    def line(self, bound_s: float) -> dict[str, Any]:
        """The figures worth keeping."""
        point = self.point(bound_s)
        kept = {
            "rate_per_s": self.rate_per_s, "miss_fraction": point.miss_fraction, "p50_s": point.percentile(0.5).latency_s if point.percentiles else None,
            "p99_s": point.percentile(0.99).latency_s if point.percentiles else None, "achieved_per_s": point.achieved_rate_per_s,
            "refused": point.refused, "failed": point.failed, "lateness_p99_s": point.lateness_p99_s, "verdict": point.verdict, "cpu_s": self.cpu_s,
            "steal_fraction": self.steal_fraction, "others_cores": self.others_cores, "seed": self.seed,
        }  # fmt: skip
        return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in kept.items()}


def trial(target: Target, rate_per_s: float, seconds: float, seed: int) -> Trial:
    """Offer a Poisson stream and watch."""
    due_s = arrival_times("poisson", rate_per_s, WARM_S + seconds, seed)
    before_s, began = target.cpu_s(), time.perf_counter()
    with Watch() as watch:
        raw = target.run(due_s)
    wall_s, spent_s = time.perf_counter() - began, target.cpu_s() - before_s
    others = watch.others_fraction * (os.cpu_count() or 1) - (spent_s / wall_s if target.beside else 0.0)
    ended = int(np.count_nonzero(raw.status == 0))
    return Trial(cut(raw, WARM_S), rate_per_s, seed, spent_s / max(1, ended), watch.steal_fraction, max(0.0, others))


def cut(raw: RawLoad, warm_s: float) -> RawLoad:
    """A run without the requests that were due in its first ``warm_s``, on a clock that starts there."""
    kept = raw.due_s >= warm_s
    times = {name: getattr(raw, name)[kept] - warm_s for name in ("due_s", "sent_s", "done_s")}
    return replace(raw, **times, status=raw.status[kept], end_s=raw.end_s - warm_s)


def over_http(held: Running, *, spin: bool = True) -> Target:
    """A server; every answer 2xx counts as right (answers are compared where a server starts, stops and swaps).

    Args:
        spin: the generator never sleeps, which it may do on a core of its own: to wake it would cost each server's core an interrupt a request.
    """
    bodies, headers = held.requests()

    def run(due_s: np.ndarray) -> RawLoad:
        return run_http(held.url, bodies, headers, due_s, drain_s=DRAIN_S, spin=spin)

    return Target(run, held.cpu_s, lambda: settle(held))


def settle(held: Running) -> bool:
    """Wait until the server answers a lone request at once again, three times; false when it does not come to that."""
    bodies, headers = held.requests()
    end_s, calm = time.perf_counter() + SETTLE_LIMIT_S, 0
    while time.perf_counter() < end_s:
        with suppress(OSError), Client(held.port, held.path) as client:
            began = time.perf_counter()
            status, _, _ = client.ask(bodies[0], headers[0])
            calm = calm + 1 if status == 200 and time.perf_counter() - began < SETTLED_S else 0
            if calm == 3:
                return True
        time.sleep(0.02)
    return False
