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
    """Queues items and runs them in batches on ``instances`` threads.

    Args:
        run: ``run(instance, items)`` gives one result for each item; it is called on that instance's thread, one batch at a time.
        done: called on the same thread after each batch, with the results, or with the exception that ``run`` raised.
        max_batch: most rows in a batch; ``rows`` tells the rows of an item.
        max_wait_s: longest deliberate wait for a fuller batch [s]; 0 is greedy.
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
        if instances < 1 or max_batch < 1 or queue_limit < 1 or max_wait_s < 0:
            raise ValueError(f"{instances=}, {max_batch=} and {queue_limit=} must be at least 1 and {max_wait_s=} at least 0")
        self._run, self._done = run, done
        self._max_batch, self._max_wait_s, self._queue_limit = max_batch, max_wait_s, queue_limit
        self._clock, self._rows = clock, rows
        self._waiting: deque[tuple[T, int, float]] = deque()
        self._running = 0
        self._open = True
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._emptied = threading.Condition(lock)
        self._threads = [threading.Thread(target=self._work, args=(index,), name=f"instance-{index}", daemon=True) for index in range(instances)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Items queued or running."""
        return len(self._waiting) + self._running

    def submit(self, item: T) -> None:
        """Queue an item; returns at once, from any thread.

        Raises:
            QueueFull: the queue is at its limit, or the batcher is draining.
        """
        size = self._rows(item)
        with self._changed:
            if not self._open:
                raise QueueFull("the server is shutting down; send the request to another one")
            if len(self._waiting) >= self._queue_limit:
                raise QueueFull(f"at most {self._queue_limit} requests may wait, and as many do; try again later")
            self._waiting.append((item, size, self._clock()))
            self._changed.notify()

    def drain(self, timeout_s: float) -> bool:
        """Take no more items and wait until all are answered; false when ``timeout_s`` passed first."""
        with self._emptied:
            self._open = False
            self._changed.notify_all()
            return self._emptied.wait_for(lambda: not self._waiting and not self._running, timeout_s)

    def close(self) -> None:
        """Take no more items, finish those accepted, and end the threads."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, instance: int) -> None:
        while (batch := self._next()) is not None:
            items = [item for item, _, _ in batch]
            started_s = self._clock()
            outcome: Sequence[R] | BaseException
            try:
                outcome = self._run(instance, items)
                if len(outcome) != len(items):
                    outcome = HeadwayError(f"run must give one result for each item, got {len(outcome)} for {len(items)}")
            except BaseException as error:  # whatever it is, it belongs to this batch and must not end the thread
                outcome = error
            times = BatchTimes(tuple(arrived_s for _, _, arrived_s in batch), started_s, self._clock())
            try:
                self._done(items, outcome, times)
            except Exception:
                logger.exception("done() must not raise; the batch was run and the instance goes on")
            finally:
                with self._emptied:
                    self._running -= len(batch)
                    if not self._waiting and not self._running:
                        self._emptied.notify_all()

    def _next(self) -> list[tuple[T, int, float]] | None:
        """The next batch, as soon as the policy gives one; none when closed and empty."""
        with self._changed:
            while True:
                head = list(islice(self._waiting, self._max_batch + 1))
                wait_s = self._max_wait_s if self._open else 0.0
                now_s = self._clock()
                decision = take([size for _, size, _ in head], [at for _, _, at in head], now_s, max_batch=self._max_batch, max_wait_s=wait_s)
                if decision.count:
                    self._running += decision.count
                    batch = [self._waiting.popleft() for _ in range(decision.count)]
                    if self._waiting:
                        self._changed.notify()
                    return batch
                if not self._open and not self._waiting:
                    return None
                self._changed.wait(None if decision.wake_at_s is None else max(0.0, decision.wake_at_s - now_s))
