"""A model behind Headway's server on one core, load from the other, and the same model's curve and front end, measured on the server's core."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.deploy import Entry, package
from headway.load import RawLoad, arrival_times, infer_payload, run_http
from headway.measure.curve import measure_curve
from headway.measure.environment import environment
from headway.measure.front_end import front_end_of, null_graph
from headway.measure.over_http import Server, served
from headway.measure.rows import Feeds, rows
from headway.records import FrontEnd, Objective, Plan, ServiceCurve, Variant
from headway.runtime import open_session

SERVER_CORE, LOAD_CORE = 0, 1
WARM_S, DRAIN_S = 0.5, 5.0
KEPT = 64
PATIENT = "60s"
"""A deadline that refuses nothing."""


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process, and what it starts, on one core; then back."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Target:
    """A server to load."""

    url: str
    server: Server
    bodies: tuple[bytes, ...]
    headers: tuple[dict[str, str], ...]

    def run(self, rate_per_s: float, seconds: float, seed: int) -> RawLoad:
        """Poisson load from a core of its own; the warm-up is cut away."""
        due_s = arrival_times("poisson", rate_per_s, WARM_S + seconds, seed)
        with on_core(LOAD_CORE):
            raw = run_http(self.url, self.bodies, self.headers, due_s, drain_s=DRAIN_S, spin=True)
        kept = raw.due_s >= WARM_S
        times = {name: getattr(raw, name)[kept] - WARM_S for name in ("due_s", "sent_s", "done_s")}
        return RawLoad(**times, status=raw.status[kept], end_s=raw.end_s - WARM_S)


@contextlib.contextmanager
def target(folder: Path, file: Path, plan: Plan, inputs: Feeds, latency_s: float, deadline: str | None = PATIENT) -> Iterator[Target]:
    """The server, pinned to its core; without a deadline of its own it keeps the objective's."""
    variant = Variant(
        name="parent", source="benchmark", origin="onnx", recipe=(), parent_digest="", digest="", path="", parameters=1, flop=1, weight_bytes=1,
        file_bytes=file.stat().st_size, precision="float32",
    )  # fmt: skip
    package(
        folder, name="model", entries=[Entry(variant, file, plan, {})], objective=Objective(latency_s=latency_s), environment=environment(),
        samples=rows(inputs, 0, 4),
    )  # fmt: skip
    more = [] if deadline is None else ["--deadline", deadline]
    with on_core(SERVER_CORE):
        holder = served(["headway", "serve", "--json", str(folder), "--http", "127.0.0.1:0", *more])
        server = holder.__enter__()
    try:
        encoded = [infer_payload(rows(inputs, place, 1)) for place in range(min(KEPT, len(next(iter(inputs.values())))))]
        yield Target(
            f"http://127.0.0.1:{server.port}/v2/models/model/infer", server, tuple(body for _, body in encoded),
            tuple(dict(head) for head, _ in encoded),
        )  # fmt: skip
    finally:
        holder.__exit__(None, None, None)


def curve(file: Path, plan: Plan, inputs: Feeds, seconds_a_batch: float) -> ServiceCurve:
    """Service times on the server's core."""
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= plan.max_batch]
    with on_core(SERVER_CORE):
        return measure_curve(file, "parent", plan, inputs, batches=sizes, seconds_a_batch=seconds_a_batch)


def both(one: ServiceCurve, other: ServiceCurve) -> ServiceCurve:
    """The samples of two measurements of one curve, before a load and after it: the machine's pace differs between minutes."""
    timings = tuple(
        type(first)(batch=first.batch, service_s=first.service_s + second.service_s)
        for first, second in zip(one.timings, other.timings, strict=True)
    )
    return type(one)(**{name: getattr(one, name) for name in one.__struct_fields__ if name != "timings"}, timings=timings)


def share_of(beside: FrontEnd) -> dict[str, Any]:
    """What the front end is to a simulation of a server on one core."""
    return {"front_end_s": beside.cpu_s, "front_joined_s": beside.joined_s, "front_steals": True, "jitter_s": beside.jitter_s}


def front(folder: Path, file: Path, plan: Plan, inputs: Feeds, rate_per_s: float, seconds: float) -> FrontEnd:
    """Measured with a model that takes no time, behind the same server on its core, with the same payloads from the other core."""
    request = rows(inputs, 0, 1)
    session = open_session(plan, file)
    answer = session.run(request)
    session.close()
    folder.mkdir(parents=True, exist_ok=True)
    null = folder / "null.null.json"
    null.write_bytes(null_graph(request, answer))
    with target(folder / "bundle", null, Plan(runtime="null", max_batch=plan.max_batch), inputs, 1.0) as held, on_core(LOAD_CORE):
        return front_end_of(held.server, "model", inputs, source="benchmark", rate_per_s=rate_per_s, seconds=seconds, spin=True)
