"""Open-loop load on a candidate inside this process: sessions, the one batcher, no transport."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from headway.batching import Batcher, BatchTimes, Late, Pace, QueueFull, measure_pace
from headway.load import Completion, arrival_times, run_open_loop, summarise
from headway.measure.environment import Watch
from headway.measure.rows import Feeds, rows, stack
from headway.records import LoadPoint, Objective, Plan
from headway.runtime import Session, open_session

REQUESTS_KEPT = 64
QUEUE_LIMIT = 100_000
DRAIN_S = 5.0


class InProcess:
    """A candidate held ready: sessions are opened once and loaded as often as wanted."""

    def __init__(self, path: Path, plan: Plan, inputs: Feeds) -> None:
        self._plan = plan
        self._sessions: list[Session] = []
        size = len(next(iter(inputs.values())))
        self._requests = [rows(inputs, index, 1) for index in range(min(size, REQUESTS_KEPT))]
        try:
            for _ in range(plan.instances):
                self._sessions.append(open_session(plan, path))
                for batch in {1, plan.max_batch}:
                    self._sessions[-1].run(rows(inputs, 0, batch))
            self._service_s = measure_pace(lambda batch: self._sessions[0].run(rows(inputs, 0, batch)), plan.max_batch)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sessions."""
        for session in self._sessions:
            session.close()

    def load(self, rate_per_s: float, duration_s: float, objective: Objective, seed: int) -> LoadPoint:
        """One open-loop run at one rate; as in the server, a request that cannot be done within the objective's bound is refused at once."""
        latency_s = math.inf if objective.latency_s is None else objective.latency_s
        due_s = arrival_times(objective.arrivals, rate_per_s, duration_s, seed)
        batches: list[int] = []
        over = threading.Event()

        def run(instance: int, items: Sequence[tuple[int, Completion]]) -> Sequence[None]:
            if over.is_set():
                return [None] * len(items)  # the run has ended: what an overload left in the queue is not worth running
            self._sessions[instance].run(stack([self._requests[number % len(self._requests)] for number, _ in items]))
            return [None] * len(items)

        def done(items: Sequence[tuple[int, Completion]], results: Sequence[None] | BaseException, times: BatchTimes) -> None:
            if not over.is_set():
                batches.append(len(items))
            failed = isinstance(results, BaseException)
            for number, completion in items:
                completion.failed(number) if failed else completion.ok(number)

        def late(items: Sequence[tuple[int, Completion]]) -> None:
            for number, completion in items:
                completion.refused(number)

        batcher: Batcher[tuple[int, Completion], None] = Batcher(
            run,
            done,
            instances=self._plan.instances,
            max_batch=self._plan.max_batch,
            max_wait_s=self._plan.max_wait_s,
            queue_limit=QUEUE_LIMIT,
            pace=Pace(self._service_s, self._plan.max_batch),
            latency_s=latency_s,
            late=late,
        )

        def submit(number: int, completion: Completion) -> None:
            try:
                batcher.submit((number, completion), deadline_s=time.perf_counter() + latency_s)
            except (QueueFull, Late):
                completion.refused(number)

        try:
            with Watch() as watch:
                raw = run_open_loop(submit, due_s, drain_s=DRAIN_S)
        finally:
            over.set()
            batcher.close()
        return summarise(
            raw, target="in-process", arrivals=objective.arrivals, rate_per_s=rate_per_s, objective=objective, seed=seed,
            mean_batch=float(np.mean(batches)) if batches else math.nan, steal_fraction=watch.steal_fraction,
        )  # fmt: skip


@contextlib.contextmanager
def in_process(path: Path, plan: Plan, inputs: Feeds) -> Iterator[InProcess]:
    """An ``InProcess`` that is closed at the end of the block."""
    held = InProcess(path, plan, inputs)
    try:
        yield held
    finally:
        held.close()
