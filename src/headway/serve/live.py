"""The last two minutes of a server, second by second, for the live page. It is told batches and refusals and knows no requests.

Use: pass one ``Live()`` to ``Folding`` as a consumer; for ``GET /v2/headway/live`` fold, then answer ``snapshot(time.perf_counter(), gauges)``.

A second of one version is a row of sums and a histogram of about 5% resolution, so memory follows versions and seconds, not requests.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from headway.serve.seen import Batch, Refused

LOWEST_S = 1e-5
STEP = 1.05
BINS = 380
"""From 10 microseconds in steps of 5% to beyond 1000 s; what lies outside counts in the first or last bin."""

ANSWERED, FAILED, REFUSED, REQUESTS, BATCHES, ROWS, QUEUE_S, SERVICE_S = range(8)
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
DRAWN = ("p50", "p90", "p99")
RECENT_S = 10


class _Window:
    """Sums and histograms of the last seconds of one version; a ring of rows, a row a second."""

    def __init__(self, seconds: int) -> None:
        self.stamps = np.full(seconds, -1, np.int64)
        self.sums = np.zeros((seconds, 8))
        self.times = np.zeros((seconds, BINS), np.int64)
        self.variants: list[Counter[str]] = [Counter() for _ in range(seconds)]
        self.reasons: list[Counter[str]] = [Counter() for _ in range(seconds)]

    def row(self, second: int) -> int | None:
        """The row of a second, emptied if it held an older one; none for a second that has left the window."""
        row = second % len(self.stamps)
        if self.stamps[row] > second:
            return None
        if self.stamps[row] < second:
            self.stamps[row] = second
            self.sums[row] = self.times[row] = 0
            self.variants[row], self.reasons[row] = Counter(), Counter()
        return row

    def add(self, second: int, batches: Sequence[Batch]) -> None:
        row = self.row(second)
        if row is None:
            return
        sizes = [len(batch.arrived_s) for batch in batches]
        requests, failed = sum(sizes), sum(batch.failed for batch in batches)
        arrived_s = np.fromiter(chain.from_iterable(batch.arrived_s for batch in batches), np.float64, requests)
        queue_s = np.repeat([batch.started_s for batch in batches], sizes) - arrived_s
        self.times[row] += _histogram(np.repeat([batch.delivered_s for batch in batches], sizes) - arrived_s)
        self.sums[row] += (
            requests - failed, failed, 0, requests, len(batches), sum(batch.rows for batch in batches),
            queue_s.sum(), sum(batch.finished_s - batch.started_s for batch in batches),
        )  # fmt: skip
        for batch, size in zip(batches, sizes, strict=True):
            self.variants[row][batch.variant] += size

    def refuse(self, refused: Refused) -> None:
        row = self.row(math.floor(refused.at_s))
        if row is not None:
            self.sums[row, REFUSED] += 1
            self.reasons[row][refused.reason] += 1

    def rows(self, last: int) -> list[tuple[int, int]]:
        """Place in the window and row of each second up to ``last`` that anything is known of."""
        count = len(self.stamps)
        return [
            (int(stamp) - last + count - 1, row) for row, stamp in enumerate(self.stamps) if last - count < stamp <= last and stamp >= 0
        ]


class _Series:
    """What happened in each second of the window, of one version or of several together; oldest first."""

    def __init__(self, seconds: int) -> None:
        self.sums = np.zeros((seconds, 8))
        self.times = np.zeros((seconds, BINS), np.int64)
        self.variants: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, window: _Window, last: int) -> None:
        recent = len(self.sums) - RECENT_S
        for place, row in window.rows(last):
            self.sums[place] += window.sums[row]
            self.times[place] += window.times[row]
            if place >= recent:
                self.variants.update(window.variants[row])
                self.reasons.update(window.reasons[row])

    def told(self) -> dict[str, Any]:
        """Rates [1/s], times [s] and rows; nothing (null) where nothing was answered."""
        return {
            "series": _means(self.sums) | {name: _listed(_quantiles(self.times, PERCENTILES[name])) for name in DRAWN},
            "recent": self._recent(),
        }

    def _recent(self) -> dict[str, Any]:
        seconds = min(RECENT_S, len(self.sums))
        sums, times = self.sums[-seconds:].sum(0, keepdims=True), self.times[-seconds:].sum(0, keepdims=True)
        means = {name: values[0] for name, values in _means(sums).items()}
        for name in ("answered_per_s", "failed_per_s", "refused_per_s"):
            means[name] = _rounded((means[name] or 0.0) / seconds)
        answers = sum(self.variants.values())
        return means | {
            "seconds": seconds,
            "percentiles": {name: _rounded(_quantiles(times, q)[0]) for name, q in PERCENTILES.items()},
            "variants": {name: _rounded(count / answers) for name, count in self.variants.most_common()},
            "refused_by_reason": {reason: _rounded(count / seconds) for reason, count in self.reasons.most_common()},
        }


class Live:
    """Counts the last ``seconds`` of every version; any thread may fold or ask."""

    def __init__(self, seconds: int = 120) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Count these. A request counts in the second of its answer; a refusal that reached no version counts for the server only."""
        groups: dict[tuple[str, str, int], list[Batch]] = defaultdict(list)
        for batch in batches:
            groups[batch.model, batch.version, math.floor(batch.delivered_s)].append(batch)
        with self._lock:
            for (model, version, second), group in groups.items():
                self._window(model, version).add(second, group)
            for one in refused:
                reached = one.version != "" and one.status != 404
                self._window(*((one.model, one.version) if reached else ("", ""))).refuse(one)

    def _window(self, model: str, version: str) -> _Window:
        key = (model, version)
        if key not in self._windows:
            self._windows[key] = _Window(self._seconds)
        return self._windows[key]

    def snapshot(self, now_s: float, gauges: Mapping[str, Any]) -> dict[str, Any]:
        """The whole seconds before ``now_s`` (on the clock of the batches), ready for JSON.

        ``all`` and each element of ``models`` hold ``series`` (lists over the window, oldest first) and ``recent`` (the last 10 s):
        ``answered_per_s``, ``failed_per_s``, ``refused_per_s``, percentiles of the time from a request's last byte to its answer,
        ``queue_s`` (mean), ``service_s`` and ``rows`` (means over batches). ``gauges`` are passed on as they are.
        """
        last = math.floor(now_s) - 1
        total, told = _Series(self._seconds), []
        with self._lock:
            self._windows = {key: window for key, window in self._windows.items() if window.stamps.max() > last - self._seconds}
            for (model, version), window in sorted(self._windows.items()):
                total.add(window, last)
                if model:
                    series = _Series(self._seconds)
                    series.add(window, last)
                    told.append({"model": model, "version": version, **series.told()})
        return {"seconds": self._seconds, "gauges": dict(gauges), "all": total.told(), "models": told}


def _histogram(times_s: np.ndarray) -> np.ndarray:
    bins = np.log(np.maximum(times_s, LOWEST_S) / LOWEST_S) / math.log(STEP)
    return np.bincount(np.minimum(bins.astype(np.int64), BINS - 1), minlength=BINS)


def _quantiles(times: np.ndarray, q: float) -> np.ndarray:
    """The ``q``-quantile of each row of histograms [s]: the middle (geometric) of the bin that holds it; NaN for an empty one."""
    cumulative = times.cumsum(axis=1)
    requests = cumulative[:, -1]
    bins = (cumulative < np.ceil(requests * q)[:, None]).sum(axis=1)
    return np.where(requests > 0, LOWEST_S * STEP ** (bins + 0.5), np.nan)


def _means(sums: np.ndarray) -> dict[str, list[float | None]]:
    def mean(what: int, by: int) -> np.ndarray:
        means = np.full(len(sums), np.nan)
        np.divide(sums[:, what], sums[:, by], out=means, where=sums[:, by] > 0)
        return means

    return {
        "answered_per_s": _listed(sums[:, ANSWERED]),
        "failed_per_s": _listed(sums[:, FAILED]),
        "refused_per_s": _listed(sums[:, REFUSED]),
        "queue_s": _listed(mean(QUEUE_S, REQUESTS)),
        "service_s": _listed(mean(SERVICE_S, BATCHES)),
        "rows": _listed(mean(ROWS, BATCHES)),
    }


def _listed(values: np.ndarray) -> list[float | None]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float | None:
    """Four significant digits; none for NaN, which JSON cannot hold."""
    return None if math.isnan(value) else float(f"{value:.4g}")
