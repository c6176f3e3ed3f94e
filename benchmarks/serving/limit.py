"""The limit: what Headway's batcher and policy reach on the bare runtime, with no transport; by load in this process and by simulation.

What is fair: the instance thread has the servers' core to itself, as a model behind a transport that costs nothing would, and the generator's
thread sits on the generator's core, where it also sits when it sends to servers. Making both share a core would charge the generator to the
limit and flatter every server. They still share one interpreter; its lock changes hands at once (switch interval 0.1 ms).
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
import time
from collections.abc import Sequence

import models
import numpy as np
from offered import DRAIN_S, Target
from running import LOAD_CORE, SERVER_CORE

from headway.batching import Batcher, BatchTimes, Late, Pace, QueueFull, measure_pace
from headway.load import Completion, RawLoad, run_open_loop
from headway.measure.curve import measure_curve
from headway.predict import predict_capacity
from headway.records import Objective, ServiceCurve
from headway.runtime import open_session

SWITCH_S = 1e-4
QUEUE_LIMIT = 100_000
CURVE_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64)


class Bare:
    """The bare runtime behind the batcher with the server's policy for a bound, ready for load."""

    def __init__(self, model: str, bound_s: float) -> None:
        self._bound_s = bound_s
        self._rows = [row[None] for row in models.rows()]
        self._session = open_session(models.plan(model), models.onnx_file(model))
        self._spent_s = 0.0
        self._interval_s = sys.getswitchinterval()

    def __enter__(self) -> Bare:
        os.sched_setaffinity(0, {SERVER_CORE})
        rows = np.concatenate(self._rows)
        self._service_s = measure_pace(lambda size: self._session.run({"x": rows[:size]}), models.MAX_BATCH)
        os.sched_setaffinity(0, {LOAD_CORE})
        sys.setswitchinterval(SWITCH_S)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setswitchinterval(self._interval_s)
        self._session.close()

    def target(self) -> Target:
        """For trials."""
        return Target(self.run, lambda: self._spent_s, lambda: True, beside=False)

    def run(self, due_s: np.ndarray) -> RawLoad:
        """One open-loop run."""
        over, here = threading.Event(), threading.local()

        def work(_: int, items: Sequence[tuple[int, Completion]]) -> Sequence[None]:
            if not hasattr(here, "began_s"):
                os.sched_setaffinity(0, {SERVER_CORE})
                here.began_s = time.thread_time()
            if not over.is_set():
                rows = self._rows
                self._session.run({"x": np.concatenate([rows[number % len(rows)] for number, _ in items])})
            began_s, here.began_s = here.began_s, time.thread_time()
            self._spent_s += here.began_s - began_s
            return [None] * len(items)

        def done(items: Sequence[tuple[int, Completion]], results: Sequence[None] | BaseException, _: BatchTimes) -> None:
            for number, completion in items:
                completion.failed(number) if isinstance(results, BaseException) else completion.ok(number)

        def late(items: Sequence[tuple[int, Completion]]) -> None:
            for number, completion in items:
                completion.refused(number)

        batcher: Batcher[tuple[int, Completion], None] = Batcher(
            work, done, instances=1, max_batch=models.MAX_BATCH, queue_limit=QUEUE_LIMIT, pace=Pace(self._service_s, models.MAX_BATCH),
            latency_s=self._bound_s, late=late,
        )  # fmt: skip

        def submit(number: int, completion: Completion) -> None:
            try:
                batcher.submit((number, completion), deadline_s=time.perf_counter() + self._bound_s)
            except (QueueFull, Late):
                completion.refused(number)

        try:
            return run_open_loop(submit, due_s, drain_s=DRAIN_S)
        finally:
            over.set()
            batcher.close()


@functools.cache
def simulated(model: str, bound_s: float, quick: bool = False) -> float:
    """SLO capacity by the simulator, on the bare runtime's curve measured on the servers' core [1/s]."""
    curve = _curve(model, 0.05 if quick else 0.5)
    found = predict_capacity(curve, models.plan(model), Objective(latency_s=bound_s))
    return round(found.capacity_per_s, 1) if math.isfinite(found.capacity_per_s) else 0.0


@functools.cache
def _curve(model: str, seconds: float) -> ServiceCurve:
    """The service curve with this process on the servers' core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        plan, path = models.plan(model), models.onnx_file(model)
        return measure_curve(path, model, plan, {"x": models.rows()}, batches=CURVE_SIZES, seconds_a_batch=seconds)
    finally:
        os.sched_setaffinity(0, before)
