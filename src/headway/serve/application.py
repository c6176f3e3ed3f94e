"""Requests to answers: routes, the token, readiness, and the way of an inference through the batcher and back.

An inference goes: read and checked on the event loop, submitted to the batcher, run and encoded on an instance's thread, and
all answers of a batch come back to the event loop with one call. No request waits for a metric or a scrape.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from headway import __version__
from headway.batching import Batcher, BatchTimes, QueueFull
from headway.serve.answer import VERSION, Answer, respond, respond_json, respond_refusal
from headway.serve.arrivals import Arrivals
from headway.serve.bundle import OpenBundle
from headway.serve.http import Connection, Exchange
from headway.serve.limits import Limits
from headway.serve.metrics import CONTENT_TYPE, Metrics
from headway.serve.page import render
from headway.serve.refusal import Refusal
from headway.serve.start import Started
from headway.serve.wire import Call, Signature, datatype

_DRAINING = Refusal(503, "draining", "the server is shutting down; send the request again elsewhere")
_OPEN_TO_ALL = (b"/v2/health/live", b"/v2/health/ready")
_SAFE_PAGE = "content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\nx-content-type-options: nosniff\r\n"


class Application:
    """The one model of a bundle behind HTTP; every method runs on the event loop, except ``done``."""

    def __init__(
        self,
        bundle: OpenBundle,
        started: Started,
        *,
        limits: Limits,
        token: str | None,
        arrivals: Arrivals,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        manifest, plan = bundle.manifest, started.variant.plan
        self.limits = limits
        self.draining = False
        self.buffered_bytes = 0
        self.connections: set[Connection] = set()
        self.metrics = Metrics({"model": manifest.name, "variant": started.variant.variant.name, "plan": str(plan), "version": __version__})
        self._signature = Signature(manifest.inputs, manifest.outputs, max_batch=plan.max_batch, limits=limits)
        self._bundle, self._started = bundle, started
        self._expected = None if token is None else b"Bearer " + token.encode()
        self._arrivals = arrivals
        self._loop = loop
        self._batcher: Batcher[Call, Answer] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._gets = self._routes(manifest.name)
        model = b"/v2/models/" + manifest.name.encode()
        self._infers = frozenset((model + b"/infer", model + b"/versions/" + VERSION.encode() + b"/infer"))

    def open(self, batcher: Batcher[Call, Answer]) -> None:
        """Accept inferences from now on."""
        self._batcher = batcher
        self.metrics.ready = True

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new inferences, and wait until all accepted ones are answered; false when time ran out first."""
        self.draining = True
        self.metrics.ready = False
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    # --- the Front of a connection

    def admit(self, method: bytes, url: bytes, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """Why a request is refused before its body is read: no token, or a coded body."""
        guarded = self._expected is not None and _path(url) not in _OPEN_TO_ALL
        if guarded and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected or b""):
            return Refusal(401, "unauthorized", "the header 'Authorization: Bearer TOKEN' must hold the server's token")
        coding = headers.get(b"content-encoding", b"identity").lower()
        if coding != b"identity":
            return Refusal(415, "coding", f"the body must come as it is, without content-encoding, got {coding.decode('latin-1')[:40]!r}")
        return None

    def handle(self, exchange: Exchange, method: bytes, url: bytes, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Answer a control request now, or submit an inference."""
        path = url if url in self._infers else _path(url)
        if path in self._infers:
            if method == b"POST":
                self._infer(exchange, headers, body)
            else:
                self._refuse_method(exchange, "POST")
        elif (get := self._gets.get(path)) is not None:
            if method in (b"GET", b"HEAD"):
                exchange.connection.finish(exchange, get())
            else:
                self._refuse_method(exchange, "GET, HEAD")
        else:
            name = self._bundle.manifest.name
            shown = path[:200].decode("utf-8", "replace")
            exchange.connection.refuse(
                exchange, Refusal(404, "unknown", f"the path must be one this server has, got {shown!r}; it serves /v2/models/{name}")
            )

    def answered(self, exchange: Exchange, status: int, reason: str) -> None:
        """Count a refusal."""
        self.metrics.statuses[status] += 1
        self.metrics.reasons[reason] += 1

    # --- inference

    def _infer(self, exchange: Exchange, headers: Mapping[bytes, bytes], body: bytes) -> None:
        try:
            if self.draining or self._batcher is None:
                raise _DRAINING
            call = self._signature.read(body, _head_bytes(headers))
            call.owner = exchange
            self._batcher.submit(call)
        except Refusal as refusal:
            exchange.connection.refuse(exchange, refusal)
            return
        except QueueFull:
            exchange.connection.refuse(exchange, Refusal(429, "queue_full", "more requests are waiting than can be answered in time"))
            return
        self.metrics.in_flight += 1
        self._idle.clear()
        self._arrivals.add(exchange.arrived_s, call.rows)

    def done(self, calls: Sequence[Call], answers: Sequence[Answer] | BaseException, times: BatchTimes) -> None:
        """Called by the batcher on an instance's thread, once a batch."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, calls, answers, times)
        except RuntimeError:  # the loop is closed: the time to drain ran out, and nobody waits for these answers
            return

    def _deliver(self, calls: Sequence[Call], answers: Sequence[Answer] | BaseException, times: BatchTimes) -> None:
        metrics = self.metrics
        if isinstance(answers, BaseException):
            failed = Refusal(500, "model_failed", f"the batch could not be run: {type(answers).__name__}")
            answers = [respond_refusal(failed)] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            exchange: Exchange = call.owner
            exchange.connection.finish(exchange, answer)
            metrics.statuses[answer[0]] += 1
        now_s = time.perf_counter()
        arrived_s = [call.owner.arrived_s for call in calls]
        metrics.queue_s.add([times.started_s - at_s for at_s in arrived_s])
        metrics.total_s.add([now_s - at_s for at_s in arrived_s])
        metrics.service_s.add((times.finished_s - times.started_s,))
        metrics.batch_rows.add((sum(call.rows for call in calls),))
        metrics.in_flight -= len(calls)
        if not metrics.in_flight:
            self._idle.set()

    # --- control

    def _routes(self, name: str) -> dict[bytes, Callable[[], Answer]]:
        manifest, served = self._bundle.manifest, self._started.variant
        tensors = {
            key: [{"name": s.name, "datatype": datatype(s), "shape": [d if isinstance(d, int) else -1 for d in s.shape]} for s in specs]
            for key, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs))
        }
        about = respond_json(
            {"name": "headway", "version": __version__, "extensions": ["binary_tensor_data"], "models": [self._bundle.manifest.name]}
        )
        model = respond_json({"name": name, "versions": [VERSION], "platform": f"headway_{served.plan.runtime}", **tensors})
        page = respond(200, render(manifest, served, self._started.notes).encode(), "text/html; charset=utf-8", _SAFE_PAGE)
        gets: dict[bytes, Callable[[], Answer]] = {
            b"/": lambda: page,
            b"/v2": lambda: about,
            b"/v2/": lambda: about,
            b"/v2/health/live": lambda: respond_json({"live": True}),
            b"/v2/health/ready": self._ready,
            b"/metrics": self._scrape,
        }
        for prefix in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{VERSION}"):
            gets[prefix.encode()] = lambda: model
            gets[f"{prefix}/ready".encode()] = self._ready
        return gets

    def _ready(self) -> Answer:
        ready = self.metrics.ready
        return respond_json({"ready": ready}, 200 if ready else 503)

    def _scrape(self) -> Answer:
        self.metrics.connections = len(self.connections)
        return respond(200, self.metrics.text(), CONTENT_TYPE)

    def _refuse_method(self, exchange: Exchange, allowed: str) -> None:
        refusal = Refusal(405, "method", f"the method must be {allowed}")
        self.answered(exchange, refusal.status, refusal.reason)
        exchange.connection.finish(exchange, respond_refusal(refusal, extra=f"allow: {allowed}\r\n"))


def _path(url: bytes) -> bytes:
    path = url.split(b"?", 1)[0]
    return unquote_to_bytes(path) if b"%" in path else path


def _head_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    given = headers.get(b"inference-header-content-length")
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise Refusal(400, "invalid", f"Inference-Header-Content-Length must be a number of bytes, got {given[:40].decode('latin-1')!r}")
    return int(given)
