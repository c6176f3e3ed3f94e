"""Fewer wake-ups when requests come thick and fast. A clock and two counters; no requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

LOOK_S = 0.05
BUSY_PER_S = 3000
PAUSE_S = 2e-4
OVERLOADED_SHARE = 0.02
PAUSE_SHARE = 0.1
LONGEST_PAUSE_S = 2e-3


class Counts(NamedTuple):
    """Requests handled so far, and rows of them refused because they could not be answered in time."""

    handled: int
    missed: int


async def moderate(count: Callable[[], Counts], deadline_s: Callable[[], float]) -> None:
    """While requests come thick and fast, let the event loop look for new ones only every so often: one wake-up then serves several.

    Waking for each one alone costs more than answering it, and takes the core from the model at every turn, its caches with it: what network
    cards do with their interrupts (Salim et al., Beyond Softnet, 2001, section 4). The pause is short while all can be answered, and a share
    of the shortest deadline while some must be refused. It runs until cancelled.
    """
    before = count()
    while True:
        await asyncio.sleep(LOOK_S)
        while (now := count()).handled - before.handled > BUSY_PER_S * LOOK_S:
            overloaded = now.missed - before.missed > OVERLOADED_SHARE * (now.handled - before.handled)
            before = now
            await _pause(max(PAUSE_S, min(LONGEST_PAUSE_S, PAUSE_SHARE * deadline_s())) if overloaded else PAUSE_S)
        before = now


async def _pause(pause_s: float) -> None:
    """Alternate a pause and one look for what has come, for ``LOOK_S``."""
    end_s = time.perf_counter() + LOOK_S
    while time.perf_counter() < end_s:
        time.sleep(pause_s)
        await asyncio.sleep(0)
