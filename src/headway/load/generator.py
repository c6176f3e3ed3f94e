"""The open-loop sender inside a process: it hands each request over when it is due, and never waits for an answer."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headway.load.live import Live, watched

OK: Final = 0
REFUSED: Final = 1
FAILED: Final = 2
LOST: Final = 3
SPIN_S = 120e-6
"""The last stretch before a due time is spun, since a sleep wakes up some 80 microseconds late [s]. A longer spin would take the
processor from the target, which in the same process also waits for the interpreter lock."""


@dataclass(frozen=True, slots=True)
class RawLoad:
    """One run, request by request, on one clock that starts with the run.

    Attributes:
        due_s: when each request was due [s].
        sent_s: when the sender really turned to it; later than due, the sender was late [s].
        done_s: when it ended; NaN when it had not by the end of the run [s].
        status: 0 answered, 1 refused, 2 failed, 3 lost (nothing heard by the end).
        end_s: when the run ended: the last answer, or the end of the wait for it [s].
    """

    due_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    status: NDArray[np.int8]
    end_s: float


class Completion:
    """Where a target reports what became of each request, from any thread. The first report counts; later ones are ignored.

    Attributes:
        start_s: zero of the run's clock on ``time.perf_counter`` [s].
    """

    def __init__(self, count: int) -> None:
        self._done_s = np.full(count, np.nan)
        self._status = np.full(count, LOST, dtype=np.int8)
        self._left = count
        self._counts = [0, 0, 0]
        self._lock = threading.Lock()
        self._all = threading.Event()
        self.start_s = time.perf_counter()
        if count == 0:
            self._all.set()

    def begin(self) -> float:
        """Start the clock of the run; gives its zero on ``time.perf_counter`` [s]."""
        self.start_s = time.perf_counter()
        return self.start_s

    def ok(self, number: int) -> None:
        """Request ``number`` was answered."""
        self._end(number, OK)

    def refused(self, number: int) -> None:
        """Request ``number`` was refused by the target on purpose."""
        self._end(number, REFUSED)

    def failed(self, number: int) -> None:
        """Request ``number`` ended in an error."""
        self._end(number, FAILED)

    def _end(self, number: int, status: int) -> None:
        now_s = time.perf_counter() - self.start_s
        with self._lock:
            if self._status[number] != LOST:
                return
            self._done_s[number] = now_s
            self._status[number] = status
            self._counts[status] += 1
            self._left -= 1
            if self._left == 0:
                self._all.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until every request has ended; false when ``timeout_s`` passed first."""
        return self._all.wait(timeout_s)

    @property
    def answered(self) -> int:
        """Requests answered so far."""
        return self._counts[OK]

    @property
    def refused_count(self) -> int:
        """Requests refused so far."""
        return self._counts[REFUSED]

    def answered_at(self, part: slice) -> NDArray[np.float64]:
        """When some of the requests were answered [s]; NaN for those that were not."""
        with self._lock:
            return np.where(self._status[part] == OK, self._done_s[part], np.nan)

    def raw(self, due_s: NDArray[np.float64], sent_s: NDArray[np.float64]) -> RawLoad:
        """The run as it stands now; what is reported later is not in it."""
        with self._lock:
            done_s, status = self._done_s.copy(), self._status.copy()
            now_s = time.perf_counter() - self.start_s
        end_s = now_s if bool((status == LOST).any()) or not len(done_s) else float(done_s.max())
        return RawLoad(due_s, sent_s, done_s, status, end_s)


def run_open_loop(
    submit: Callable[[int, Completion], None], due_s: NDArray[np.float64], *, drain_s: float = 5.0, live: Live | None = None
) -> RawLoad:
    """Hand request i to ``submit(i, completion)`` when it is due, then wait up to ``drain_s`` for the last answers.

    ``submit`` must return at once and not raise; what it takes is seen in the lateness of the requests after it.
    """
    sent_s = np.zeros(len(due_s))
    completion = Completion(len(due_s))
    with short_collections():
        start_s = completion.begin()
        with watched(live, due_s, sent_s, completion):
            for number, at_s in enumerate(due_s.tolist()):
                _wait_until(start_s + at_s)
                sent_s[number] = time.perf_counter() - start_s
                submit(number, completion)
            completion.wait(drain_s)
    return completion.raw(due_s, sent_s)


@contextlib.contextmanager
def short_collections() -> Iterator[None]:
    """While the block runs, the garbage collector skips the objects that existed before it.

    With a framework imported, one full collection stops a process for more than 100 ms, which would be read as the target's latency.
    """
    if gc.get_freeze_count():
        yield  # somebody else has frozen objects, and must be the one to thaw them
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _wait_until(moment_s: float) -> None:
    left_s = moment_s - time.perf_counter()
    if left_s > SPIN_S:
        time.sleep(left_s - SPIN_S)
    while time.perf_counter() < moment_s:
        pass
