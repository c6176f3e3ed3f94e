"""Latency side by side: in every round each model gets its turn, and its time is divided by the float32 model's of the same round.

A round lasts a few hundred milliseconds, so what disturbs the machine disturbs both sides; the unit of evidence is the round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headway.measure.environment import Watch, noise_ratio
from headway.measure.rows import rows
from headway.records import Plan
from headway.runtime import open_session
from headway.runtime.runtimes import onnx_runtime
from headway.stats import ratio_of_medians

ROUNDS = 15
TURN_S = 0.012
FEWEST_CALLS = 3
Call = Callable[[], object]


def opened(path: Path, runtime: str, inputs: Mapping[str, np.ndarray], batch: int) -> Call:
    """One call of the model on the first ``batch`` rows, one thread; ONNX Runtime without Headway's checks around it."""
    feeds = rows(inputs, 0, batch)
    if runtime == "onnx_runtime":
        session = onnx_runtime.load(path, onnx_runtime.session_options(1))
        names = [value.name for value in session.get_outputs()]
        return lambda: session.run(names, feeds)
    held = open_session(Plan(runtime=runtime), path)
    return lambda: held.run(feeds)


def interleaved(calls: Mapping[str, Call], base: str) -> dict[str, dict[str, Any]]:
    """Median latency and how many times faster than ``base`` each is, with a 95% interval over rounds."""
    turns = {name: _turn(call) for name, call in calls.items()}
    names = list(calls)
    samples: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with Watch() as watch:
        for number in range(ROUNDS):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                samples[name].append(_timed(calls[name], turns[name]))
    noise = noise_ratio()
    shared = {"rounds": ROUNDS, "noise_ratio": round(noise, 3), "others_fraction": round(watch.others_fraction, 3)}
    shared["steal_fraction"] = round(watch.steal_fraction, 4)
    found = {}
    for name in names:
        ratio = ratio_of_medians(samples[base], samples[name])
        latency_s = float(np.median([np.median(turn) for turn in samples[name]]))
        faster = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
        found[name] = {"latency_s": latency_s, "faster": faster, "calls": turns[name], **shared}
    return found


def _turn(call: Call) -> int:
    """Calls in one turn, so that a turn lasts about ``TURN_S``."""
    call()
    began = time.perf_counter()
    call()
    return max(FEWEST_CALLS, int(TURN_S / max(1e-6, time.perf_counter() - began)))


def _timed(call: Call, calls: int) -> np.ndarray:
    call()  # the model before has left the caches full of its own weights
    times = np.empty(calls)
    for number in range(calls):
        began = time.perf_counter()
        call()
        times[number] = time.perf_counter() - began
    return times
