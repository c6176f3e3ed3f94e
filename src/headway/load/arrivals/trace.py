"""Arrivals as a server recorded them (``headway serve --trace FILE``), faster or slower so that their mean rate is the asked one."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headway.records import ConfigError, Trace, from_json

C2 = 1.0
"""Not a property of this process: gaps are the recording's. The contract suite compares them with the recording instead."""
REPLAYS = True
"""Nothing is drawn: every seed gives the same run."""


def times(rate_per_s: float, duration_s: float, rng: np.random.Generator, *, file: str = "", start: float = 0.0) -> NDArray[np.float64]:
    """Due times, ascending [s]: the recording from ``start`` on, over again from its beginning when it ends before the run does.

    Time is scaled as a whole, so crowds and silences keep their proportions; a run shorter than the scaled recording sees a part of it,
    whose own rate may differ from the asked one.

    Args:
        file: a Trace record as JSON.
        start: where in the recording to begin, as a share of its length.

    Raises:
        ConfigError: no file, one that is no trace or holds fewer than two moments, or a start outside [0, 1).
    """
    if not 0 <= start < 1:
        raise ConfigError(f"arrivals trace: start must lie between 0 and 1, got {start:g}")
    shares, count = _recording(file)
    length_s = count / rate_per_s
    turned = np.sort((shares - start) % 1.0) * length_s
    rounds = int(np.ceil(duration_s / length_s))
    times_s: NDArray[np.float64] = (turned[None, :] + length_s * np.arange(rounds)[:, None]).ravel()
    return times_s[times_s < duration_s]


def recorded(*, file: str = "", start: float = 0.0) -> tuple[float, float]:
    """Mean rate [1/s] and length [s] of the recording; the same wherever a run starts in it."""
    trace = _read(file)
    count = len(trace.arrivals_s)
    span_s = max(trace.arrivals_s) - min(trace.arrivals_s)
    return (count - 1) / span_s, span_s * count / (count - 1)


@functools.lru_cache(maxsize=8)
def _recording(file: str) -> tuple[NDArray[np.float64], int]:
    """Moments as shares of the recording's length, and their number.

    The recording begins with its first arrival and ends one mean gap after its last, so that n arrivals fill n mean gaps.
    """
    at_s = np.sort(np.asarray(_read(file).arrivals_s, dtype=np.float64))
    at_s -= at_s[0]
    length_s = at_s[-1] * len(at_s) / (len(at_s) - 1)
    return at_s / length_s, len(at_s)


def _read(file: str) -> Trace:
    if not file:
        raise ConfigError("arrivals trace: the file must be given, got none; write trace:FILE")
    try:
        trace = from_json(Path(file).read_bytes(), Trace, file)
    except OSError as error:
        raise ConfigError(f"arrivals trace: {file} must be a file that can be read, got: {error.strerror or error}") from error
    if len(trace.arrivals_s) < 2 or max(trace.arrivals_s) <= min(trace.arrivals_s):
        raise ConfigError(f"arrivals trace: {file} must hold at least two different moments, got {len(trace.arrivals_s)} arrivals")
    return trace
