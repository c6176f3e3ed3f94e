"""A bundle loaded inside this process: sessions of its first variant behind the one batcher, no transport."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headway.api.load_inputs import Feeds
from headway.api.load_target import DRAIN_S, MOST_IN_FLIGHT, Picks, Ran, sent_in_turn
from headway.batching import Batcher, BatchTimes, QueueFull
from headway.load import Completion, Live, run_open_loop
from headway.load.audit import Told
from headway.measure.environment import Watch
from headway.measure.rows import stack
from headway.runtime import Session, open_session
from headway.serve import TOLERANCE, OpenBundle, open_bundle

QUEUE_LIMIT = 5_000_000
WIDE = 5e-2


class BundleTarget:
    """A bundle held ready: sessions are opened once and loaded as often as wanted."""

    kind = "in-process"

    def __init__(self, bundle: OpenBundle) -> None:
        first = bundle.manifest.variants[0]
        self.senders = 1
        self.live: Live | None = None
        self.inputs = bundle.manifest.inputs
        self.own_slo = str(bundle.manifest.objective)
        self.answers_tolerance = min(bundle.manifest.tolerance, TOLERANCE.get(first.variant.precision, WIDE))
        self._variant, self._plan = first.variant.name, first.plan
        self._sessions: list[Session] = []
        try:
            for _ in range(self._plan.instances):
                self._sessions.append(open_session(self._plan, bundle.model_path(0)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sessions."""
        for session in self._sessions:
            session.close()

    def run(
        self,
        requests: Sequence[Feeds],
        due_s: NDArray[np.float64],
        *,
        picks: Picks | None = None,
        most_in_flight: int = MOST_IN_FLIGHT,
        drain_s: float = DRAIN_S,
        keep_answers: bool = False,
    ) -> Ran:
        """One run; with ``most_in_flight`` of 1 each request is handed over when the one before it has ended."""
        order = sent_in_turn(requests, len(due_s), picks)
        sizes = [len(next(iter(request.values()))) for request in requests]
        batches: list[int] = []
        answers: list[Told] = []
        over = threading.Event()
        room = threading.Semaphore(1 if most_in_flight == 1 else 2**31)

        def compute(instance: int, items: Sequence[tuple[int, Completion]]) -> Sequence[Feeds | None]:
            if over.is_set():
                return [None] * len(items)  # the run has ended: what an overload left in the queue is not worth running
            outputs = self._sessions[instance].run(stack([requests[order[number]] for number, _ in items]))
            if not keep_answers:
                return [None] * len(items)
            ends = np.cumsum([sizes[order[number]] for number, _ in items])[:-1]
            pieces = {name: np.split(array, ends) for name, array in outputs.items()}
            return [{name: piece[at] for name, piece in pieces.items()} for at in range(len(items))]

        def done(items: Sequence[tuple[int, Completion]], results: Sequence[Feeds | None] | BaseException, times: BatchTimes) -> None:
            failed = isinstance(results, BaseException)
            if not over.is_set():
                batches.append(sum(sizes[order[number]] for number, _ in items))
                if not isinstance(results, BaseException):
                    told = zip(items, results, strict=True)
                    answers.extend(Told(int(order[number]), self._variant, given) for (number, _), given in told if given is not None)
            for number, completion in items:
                completion.failed(number) if failed else completion.ok(number)
                room.release()

        plan = self._plan
        batcher: Batcher[tuple[int, Completion], Feeds | None] = Batcher(
            compute, done, instances=plan.instances, max_batch=plan.max_batch, max_wait_s=plan.max_wait_s, queue_limit=QUEUE_LIMIT
        )

        def submit(number: int, completion: Completion) -> None:
            room.acquire()
            try:
                batcher.submit((number, completion), rows=sizes[order[number]])
            except QueueFull:
                room.release()
                completion.refused(number)

        try:
            with Watch() as watch:
                raw = run_open_loop(submit, due_s, drain_s=drain_s, live=self.live)
        finally:
            over.set()
            batcher.close()
        return Ran(raw, tuple(answers), float(np.mean(batches)) if batches else math.nan, watch.steal_fraction)


@contextlib.contextmanager
def opened_bundle(path: Path) -> Iterator[BundleTarget]:
    """The bundle at a path, or in a run folder, closed at the end of the block.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    target = BundleTarget(open_bundle(path))
    try:
        yield target
    finally:
        target.close()
