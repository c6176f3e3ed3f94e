"""The Open Inference Protocol v2 over gRPC, as Triton's and KServe's clients speak it; needs grpcio and protobuf.

An inference goes the way it goes over HTTP: read and checked on the event loop, run and written on an instance's thread. gRPC's own
threads do the sockets; the event loop is woken once for many of their events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from headway.protocol.messages import SERVICE
from headway.records import InputError
from headway.serve.fronts._grpc_calls import Calls
from headway.serve.fronts._grpc_codes import code
from headway.serve.fronts._grpc_control import GrpcControl
from headway.serve.fronts._grpc_infer import in_stream
from headway.serve.limits import Limits
from headway.serve.models import Models
from headway.serve.options import TlsFiles
from headway.serve.refusal import Refusal
from headway.serve.seen import Refused

IN_STREAM = 64
"""Requests of one stream that may wait for their answers before reading pauses."""
_OVERHEAD_BYTES = 64 * 2**10
"""What a message may be larger than ``Limits.body_bytes``: names and shapes."""


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
    calls = Calls(models, GrpcControl(models, statistics), limits, token, refused=refused, arrived=arrived, incoming=incoming)
    service = _Service(calls, limits)
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

    def __init__(self, service: Calls, context: grpc.aio.ServicerContext, write_timeout_s: float) -> None:
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
    """The calls of the protocol behind a server of their own; every method runs on the event loop."""

    def __init__(self, calls: Calls, limits: Limits) -> None:
        self._asked, self._limits = calls, limits
        self._calls = {f"/{SERVICE}/{name}": grpc.unary_unary_rpc_method_handler(self._control(name)) for name in calls.names}
        self._calls[f"/{SERVICE}/ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._infer)
        self._calls[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._closed = grpc.stream_stream_rpc_method_handler(self._unauthorized)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """What answers a call, chosen before its message is read."""
        method = handler_call_details.method
        if not self._asked.admits(method, handler_call_details.invocation_metadata):
            return self._closed
        return self._calls.get(method)

    async def _unauthorized(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        refusal = self._asked.unauthorized()
        await context.abort(code(refusal), str(refusal))

    def _control(self, name: str) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
        async def answer(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await _given(context, await self._asked.control(name, body))

        return answer

    async def _infer(self, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return await _given(context, await self._asked.infer(body, context))

    async def _stream(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        await _Stream(self._asked, context, self._limits.write_timeout_s).live()


async def _given(context: grpc.aio.ServicerContext, answer: bytes | Refusal) -> bytes:
    """The answer; or the call ended with a refusal."""
    if isinstance(answer, Refusal):
        await context.abort(code(answer), str(answer))
        return b""
    return answer
