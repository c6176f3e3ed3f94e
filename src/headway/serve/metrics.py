"""Counts and histograms of what the server did, in Prometheus form. It is told numbers and knows no requests.

Recording appends to lists; a scrape (or a full list) folds them into buckets with one numpy call a list, so that no
request pays for a histogram.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

FOLD_AT = 4096
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)


class Histogram:
    """Numbers collected in a list and folded into cumulative buckets on demand."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._fresh: list[float] = []

    def add(self, values: Sequence[float]) -> None:
        """Record ``values``; folds only when the list is full."""
        self._fresh += values
        if len(self._fresh) >= FOLD_AT:
            self._fold()

    def _fold(self) -> None:
        if self._fresh:
            values = np.asarray(self._fresh, dtype=np.float64)
            self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
            self._sum += float(values.sum())
            self._fresh.clear()

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """The histogram as a Prometheus family; a bucket holds what is at most its bound."""
        self._fold()
        counts = self._counts.cumsum().tolist()
        buckets = [*((f"{bound:g}", count) for bound, count in zip(self._bounds, counts, strict=False)), ("+Inf", counts[-1])]
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)


class Metrics(Collector):
    """All of one server's numbers; used from the event loop only."""

    def __init__(self, info: Mapping[str, str]) -> None:
        self._info = dict(info)
        self.statuses: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.queue_s = Histogram(SECONDS)
        self.service_s = Histogram(SECONDS)
        self.total_s = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.in_flight = 0
        self.connections = 0
        self.ready = False
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The page that a Prometheus server scrapes."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The families; called by the registry."""
        info = InfoMetricFamily("headway", "What is served.")
        info.add_metric([], self._info)
        yield info
        requests = CounterMetricFamily("headway_requests", "Inference requests answered, by HTTP status.", labels=["status"])
        for status, count in sorted(self.statuses.items()):
            requests.add_metric([str(status)], count)
        yield requests
        refusals = CounterMetricFamily("headway_refusals", "Requests that got no inference, by reason.", labels=["reason"])
        for reason, count in sorted(self.reasons.items()):
            refusals.add_metric([reason], count)
        yield refusals
        yield GaugeMetricFamily("headway_in_flight", "Inference requests accepted and not yet answered.", value=self.in_flight)
        yield GaugeMetricFamily("headway_connections", "Open connections.", value=self.connections)
        yield GaugeMetricFamily("headway_ready", "1 while new requests are accepted.", value=int(self.ready))
        yield self.queue_s.family("headway_queue_seconds", "Time of a request between its last byte and the start of its batch.")
        yield self.service_s.family("headway_service_seconds", "Time of one batch: joining, running, encoding.")
        yield self.total_s.family("headway_request_seconds", "Time of a request between its last byte and its answer being written.")
        yield self.batch_rows.family("headway_batch_rows", "Rows of one batch.")
