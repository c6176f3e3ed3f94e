"""Open-loop load on a server of its own process, over a real socket."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from headway.load import arrival_times, infer_payload, run_http, summarise
from headway.measure.environment import Watch
from headway.measure.rows import Feeds, rows
from headway.records import LoadPoint, MeasurementError, Objective

START_LIMIT_S = 60.0
REQUESTS_KEPT = 64
DRAIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and its process."""

    port: int
    process: psutil.Process

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the server and its children [B]."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)


@contextlib.contextmanager
def served(arguments: Sequence[str]) -> Iterator[Server]:
    """A server started as ``python -m ARGUMENTS``; stopped with SIGTERM at the end of the block, or when this process ends.

    The server must print one JSON line with its ``port`` when it is ready.

    Raises:
        MeasurementError: it ended or stayed silent; the message holds its last words.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "headway.measure.leashed", str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    words: deque[str] = deque(maxlen=20)
    listener = threading.Thread(target=lambda: words.extend(process.stderr or ()), daemon=True)
    listener.start()
    try:
        yield Server(_port(process, listener, words), psutil.Process(process.pid))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        listener.join(1)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _port(process: subprocess.Popen[str], listener: threading.Thread, words: deque[str]) -> int:
    timer = threading.Timer(START_LIMIT_S, process.kill)
    timer.start()
    try:
        line = process.stdout.readline() if process.stdout else ""
    finally:
        timer.cancel()
    try:
        return int(json.loads(line)["port"])
    except (ValueError, KeyError, TypeError) as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        listener.join(1)
        raise MeasurementError(
            f"a server must say its port within {START_LIMIT_S:g} s, got {line.strip()!r}; it said: {''.join(words).strip()[-600:]}"
        ) from error


@dataclass(frozen=True, slots=True)
class OverHttp:
    """Load for one server: requests are encoded once and sent in turn."""

    server: Server
    model: str
    bodies: tuple[bytes, ...]
    headers: tuple[dict[str, str], ...]

    @staticmethod
    def to(server: Server, model: str, inputs: Feeds) -> OverHttp:
        """Load made of single rows of ``inputs``, in Open Inference Protocol v2 with the binary extension."""
        size = len(next(iter(inputs.values())))
        encoded = [infer_payload(rows(inputs, index, 1)) for index in range(min(size, REQUESTS_KEPT))]
        return OverHttp(server, model, tuple(body for _, body in encoded), tuple(dict(headers) for headers, _ in encoded))

    def load(self, rate_per_s: float, duration_s: float, objective: Objective, seed: int) -> LoadPoint:
        """One open-loop run at one rate."""
        due_s = arrival_times(objective.arrivals, rate_per_s, duration_s, seed)
        url = f"http://127.0.0.1:{self.server.port}/v2/models/{self.model}/infer"
        with Watch() as watch:
            raw = run_http(url, self.bodies, self.headers, due_s, drain_s=DRAIN_S)
        return summarise(
            raw, target="http", arrivals=objective.arrivals, rate_per_s=rate_per_s, objective=objective, seed=seed,
            mean_batch=math.nan, steal_fraction=watch.steal_fraction,
        )  # fmt: skip
