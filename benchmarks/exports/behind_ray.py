"""The same bundle behind Headway's own server and behind one replica of Ray Serve, on the same core; and the replica's engine beside the own server.

The whole cluster (Ray's own processes, the proxy, the replica) has the core that the own server has, and the generator the other one. "Engine" is a
replica of Ray Serve that makes its load itself, request by request when each is due: no proxy, no actor call, no socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from models import onnx_file
from models import rows as sent_rows
from ray import serve
from ray.cluster_utils import Cluster
from served import LOAD_CORE, SERVER_CORE, WARM_S, on_core, target

from headway.cluster.serving import Asked, Deployed, deploy, enter, leave, remove
from headway.cluster.serving_parcel import Parcel, parcel
from headway.cluster.serving_replica import Order, engine
from headway.load import RawLoad, arrival_times, infer_payload, run_http
from headway.load.generator import FAILED, OK, REFUSED
from headway.measure.rows import Feeds, rows
from headway.records import Objective, Plan
from headway.serve import OpenBundle, Options, open_bundle

Line = dict[str, Any]
Search = Callable[[Any, float, Objective, int, int], dict[str, float]]
"""``measured_capacity``: load, first rate, objective, trials, turn; to the rates that held and did not."""
NAME = "model"
PLAN = Plan(runtime="onnx_runtime", max_batch=16)
BOUND_S = 0.1
"""Wide: below it Ray's own path decides everything on one core [s]."""
FIRST_PER_S = {"mlp": 1000.0, "tiny": 8000.0}
"""Of the own server and of the engine, by model; no proxy of Ray comes near, on one core."""
FIRST_BEHIND_PER_S = 20.0
COMMON_PER_S, COMMON_S = 30.0, 20.0
"""The rate at which CPU time is compared, which all of them hold."""
CPUS, MEMORY_BYTES, DRAIN_S = 8, 200_000_000, 5.0
KEPT = 64
GROUPS = {"ray::ServeReplica": "replica", "ray::ProxyActor": "proxy"}
TRIALS, ROUNDS = 6, 4


def compare(model: str, search: Search, turn: int, quick: bool) -> Iterator[Line]:
    """A line for each server: SLO capacity, and CPU time of a request at a rate that all hold."""
    inputs, objective, trials = {"x": sent_rows()}, Objective(latency_s=BOUND_S), 2 if quick else TRIALS
    seconds = COMMON_S / 5 if quick else COMMON_S
    told = {"stage": "ray", "model": model, "bound_s": BOUND_S, "plan": str(PLAN), "common_per_s": COMMON_PER_S}
    with tempfile.TemporaryDirectory(prefix="exports-") as name:
        folder = Path(name) / "bundle"
        with target(folder, onnx_file(model), PLAN, inputs, BOUND_S, deadline=None) as load:
            found = search(load, FIRST_PER_S[model], objective, trials, turn)
            yield {**told, "server": "own", **found, "cpu_s": cpu_s(load, load.server.process, seconds, turn)}
        with running_cluster(on_core(SERVER_CORE)) as where, behind(where, open_bundle(folder), inputs) as (load, _):
            found = search(load, FIRST_BEHIND_PER_S, objective, trials, turn)
            yield {**told, "server": "ray", **found, **cpu_of_cluster(load, seconds, turn)}


def engines(model: str, search: Search, turn: int, quick: bool) -> Iterator[Line]:
    """SLO capacity of the own server and of the engine in a replica, in turn, both on the core that an idle cluster is on."""
    inputs, objective = {"x": sent_rows()}, Objective(latency_s=BOUND_S)
    told = {"stage": "engine", "model": model, "bound_s": BOUND_S, "plan": str(PLAN)}
    with tempfile.TemporaryDirectory(prefix="exports-") as name:
        folder = Path(name) / "bundle"
        with (
            running_cluster(on_core(SERVER_CORE)) as where,
            target(folder, onnx_file(model), PLAN, inputs, BOUND_S, deadline=None) as own,
            driven(where, folder, inputs) as inside,
        ):
            first_per_s = {"own": FIRST_PER_S[model], "engine": FIRST_PER_S[model]}
            for again in range(1 if quick else ROUNDS):
                for server, load in {"own": own, "engine": inside}.items():
                    found = search(load, first_per_s[server], objective, 2 if quick else TRIALS, 10 * turn + again)
                    first_per_s[server] = found["low_per_s"] or 0.8 * first_per_s[server]
                    yield {**told, "server": server, "again": again, **found}


# --- a cluster


@contextlib.contextmanager
def running_cluster(where: contextlib.AbstractContextManager[None]) -> Iterator[str]:
    """A cluster of one node; its processes stay on the cores that they are started on."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with where:
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": CPUS, "object_store_memory": MEMORY_BYTES, "include_dashboard": False}
        )
    try:
        yield f"ray:{cluster.address}"
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def behind(where: str, bundle: OpenBundle, inputs: Feeds, replicas: int = 1) -> Iterator[tuple[Load, Asked]]:
    """The bundle behind Ray's proxy."""
    asked = Asked(where=where, bundle=bundle, name=NAME, http=("127.0.0.1", free_port()), replicas=replicas)
    with joined(where):
        deployed: Deployed = deploy(asked, print)
        try:
            yield Load(f"{deployed.url}/v2/models/{NAME}/infer", *payloads(inputs)), asked
        finally:
            remove(deployed)


@contextlib.contextmanager
def joined(where: str) -> Iterator[None]:
    """This process as a driver of the cluster."""
    enter(where)
    try:
        yield
    finally:
        leave()


def free_port() -> int:
    """A port that nobody has."""
    with contextlib.closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def payloads(inputs: Feeds) -> tuple[tuple[bytes, ...], tuple[dict[str, str], ...]]:
    """Bodies and headers of requests of one row each."""
    encoded = [infer_payload(rows(inputs, place, 1)) for place in range(KEPT)]
    return tuple(body for _, body in encoded), tuple(dict(head) for head, _ in encoded)


@dataclass(frozen=True)
class Load:
    """Poisson load on an address, from the generator's core; the warm-up is cut away."""

    url: str
    bodies: tuple[bytes, ...]
    headers: tuple[Mapping[str, str], ...]

    def run(self, rate_per_s: float, seconds: float, seed: int) -> RawLoad:
        """One run."""
        due_s = arrival_times("poisson", rate_per_s, WARM_S + seconds, seed)
        with on_core(LOAD_CORE):
            raw = run_http(self.url, self.bodies, self.headers, due_s, drain_s=DRAIN_S, spin=True)
        return warm(raw)


def warm(raw: RawLoad) -> RawLoad:
    """A run without its first ``WARM_S``."""
    kept = raw.due_s >= WARM_S
    times = {name: getattr(raw, name)[kept] - WARM_S for name in ("due_s", "sent_s", "done_s")}
    return RawLoad(**times, status=raw.status[kept], end_s=raw.end_s - WARM_S)


# --- CPU time


def cpu_s(load: Any, process: psutil.Process, seconds: float, turn: int) -> float:
    """CPU time of a request at the common rate [s]."""
    before = _used_s(process)
    raw = load.run(COMMON_PER_S, seconds, turn)
    return (_used_s(process) - before) / _sent(raw, seconds)


def cpu_of_cluster(load: Load, seconds: float, turn: int) -> Line:
    """The same of all processes of the cluster, and by group; ``idle_cores`` is what they use when nothing is asked."""
    idle = _by_group()
    time.sleep(seconds / 2)
    rest = sum(_by_group().values()) - sum(idle.values())
    before = _by_group()
    raw = load.run(COMMON_PER_S, seconds, turn)
    after, count = _by_group(), _sent(raw, seconds)
    each = {f"{group}_cpu_s": (after[group] - before[group]) / count for group in before}
    return {"cpu_s": sum(each.values()), **each, "idle_cores": rest / (seconds / 2)}


def _sent(raw: RawLoad, seconds: float) -> float:
    """Requests of a run with its warm-up."""
    return len(raw.due_s) * (WARM_S + seconds) / seconds


def _by_group() -> dict[str, float]:
    found = {"replica": 0.0, "proxy": 0.0, "others": 0.0}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline()[:1])
            group = next((group for begin, group in GROUPS.items() if title.startswith(begin)), "others")
            found[group] += _used_s(process)
    return found


def _used_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


# --- the engine by itself


class Driven:
    """A replica that asks itself."""

    async def __init__(self, sent: Parcel, bodies: tuple[bytes, ...], headers: tuple[Mapping[str, str], ...]) -> None:
        self._bodies = bodies
        self._headers = [{name.lower().encode(): value.encode() for name, value in one.items()} for one in headers]
        self._embedded = await engine(Order(parcel=sent, name=NAME), Options())

    async def drive(self, rate_per_s: float, seconds: float, seed: int) -> tuple[np.ndarray, ...]:
        """Due, sent and done times and status of each request of an open loop."""
        due_s = arrival_times("poisson", rate_per_s, seconds, seed)
        sent_s, done_s, status = np.zeros(len(due_s)), np.zeros(len(due_s)), np.zeros(len(due_s), np.int8)
        url = f"/v2/models/{NAME}/infer".encode()
        began_s = time.perf_counter()

        async def one(number: int) -> None:
            kept = number % len(self._bodies)
            sent_s[number] = time.perf_counter() - began_s
            code, _, _ = await self._embedded.answer(b"POST", url, self._headers[kept], self._bodies[kept])
            done_s[number] = time.perf_counter() - began_s
            status[number] = OK if code == 200 else REFUSED if code == 429 else FAILED

        tasks = []
        for number, due in enumerate(due_s):
            while (left_s := due - (time.perf_counter() - began_s)) > 0:
                await asyncio.sleep(left_s)
            tasks.append(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
        return due_s, sent_s, done_s, status

    def __del__(self) -> None:
        embedded = self.__dict__.pop("_embedded", None)
        if embedded is not None:
            embedded.close()


@dataclass(frozen=True)
class Drive:
    """Load that a replica makes by itself."""

    handle: Any

    def run(self, rate_per_s: float, seconds: float, seed: int) -> RawLoad:
        """One run, without its warm-up."""
        due_s, sent_s, done_s, status = self.handle.drive.remote(rate_per_s, WARM_S + seconds, seed).result()
        return warm(RawLoad(due_s, sent_s, done_s, status, float(done_s.max(initial=0.0))))


@contextlib.contextmanager
def driven(where: str, folder: Path, inputs: Feeds) -> Iterator[Drive]:
    """A replica of Ray Serve that asks itself."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with joined(where):
        serve.start(http_options={"host": "127.0.0.1", "port": free_port()})
        bundle = open_bundle(folder)
        try:
            app = serve.deployment(Driven, name="driven", ray_actor_options={"num_cpus": 1}).bind(parcel(bundle), *payloads(inputs))
            yield Drive(serve.run(app, name="driven", route_prefix=None))
        finally:
            serve.shutdown()
