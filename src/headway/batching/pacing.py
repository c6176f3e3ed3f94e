"""The first measurement of a pace: a few runs of each of a few batch sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

RUNS = 3
BUDGET_S = 2.0


def measure_pace(run: Callable[[int], object], max_batch: int, *, budget_s: float = BUDGET_S) -> dict[int, float]:
    """Median service time of batches of 1, 2, 4, ... and ``max_batch`` rows, from ``run(rows)`` [s].

    The first run of each size warms up and is left out. When ``budget_s`` is spent, larger sizes are left out, but never the first.
    """
    sizes = sorted({size for size in (2**power for power in range(17)) if size < max_batch} | {max_batch})
    begun_s = time.perf_counter()
    found: dict[int, float] = {}
    for size in sizes:
        run(size)
        times_s = []
        for _ in range(RUNS):
            before_s = time.perf_counter()
            run(size)
            times_s.append(time.perf_counter() - before_s)
        found[size] = statistics.median(times_s)
        if time.perf_counter() - begun_s > budget_s:
            break
    return found
