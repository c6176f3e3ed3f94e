"""Two replicas of Ray Serve under open-loop load: one is killed, then the bundle is updated; every answer is compared with its own request.

The client asks again, at once, where the answer is not a replica's own (Ray's proxy answers for one that is gone) or the connection breaks: an
inference may be repeated. Latency counts from the moment a request was due to its last answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from behind_ray import BOUND_S, KEPT, NAME, PLAN, Line, Load, Search, behind, running_cluster
from models import TOLERANCE, onnx_file
from models import rows as sent_rows
from ray import serve

from headway.cluster.serving import deploy
from headway.deploy import Entry, package
from headway.load import arrival_times
from headway.measure.environment import environment
from headway.measure.rows import rows
from headway.records import Objective, Variant
from headway.runtime import open_session
from headway.serve import OpenBundle, open_bundle

MODEL, REPLICAS, RETRIES, CLIENTS = "tiny", 2, 20, 48
FIRST_PER_S, HALF, TRIALS = 60.0, 0.5, 4
SECONDS = 90.0
KILL, UPDATE = 0.25, 0.5
"""The parts of the run after which a replica is killed, and the bundle updated."""
QUICK_PER_S = 10.0
WINDOW_S = 1.0
"""p99 is within the bound where at most a hundredth of the requests of such a window is late [s]."""
PATIENCE_S = 30.0
VARIANTS = ("first", "second")


@dataclass
class Asked:
    """What became of one request.

    Attributes:
        errors: answers that no replica gave, before the last; ``status`` of the last.
    """

    due_s: float
    done_s: float = float("inf")
    status: int = 0
    errors: int = 0
    wrong: bool = False


def drill(search: Search, turn: int, quick: bool) -> Line:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="exports-") as name:
        bundles = [_bundle(Path(name) / variant, variant, seed) for seed, variant in enumerate(VARIANTS)]
        right = {variant: _answers(bundle) for variant, bundle in zip(VARIANTS, bundles, strict=True)}
        objective = Objective(latency_s=BOUND_S)
        with (
            running_cluster(contextlib.nullcontext()) as where,
            behind(where, bundles[0], {"x": sent_rows()}, REPLICAS) as (load, asked),
        ):
            found = search(load, FIRST_PER_S, objective, 2 if quick else TRIALS, turn)
            rate_per_s = QUICK_PER_S if quick else HALF * max(found["low_per_s"], 2 * QUICK_PER_S)
            due_s = arrival_times("poisson", rate_per_s, SECONDS / 3 if quick else SECONDS, turn)
            clients = _Clients(load, right, due_s)
            length_s = float(due_s[-1])
            clients.wait(KILL * length_s)
            os.kill(_process(), signal.SIGKILL)
            killed_s = clients.now_s()
            clients.wait(UPDATE * length_s)
            update_s = clients.now_s()
            deploy(replace(asked, bundle=bundles[1]), print)
            updated_s = clients.now_s()
            told = clients.end()
    return {
        "stage": "drill", "model": MODEL, "replicas": REPLICAS, "bound_s": BOUND_S, "capacity_per_s": found["low_per_s"], "rate_per_s": rate_per_s,
        "requests": len(told), "wrong": sum(one.wrong for one in told), "refused": sum(one.status == 429 for one in told),
        "errors_killed": sum(one.errors > 0 and one.due_s < update_s for one in told),
        "errors_updated": sum(one.errors > 0 and one.due_s >= update_s for one in told),
        "errors_after_retry": sum(one.status not in (200, 429) for one in told),
        "late_before": _late_share([one for one in told if one.due_s < killed_s]),
        "killed_back_s": back_s(told, killed_s, update_s), "updated_back_s": back_s(told, update_s, length_s), "update_s": updated_s - update_s,
    }  # fmt: skip


def back_s(told: Sequence[Asked], event_s: float, until_s: float) -> float:
    """How long after an event p99 was out of the bound for the last time; 0: never [s]."""
    last_s = event_s
    for start_s in np.arange(event_s, until_s, WINDOW_S):
        window = [one for one in told if start_s <= one.due_s < start_s + WINDOW_S]
        if window and _late_share(window) > 0.01:
            last_s = start_s + WINDOW_S
    return float(last_s - event_s)


def _late_share(told: Sequence[Asked]) -> float:
    late = sum(one.status != 200 or one.done_s - one.due_s > BOUND_S for one in told)
    return late / max(1, len(told))


def _bundle(folder: Path, variant: str, seed: int) -> OpenBundle:
    file = onnx_file(MODEL, seed)
    made = Variant(
        name=variant, source="benchmark", origin="onnx", recipe=(), parent_digest="", digest="", path="", parameters=1, flop=1, weight_bytes=1,
        file_bytes=file.stat().st_size, precision="float32",
    )  # fmt: skip
    package(
        folder, name=NAME, entries=[Entry(made, file, PLAN, {})], objective=Objective(latency_s=BOUND_S), environment=environment(),
        samples=rows({"x": sent_rows()}, 0, 4),
    )  # fmt: skip
    return open_bundle(folder)


def _answers(bundle: OpenBundle) -> np.ndarray:
    session = open_session(PLAN, bundle.model_path(0))
    try:
        return session.run({"x": sent_rows()})["y"]
    finally:
        session.close()


def _process() -> int:
    """The process number of some replica."""
    return int(serve.get_app_handle(NAME).about.remote().result()["process"])


class _Clients:
    """Connections that send each request when it is due, as long as one of them is free."""

    def __init__(self, load: Load, right: Mapping[str, np.ndarray], due_s: np.ndarray) -> None:
        self._load, self._right = load, right
        self._told = [Asked(float(due)) for due in due_s]
        self._next, self._lock = iter(enumerate(self._told)), threading.Lock()
        self._address = urlsplit(load.url)
        self._began_s = time.perf_counter()
        self._threads = [threading.Thread(target=self._live, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def now_s(self) -> float:
        """Since the load began."""
        return time.perf_counter() - self._began_s

    def wait(self, until_s: float) -> None:
        """Until this moment of the load."""
        time.sleep(max(0.0, until_s - self.now_s()))

    def end(self) -> list[Asked]:
        """Every request, when all are answered."""
        for thread in self._threads:
            thread.join()
        return self._told

    def _live(self) -> None:
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            while True:
                with self._lock:
                    number, asked = next(self._next, (0, None))
                if asked is None:
                    return
                self.wait(asked.due_s)
                self._insist(connection, number % KEPT, asked)

    def _insist(self, connection: http.client.HTTPConnection, row: int, asked: Asked) -> None:
        for _ in range(RETRIES):
            try:
                connection.request("POST", self._address.path, self._load.bodies[row], dict(self._load.headers[row]))
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                asked.errors += 1
                continue
            asked.status, asked.done_s = answer.status, self.now_s()
            if answer.getheader("headway-replica") is not None:
                asked.wrong = answer.status == 200 and not self._is_right(answer, body, row)
                return
            asked.errors += 1

    def _is_right(self, answer: http.client.HTTPResponse, body: bytes, row: int) -> bool:
        expected = self._right[answer.getheader("headway-variant") or ""][row]
        at = int(answer.getheader("inference-header-content-length") or len(body))
        (output,) = json.loads(body[:at])["outputs"]
        got = np.asarray(output["data"], np.float32) if "data" in output else np.frombuffer(body, np.float32, offset=at)
        return bool(np.abs(got - expected).max() <= TOLERANCE)
