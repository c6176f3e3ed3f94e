"""The Open Inference Protocol v2 over gRPC, as Triton's and KServe's clients speak it; needs grpcio and protobuf.

An inference goes the way it goes over HTTP: read and checked on the event loop, run and written on an instance's thread. gRPC's own
threads do the sockets; the event loop is woken once for many of their events.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio

from headway.protocol.messages import SERVICE
from headway.records import HeadwayError, InputError
from headway.serve.call import Call
from headway.serve.fronts._grpc_codes import code
from headway.serve.fronts._grpc_control import GrpcControl
from headway.serve.fronts._grpc_infer import GrpcForm, in_stream, parse, taken
from headway.serve.limits import Limits
from headway.serve.logs import tell
from headway.serve.models import Models
from headway.serve.options import TlsFiles
from headway.serve.refusal import Refusal
from headway.serve.seen import Refused
from headway.serve.served import Served
from headway.serve.wire import batchable

OPEN_TO_ALL = frozenset(f"/{SERVICE}/{name}" for name in ("ServerLive", "ServerReady"))
IN_STREAM = 64
"""Requests of one stream that may wait for their answers before reading pauses."""
_OVERHEAD_BYTES = 64 * 2**10
"""What a message may be larger than ``Limits.body_bytes``: names and shapes."""

_UNAUTHORIZED = Refusal(401, "unauthorized", "the metadata 'authorization: Bearer TOKEN' must hold the server's token")
_TOO_MUCH = Refusal(
    503, "buffer_full", "the server holds too many bytes of requests that are not answered yet; send the request again later"
)


async def open_front(
    models: Models,
    *,
    host: str,
    port: int,
    limits: Limits,
    token: str | None,
    tls: TlsFiles | None,
    refused: Callable[[Refused], None] = lambda refusal: None,
    arrived: Callable[[float, int], None] = lambda arrived_s, rows: None,
    incoming: Callable[[float, bytes], None] | None = None,
    statistics: Callable[[Sequence[tuple[str, str]]], dict[str, Any]] = lambda versions: {"model_stats": []},
) -> Front:
    """Listen for gRPC on the running event loop.

    Args:
        port: 0 lets the system choose.
        refused, arrived: called on the event loop for every refusal, and with moment [s] and rows of every request accepted.
        incoming: called with the moment and the metadata ``traceparent`` of a request that brings it.
        statistics: Triton's, of these names and versions; called on another thread.

    Raises:
        InputError: the address or the TLS files cannot be used.
    """
    control = GrpcControl(models, statistics)
    service = _Service(models, control, limits, token, refused=refused, arrived=arrived, incoming=incoming)
    server = grpc.aio.server(handlers=(service,), options=_options(limits), maximum_concurrent_rpcs=limits.connections)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, _credentials(tls))
    except RuntimeError:
        bound = 0
    if not bound:
        await server.stop(None)
        raise InputError(f"gRPC {address}: the address must be free and belong to this machine. Choose another.")
    await server.start()
    return Front(server, bound)


class Front:
    """A listening gRPC server; ``port`` is where."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server, self.port = server, port

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end those that are not answered within this time [s]."""
        await self._server.stop(grace_s)


def _options(limits: Limits) -> list[tuple[str, int]]:
    """What gRPC itself holds its clients to; its names of these are those of grpc/grpc, ``include/grpc/impl/channel_arg_names.h``."""
    return [
        ("grpc.max_receive_message_length", limits.body_bytes + _OVERHEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.head_bytes),
        ("grpc.absolute_max_metadata_size", limits.head_bytes),
        ("grpc.max_concurrent_streams", limits.connections),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1e3)),
        ("grpc.server_handshake_timeout_ms", round(limits.head_timeout_s * 1e3)),
        ("grpc.keepalive_time_ms", round(limits.idle_timeout_s * 1e3)),
        ("grpc.keepalive_timeout_ms", round(limits.write_timeout_s * 1e3)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    try:
        return grpc.ssl_server_credentials([(tls.keyfile.read_bytes(), tls.certfile.read_bytes())])
    except OSError as error:
        raise InputError(f"TLS: {tls.certfile} and {tls.keyfile} must be readable, got: {error.strerror}.") from error


class _Waiting:
    """One call that waits for its answer."""

    __slots__ = ("arrived_s", "future", "request_id")

    def __init__(self, arrived_s: float, future: asyncio.Future[bytes | Refusal]) -> None:
        self.arrived_s, self.future, self.request_id = arrived_s, future, ""

    def finish(self, answer: bytes | Refusal) -> None:
        """Take the answer, unless the client has gone."""
        if not self.future.done():
            self.future.set_result(answer)


class _Streamed:
    """One request of a stream that waits for its answer."""

    __slots__ = ("answers", "arrived_s", "body_bytes", "request_id")

    def __init__(self, arrived_s: float, answers: asyncio.Queue[tuple[bytes, int]], body_bytes: int) -> None:
        self.arrived_s, self.answers, self.body_bytes, self.request_id = arrived_s, answers, body_bytes, ""

    def finish(self, answer: bytes | Refusal) -> None:
        """Put the answer behind those that wait to be written."""
        self.answers.put_nowait((in_stream(answer, self.request_id), self.body_bytes))


class _Stream:
    """One stream of requests: read, answered in the order in which answers are ready."""

    def __init__(self, service: _Service, context: grpc.aio.ServicerContext, write_timeout_s: float) -> None:
        self._service, self._context, self._write_timeout_s = service, context, write_timeout_s
        self._places = asyncio.Semaphore(IN_STREAM)
        self._answers: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()
        self._held_bytes = 0
        self._unread: asyncio.Future[None] | None = None

    async def live(self) -> None:
        """Until the client sends no more and has all its answers, leaves, or does not read its answers."""
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                await self._read()
                for _ in range(IN_STREAM):
                    await self._places.acquire()
                writing.cancel()
        except* TimeoutError:
            self._answers = asyncio.Queue()
        finally:
            self._service.held_bytes -= self._held_bytes
        if self._unread is not None:
            await self._unread
            await self._context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"answers must be read within {self._write_timeout_s:g} s")

    async def _read(self) -> None:
        while True:
            await self._places.acquire()
            body = await self._context.read()
            if body is grpc.aio.EOF:
                self._places.release()
                return
            waiting = _Streamed(time.perf_counter(), self._answers, len(body))
            self._hold(len(body))
            refusal = self._service.submit(body, self._context, waiting)
            if refusal is not None:
                waiting.finish(refusal)

    async def _write(self) -> None:
        while True:
            answer, body_bytes = await self._answers.get()
            writing = asyncio.ensure_future(self._context.write(answer))
            try:
                await asyncio.wait_for(asyncio.shield(writing), self._write_timeout_s)
            except TimeoutError:
                self._unread = writing
                raise
            except asyncio.CancelledError:
                writing.cancel()
                raise
            self._hold(-body_bytes)
            self._places.release()

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        self._service.held_bytes += size


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The calls of the protocol; every method runs on the event loop.

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
        incoming: Callable[[float, bytes], None] | None,
    ) -> None:
        self._models, self._control, self._limits = models, control, limits
        self._expected = None if token is None else b"Bearer " + token.encode()
        self._refused, self._arrived, self._incoming = refused, arrived, incoming
        self._forms: dict[tuple[str, str], tuple[Served, GrpcForm]] = {}
        self.held_bytes = 0
        self._calls = {f"/{SERVICE}/{name}": grpc.unary_unary_rpc_method_handler(self._asked(name)) for name in control.calls}
        self._calls[f"/{SERVICE}/ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._infer)
        self._calls[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._closed = grpc.stream_stream_rpc_method_handler(self._unauthorized)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """What answers a call, chosen before its message is read."""
        method = handler_call_details.method
        if self._expected is not None and method not in OPEN_TO_ALL:
            given = _sent(handler_call_details.invocation_metadata, "authorization") or b""
            if not hmac.compare_digest(given, self._expected):
                return self._closed
        return self._calls.get(method)

    async def _unauthorized(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        self._count(_UNAUTHORIZED, ("", ""), time.perf_counter())
        await context.abort(code(_UNAUTHORIZED), str(_UNAUTHORIZED))

    def _asked(self, name: str) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
        async def answer(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
            begun_s = time.perf_counter()
            try:
                return await self._control.answer(name, body)
            except HeadwayError as error:
                refusal = error if isinstance(error, Refusal) else Refusal(400, "invalid", str(error))
            except Exception as error:
                refusal = _failed(name, error)
            self._count(refusal, ("", ""), begun_s)
            return await _no(context, refusal)

        return answer

    def _count(self, refusal: Refusal, target: tuple[str, str], at_s: float) -> None:
        self._refused(Refused(*target, refusal.reason, refusal.status, at_s))

    # --- inference

    async def _infer(self, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        waiting = _Waiting(time.perf_counter(), asyncio.get_running_loop().create_future())
        size = len(body)
        self.held_bytes += size
        try:
            answer = self.submit(body, context, waiting) or await waiting.future
        finally:
            self.held_bytes -= size
        return answer if isinstance(answer, bytes) else await _no(context, answer)

    async def _stream(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        await _Stream(self, context, self._limits.write_timeout_s).live()

    def submit(self, body: bytes, context: grpc.aio.ServicerContext, waiting: _Waiting | _Streamed) -> Refusal | None:
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


def _sent(entries: Iterable[tuple[str, str | bytes]] | None, name: str) -> bytes | None:
    """The value of a call's metadata of this name."""
    for key, value in entries or ():
        if key == name:
            return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    return None


async def _no(context: grpc.aio.ServicerContext, refusal: Refusal) -> bytes:
    """End a call with a refusal."""
    await context.abort(code(refusal), str(refusal))
    return b""


def _failed(name: str, error: Exception) -> Refusal:
    tell("failed", call=name, error=type(error).__name__)
    return Refusal(500, "internal", f"the server failed: {type(error).__name__}")
