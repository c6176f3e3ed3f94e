"""A model behind the real Triton on one core, by Headway's own export to its Python backend, and load from the other core."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import helper, numpy_helper
from served import KEPT, LOAD_CORE, SERVER_CORE, on_core
from served import Target as Loaded

from headway.deploy import Entry, package, read_export, verify, write_export
from headway.deploy.targets._triton_config import PYTHON, shape_there
from headway.deploy.targets._triton_server import Running, running
from headway.load import arrival_times, infer_payload, run_http
from headway.load.generator import OK
from headway.measure.environment import environment
from headway.measure.over_http import Server
from headway.measure.rows import Feeds, rows
from headway.records import Export, FrontEnd, Objective, Plan, Variant
from headway.runtime import open_session
from headway.serve import open_bundle

NAME = "model"
FIRST_PER_S, BEYOND, DROWNED, ROUNDS = 250.0, 2.0, 0.8, 8
"""To find out how much a server can do: twice what it did before is offered, until it does less than this share of that."""
QUIET = 0.1
"""The share of that at which delays are taken."""
PATIENT_S, LONG_S = 60.0, 30.0
DELAYS = 500
"""Delays of a front end that are kept, spread evenly over the ordered ones."""


@dataclass(frozen=True)
class Triton:
    """A server to load."""

    export: Export
    server: Running
    load: Loaded

    def cpu_s(self) -> dict[str, float]:
        """CPU time so far of tritonserver, and of the Python backend's processes [s]."""
        process = psutil.Process(self.server.process.pid)
        return {"server": _cpu_s(process), "stub": sum(_cpu_s(child) for child in process.children(recursive=True))}

    def made(self) -> tuple[int, int]:
        """Rows and batches so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/v2/models/{self.export.model}/stats") as answer:
            (found,) = json.load(answer)["model_stats"]
        return int(found["inference_count"]), int(found["execution_count"])


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        used = process.cpu_times()
        return float(used.user + used.system)
    return 0.0


def exported(folder: Path, file: Path, plan: Plan, inputs: Feeds, latency_s: float) -> Path:
    """The export of a bundle of one model with the objective ``p99 <= latency_s``."""
    variant = Variant(
        name="parent", source="benchmark", origin="onnx", recipe=(), parent_digest="", digest="", path="", parameters=1, flop=1, weight_bytes=1,
        file_bytes=file.stat().st_size, precision="float32",
    )  # fmt: skip
    package(
        folder / "bundle", name=NAME, entries=[Entry(variant, file, plan, {})], objective=Objective(latency_s=latency_s),
        environment=environment(), samples=rows(inputs, 0, 4),
    )  # fmt: skip
    write_export("triton", open_bundle(folder / "bundle"), folder / "export", settings={"backend": PYTHON})
    return folder / "export"


def checked(folder: Path) -> dict[str, float | str | None]:
    """The export's answers against its golden set, by its file and by the real server."""
    found = verify(folder)
    return {
        "model_difference": found.model_difference, "server_difference": found.server_difference, "tolerance": found.tolerance, "asked": found.asked,
    }  # fmt: skip


@contextlib.contextmanager
def started(folder: Path, inputs: Feeds) -> Iterator[Triton]:
    """The server of an export, pinned to its core."""
    export = read_export(folder)
    with contextlib.ExitStack() as stack:
        with on_core(SERVER_CORE):
            server = stack.enter_context(running(folder, export.model, PYTHON))
        process = psutil.Process(server.process.pid)
        specs = {spec.name: spec for spec in export.inputs}
        encoded = []
        for place in range(min(KEPT, len(next(iter(inputs.values()))))):
            request = rows(inputs, place, 1)
            encoded.append(
                infer_payload({name: array.reshape(shape_there(specs[name], array.shape, True)) for name, array in request.items()})
            )
        url = f"http://127.0.0.1:{server.port}/v2/models/{export.model}/infer"
        load = Loaded(url, Server(server.port, process), tuple(body for _, body in encoded), tuple(dict(head) for head, _ in encoded))
        yield Triton(export, server, load)


@dataclass(frozen=True)
class Full:
    """What a server did that had all it could do.

    Attributes:
        cpu_s: CPU time of a request in tritonserver (``server``) and in the Python backend's processes (``stub``) [s].
        rate_per_s: answered [1/s]; ``batch`` requests in a batch, on average.
    """

    cpu_s: dict[str, float]
    rate_per_s: float
    batch: float


def front(folder: Path, nothing: Path, plan: Plan, inputs: Feeds, seconds: float, seed: int = 0) -> FrontEnd:
    """What a request costs behind the same server with a model that takes no time (``nothing_model``): CPU at full load, delays at a low one."""
    with started(exported(folder, nothing, plan, inputs, PATIENT_S), inputs) as held:
        found = full(held, seconds, seed)
        cpu_s = sum(found.cpu_s.values())
        rate_per_s = QUIET * found.rate_per_s
        raw = held.load.run(rate_per_s, seconds, seed + 1)
    delays_s = (raw.done_s - raw.due_s)[raw.status == OK]
    kept = np.quantile(delays_s, (np.arange(DELAYS) + 0.5) / DELAYS)
    size = round(sum(map(len, held.load.bodies)) / len(held.load.bodies))
    return FrontEnd(
        source="benchmark", cpu_s=cpu_s, jitter_s=tuple(np.maximum(0.0, kept - cpu_s).tolist()), payload_bytes=size, rate_per_s=rate_per_s
    )


def full(held: Triton, seconds: float, seed: int) -> Full:
    """Twice what it did before is offered, until it does not do it: then as many requests are in flight as there are connections."""
    rate_per_s = FIRST_PER_S
    for turn in range(ROUNDS):
        offered_per_s = BEYOND * rate_per_s
        due_s = arrival_times("poisson", offered_per_s, seconds / BEYOND, seed + turn)
        before, made, began = held.cpu_s(), held.made(), time.perf_counter()
        with on_core(LOAD_CORE):
            raw = run_http(held.load.url, held.load.bodies, held.load.headers, due_s, drain_s=LONG_S, spin=True)
        wall_s, answered = time.perf_counter() - began, int(np.count_nonzero(raw.status == OK))
        after, done = held.cpu_s(), held.made()
        assert answered == len(due_s), (
            f"a server without limits must answer everything, and {len(due_s) - answered} of {len(due_s)} are missing"
        )
        rate_per_s = answered / wall_s
        if turn and rate_per_s < DROWNED * offered_per_s:
            break
    return Full(
        {name: (after[name] - before[name]) / answered for name in after}, rate_per_s, (done[0] - made[0]) / max(1, done[1] - made[1])
    )


def nothing_like(path: Path, file: Path, plan: Plan, inputs: Feeds) -> Path:
    """``nothing_model`` in place of a real model."""
    session = open_session(plan, file)
    request = rows(inputs, 0, 1)
    answer = session.run(request)
    session.close()
    return nothing_model(path, request, answer)


def nothing_model(path: Path, request: Feeds, answer: Feeds) -> Path:
    """A graph with the inputs of a request and the outputs of its answer, all zeros: it looks at the number of rows alone."""
    nodes, weights = [helper.make_node("Shape", [next(iter(request))], ["count"], start=0, end=1)], []
    for place, (name, array) in enumerate(answer.items()):
        weights.append(numpy_helper.from_array(np.array(array.shape[1:], np.int64), f"rest{place}"))
        zero = helper.make_tensor("zero", _kind(array), [1], [0])
        nodes.append(helper.make_node("Concat", ["count", f"rest{place}"], [f"shape{place}"], axis=0))
        nodes.append(helper.make_node("ConstantOfShape", [f"shape{place}"], [name], value=zero))
    graph = helper.make_graph(nodes, "nothing", _values(request), _values(answer), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _values(arrays: Feeds) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, _kind(array), ["n", *array.shape[1:]]) for name, array in arrays.items()]


def _kind(array: np.ndarray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
