"""Counts and histograms of what a server did, in Prometheus form. It is told batches and refusals and knows no requests.

Folding costs a few numpy calls for each group of batches of one variant, on the folding thread; a page is made on whichever
thread asks for it. Neither is the event loop's.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headway.serve.seen import Batch, Refused

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
MOST_VERSIONS = 1000
"""Models and versions that get series of their own; what comes beyond is counted without their names."""

PAUSE_S = 1e-4
"""Between two families the thread that makes a page sleeps, so that the event loop need not wait for a whole page [s]."""


class VersionNow(NamedTuple):
    """One version of a model at the moment of a scrape.

    Attributes:
        in_flight: requests accepted and not yet answered.
        waiting: of these, in the queue.
        level: which of the variants kept warm answers; 0 is the one that answers when all is well.
    """

    model: str
    version: str
    ready: bool = True
    in_flight: int = 0
    waiting: int = 0
    level: int = 0


class ShadowNow(NamedTuple):
    """What a model's shadow was compared on: rows, rows of them that differ in kind, and requests that could not be compared."""

    model: str
    version: str
    compared: int
    flips: int
    failed: int


class Now(NamedTuple):
    """What the server is like at the moment of a scrape.

    Attributes:
        ready: whether new requests are accepted.
        connections: open.
        dropped: batches and refusals that were never counted, because counting could not keep up.
    """

    ready: bool = False
    connections: int = 0
    versions: Sequence[VersionNow] = ()
    shadows: Sequence[ShadowNow] = ()
    dropped: int = 0


class Histogram:
    """Counts of numbers by bounds; a bucket holds what is at most its bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count ``values``, shape [n]."""
        self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        self._sum += float(values.sum())

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets by the text of their bounds, and the sum."""
        counts = self._counts.cumsum().tolist()
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(bounds, counts, strict=True)), self._sum


Version = tuple[str, str]
Variant = tuple[str, str, str]


class _Times:
    """The histograms of one version."""

    def __init__(self) -> None:
        self.queue = Histogram(SECONDS)
        self.delivery = Histogram(SECONDS)
        self.total = Histogram(SECONDS)


class _Runs:
    """The histograms of one variant."""

    def __init__(self) -> None:
        self.service = Histogram(SECONDS)
        self.rows = Histogram(ROWS)


class Metrics(Collector):
    """All of one server's numbers.

    Attributes:
        now: gives what can only be read at the moment of a scrape; called on the thread that makes the page.
    """

    def __init__(self, info: Mapping[str, str] | None = None, now: Callable[[], Now] = Now) -> None:
        self.now = now
        self._info = dict(info or {})
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str, int]] = Counter()
        self._refusals: Counter[tuple[str, str, str]] = Counter()
        self._times: dict[Version, _Times] = {}
        self._runs: dict[Variant, _Runs] = {}
        self._versions: set[Version] = set()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    # --- counting

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Count these."""
        groups: dict[Variant, list[Batch]] = {}
        for batch in batches:
            groups.setdefault((batch.model, batch.version, batch.variant), []).append(batch)
        with self._lock:
            for (model, version, variant), group in groups.items():
                self._fold_group((*self._named(model, version), variant), group)
            for refusal in refused:
                model, version = ("", "") if refusal.status == 404 else self._named(refusal.model, refusal.version)
                self._requests[model, version, "", refusal.status] += 1
                self._refusals[model, version, refusal.reason] += 1

    def _named(self, model: str, version: str) -> Version:
        """Model and version for labels: clients choose the names in their URLs, so their number is bounded."""
        key = (model, version)
        if key not in self._versions:
            if len(self._versions) >= MOST_VERSIONS:
                return "", ""
            self._versions.add(key)
        return key

    def _fold_group(self, key: Variant, group: Sequence[Batch]) -> None:
        """Count batches of one variant."""
        sizes = np.array([len(batch.arrived_s) for batch in group])
        arrived = np.fromiter(chain.from_iterable([batch.arrived_s for batch in group]), np.float64, sizes.sum())
        rows, started, finished, delivered = np.array([(b.rows, b.started_s, b.finished_s, b.delivered_s) for b in group]).T
        times, runs = self._times.setdefault(key[:2], _Times()), self._runs.setdefault(key, _Runs())
        times.queue.add(np.repeat(started, sizes) - arrived)
        times.total.add(np.repeat(delivered, sizes) - arrived)
        times.delivery.add(delivered - finished)
        runs.service.add(finished - started)
        runs.rows.add(rows)
        failed = sum(batch.failed for batch in group)
        self._requests[(*key, 200)] += len(arrived) - failed
        if failed:
            self._requests[(*key, 500)] += failed

    # --- the page

    def text(self) -> bytes:
        """The page that a Prometheus server scrapes; its type is ``CONTENT_TYPE``."""
        return generate_latest(self._registry)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its type for a client that sends the header ``Accept: accept``: Prometheus text, or OpenMetrics."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """The families; called by the registry."""
        info = InfoMetricFamily("headway", "What is served.")
        info.add_metric([], self._info)
        yield info
        for families in (self._counted, self._measured, lambda: _gauges(self.now())):
            for family in families():
                time.sleep(PAUSE_S)
                yield family

    def _counted(self) -> list[Metric]:
        with self._lock:
            requests, refusals = sorted(self._requests.items()), sorted(self._refusals.items())
        answered = CounterMetricFamily(
            "headway_requests", "Inference requests answered, by status.", labels=["model", "version", "variant", "status"]
        )
        for (model, version, variant, status), count in requests:
            answered.add_metric([model, version, variant, str(status)], count)
        refused = CounterMetricFamily(
            "headway_refusals", "Requests that got no inference, by reason.", labels=["model", "version", "reason"]
        )
        for (model, version, reason), count in refusals:
            refused.add_metric([model, version, reason], count)
        return [answered, refused]

    def _measured(self) -> list[Metric]:
        with self._lock:
            times = [(key, (one.queue.told(), one.delivery.told(), one.total.told())) for key, one in sorted(self._times.items())]
            runs = [(key, (one.service.told(), one.rows.told())) for key, one in sorted(self._runs.items())]
        of_version = [
            _histogram("headway_queue_seconds", "Time of a request between its last byte and the start of its batch.", "model version"),
            _histogram(
                "headway_delivery_seconds",
                "Time of one batch between its last encoded answer and all its answers being written.",
                "model version",
            ),
            _histogram("headway_request_seconds", "Time of a request between its last byte and its answer being written.", "model version"),
        ]
        of_variant = [
            _histogram("headway_service_seconds", "Time of one batch: joining, running, encoding.", "model version variant"),
            _histogram("headway_batch_rows", "Rows of one batch.", "model version variant"),
        ]
        for families, counted in ((of_version, times), (of_variant, runs)):
            for key, histograms in counted:
                for family, (buckets, total) in zip(families, histograms, strict=True):
                    family.add_metric(list(key), buckets, total)
        return [*of_version, *of_variant]


def _histogram(name: str, text: str, labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=labels.split())


def _gauges(now: Now) -> list[Metric]:
    """The families that are read at the moment of a scrape."""
    in_flight = GaugeMetricFamily("headway_in_flight", "Inference requests accepted and not yet answered.", labels=["model", "version"])
    waiting = GaugeMetricFamily("headway_waiting", "Inference requests in the queue.", labels=["model", "version"])
    ready = GaugeMetricFamily("headway_version_ready", "1 while a version accepts requests.", labels=["model", "version"])
    level = GaugeMetricFamily(
        "headway_variant_level", "Which of the variants kept warm answers; 0 when all is well.", labels=["model", "version"]
    )
    for one in now.versions:
        labels = [one.model, one.version]
        in_flight.add_metric(labels, one.in_flight)
        waiting.add_metric(labels, one.waiting)
        ready.add_metric(labels, int(one.ready))
        level.add_metric(labels, one.level)
    compared = CounterMetricFamily("headway_shadow_compared", "Rows of a shadow's answers that were compared.", labels=["model", "version"])
    flips = CounterMetricFamily("headway_shadow_flips", "Of these, rows that differ in kind.", labels=["model", "version"])
    failed = CounterMetricFamily(
        "headway_shadow_failed", "Requests that could not be compared with the shadow's.", labels=["model", "version"]
    )
    for shadow in now.shadows:
        labels = [shadow.model, shadow.version]
        compared.add_metric(labels, shadow.compared)
        flips.add_metric(labels, shadow.flips)
        failed.add_metric(labels, shadow.failed)
    return [
        GaugeMetricFamily("headway_ready", "1 while new requests are accepted.", value=int(now.ready)),
        GaugeMetricFamily("headway_connections", "Open connections.", value=now.connections),
        CounterMetricFamily("headway_uncounted", "Batches and refusals missing from these numbers: counting could not keep up.", value=now.dropped),
        in_flight, waiting, ready, level, compared, flips, failed,
    ]  # fmt: skip
