"""What an idle instance runs next. Pure: the batcher asks it on the real clock, the simulator on a virtual one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Take(NamedTuple):
    """How many of the oldest items to run now; when none, the moment to ask again [s], or none: when something arrives."""

    items: int
    wake_at_s: float | None


def take(rows: Sequence[int], arrived_s: Sequence[float], now_s: float, *, max_batch: int, max_wait_s: float) -> Take:
    """The oldest items that fit into one batch, or how long to wait for a fuller one.

    Greedy with ``max_wait_s`` of 0: an idle instance never waits while something is queued, since with affine service times a
    timer buys efficiency, not latency (design, section 7). A wait is counted from the oldest item's arrival.

    Args:
        rows: rows of each waiting item, oldest first; only the first ``max_batch`` are looked at.
        arrived_s: arrival time of each, same order [s].
        max_batch: most rows in one batch; an item with more rows runs alone.
    """
    if not rows:
        return Take(0, None)
    count = 0
    total = 0
    for size in rows:
        if count and total + size > max_batch:
            break
        count += 1
        total += size
        if total >= max_batch:
            break
    full = total >= max_batch or count < len(rows)
    if full or now_s >= arrived_s[0] + max_wait_s:
        return Take(count, None)
    return Take(0, arrived_s[0] + max_wait_s)
