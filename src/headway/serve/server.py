"""The life of a server: start, listen, serve until told to stop, answer what was accepted, end.

A stop (SIGTERM, SIGINT, or ``Ready.stop``) turns readiness off, refuses new inferences with 503, and waits until all accepted
ones are answered. The listener stays open meanwhile, so that a load balancer sees "not ready" and not a refused connection. A
second signal ends the wait.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from headway.discovery import find
from headway.records import ConfigError, InputError
from headway.serve import fronts
from headway.serve.application import Application
from headway.serve.arrivals import Arrivals
from headway.serve.bundle import OpenBundle
from headway.serve.control import Control
from headway.serve.http import LINGER_S, Connection
from headway.serve.logs import tell, writing
from headway.serve.models import Models
from headway.serve.options import Options, Ready, TlsFiles
from headway.serve.pages import Pages
from headway.serve.repository import named, scan
from headway.serve.watched import Watched

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    import resource

    from uvloop import new_event_loop

CHECK_S = 0.5
GRACE_S = 0.5
SWITCH_S = 5e-4
"""The longest that a thread waits for the interpreter's lock while another one computes in Python; its default is 5 ms [s]."""
BACKLOG = 2048


def serve(
    *bundles: OpenBundle,
    repository: Path | None = None,
    name: str | None = None,
    options: Options | None = None,
    on_ready: Callable[[Ready], None] = lambda ready: None,
) -> None:
    """Serve bundles, or a repository of them, until SIGTERM, SIGINT or ``Ready.stop``; prints nothing.

    Args:
        bundles: models by the names in their manifests; several of one name are its versions 1, 2, ...
        repository: folder of models, as ``headway.serve.repository.scan`` reads it.
        name: the first model's name in URLs, instead of its bundle's.

    Raises:
        BundleError: no variant of a model agrees with its golden set on this machine.
        InputError: the address, the token, the TLS files or the trace file cannot be used.
    """
    options = options or Options()
    options.check()
    if bool(bundles) == (repository is not None):
        raise ConfigError("either bundles or a repository must be given, got both or neither")
    places = named(bundles, name) if repository is None else scan(repository)
    context = _tls_context(options.tls)
    arrivals, watched = Arrivals(), Watched(options)
    with ExitStack() as stack:
        if options.log is not None:
            stack.enter_context(writing(options.log))
        stack.enter_context(watched.folding)
        runner = stack.enter_context(asyncio.Runner(loop_factory=new_event_loop))
        models = Models(
            places, folder=repository, settings=options.settings, limits=options.limits, control=options.control,
            seen=watched.folding.seen, refused=watched.folding.refused, told=tell,
        )  # fmt: skip
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            runner.run(_Server(models, options, arrivals, watched).live(context, on_ready))
        finally:
            sys.setswitchinterval(before_s)
            models.close()
            tell("stopped")
            if options.trace is not None:
                arrivals.write(options.trace)


class _Server:
    def __init__(self, models: Models, options: Options, arrivals: Arrivals, watched: Watched) -> None:
        self._models, self._options, self._arrivals, self._watched = models, options, arrivals, watched
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._pages = Pages(models, watched.recent, self._connected, token=options.token is not None)
        control = Control(models, watched.statistics, {b"/metrics": watched.metrics, **self._pages.by_path()})
        self._application = Application(
            models, control, limits=options.limits, token=options.token, arrivals=arrivals, refused=watched.folding.refused,
            incoming=watched.spans.incoming if watched.spans is not None else None,
        )  # fmt: skip
        watched.show(models, self._connected)

    async def live(self, context: ssl.SSLContext | None, on_ready: Callable[[Ready], None]) -> None:
        loop = asyncio.get_running_loop()
        options, models, application = self._options, self._models, self._application
        self._catch_signals(loop)
        await models.start()
        _raise_file_limit(options.limits.connections)
        listener = await _listen(loop, application, options.host, options.port, context)
        tasks: list[asyncio.Task[None]] = []
        front: Any = None
        try:
            front = await self._open_front(options)
            tasks.append(loop.create_task(self._tick()))
            gc.collect()
            gc.freeze()
            ready = self._ready(loop, listener, front, context is not None)
            self._pages.url = ready.url
            tell("ready", url=ready.url, grpc_port=ready.grpc_port, models=",".join(ready.models))
            on_ready(ready)
            await self._stop.wait()
            await self._end(listener, front)
        finally:
            listener.close()
            for task in tasks:
                task.cancel()
            if front is not None:
                await front.stop(0)
            gc.unfreeze()

    def _ready(self, loop: asyncio.AbstractEventLoop, listener: asyncio.Server, front: Any, secure: bool) -> Ready:
        first = next(self._models.all())
        name = listener.sockets[0].getsockname()
        shown = f"[{name[0]}]" if ":" in name[0] else name[0]
        notes = tuple(note for served in self._models.all() for note in served.started.notes)
        return Ready(
            f"{'https' if secure else 'http'}://{shown}:{name[1]}", name[0], name[1], first.name, first.variant, first.plan,
            tuple(self._models.names()), notes, partial(self._ask, loop), front.port if front is not None else None,
        )  # fmt: skip

    async def _open_front(self, options: Options) -> Any:
        """The gRPC front, when one is asked for.

        Raises:
            InputError: its packages are not installed, or the address cannot be used.
        """
        if options.grpc is None:
            return None
        found = find(fronts, "grpc")
        if "grpc" not in found.present:
            raise InputError(f"gRPC {found.missing.get('grpc', 'is not there')}. Install headway[grpc], or leave --grpc out.")
        host, port = options.grpc
        watched, spans = self._watched, self._watched.spans
        return await found.present["grpc"].open_front(
            self._models, host=host, port=port, limits=options.limits, token=options.token, tls=options.tls,
            refused=watched.folding.refused, arrived=self._arrivals.add, incoming=spans.incoming if spans is not None else None,
            statistics=watched.statistics,
        )  # fmt: skip

    def _connected(self) -> int:
        return len(self._application.connections)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            now_s = time.monotonic()
            for connection in tuple(self._application.connections):
                connection.check(now_s)
            self._models.tick(time.perf_counter())

    async def _end(self, listener: asyncio.Server, front: Any) -> None:
        application, limits = self._application, self._options.limits
        application.draining = True
        tell("drain", waiting=sum(served.in_flight for served in self._models.all()))
        drained = asyncio.ensure_future(self._models.drain(limits.drain_s))
        hurried = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (drained, hurried):
            waiting.cancel()
        if front is not None:
            await front.stop(GRACE_S)
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


async def _until(true: Callable[[], bool], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not true() and time.monotonic() < end_s:
        await asyncio.sleep(0.01)


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
