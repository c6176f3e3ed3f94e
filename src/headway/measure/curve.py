"""Service curves: how long a batch takes while all instances run (design, section 7)."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from headway.measure.rows import Feeds, rows
from headway.records import BatchTiming, MeasurementError, Plan, ServiceCurve
from headway.runtime import Session, open_session

KEPT_SAMPLES = 64
WARM_RUNS = 3
UNSTABLE_RATIO = 1.3


def measure_curve(
    path: Path,
    variant: str,
    plan: Plan,
    inputs: Feeds,
    *,
    batches: Sequence[int],
    seconds_a_batch: float = 0.25,
    stop_above_s: float | None = None,
) -> ServiceCurve:
    """The service curve of one graph on one runtime, with ``plan.instances`` sessions running at the same time.

    Args:
        inputs: real samples, repeated to fill a batch.
        batches: batch sizes to time, ascending.
        seconds_a_batch: time spent on each size, after a warm-up that ends when times stop falling [s].
        stop_above_s: larger sizes are left out once a batch takes longer than this [s].

    Raises:
        MeasurementError: a session failed while it was timed.
    """
    gc.collect()
    before = psutil.Process().memory_info().rss
    sessions: list[Session] = []
    try:
        for _ in range(plan.instances):
            sessions.append(open_session(plan, path))
        timings: list[BatchTiming] = []
        unstable = False
        for batch in batches:
            samples = _time_batch(sessions, inputs, batch, seconds_a_batch)
            timings.append(BatchTiming(batch=batch, service_s=_spread(samples)))
            unstable = unstable or _halves_disagree(samples)
            if stop_above_s is not None and timings[-1].median_s > stop_above_s:
                break
        peak = psutil.Process().memory_info().rss - before
    finally:
        for session in sessions:
            session.close()
    tau0, alpha = fit_line([(timing.batch, timing.median_s) for timing in timings])
    return ServiceCurve(
        variant=variant, runtime=plan.runtime, device=plan.device, instances=plan.instances, threads=plan.threads, timings=tuple(timings),
        tau0_s=tau0, alpha_s=alpha, peak_bytes=max(0, peak), unstable=unstable,
    )  # fmt: skip


def fit_line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """tau0 and alpha of tau(b) = tau0 + alpha b [s], by least squares on relative errors; neither is negative."""
    if len(points) == 1:
        return 0.0, points[0][1] / points[0][0]
    sizes = np.array([size for size, _ in points], dtype=float)
    times = np.array([seconds for _, seconds in points])
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / times[:, None]
    tau0, alpha = np.linalg.lstsq(design, np.ones_like(times), rcond=None)[0]
    if tau0 < 0:
        return 0.0, float(np.mean(times / sizes))
    if alpha < 0:
        return float(np.mean(times)), 0.0
    return float(tau0), float(alpha)


def _time_batch(sessions: Sequence[Session], inputs: Feeds, batch: int, seconds: float) -> list[float]:
    """Raw service times of one batch size, interleaved over the sessions in the order they ended."""
    start = threading.Barrier(len(sessions))
    results: list[list[tuple[float, float]]] = [[] for _ in sessions]
    errors: list[Exception] = []

    def work(index: int) -> None:
        try:
            feeds = [rows(inputs, (index + turn) * batch, batch) for turn in range(2)]
            for turn in range(WARM_RUNS):
                sessions[index].run(feeds[turn % 2])
            start.wait()
            results[index] = _loop(sessions[index], feeds, seconds)
        except Exception as error:
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), None)
    if first is not None:
        raise MeasurementError(f"a batch of {batch} must run on every instance, got: {first}") from first
    return [duration for _, duration in sorted(sample for result in results for sample in result)]


def _loop(session: Session, feeds: Sequence[Feeds], seconds: float) -> list[tuple[float, float]]:
    """Timed runs for ``seconds`` (at least five): (end, duration) pairs; the falling head is warm-up and left out."""
    samples: list[tuple[float, float]] = []
    began = time.perf_counter()
    turn = 0
    while True:
        at = time.perf_counter()
        session.run(feeds[turn % len(feeds)])
        now = time.perf_counter()
        samples.append((now, now - at))
        turn += 1
        if now - began >= seconds and turn >= 5:
            return samples[warm_up([duration for _, duration in samples]) :]


def warm_up(durations: Sequence[float]) -> int:
    """How many leading samples are warm-up: those above 1.5 times the median of the second half, at most a quarter."""
    steady = statistics.median(durations[len(durations) // 2 :])
    head = 0
    while head < len(durations) // 4 and durations[head] > 1.5 * steady:
        head += 1
    return head


def _spread(samples: Sequence[float]) -> tuple[float, ...]:
    """Those that are kept, evenly from the whole time of measuring: a small model's first ones are of one moment."""
    kept = min(KEPT_SAMPLES, len(samples))
    return tuple(samples[place * len(samples) // kept] for place in range(kept))


def _halves_disagree(samples: Sequence[float]) -> bool:
    if len(samples) < 8:
        return False
    middle = len(samples) // 2
    first, second = statistics.median(samples[:middle]), statistics.median(samples[middle:])
    return max(first, second) > UNSTABLE_RATIO * min(first, second)
