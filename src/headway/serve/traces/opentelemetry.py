"""OpenTelemetry spans of sampled requests, made after the fact from what was seen; needs the OpenTelemetry SDK.

A request is a span ``infer`` from its last byte to its answer being written, with the children ``queue`` and ``service``. The hot
path does one thing, and only for a request that came with a W3C ``traceparent``: it calls ``incoming``. Everything else happens
on the folding thread. Nothing leaves the process unless an endpoint is given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headway import __version__
from headway.records import ConfigError
from headway.serve.seen import Batch, Refused

MOST_WAITING = 4096
"""Requests with a traceparent that are remembered until they are folded."""

STALE_S = 120.0
"""So long after its arrival a request that was never folded (its client has gone) is forgotten [s]."""

MOST_BYTES = 128
"""Longer headers are no traceparent [B]."""

MOST_A_FOLD = 500
"""Requests traced of those handed over at a time; clients that ask for more are not followed."""

FLUSH_MS = 2000
_PROPAGATOR = TraceContextTextMapPropagator()


def open_traces(
    *, endpoint: str | None = None, share: float = 0.0, exporter: SpanExporter | None = None, service: str = "headway"
) -> Traces:
    """Traces that go to an OTLP collector over HTTP, or to ``exporter``.

    Args:
        endpoint: the collector's URL, such as ``http://127.0.0.1:4318``; without a path, ``/v1/traces`` is added.
        share: of the requests that bring no traceparent, from 0 to 1; one that brings it is traced when its sender does so.
        service: the name of this service, unless ``OTEL_SERVICE_NAME`` says otherwise.

    Raises:
        ConfigError: the endpoint is not an HTTP URL, nothing is given to send spans to, or the share is out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"the share of traced requests must lie between 0 and 1, got {share:g}")
    if exporter is None:
        exporter = OTLPSpanExporter(endpoint=_url(endpoint))
    return Traces(exporter, share, service)


def _url(endpoint: str | None) -> str:
    parts = urlsplit(endpoint or "")
    if endpoint is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"traces need a collector's URL such as http://127.0.0.1:4318, got {endpoint!r}")
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


class Traces:
    """Turns sampled requests into spans; made by ``open_traces``.

    Attributes:
        skipped: requests that were to be traced and were not, because too many were.
    """

    def __init__(self, exporter: SpanExporter, share: float, service: str) -> None:
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("headway.serve", __version__)
        self._share, self._owed = share, 0.0
        self._incoming: dict[float, bytes] = {}
        self.skipped = 0

    def incoming(self, arrived_s: float, traceparent: bytes) -> None:
        """Remember that the request that arrived at ``arrived_s`` brought this header; on the event loop, before its answer."""
        if len(self._incoming) < MOST_WAITING and len(traceparent) <= MOST_BYTES:
            self._incoming[arrived_s] = traceparent
        else:
            self.skipped += 1

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Make the spans of those that are sampled."""
        left = MOST_A_FOLD
        offset_ns = time.time_ns() - time.perf_counter_ns()
        self._forget()
        for batch in batches:
            for arrived_s, parent in self._sampled(batch.arrived_s):
                if left:
                    left -= 1
                    self._trace(batch, arrived_s, parent, offset_ns)
                else:
                    self.skipped += 1
        for refusal in refused:
            for at_s, parent in self._sampled((refusal.at_s,)):
                if left:
                    left -= 1
                    self._trace_refusal(refusal, _ns(at_s, offset_ns), parent)
                else:
                    self.skipped += 1

    def _forget(self) -> None:
        """Make place among those that wait, when there is little."""
        if 2 * len(self._incoming) > MOST_WAITING:
            oldest_s = time.perf_counter() - STALE_S
            for arrived_s in [arrived_s for arrived_s in list(self._incoming) if arrived_s < oldest_s]:
                self._incoming.pop(arrived_s, None)

    def close(self) -> None:
        """Send what is left, for a short while, and end."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()

    def _sampled(self, arrived_s: Sequence[float]) -> Iterator[tuple[float, Context | None]]:
        """Which of these are traced, each with its sender's context if it has one."""
        if not self._incoming and not self._share:
            return
        for moment_s in arrived_s:
            header = self._incoming.pop(moment_s, None) if self._incoming else None
            parent = None if header is None else _PROPAGATOR.extract({"traceparent": header.decode("latin-1")})
            sender = get_current_span(parent).get_span_context() if parent is not None else None
            if sender is not None and sender.is_valid:
                if sender.trace_flags.sampled:
                    yield moment_s, parent
                continue
            self._owed += self._share
            if self._owed >= 1.0 - 1e-9:
                self._owed -= 1.0
                yield moment_s, None

    def _trace(self, batch: Batch, arrived_s: float, parent: Context | None, offset_ns: int) -> None:
        arrived, started, finished, delivered = (
            _ns(moment_s, offset_ns) for moment_s in (arrived_s, batch.started_s, batch.finished_s, batch.delivered_s)
        )
        attributes: dict[str, str | int] = {
            "headway.model": batch.model, "headway.version": batch.version, "headway.variant": batch.variant,
            "headway.batch_rows": batch.rows, "headway.batch_requests": len(batch.arrived_s), "headway.batch_failed": batch.failed,
        }  # fmt: skip
        if len(batch.arrived_s) == 1:
            attributes["headway.rows"] = batch.rows
        span = self._tracer.start_span("infer", parent or Context(), SpanKind.SERVER, attributes, start_time=arrived)
        if batch.failed == len(batch.arrived_s):
            span.set_status(StatusCode.ERROR, "the model could not run on this input")
        inside = set_span_in_context(span, Context())
        for name, begin, end in (("queue", arrived, started), ("service", started, finished)):
            self._tracer.start_span(name, inside, start_time=begin).end(end)
        span.end(delivered)

    def _trace_refusal(self, refusal: Refused, at: int, parent: Context | None) -> None:
        attributes: dict[str, str | int] = {
            "headway.model": refusal.model, "headway.version": refusal.version,
            "headway.reason": refusal.reason, "http.response.status_code": refusal.status,
        }  # fmt: skip
        span = self._tracer.start_span("infer", parent or Context(), SpanKind.SERVER, attributes, start_time=at)
        span.set_status(StatusCode.ERROR, refusal.reason)
        span.end(at)


def _ns(moment_s: float, offset_ns: int) -> int:
    """A moment of ``time.perf_counter`` as nanoseconds since the epoch."""
    return round(moment_s * 1e9) + offset_ns
