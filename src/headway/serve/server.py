"""The life of a server: start, listen, serve until told to stop, answer what was accepted, end.

A stop (SIGTERM, SIGINT, or ``Ready.stop``) turns readiness off, refuses new inferences with 503, and waits until all accepted
ones are answered. The listener stays open meanwhile, so that a load balancer sees "not ready" and not a refused connection. A
second signal ends the wait.
"""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from headway.batching import Batcher
from headway.records import BundledVariant, InputError
from headway.serve.answer import Answer, Encoder
from headway.serve.application import Application
from headway.serve.arrivals import Arrivals, check_writable
from headway.serve.bundle import OpenBundle, check_name
from headway.serve.engine import Engine
from headway.serve.http import LINGER_S, Connection
from headway.serve.limits import Limits
from headway.serve.start import Started, close, start
from headway.serve.wire import Call

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    import resource

    from uvloop import new_event_loop

CHECK_S = 0.5
GRACE_S = 0.5
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM."""

    certfile: Path
    keyfile: Path


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server tells when it listens.

    Attributes:
        variant: the one that is served, which is not the bundle's first when ``notes`` say why.
        stop: asks the server to end, from any thread.
    """

    url: str
    host: str
    port: int
    model: str
    variant: BundledVariant
    notes: tuple[str, ...]
    stop: Callable[[], None]


def serve(
    bundle: OpenBundle,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    tls: TlsFiles | None = None,
    trace: Path | None = None,
    queue_limit: int | None = None,
    limits: Limits | None = None,
    variant: str | None = None,
    name: str | None = None,
    on_ready: Callable[[Ready], None] = lambda ready: None,
) -> None:
    """Serve a bundle until SIGTERM, SIGINT or ``Ready.stop``; prints nothing.

    Args:
        host, port: where to listen; loopback unless told otherwise; port 0 lets the system choose.
        token: clients must send it as ``Authorization: Bearer``; none lets everybody in. Health checks need no token.
        tls: serve HTTPS.
        trace: file that the arrivals seen (times and rows) are written to at the end.
        queue_limit: requests that may wait; none: ``default_queue_limit``.
        variant: serve this one, without falling back to another.
        name: the model's name in URLs, instead of the bundle's.

    Raises:
        BundleError: no variant agrees with its golden set on this machine.
        InputError: the address, the token, the TLS files or the trace file cannot be used.
    """
    limits = limits or Limits()
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise InputError("the token must be printable ASCII without spaces, and not empty. Choose another.")
    if queue_limit is not None and queue_limit < 1:
        raise InputError(f"the queue limit must be at least 1, got {queue_limit}. Leave it out for one that follows the objective.")
    if trace is not None:
        check_writable(trace)
    context = _tls_context(tls)
    if name is not None:
        check_name(name)
        bundle = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=name))
    started = start(bundle, variant)
    arrivals = Arrivals()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            server = _Server(bundle, started, limits, arrivals)
            runner.run(server.live(host=host, port=port, context=context, token=token, queue_limit=queue_limit, on_ready=on_ready))
    finally:
        close(started.sessions)
        if trace is not None:
            arrivals.write(trace)


def default_queue_limit(bundle: OpenBundle, variant: BundledVariant) -> int:
    """How many requests may wait: what the variant answers in twice the objective's latency, by its measured rate.

    More waiting than that (Little's law: N = X R) cannot be answered in time. Without measured figures: 32 full batches an instance.
    """
    plan, latency_s = variant.plan, bundle.manifest.objective.latency_s
    full = plan.instances * plan.max_batch
    if variant.rate_per_s is None or latency_s is None:
        return min(4096, max(64, 32 * full))
    return min(4096, max(16, 2 * full, math.ceil(2 * variant.rate_per_s * latency_s)))


class _Server:
    def __init__(self, bundle: OpenBundle, started: Started, limits: Limits, arrivals: Arrivals) -> None:
        self._bundle, self._started, self._limits, self._arrivals = bundle, started, limits, arrivals
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def live(
        self,
        *,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        token: str | None,
        queue_limit: int | None,
        on_ready: Callable[[Ready], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._catch_signals(loop)
        manifest, served = self._bundle.manifest, self._started.variant
        application = Application(self._bundle, self._started, limits=self._limits, token=token, arrivals=self._arrivals, loop=loop)
        _raise_file_limit(self._limits.connections)
        listener = await _listen(loop, application, host, port, context)
        engine = self._engine()
        batcher = self._batcher(engine, application, queue_limit)
        application.open(batcher)
        clock = loop.create_task(_check_connections(application))
        try:
            gc.collect()
            gc.freeze()
            name = listener.sockets[0].getsockname()
            shown = f"[{name[0]}]" if ":" in name[0] else name[0]
            url = f"{'https' if context else 'http'}://{shown}:{name[1]}"
            on_ready(Ready(url, name[0], name[1], manifest.name, served, self._started.notes, lambda: self._ask(loop)))
            await self._stop.wait()
            await self._end(application, listener)
        finally:
            listener.close()
            clock.cancel()
            engine.stop()
            _close_within(batcher, 1.0)

    def _engine(self) -> Engine:
        manifest, served = self._bundle.manifest, self._started.variant
        encoder = Encoder(manifest.name, served.variant.name)
        return Engine(self._started.sessions, manifest.inputs, manifest.outputs, served.plan.max_batch, encoder)

    def _batcher(self, engine: Engine, application: Application, queue_limit: int | None) -> Batcher[Call, Answer]:
        plan = self._started.variant.plan
        return Batcher(
            engine.run,
            application.done,
            instances=plan.instances,
            max_batch=plan.max_batch,
            max_wait_s=plan.max_wait_s,
            queue_limit=default_queue_limit(self._bundle, self._started.variant) if queue_limit is None else queue_limit,
            rows=lambda call: call.rows,
        )

    async def _end(self, application: Application, listener: asyncio.Server) -> None:
        drained = asyncio.ensure_future(application.drain(self._limits.drain_s))
        hurried = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (drained, hurried):
            waiting.cancel()
        application.draining = True
        await _until(lambda: not application.connections, GRACE_S)
        listener.close()
        for connection in tuple(application.connections):
            connection.leave()
        await _until(lambda: not application.connections, LINGER_S)

    def _catch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is threading.main_thread() and sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: it has stopped already
            loop.call_soon_threadsafe(self._stop.set)


async def _listen(
    loop: asyncio.AbstractEventLoop, application: Application, host: str, port: int, context: ssl.SSLContext | None
) -> asyncio.Server:
    patience_s = None if context is None else application.limits.head_timeout_s
    try:
        return await loop.create_server(
            lambda: Connection(application), host, port, ssl=context, backlog=BACKLOG, ssl_handshake_timeout=patience_s
        )
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"http {host}:{port}: the address must be free and belong to this machine, got: {reason}. Choose another."
        ) from error


async def _check_connections(application: Application) -> None:
    while True:
        await asyncio.sleep(CHECK_S)
        now_s = time.monotonic()
        for connection in tuple(application.connections):
            connection.check(now_s)


async def _until(true: Callable[[], bool], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not true() and time.monotonic() < end_s:
        await asyncio.sleep(0.01)


def _close_within(batcher: Batcher[Call, Answer], timeout_s: float) -> None:
    """Close a batcher without waiting for a run that does not end."""
    thread = threading.Thread(target=batcher.close, daemon=True)
    thread.start()
    thread.join(timeout_s)


def _tls_context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certfile, tls.keyfile)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"TLS: {tls.certfile} and {tls.keyfile} must be a certificate and its key in PEM form, got: {reason}.") from error
    return context


def _raise_file_limit(connections: int) -> None:
    """Let this process open as many files as the connection limit needs, where the system allows it."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
