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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headway.discovery import discover
from headway.records import BundledVariant, ConfigError, InputError, Plan
from headway.serve import fronts
from headway.serve.application import Application
from headway.serve.arrivals import Arrivals, check_writable
from headway.serve.bundle import OpenBundle
from headway.serve.control import Control
from headway.serve.folding import Folding
from headway.serve.http import LINGER_S, Connection
from headway.serve.limits import Limits
from headway.serve.metrics import CONTENT_TYPE, Metrics
from headway.serve.models import Models
from headway.serve.repository import named, scan
from headway.serve.served import Settings
from headway.serve.statistics import Statistics

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    import resource

    from uvloop import new_event_loop

CHECK_S = 0.5
GRACE_S = 0.5
BACKLOG = 2048
LOOK_S = 0.05
BUSY_PER_S = 3000
PAUSE_S = 2e-4
PAUSE_SHARE = 0.1
LONGEST_PAUSE_S = 2e-3
OVERLOADED_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM."""

    certfile: Path
    keyfile: Path


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server tells when it listens.

    Attributes:
        model, variant: the first model, and the variant of it that answers, which is not its bundle's first when ``notes`` say why.
        models: names of all models.
        grpc_port: where gRPC listens; none: it does not.
        stop: asks the server to end, from any thread.
    """

    url: str
    host: str
    port: int
    model: str
    variant: BundledVariant
    plan: Plan
    models: tuple[str, ...]
    notes: tuple[str, ...]
    stop: Callable[[], None]
    grpc_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to serve, beyond what is served.

    Attributes:
        host, port: where HTTP listens; loopback unless told otherwise; port 0 lets the system choose.
        grpc: host and port where gRPC listens; none: nowhere.
        token: clients must send it as ``Authorization: Bearer``; none lets everybody in. Health checks need no token.
        tls: serve HTTPS, and gRPC over TLS.
        trace: file that the arrivals seen (times and rows) are written to at the end.
        settings: deadlines, queue, variants kept warm.
        control: let clients load and unload models and direct traffic.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc: tuple[str, int] | None = None
    token: str | None = None
    tls: TlsFiles | None = None
    trace: Path | None = None
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    control: bool = False


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
    _check(options)
    if bool(bundles) == (repository is not None):
        raise ConfigError("either bundles or a repository must be given, got both or neither")
    places = named(bundles, name) if repository is None else scan(repository)
    context = _tls_context(options.tls)
    arrivals = Arrivals()
    statistics = Statistics()
    metrics = Metrics()
    with Folding([statistics, metrics]) as folding, asyncio.Runner(loop_factory=new_event_loop) as runner:
        models = Models(
            places, folder=repository, settings=options.settings, limits=options.limits, control=options.control,
            seen=folding.seen, refused=folding.refused,
        )  # fmt: skip
        try:
            runner.run(_Server(models, options, arrivals, folding, metrics, statistics).live(context, on_ready))
        finally:
            models.close()
            if options.trace is not None:
                arrivals.write(options.trace)


def _check(options: Options) -> None:
    token, limit = options.token, options.settings.queue_limit
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise InputError("the token must be printable ASCII without spaces, and not empty. Choose another.")
    if limit is not None and limit < 1:
        raise InputError(f"the queue limit must be at least 1, got {limit}. Leave it out for one that follows the objective.")
    if options.trace is not None:
        check_writable(options.trace)


class _Server:
    def __init__(self, models: Models, options: Options, arrivals: Arrivals, folding: Folding, metrics: Metrics, statistics: Statistics) -> None:
        self._models, self._options = models, options
        self._folding, self._metrics = folding, metrics
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        pages = {b"/metrics": (CONTENT_TYPE, self._scrape)}
        self._application = Application(
            models, Control(models, statistics.of, pages), limits=options.limits, token=options.token, arrivals=arrivals, refused=folding.refused
        )

    async def live(self, context: ssl.SSLContext | None, on_ready: Callable[[Ready], None]) -> None:
        loop = asyncio.get_running_loop()
        options, models, application = self._options, self._models, self._application
        self._catch_signals(loop)
        await models.start()
        _raise_file_limit(options.limits.connections)
        listener = await _listen(loop, application, options.host, options.port, context)
        front = await _open_front(models, options)
        clock = loop.create_task(self._tick())
        pause = loop.create_task(self._moderate())
        try:
            gc.collect()
            gc.freeze()
            on_ready(self._ready(loop, listener, front, context is not None))
            await self._stop.wait()
            await self._end(listener, front)
        finally:
            listener.close()
            clock.cancel()
            pause.cancel()

    def _ready(self, loop: asyncio.AbstractEventLoop, listener: asyncio.Server, front: Any, secure: bool) -> Ready:
        first = next(self._models.all())
        name = listener.sockets[0].getsockname()
        shown = f"[{name[0]}]" if ":" in name[0] else name[0]
        notes = tuple(note for served in self._models.all() for note in served.started.notes)
        return Ready(
            f"{'https' if secure else 'http'}://{shown}:{name[1]}", name[0], name[1], first.name, first.variant, first.plan,
            tuple(self._models.names()), notes, partial(self._ask, loop), front.port if front is not None else None,
        )  # fmt: skip

    def _scrape(self) -> tuple[bytes, str]:
        self._folding.fold_now()
        return self._metrics.text(), ""

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            now_s = time.monotonic()
            for connection in tuple(self._application.connections):
                connection.check(now_s)
            self._models.tick(time.perf_counter())

    async def _moderate(self) -> None:
        """While requests come thick and fast, look for new ones only every so often: one wake-up then serves several.

        Waking for each one alone costs more than answering it, and takes the core from the model at every turn, its caches with it: what network
        cards do with their interrupts (Salim et al., Beyond Softnet, 2001, section 4). The pause is short while all can be answered, and a
        share of the shortest deadline while some must be refused.
        """
        handled, refused = self._application.handled, self._models.missed
        while True:
            await asyncio.sleep(LOOK_S)
            while (now := self._application.handled) - handled > BUSY_PER_S * LOOK_S:
                missed = self._models.missed
                overloaded = missed - refused > OVERLOADED_SHARE * (now - handled)
                handled, refused = now, missed
                pause_s = max(PAUSE_S, min(LONGEST_PAUSE_S, PAUSE_SHARE * self._models.deadline_s)) if overloaded else PAUSE_S
                end_s = time.perf_counter() + LOOK_S
                while time.perf_counter() < end_s and not self._stop.is_set():
                    time.sleep(pause_s)
                    await asyncio.sleep(0)
            handled, refused = now, self._models.missed

    async def _end(self, listener: asyncio.Server, front: Any) -> None:
        application, limits = self._application, self._options.limits
        application.draining = True
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


async def _open_front(models: Models, options: Options) -> Any:
    """The gRPC front, when one is asked for.

    Raises:
        InputError: its packages are not installed, or the address cannot be used.
    """
    if options.grpc is None:
        return None
    found = discover(fronts)
    if "grpc" not in found.present:
        raise InputError(f"gRPC {found.missing.get('grpc', 'is not there')}. Install headway[grpc], or leave --grpc out.")
    host, port = options.grpc
    return await found.present["grpc"].open_front(models, host=host, port=port, limits=options.limits, token=options.token, tls=options.tls)


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
