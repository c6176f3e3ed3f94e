"""The one batcher: items in, batches by the policy, one thread for each instance. Server and in-process load use it alike."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from headway.batching.policy import take
from headway.records import HeadwayError

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


class QueueFull(HeadwayError):
    """The queue is at its limit, or the batcher takes no more: refuse the request at once."""


class BatchTimes(NamedTuple):
    """When the items of one batch arrived, and when the batch started and finished, on the batcher's clock [s]."""

    arrived_s: tuple[float, ...]
    started_s: float
    finished_s: float


class Batcher(Generic[T, R]):
    """Queues items and runs them in batches on ``instances`` threads. An idle one sleeps: no polling, no spinning.

    Args:
        run: ``run(instance, items)`` gives one result for each item; called on that instance's thread, one batch at a time.
        done: called on the same thread after each batch, with the results, or with the exception that ``run`` raised.
        max_batch: most rows in a batch; ``rows`` tells the rows of an item. An item with more rows runs alone: refuse it earlier.
        max_wait_s: longest deliberate wait for a fuller batch, from the oldest item's arrival [s]; 0 is greedy.
        queue_limit: items that may wait; more are refused with ``QueueFull``.
    """

    def __init__(
        self,
        run: Callable[[int, Sequence[T]], Sequence[R]],
        done: Callable[[Sequence[T], Sequence[R] | BaseException, BatchTimes], None],
        *,
        instances: int,
        max_batch: int,
        max_wait_s: float = 0.0,
        queue_limit: int,
        clock: Callable[[], float] = time.perf_counter,
        rows: Callable[[T], int] = lambda item: 1,
    ) -> None:
        if instances < 1 or max_batch < 1 or queue_limit < 1 or not max_wait_s >= 0:
            raise ValueError(f"{instances=}, {max_batch=} and {queue_limit=} must be at least 1 and {max_wait_s=} at least 0")
        self._run, self._done = run, done
        self._max_batch, self._max_wait_s, self._queue_limit = max_batch, max_wait_s, queue_limit
        self._clock, self._rows = clock, rows
        self._waiting: deque[tuple[T, int, float]] = deque()
        self._running = 0
        self._open = True
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        named = [(index, f"instance-{index}") for index in range(instances)]
        self._threads = [threading.Thread(target=self._work, args=(index,), name=name, daemon=True) for index, name in named]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Items queued or running."""
        with self._lock:
            return len(self._waiting) + self._running

    def submit(self, item: T) -> None:
        """Queue an item; returns at once, from any thread.

        Raises:
            QueueFull: the queue is at its limit, or the batcher is draining.
        """
        size = self._rows(item)
        with self._lock:
            if not self._open:
                raise QueueFull("the server is shutting down; send the request to another one")
            if len(self._waiting) >= self._queue_limit:
                raise QueueFull(f"at most {self._queue_limit} requests may wait, and as many do; try again later")
            self._waiting.append((item, size, self._clock()))
            self._changed.notify()

    def drain(self, timeout_s: float) -> bool:
        """Take no more items and wait until all are answered; false when ``timeout_s`` passed first."""
        with self._lock:
            self._open = False
            self._changed.notify_all()
            return self._emptied.wait_for(lambda: not self._waiting and not self._running, timeout_s)

    def close(self) -> None:
        """Take no more items, finish those accepted, and end the threads; from ``done`` it does not wait for its own thread."""
        with self._lock:
            self._open = False
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _work(self, instance: int) -> None:
        while self._run_next(instance):
            pass

    def _run_next(self, instance: int) -> bool:
        """Run one batch; false when closed and empty. A function of its own, so that an idle thread keeps no batch alive."""
        batch = self._next()
        items = [item for item, _, _ in batch]
        if not items:
            return False
        started_s = self._clock()
        outcome: Sequence[R] | BaseException
        try:
            outcome = self._run(instance, items)
            if len(outcome) != len(items):
                outcome = HeadwayError(f"run must give one result for each item, got {len(outcome)} for {len(items)}")
        except BaseException as error:  # whatever it is, it belongs to this batch and must not end the thread
            outcome = error
        try:
            self._done(items, outcome, BatchTimes(tuple(arrived_s for _, _, arrived_s in batch), started_s, self._clock()))
        except BaseException:
            logger.exception("done() must not raise; the batch was run and the instance goes on")
        with self._lock:
            self._running -= len(items)
            if not self._waiting and not self._running:
                self._emptied.notify_all()
        return True

    def _next(self) -> list[tuple[T, int, float]]:
        """The next batch, as soon as the policy gives one; empty when closed and empty."""
        with self._lock:
            while self._open or self._waiting:
                head = list(islice(self._waiting, self._max_batch + 1))
                sizes, arrived_s = [size for _, size, _ in head], [at_s for _, _, at_s in head]
                wait_s = self._max_wait_s if self._open else 0.0
                now_s = self._clock()
                decision = take(sizes, arrived_s, now_s, max_batch=self._max_batch, max_wait_s=wait_s)
                if decision.items:
                    self._running += decision.items
                    if len(self._waiting) > decision.items:
                        self._changed.notify()
                    return [self._waiting.popleft() for _ in range(decision.items)]
                self._changed.wait(None if decision.wake_at_s is None else max(0.0, decision.wake_at_s - now_s))
            return []
