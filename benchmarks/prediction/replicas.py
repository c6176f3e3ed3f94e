"""A plan against reality: one and two replicas of a light model behind a round-robin router, predicted and measured.

The model sleeps its known time (the null runtime), so that two replicas and the generator fit on two cores: both servers on one, the generator on the
other, as each would have a machine of its own. The router is the generator: it sends every second request to the second replica.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from served import DRAIN_S, LOAD_CORE, WARM_S, Target, curve, front, on_core, share_of, target

from headway.load import RawLoad, arrival_times, run_http, summarise
from headway.predict import simulate_fleet
from headway.records import Objective, Plan, to_json

REPLICAS, UTILISATIONS = (1, 2), (0.5, 0.7, 0.85)
TAU0_S, ALPHA_S = 0.004, 0.0005
PLAN = Plan(runtime="null", max_batch=16)
INPUTS = {"x": np.ones((8, 16), np.float32)}
SEED_STEP = 100


def replicas(turn: int, seconds: float) -> Iterator[dict[str, Any]]:
    """A line for each number of replicas and utilisation: percentiles predicted and measured."""
    with tempfile.TemporaryDirectory(prefix="replicas-") as scratch, contextlib.ExitStack() as stack:
        file = Path(scratch) / "light.null.json"
        tensors = {"inputs": [_tensor("x", 16)], "outputs": [_tensor("y", 1)]}
        file.write_bytes(to_json({"tau0_s": TAU0_S, "alpha_s": ALPHA_S, **tensors}))
        measured = curve(file, PLAN, INPUTS, 0.3)
        mu = measured.capacity_per_s(PLAN.max_batch)
        beside = front(Path(scratch) / "front", file, PLAN, INPUTS, 0.5 * mu, 2.0)
        servers = [
            stack.enter_context(target(Path(scratch) / f"replica-{number}", file, PLAN, INPUTS, 10.0)) for number in range(max(REPLICAS))
        ]
        for count in REPLICAS:
            for share in UTILISATIONS:
                rate_per_s = share * count * mu
                due_s = arrival_times("poisson", rate_per_s, WARM_S + seconds, SEED_STEP * turn + count)
                raw = _offer(servers[:count], due_s)
                seen = summarise(
                    raw, target="http", arrivals="poisson", rate_per_s=rate_per_s, objective=Objective(latency_s=10.0), seed=turn
                )
                told = simulate_fleet(
                    measured, PLAN, due_s, replicas=count, seed=turn, **{**share_of(beside), "front_steals": False}
                ).latency_s[due_s >= WARM_S]
                yield {
                    "stage": "replicas", "round": turn, "replicas": count, "utilisation": share, "rate_per_s": rate_per_s, "verdict": seen.verdict,
                    "lateness_p99_s": seen.lateness_p99_s,
                    **{f"p{q * 100:g}": {"predicted_s": float(np.quantile(told, q)), "measured_s": seen.percentile(q).latency_s} for q in (0.5, 0.99)},
                }  # fmt: skip


def _tensor(name: str, width: int) -> dict[str, object]:
    return {"name": name, "dtype": "float32", "shape": ["n", width]}


def _offer(servers: Sequence[Target], due_s: np.ndarray) -> RawLoad:
    """Each server its share of the requests, in turn; the warm-up is cut away."""
    found: dict[int, RawLoad] = {}

    def send(number: int) -> None:
        with on_core(LOAD_CORE):
            server = servers[number]
            found[number] = run_http(server.url, server.bodies, server.headers, due_s[number :: len(servers)], drain_s=DRAIN_S)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(servers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parts = [found[number] for number in range(len(servers))]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("due_s", "sent_s", "done_s", "status")}
    order = np.argsort(joined["due_s"], kind="stable")
    kept = order[joined["due_s"][order] >= WARM_S]
    times = {name: joined[name][kept] - WARM_S for name in ("due_s", "sent_s", "done_s")}
    return RawLoad(**times, status=joined["status"][kept], end_s=max(part.end_s for part in parts) - WARM_S)
