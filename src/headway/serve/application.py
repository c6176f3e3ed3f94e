"""Requests to answers: routes, the token, readiness, and the way of an inference through a model and back.

An inference goes: read and checked on the event loop, submitted to its model's batcher, run and encoded on an instance's thread, and all
answers of a batch come back to the event loop with one call. No request waits for a metric or a scrape: those run on other threads.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote_to_bytes

from headway.records import HeadwayError
from headway.serve.answer import Answer, HttpForm
from headway.serve.arrivals import Arrivals
from headway.serve.coding import choose, decode, decode_small
from headway.serve.control import Control
from headway.serve.exchange import Client, Exchange
from headway.serve.limits import Limits
from headway.serve.models import Models
from headway.serve.refusal import Refusal
from headway.serve.seen import Refused
from headway.serve.served import Served
from headway.serve.wire import batchable

OPEN_TO_ALL = frozenset((b"/", b"/v2/health/live", b"/v2/health/ready"))
PATHS_KEPT = 256


class Application:
    """The models of a server behind HTTP; every method runs on the event loop."""

    def __init__(
        self,
        models: Models,
        control: Control,
        *,
        limits: Limits,
        token: str | None,
        arrivals: Arrivals,
        refused: Callable[[Refused], None],
        incoming: Callable[[float, bytes], None] | None = None,
    ) -> None:
        self.limits = limits
        self.draining = False
        self.buffered_bytes = 0
        self.connections: set[Client] = set()
        self._models, self._control = models, control
        self._expected = None if token is None else b"Bearer " + token.encode()
        self._arrivals = arrivals
        self._refused, self._incoming = refused, incoming
        self._infers: dict[bytes, tuple[str, str]] = {}
        self._forms: dict[tuple[str, str], tuple[Served, HttpForm]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the Front of a connection

    def admit(self, method: bytes, url: bytes, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """Why a request is refused before its body is read: no token."""
        guarded = self._expected is not None and _path(url) not in OPEN_TO_ALL
        if guarded and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected or b""):
            return Refusal(401, "unauthorized", "the header 'Authorization: Bearer TOKEN' must hold the server's token")
        return None

    def handle(self, exchange: Exchange, method: bytes, url: bytes, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Answer a control request, now or later, or submit an inference."""
        target = self._infers.get(url) or self._infer_target(url)
        if target is not None and method == b"POST" and b"content-encoding" not in headers:
            self._infer(exchange, target, headers, body)
            return
        try:
            if target is not None and method != b"POST":
                raise Refusal(405, "method", "the method must be POST", "allow: POST\r\n")
            if b"content-encoding" in headers:
                self._later(exchange, self._decoded(exchange, method, url, headers, body))
                return
            answer = self._control.answer(method, _path(url), body)
        except Refusal as refusal:
            exchange.connection.refuse(exchange, refusal)
            return
        if isinstance(answer, tuple):
            exchange.connection.finish(exchange, answer)
        else:
            self._later(exchange, answer)

    def answered(self, exchange: Exchange, status: int, reason: str) -> None:
        """Count a refusal that a connection gives by itself."""
        model, version = exchange.target
        self._refused(Refused(model, version, reason, status, exchange.arrived_s))

    def _later(self, exchange: Exchange, answer: Awaitable[Answer | None]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer_later(exchange, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decoded(self, exchange: Exchange, method: bytes, url: bytes, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Handle a request whose body is compressed, once it is not; a large one is decoded on another thread."""
        coding = headers[b"content-encoding"]
        decoded = decode_small(coding, body)
        if decoded is None:
            decoded = await asyncio.get_running_loop().run_in_executor(None, decode, coding, body, self.limits.body_bytes)
        exchange.connection.hold(exchange, len(decoded))
        self.handle(exchange, method, url, {name: value for name, value in headers.items() if name != b"content-encoding"}, decoded)

    async def _answer_later(self, exchange: Exchange, answer: Awaitable[Answer | None]) -> None:
        try:
            made = await answer
            if made is not None:
                exchange.connection.finish(exchange, made)
        except Refusal as refusal:
            exchange.connection.refuse(exchange, refusal)
        except HeadwayError as error:
            exchange.connection.refuse(exchange, Refusal(400, "invalid", str(error)))
        except Exception as error:
            exchange.connection.refuse(exchange, Refusal(500, "internal", f"the server failed: {type(error).__name__}"))
            raise

    # --- inference

    def _infer(self, exchange: Exchange, target: tuple[str, str], headers: Mapping[bytes, bytes], body: bytes) -> None:
        models = self._models
        exchange.arrived_s -= models.turns.unseen_s
        exchange.target = target
        if self._incoming is not None and b"traceparent" in headers:
            self._incoming(exchange.arrived_s, headers[b"traceparent"])
        try:
            served = models.find(*target)
            exchange.target = target = (served.name, served.version)
            hopeless = served.hopeless(exchange.arrived_s)
            if hopeless is not None and b'"timeout"' not in body and b'"priority"' not in body:
                exchange.connection.refuse(exchange, hopeless)
                return
            call = served.signature.read(body, _head_bytes(headers))
            accepted = headers.get(b"accept-encoding")
            if accepted is not None:
                exchange.coding = choose(accepted)
            known = self._forms.get(target)
            call.form = known[1] if known is not None and known[0] is served else self._form(target, served)
            call.owner = exchange
            models.submit(served, call)
        except Refusal as refusal:
            exchange.connection.refuse(exchange, refusal)
            return
        self._arrivals.add(exchange.arrived_s, call.rows)

    def _form(self, target: tuple[str, str], served: Served) -> HttpForm:
        manifest = served.bundle.manifest
        form = HttpForm(served.name, served.version, manifest.labels, batched=batchable(manifest.inputs, manifest.outputs))
        self._forms[target] = (served, form)
        return form

    def _infer_target(self, url: bytes) -> tuple[str, str] | None:
        """Model and version that an inference's URL names; none when it is another URL."""
        parts = _path(url).split(b"/")
        if len(parts) not in (5, 7) or parts[:3] != [b"", b"v2", b"models"] or parts[-1] != b"infer":
            return None
        if len(parts) == 7 and parts[4] != b"versions":
            return None
        target = (parts[3].decode("utf-8", "replace"), parts[5].decode("utf-8", "replace") if len(parts) == 7 else "")
        if target[0] in self._models.names():
            if len(self._infers) >= PATHS_KEPT:
                self._infers.clear()
            self._infers[url] = target
        return target


def _path(url: bytes) -> bytes:
    if not url.startswith(b"/"):  # the absolute form, which a proxy may send (RFC 9112, section 3.2.2)
        url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
    path = url.split(b"?", 1)[0]
    return unquote_to_bytes(path) if b"%" in path else path


def _head_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    given = headers.get(b"inference-header-content-length")
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise Refusal(400, "invalid", f"Inference-Header-Content-Length must be a number of bytes, got {given[:40].decode('latin-1')!r}")
    return int(given)
