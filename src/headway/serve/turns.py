"""The event loop's turns: how long it rests between two looks for requests, and how finished batches reach it. No requests, no sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

WINDOW_S = 0.05
"""Requests are counted over windows this long [s]."""
BUSY_PER_S = 3000
PAUSE_S = 2e-4
OVERLOADED_SHARE = 0.02
PAUSE_SHARE = 0.1
LONGEST_PAUSE_S = 2e-3
EARLY_S = 2e-4
"""The loop looks again this long before an instance is expected to be free [s]."""
SHORT_S = 3e-3
"""A batch that is expected to take at most this long runs on the loop's own thread, when there is one instance and it shares the core [s]."""
BRIEF_S = 3e-4
"""The same, when there are other cores or instances, and requests do not come thick and fast [s]."""
WAIT_S = 1e-3
"""An instance that has finished a batch waits at most this long for the loop to look for what has come meanwhile [s]."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the models say about their work.

    Attributes:
        busy_until_s: when the first instance is expected to be free, on the clock of ``time.perf_counter``; 0: one is [s].
        missed: rows refused so far because they could not be answered in time.
        deadline_s: the shortest deadline of all models [s].
        instances: of all models together.
        share: whether they and the loop share the cores.
    """

    busy_until_s: Callable[[], float]
    missed: Callable[[], int]
    deadline_s: Callable[[], float]
    instances: Callable[[], int]
    share: Callable[[], bool]


class Starter(Protocol):
    """A batcher."""

    def start(self, most_s: float) -> bool:
        """Let the next batch start, on this thread if it is expected to take at most so long [s]; true: it did, and more is waiting."""


class Turns:
    """Lets one wake-up of the loop serve several requests, when waking at once would help none of them.

    Waking for each request alone costs more than answering it, and takes the core from the model at every turn, its caches with it: what network
    cards do with their interrupts (Salim et al., Beyond Softnet, 2001, section 4). So after it has handled what has come, the loop rests:

    - while every instance is at work and shares the cores with the loop, until one is expected to be free: nothing could start earlier. The end
      of a batch wakes it, and the instance takes its next batch after the loop has looked, so that no request misses it;
    - when requests come thick and fast, a little; and a share of the shortest deadline while some must be refused.

    Before it rests, it starts the batches of what has come; a short one it runs itself, for waking another thread and being woken by it takes
    longer than the batch.

    All methods but ``call`` run on the event loop.

    Attributes:
        unseen_s: by how much, on average, requests handled now came before they were seen [s].
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pressure: Pressure) -> None:
        self._loop, self._pressure = loop, pressure
        self._due = self._resting = False
        self._thread = threading.get_ident()
        self._starting: dict[Starter, None] = {}
        self._bell = threading.Lock()
        self._bell.acquire()
        self._brought: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._waiting: deque[threading.Lock] = deque()
        self._handled = self._missed = 0
        self._since_s = 0.0
        self._pause_s = self._short_s = 0.0
        self._share = False
        self.unseen_s = 0.0

    def handled(self, starter: Starter | None = None) -> None:
        """A request has been handled: once all that has come is, let ``starter`` start its batch, and rest."""
        self._handled += 1
        if starter is not None:
            self._starting[starter] = None
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def call(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call this soon; from an instance's thread, which waits until a loop that was resting has looked for requests.

        On the loop's own thread it is called at once.

        Raises:
            RuntimeError: the loop is closed.
        """
        if threading.get_ident() == self._thread:
            callback(*arguments)
            return
        self._brought.append((callback, arguments))  # before the look at whether it rests: a loop that is about to rest looks at this last
        if not self._resting:
            self._loop.call_soon_threadsafe(self._take)
            return
        looked = threading.Lock()
        looked.acquire()
        self._waiting.append(looked)
        with suppress(RuntimeError):  # another instance has rung
            self._bell.release()
        if not self._resting:  # it may have ended its rest before it could see what was brought
            self._loop.call_soon_threadsafe(self._take)
        looked.acquire(timeout=WAIT_S)

    def _turn(self) -> None:
        self._due = False
        began_s = time.perf_counter()
        if began_s - self._since_s > WINDOW_S:
            self._count(began_s)
        starting, self._starting = self._starting, {}
        for starter in starting:
            if starter.start(self._short_s):
                self._starting[starter] = None
        if self._starting:
            self._due = True
            self._loop.call_soon(self._turn)
        else:
            self._rest()
        self.unseen_s = (time.perf_counter() - began_s) / 2
        self._loop.call_soon(self._look)

    def _rest(self) -> None:
        rest_s = min(LONGEST_PAUSE_S, self._pressure.busy_until_s() - EARLY_S - time.perf_counter())
        if rest_s > PAUSE_S and self._share:
            self._resting = True
            if not self._brought:
                self._bell.acquire(timeout=rest_s)
            self._resting = False
            for _ in range(len(self._brought)):
                self._loop.call_soon(self._take)
        elif self._pause_s:
            time.sleep(self._pause_s)

    def _take(self) -> None:
        """One callback, if it was not taken already: it may be asked for twice."""
        if self._brought:
            callback, arguments = self._brought.popleft()
            callback(*arguments)

    def _look(self) -> None:
        """What came during a rest has been handled."""
        self.unseen_s = 0.0
        while self._waiting:
            self._waiting.popleft().release()

    def _count(self, now_s: float) -> None:
        missed = self._pressure.missed()
        self._share = self._pressure.share()
        self._pause_s = 0.0
        if self._handled > BUSY_PER_S * (now_s - self._since_s):
            overloaded = missed - self._missed > OVERLOADED_SHARE * self._handled
            self._pause_s = max(PAUSE_S, min(LONGEST_PAUSE_S, PAUSE_SHARE * self._pressure.deadline_s())) if overloaded else PAUSE_S
        if self._share and self._pressure.instances() == 1:
            self._short_s = SHORT_S
        else:
            self._short_s = 0.0 if self._pause_s else BRIEF_S
        self._handled, self._missed, self._since_s = 0, missed, now_s
