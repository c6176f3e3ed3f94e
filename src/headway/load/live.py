"""How a run goes while it goes: a thread looks at the preallocated record twice a second, and never touches the sender."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

EVERY_S = 0.5
WINDOW_S = 2.0
MOST_LOOKED_AT = 4096
"""Requests that one look takes in at most, so that it takes less than a tenth of a millisecond."""


class Seen(NamedTuple):
    """One look at a run.

    Attributes:
        left_s: until the last request is due [s].
        answered_per_s: over the last two seconds [1/s].
        p50_s: of the latency from the due time, of requests due and answered in these seconds; NaN without any [s].
        p99_s: the same [s].
        refused: since the start.
        lateness_s: the most by which the sender was late in these seconds [s].
    """

    left_s: float
    answered_per_s: float
    p50_s: float
    p99_s: float
    refused: int
    lateness_s: float


Live = Callable[[Seen], None]


class Record(Protocol):
    """What is looked at, ``generator.Completion``."""

    start_s: float

    @property
    def answered(self) -> int:
        """Requests answered so far."""

    @property
    def refused_count(self) -> int:
        """Requests refused so far."""

    def answered_at(self, part: slice) -> NDArray[np.float64]:
        """When some of the requests were answered [s]; NaN for those that were not."""


def look(due_s: NDArray[np.float64], sent_s: NDArray[np.float64], record: Record, now_s: float, answered_per_s: float) -> Seen:
    """What the record says ``now_s`` seconds after the start, from the last ``MOST_LOOKED_AT`` due requests."""
    first, last = (int(at) for at in np.searchsorted(due_s, [now_s - WINDOW_S, now_s]))
    part = slice(max(first, last - MOST_LOOKED_AT), last)
    latency_s = record.answered_at(part) - due_s[part]
    latency_s = latency_s[~np.isnan(latency_s)]
    p50_s, p99_s = np.quantile(latency_s, [0.5, 0.99]) if len(latency_s) else (np.nan, np.nan)
    late_s = (sent_s[part] - due_s[part]).max(initial=0.0)
    left_s = max(0.0, float(due_s[-1]) - now_s) if len(due_s) else 0.0
    return Seen(left_s, answered_per_s, float(p50_s), float(p99_s), record.refused_count, float(late_s))


@contextlib.contextmanager
def watched(live: Live | None, due_s: NDArray[np.float64], sent_s: NDArray[np.float64], record: Record) -> Iterator[None]:
    """While the block runs, ``live`` is told twice a second, from a thread of its own."""
    if live is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(live, due_s, sent_s, record, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(live: Live, due_s: NDArray[np.float64], sent_s: NDArray[np.float64], record: Record, over: threading.Event) -> None:
    past = [(0.0, 0)]
    while not over.wait(EVERY_S):
        now_s, answered = time.perf_counter() - record.start_s, record.answered
        past = [(at_s, count) for at_s, count in past if at_s >= now_s - WINDOW_S - EVERY_S] or past[-1:]
        rate = (answered - past[0][1]) / max(now_s - past[0][0], 1e-9)
        past.append((now_s, answered))
        live(look(due_s, sent_s, record, now_s, rate))
