"""The calls of the Open Inference Protocol v2 over gRPC, as bytes in and bytes or a refusal out. It holds no socket and no server."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from headway.protocol.messages import SERVICE
from headway.records import HeadwayError
from headway.serve.call import Call, Waiter
from headway.serve.fronts._grpc_control import GrpcControl
from headway.serve.fronts._grpc_infer import GrpcForm, parse, taken
from headway.serve.limits import Limits
from headway.serve.logs import tell
from headway.serve.models import Models
from headway.serve.refusal import Refusal
from headway.serve.seen import Refused
from headway.serve.served import Served
from headway.serve.wire import batchable

OPEN_TO_ALL = frozenset(f"/{SERVICE}/{name}" for name in ("ServerLive", "ServerReady"))
_UNAUTHORIZED = Refusal(401, "unauthorized", "the metadata 'authorization: Bearer TOKEN' must hold the server's token")
_TOO_MUCH = Refusal(
    503, "buffer_full", "the server holds too many bytes of requests that are not answered yet; send the request again later"
)
Metadata = Iterable[tuple[str, str | bytes]] | None


class Context(Protocol):
    """What is known of a call beside its message."""

    def invocation_metadata(self) -> Metadata:
        """What the client sent with it."""

    def time_remaining(self) -> float | None:
        """How long the client waits for the answer [s]; none: as long as it takes."""


class Waiting(Waiter, Protocol):
    """One request that waits for its answer; ``request_id`` is set when it is read."""

    request_id: str


class _Alone:
    """One call that waits for its answer."""

    __slots__ = ("arrived_s", "future", "request_id")

    def __init__(self, arrived_s: float, future: asyncio.Future[bytes | Refusal]) -> None:
        self.arrived_s, self.future, self.request_id = arrived_s, future, ""

    def finish(self, answer: bytes | Refusal) -> None:
        """Take the answer, unless the client has gone."""
        if not self.future.done():
            self.future.set_result(answer)


class Calls:
    """Answers calls; every method runs on the event loop.

    Attributes:
        held_bytes: messages of all requests not yet answered [B].
    """

    def __init__(
        self,
        models: Models,
        control: GrpcControl,
        limits: Limits,
        token: str | None,
        *,
        refused: Callable[[Refused], None],
        arrived: Callable[[float, int], None],
        incoming: Callable[[float, bytes], None] | None = None,
    ) -> None:
        self._models, self._control, self._limits = models, control, limits
        self._expected = None if token is None else b"Bearer " + token.encode()
        self._refused, self._arrived, self._incoming = refused, arrived, incoming
        self._forms: dict[tuple[str, str], tuple[Served, GrpcForm]] = {}
        self.names = tuple(control.calls)
        self.held_bytes = 0

    def admits(self, method: str, metadata: Metadata) -> bool:
        """Whether a call of this path may be made: whether it brings the server's token, where there is one."""
        if self._expected is None or method in OPEN_TO_ALL:
            return True
        return hmac.compare_digest(_sent(metadata, "authorization") or b"", self._expected)

    def unauthorized(self) -> Refusal:
        """What a call gets that is not admitted; counted."""
        self._count(_UNAUTHORIZED, ("", ""), time.perf_counter())
        return _UNAUTHORIZED

    async def control(self, name: str, body: bytes) -> bytes | Refusal:
        """The answer to a call that is no inference."""
        begun_s = time.perf_counter()
        try:
            return await self._control.answer(name, body)
        except HeadwayError as error:
            refusal = error if isinstance(error, Refusal) else Refusal(400, "invalid", str(error))
        except Exception as error:
            refusal = _failed(name, error)
        self._count(refusal, ("", ""), begun_s)
        return refusal

    def _count(self, refusal: Refusal, target: tuple[str, str], at_s: float) -> None:
        self._refused(Refused(*target, refusal.reason, refusal.status, at_s))

    # --- inference

    async def infer(self, body: bytes, context: Context) -> bytes | Refusal:
        """The answer to a request."""
        waiting = _Alone(time.perf_counter(), asyncio.get_running_loop().create_future())
        size = len(body)
        self.held_bytes += size
        try:
            return self.submit(body, context, waiting) or await waiting.future
        finally:
            self.held_bytes -= size

    def submit(self, body: bytes, context: Context, waiting: Waiting) -> Refusal | None:
        """Hand a request to its model; or the refusal, counted, that says why not."""
        target = ("", "")
        try:
            if self._incoming is not None:
                traceparent = _sent(context.invocation_metadata(), "traceparent")
                if traceparent is not None:
                    self._incoming(waiting.arrived_s, traceparent)
            if self.held_bytes > self._limits.buffered_bytes:
                raise _TOO_MUCH.with_traceback(None)
            request = parse(body, self._limits)
            waiting.request_id = request.id[:256]
            served = self._models.find(request.model_name, request.model_version)
            target = (served.name, served.version)
            hopeless = None if request.parameters else served.hopeless(waiting.arrived_s)
            if hopeless is not None:
                raise hopeless.with_traceback(None)
            call = served.signature.take(*taken(request))
            self._bound(call, served, context.time_remaining())
            known = self._forms.get(target)
            call.form = known[1] if known is not None and known[0] is served else self._form(served)
            call.owner = waiting
            self._models.submit(served, call)
        except Refusal as refusal:
            self._count(refusal, target, waiting.arrived_s)
            return refusal
        except Exception as error:
            failed = _failed("ModelInfer", error)
            self._count(failed, target, waiting.arrived_s)
            return failed
        self._arrived(waiting.arrived_s, call.rows)
        return None

    def _bound(self, call: Call, served: Served, left_s: float | None) -> None:
        """Count the deadline of a call as a timeout, where it comes before the one there is."""
        if left_s is not None and left_s < (served.deadline_s if call.timeout_s is None else call.timeout_s):
            call.timeout_s = left_s

    def _form(self, served: Served) -> GrpcForm:
        manifest = served.bundle.manifest
        form = GrpcForm(served.name, served.version, manifest.labels, batched=batchable(manifest.inputs, manifest.outputs))
        self._forms[served.name, served.version] = (served, form)
        return form


def _sent(entries: Metadata, name: str) -> bytes | None:
    """The value of a call's metadata of this name."""
    for key, value in entries or ():
        if key == name:
            return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    return None


def _failed(name: str, error: Exception) -> Refusal:
    tell("failed", call=name, error=type(error).__name__)
    return Refusal(500, "internal", f"the server failed: {type(error).__name__}")
