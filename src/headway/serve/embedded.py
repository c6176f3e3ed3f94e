"""A server without sockets: the same models, application and counts, for a program that already holds whole requests.

Another server's process (a replica of Ray Serve) reads the request and writes the answer; everything between is what ``server.py`` puts behind its
own sockets. All methods run on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from headway.serve.answer import Answer, respond_refusal
from headway.serve.application import Application
from headway.serve.arrivals import Arrivals
from headway.serve.bundle import OpenBundle
from headway.serve.control import Control
from headway.serve.exchange import Exchange
from headway.serve.limits import Limits
from headway.serve.logs import tell
from headway.serve.models import Models
from headway.serve.options import Options
from headway.serve.pages import Pages
from headway.serve.refusal import Refusal
from headway.serve.repository import named
from headway.serve.seen import Folds, Refused
from headway.serve.served import Served
from headway.serve.watched import Watched

CHECK_S = 0.5

logger = logging.getLogger("headway.serve")


class Embedded:
    """Bundles behind whoever brings whole requests; made on the event loop that it is used on.

    Attributes:
        models: what is served, for a further protocol.
    """

    def __init__(self, *bundles: OpenBundle, name: str | None = None, options: Options, also: Sequence[Folds] = ()) -> None:
        """Loads nothing yet.

        Args:
            options: addresses, TLS and the trace in them mean nothing here.
            also: who counts batches and refusals beside the server's own metrics.

        Raises:
            InputError: the token or a limit cannot be used.
        """
        options.check()
        self._limits = options.limits
        self._watched = Watched(options, also)
        self.models = Models(
            named(bundles, name), folder=None, settings=options.settings, limits=options.limits, control=False,
            seen=self._watched.folding.seen, refused=self._watched.folding.refused, told=tell,
        )  # fmt: skip
        pages = Pages(self.models, self._watched.recent, lambda: self._open, token=options.token is not None)
        control = Control(self.models, self._watched.statistics, {b"/metrics": self._watched.metrics, **pages.by_path()})
        self._application = Application(
            self.models, control, limits=options.limits, token=options.token, arrivals=Arrivals(), refused=self._watched.folding.refused,
            incoming=self._watched.spans.incoming if self._watched.spans is not None else None,
        )  # fmt: skip
        self._open = 0
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the models and warm them up.

        Raises:
            HeadwayError: one cannot be served here.
        """
        await self.models.start()
        self._watched.folding.__enter__()
        self._watched.show(self.models, lambda: self._open)
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    @property
    def first(self) -> Served:
        """The first model's version that answers."""
        return next(self.models.all())

    @property
    def limits(self) -> Limits:
        """What a request is held to."""
        return self._limits

    @property
    def refused(self) -> Callable[[Refused], None]:
        """Counts a refusal that a further protocol gives."""
        return self._watched.folding.refused

    def statistics(self, versions: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Triton's statistics of these versions; never on the event loop."""
        return self._watched.statistics(versions)

    async def answer(self, method: bytes, url: bytes, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        """The answer to a whole HTTP request: status, head without its closing blank line, body.

        Args:
            headers: by their names in lower case.
        """
        asked = _Asked(self._application, asyncio.get_running_loop().create_future())
        exchange = Exchange(asked, True, 0, method == b"HEAD")
        self._open += 1
        try:
            refusal = self._held(exchange, body) or self._application.admit(method, url, headers)
            if refusal is None:
                self._handle(asked, exchange, method, url, headers, body)
            else:
                asked.refuse(exchange, refusal)
            return await asked.future
        finally:
            self._open -= 1

    def _handle(self, asked: _Asked, exchange: Exchange, method: bytes, url: bytes, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Every request gets an answer, even where the server has a fault."""
        try:
            self._application.handle(exchange, method, url, headers, body)
        except Exception as error:
            logger.exception("a request must not break the server; it was answered with status 500")
            if not asked.future.done():
                asked.refuse(exchange, Refusal(500, "internal", f"the server failed: {type(error).__name__}"))

    def _held(self, exchange: Exchange, body: bytes) -> Refusal | None:
        """Count a body to what is held; or why it cannot be."""
        if len(body) > self._limits.body_bytes:
            return Refusal(413, "too_large", f"a body must be at most {self._limits.body_bytes} bytes; split the request")
        try:
            exchange.connection.hold(exchange, len(body))
        except Refusal as refusal:
            return refusal
        return None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            self.models.tick(time.perf_counter())

    async def drain(self) -> bool:
        """Refuse new requests, and wait until all accepted ones are answered; false when time ran out first."""
        return await self.models.drain(self._limits.drain_s)

    def close(self) -> None:
        """End everything, drained or not; from any thread."""
        if self._ticking is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._ticking.get_loop().call_soon_threadsafe(self._ticking.cancel)
            self._watched.folding.close()
            self._ticking = None
        self.models.close()


class _Asked:
    """One request that a future waits for, in the place of a connection."""

    __slots__ = ("_application", "future")

    def __init__(self, application: Application, future: asyncio.Future[Answer]) -> None:
        self._application, self.future = application, future

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        """Take the answer, unless who asked has gone."""
        self._application.buffered_bytes -= exchange.body_bytes
        exchange.body_bytes = 0
        if not self.future.done():
            self.future.set_result(answer)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Take a refusal as the answer."""
        self._application.answered(exchange, refusal.status, refusal.reason)
        self.finish(exchange, respond_refusal(refusal))

    def hold(self, exchange: Exchange, size: int) -> None:
        """Count memory to the request until its answer.

        Raises:
            Refusal: too much is held already.
        """
        exchange.body_bytes += size
        self._application.buffered_bytes += size
        if self._application.buffered_bytes > self._application.limits.buffered_bytes:
            raise Refusal(503, "memory", "too many bodies are waiting for their answers; try again later")

    def check(self, now_s: float) -> None:
        """Nothing: whoever holds the socket looks after it."""

    def leave(self) -> None:
        """Nothing: whoever holds the socket ends it."""
