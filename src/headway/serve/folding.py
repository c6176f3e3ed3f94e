"""From the event loop's lists to whoever counts: what was seen is taken once a second on a thread of its own.

The hot path appends to a list and nothing else. An append and the removal of a list's first items are each one step for the
interpreter, and only one thread at a time removes, so nothing is lost and nothing is counted twice without a lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, Self, TypeVar, runtime_checkable

from headway.serve.seen import Batch, Folds, Refused

logger = logging.getLogger(__name__)
T = TypeVar("T")

PERIOD_S = 1.0
MOST = 65_536
"""Batches, and refusals, that wait to be folded; more than a server makes in some seconds. Beyond it they are dropped and counted."""

PORTION = 128
"""Items handed over at a time: work for a fraction of a millisecond. After it the thread sleeps for ``PAUSE_S``, so that the event loop need not wait for it."""

PAUSE_S = 1e-4
"""The interpreter's lock goes to whoever waits for it when its owner sleeps, and otherwise only after 5 ms [s]."""

QUIET_S = 10.0
"""After a consumer's failure was logged, for so long the next ones are only counted [s]."""


@runtime_checkable
class _Closes(Protocol):
    """A consumer with something to do at the end."""

    def close(self) -> None:
        """Tell or send what is left."""


class Folding:
    """Collects what was seen and folds it into consumers, in their order; a context manager.

    Attributes:
        dropped: batches and refusals that were not counted because folding was stalled.
        failed: how often each consumer raised, by its class's name.
    """

    def __init__(self, consumers: Sequence[Folds], *, period_s: float = PERIOD_S, most: int = MOST) -> None:
        self._consumers = tuple(consumers)
        self._period_s, self._most = period_s, most
        self._batches: list[Batch] = []
        self._refused: list[Refused] = []
        self._folding = threading.Lock()
        self._dropping = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="headway-folding", daemon=True)
        self._logged_s: dict[str, float] = {}
        self.dropped = 0
        self.failed: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the hot path

    def seen(self, batch: Batch) -> None:
        """Remember a batch until the next fold; from any thread, without waiting."""
        if len(self._batches) < self._most:
            self._batches.append(batch)
        else:
            self._drop()

    def refused(self, refused: Refused) -> None:
        """Remember a refusal until the next fold; from any thread, without waiting."""
        if len(self._refused) < self._most:
            self._refused.append(refused)
        else:
            self._drop()

    def _drop(self) -> None:
        with self._dropping:
            self.dropped += 1

    # --- folding

    def fold_now(self) -> None:
        """Fold all that was seen until now; waits for a fold in progress, so never call it on the event loop."""
        with self._folding:
            batches, refused = _taken(self._batches), _taken(self._refused)
            for first in range(0, max(len(batches), len(refused), 1), PORTION):
                self._hand_over(batches[first : first + PORTION], refused[first : first + PORTION])

    def close(self) -> None:
        """Fold the rest, end the thread, and close each consumer that has a ``close``; what is appended later nobody counts."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.fold_now()
        for consumer in self._consumers:
            if isinstance(consumer, _Closes):
                self._guarded(consumer, consumer.close)

    def _live(self) -> None:
        while not self._ended.wait(self._period_s):
            self.fold_now()

    def _hand_over(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        for consumer in self._consumers:
            self._guarded(consumer, partial(consumer.fold, batches, refused))
            time.sleep(PAUSE_S)

    def _guarded(self, consumer: Folds, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            self._tell_failure(type(consumer).__name__)

    def _tell_failure(self, name: str) -> None:
        self.failed[name] += 1
        now_s = time.monotonic()
        if now_s - self._logged_s.get(name, -QUIET_S) >= QUIET_S:
            self._logged_s[name] = now_s
            fields = {"consumer": name, "failures": self.failed[name]}
            logger.exception("folding into %s failed", name, extra={"event": "folding_failed", "fields": fields})


def _taken(items: list[T]) -> list[T]:
    """All items of a list that others append to meanwhile; they are removed from it."""
    taken = items[:]
    del items[: len(taken)]
    return taken
