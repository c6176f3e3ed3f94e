"""The one batcher: items in, batches by the policy, one thread for each instance. Server and in-process load use it alike."""

from __future__ import annotations

import logging
import math
import threading
import time
from bisect import insort
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from headway.batching.overload import Demand, Spare
from headway.batching.pace import Pace
from headway.batching.policy import alike, batch_within, done_by_s, finish_s, fit, overloaded, take, tau
from headway.records import HeadwayError

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

PATIENCE_S = 1.0
"""Among items with deadlines, one without stands as if its own were this long after its arrival [s]."""
LOOK_AHEAD = 4
"""With items of several kinds, so many batches' worth of the queue are searched for those of the first one's kind."""


class QueueFull(HeadwayError):
    """The queue is at its limit, or the batcher takes no more: refuse the request at once."""


class Late(HeadwayError):
    """An item cannot be done by its deadline: refuse the request at once."""


class BatchTimes(NamedTuple):
    """When the items of one batch arrived, and when the batch started and finished, on the batcher's clock [s]."""

    arrived_s: tuple[float, ...]
    started_s: float
    finished_s: float


class _Waiting(NamedTuple, Generic[T]):
    """One queued item. Its first three fields order the queue, and no two items have all three alike."""

    priority: int
    due_s: float
    number: int
    item: T
    rows: int
    key: Hashable
    arrived_s: float
    deadline_s: float


class Batcher(Generic[T, R]):
    """Queues items and runs them in batches on ``instances`` threads. An idle one sleeps: no polling, no spinning.

    Items of a lower ``priority`` number run first; within one priority those with the earliest deadline; then those that came first.

    Args:
        run: ``run(instance, items)`` gives one result for each item; called on that instance's thread, one batch at a time.
        done: called on the same thread after each batch, with the results, or with the exception that ``run`` raised.
        late: called on the same thread with accepted items that could not be done by their deadlines any more, and were not run.
        begin: called once on each thread, before its first batch.
        max_batch: most rows in a batch. An item with more rows runs alone: refuse it earlier.
        max_wait_s: longest deliberate wait for a fuller batch, from the oldest item's arrival [s]; 0 is greedy.
        queue_limit: items that may wait; more are refused with ``QueueFull``.
        pace: predicted service times; without it no deadline is looked at.
        latency_s: what most items must be done within [s]: batches are kept small enough for it; infinite: ``max_batch`` alone decides.
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
        pace: Pace | None = None,
        latency_s: float = math.inf,
        late: Callable[[Sequence[T]], None] = lambda items: None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        if instances < 1 or max_batch < 1 or queue_limit < 1 or not max_wait_s >= 0 or not latency_s > 0:
            raise ValueError(
                f"{instances=}, {max_batch=}, {queue_limit=}, {max_wait_s=} and {latency_s=} must be at least 1, 1, 1, 0 and above 0"
            )
        self._run, self._done, self._refuse, self._begin = run, done, late, begin
        self._max_batch, self._max_wait_s, self._queue_limit, self._latency_s = max_batch, max_wait_s, queue_limit, latency_s
        self._clock = clock
        self._waiting: list[_Waiting[T]] = []
        self._waiting_rows = 0
        self._keys = 1
        self._number = 0
        self._running = 0
        self._idle = set(range(instances))
        self._lent = False
        self._free_s = [0.0] * instances
        self._open = True
        self._demand, self._spare = Demand(), Spare(latency_s)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._keep(pace)
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

    @property
    def overloaded(self) -> bool:
        """Whether more is asked for than can be answered, by the pace."""
        return self._overloaded

    @property
    def busy_until_s(self) -> float:
        """When the first instance is expected to be free, on the batcher's clock; 0: one is, or there is no pace [s]."""
        return min(self._free_s)

    def keep(self, pace: Pace) -> None:
        """Predict by another pace from now on: the model behind ``run`` has changed."""
        with self._lock:
            self._keep(pace)

    def submit(
        self, item: T, *, rows: int = 1, key: Hashable = None, deadline_s: float = math.inf, priority: int = 0, wake: bool = True
    ) -> None:
        """Queue an item; returns at once, from any thread.

        Args:
            key: only items with equal keys share a batch.
            deadline_s: when it must be done, on the batcher's clock [s].
            wake: whether an idle instance's thread starts at once; otherwise the caller calls ``start`` soon.

        Raises:
            QueueFull: the queue is at its limit, or the batcher is draining.
            Late: by the pace, it cannot be done by its deadline.
        """
        now_s = self._clock()
        with self._lock:
            if not self._open:
                raise QueueFull("the server is shutting down; send the request to another one")
            self._asked(rows, now_s)
            waiting = self._waiting
            if len(waiting) >= self._queue_limit:
                raise QueueFull(f"at most {self._queue_limit} requests may wait, and as many do; try again later")
            due_s = deadline_s if deadline_s < math.inf else now_s + PATIENCE_S
            self._number += 1
            entry = _Waiting(priority, due_s, self._number, item, rows, key, now_s, deadline_s)
            last = not waiting or waiting[-1] < entry
            if self._late(now_s, rows, deadline_s, entry[:3], last=last):
                raise Late("too much is waiting for an answer by the deadline")
            if last:
                waiting.append(entry)
            else:
                insort(waiting, entry)
            self._waiting_rows += rows
            if key is not None and key != waiting[0].key:
                self._keys = LOOK_AHEAD
            if wake:
                self._wake()

    def start(self, most_s: float) -> bool:
        """Let an idle instance run the next batch: on the calling thread when it is expected to take at most ``most_s``, or else on its own.

        A short batch costs less than waking another thread for it. True when it ran here and more is waiting: call again.
        """
        with self._lock:
            if not self._waiting:
                return False
            rows = min(self._batch, self._waiting_rows)
            if not self._idle or self._lent or self._pace is None or self._max_wait_s or tau(self._pace.tau_s, rows) > most_s:
                self._wake()
                return False
            instance = next(iter(self._idle))
            self._lent = True
            batch, late, _ = self._take(instance)
        try:
            self._run_batch(instance, batch, late)
        finally:
            with self._lock:
                self._lent = False
        return bool(self._waiting)

    def late(self, deadline_s: float, priority: int = 0) -> bool:
        """Whether an item of one row would be refused for this deadline if it came now: ``submit`` without an item."""
        with self._lock:
            now_s = self._clock()
            late = self._late(now_s, 1, deadline_s, (priority, deadline_s, self._number + 1), last=False)
            if late:
                self._asked(1, now_s)
            return late

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

    def _late(self, now_s: float, rows: int, deadline_s: float, place: tuple[int, float, int], *, last: bool) -> bool:
        """Whether an item that would stand at ``place`` in the queue's order cannot be done by its deadline."""
        if self._pace is None or deadline_s == math.inf:
            return False
        waiting = self._waiting
        last = last or not waiting or waiting[-1][:3] < place
        ahead = self._waiting_rows if last else sum([other.rows for other in waiting if other[:3] < place])
        until_s = deadline_s - self._spare.seconds if self._overloaded else deadline_s
        if rows == 1 and done_by_s(now_s, ahead, self._free_s, self._full_s, self._batch) <= until_s:
            return False
        end_s = finish_s(now_s, ahead, rows, self._free_s, self._pace.tau_s, self._batch, self._demand.per_s or math.inf)
        return end_s > until_s

    def _keep(self, pace: Pace | None) -> None:
        self._pace = pace
        self._batch, self._full_s, self._overloaded = self._max_batch, 0.0, False
        if pace is not None:
            self._batch = batch_within(
                pace.tau_s, self._max_batch, self._latency_s, demand_per_s=self._demand.per_s, instances=len(self._free_s)
            )
            self._full_s = tau(pace.tau_s, self._batch)
            self._overloaded = overloaded(pace.tau_s, self._batch, self._demand.per_s, len(self._free_s))

    def _asked(self, rows: int, now_s: float) -> None:
        if self._demand.add(rows, now_s):
            self._keep(self._pace)

    def _work(self, instance: int) -> None:
        self._begin()
        while self._run_next(instance):
            pass

    def _run_next(self, instance: int) -> bool:
        """Run one batch; false when closed and empty. A function of its own, so that an idle thread keeps no batch alive."""
        batch, late = self._next(instance)
        if batch or late:
            self._run_batch(instance, batch, late)
        return bool(batch or late)

    def _run_batch(self, instance: int, batch: list[_Waiting[T]], late: list[_Waiting[T]]) -> None:
        if late and self._overloaded:
            self._spare.learn(True)
        if late:
            self._told(self._refuse, [entry.item for entry in late])
        if not batch:
            self._left(instance, len(late))
            return
        items = [entry.item for entry in batch]
        pace = self._pace
        started_s = self._clock()
        outcome: Sequence[R] | BaseException
        try:
            outcome = self._run(instance, items)
            if len(outcome) != len(items):
                outcome = HeadwayError(f"run must give one result for each item, got {len(outcome)} for {len(items)}")
        except BaseException as error:  # whatever it is, it belongs to this batch and must not end the thread
            outcome = error
        finished_s = self._clock()
        self._told(self._done, items, outcome, BatchTimes(tuple([entry.arrived_s for entry in batch]), started_s, finished_s))
        if pace is not None:
            moved = pace.observe(sum(entry.rows for entry in batch), finished_s - started_s)
            with self._lock:
                if self._overloaded:
                    self._spare.learn(any(entry.deadline_s < finished_s for entry in batch))
                if moved:
                    self._keep(self._pace)
        self._left(instance, len(items) + len(late))

    def _told(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except BaseException:
            logger.exception("done() and late() must not raise; the instance goes on")

    def _left(self, instance: int, count: int) -> None:
        with self._lock:
            self._running -= count
            self._free_s[instance] = 0.0
            self._idle.add(instance)
            if not self._waiting and not self._running:
                self._emptied.notify_all()

    def _next(self, instance: int) -> tuple[list[_Waiting[T]], list[_Waiting[T]]]:
        """The next batch and the items refused before it, as soon as the policy gives any; both empty when closed and empty."""
        with self._lock:
            while self._open or self._waiting:
                wait_s = None
                if instance in self._idle:
                    batch, late, wait_s = self._take(instance)
                    if batch or late:
                        return batch, late
                self._changed.wait(wait_s)
            return [], []

    def _take(self, instance: int) -> tuple[list[_Waiting[T]], list[_Waiting[T]], float | None]:
        """What ``_next`` gives, for an idle instance and now; when that is nothing, for how long to wait [s], or none: until something arrives."""
        now_s = self._clock()
        head = self._waiting[: self._batch * self._keys + 1]
        if self._keys > 1 and head:
            head = [head[place] for place in alike([entry.key for entry in head])]
        decision = take(
            [entry.rows for entry in head], [entry.arrived_s for entry in head], now_s,
            max_batch=self._batch, max_wait_s=self._max_wait_s if self._open else 0.0, start_by_s=self._start_by_s(head),
        )  # fmt: skip
        if decision.items:
            return *self._taken(instance, head, decision.items, now_s), None
        return [], [], None if math.isinf(decision.wake_at_s) else max(0.0, decision.wake_at_s - now_s)

    def _wake(self) -> None:
        """Wake an idle instance's thread; all, while one of them has lent its instance and would sleep on."""
        if self._idle:
            self._changed.notify(len(self._free_s) if self._lent else 1)

    def _start_by_s(self, head: Sequence[_Waiting[T]]) -> float:
        if self._pace is None or not self._max_wait_s or not head:
            return math.inf
        return min(entry.deadline_s for entry in head) - tau(self._pace.tau_s, self._batch)

    def _taken(self, instance: int, head: Sequence[_Waiting[T]], count: int, now_s: float) -> tuple[list[_Waiting[T]], list[_Waiting[T]]]:
        batch = list(head[:count])
        late: list[_Waiting[T]] = []
        waiting, pace = self._waiting, self._pace
        if pace is not None:
            rows, deadlines_s = [entry.rows for entry in batch], [entry.deadline_s for entry in batch]
            chosen = fit(rows, deadlines_s, now_s, pace.tau_s, backlog=len(waiting) > count or sum(rows) >= self._batch)
            batch, late = [batch[place] for place in chosen.run], [batch[place] for place in chosen.refuse]
            size = sum(entry.rows for entry in batch)
            self._free_s[instance] = now_s + tau(pace.tau_s, size) if batch else 0.0
        if late or self._keys > 1:
            gone = {entry.number for entry in (*late, *batch)}
            waiting[:] = [entry for entry in waiting if entry.number not in gone]
        else:
            del waiting[: len(batch)]
        self._waiting_rows -= sum(entry.rows for entry in (*late, *batch))
        self._running += len(batch) + len(late)
        self._idle.discard(instance)
        if waiting:
            self._wake()
        elif self._keys > 1:
            self._keys = 1
        return batch, late
