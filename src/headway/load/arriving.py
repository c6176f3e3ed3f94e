"""Due times of the requests of a run, from an arrival process found by its file name."""

from __future__ import annotations

import difflib
import functools

import numpy as np
from numpy.typing import NDArray

from headway.discovery import Found, discover
from headway.load import arrivals as arrival_files
from headway.records import ConfigError


@functools.cache
def arrivals() -> Found:
    """Every arrival process."""
    return discover(arrival_files)


def arrival_times(process: str, rate_per_s: float, duration_s: float, seed: int) -> NDArray[np.float64]:
    """Due times of one run, ascending from 0 to ``duration_s`` [s]; the same seed gives the same times.

    Raises:
        ConfigError: no such process, or a rate or duration that is not above zero.
    """
    found = arrivals().present
    if process not in found:
        close = difflib.get_close_matches(process, found, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(found)}"
        raise ConfigError(f"the arrival process must be known, got {process!r}; {hint}")
    if not 0 < rate_per_s < float("inf") or not 0 < duration_s < float("inf"):
        raise ConfigError(f"rate and duration of a load must be above zero, got {rate_per_s:g}/s for {duration_s:g} s")
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    at_s = 0.0
    while at_s < duration_s:
        count = max(16, int((duration_s - at_s) * rate_per_s * 1.1))
        part = at_s + np.cumsum(found[process].gaps_s(rate_per_s, count, rng))
        parts.append(part)
        at_s = float(part[-1])
    times = np.concatenate(parts)
    return times[times < duration_s]
