"""Due times of the requests of a run, from an arrival process found by its file name."""

from __future__ import annotations

import difflib
import functools
import math

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
    if not 0 < rate_per_s < math.inf or not 0 < duration_s < math.inf:
        raise ConfigError(f"rate and duration of a load must be above zero and finite, got {rate_per_s:g}/s for {duration_s:g} s")
    due_s: NDArray[np.float64] = found[process].times(rate_per_s, duration_s, np.random.default_rng(seed))
    return due_s
