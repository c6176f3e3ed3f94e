"""One HTTP/1.1 connection: bytes to requests, answers in order, limits and timeouts. It knows no models.

Parsing is httptools (llhttp). Everything a client can do wrong ends here or in a refusal: too long a head, too large or too
slow a body, half a request, answers left unread. Answers to pipelined requests leave in the order of their requests. Closing
is done in two steps (end of writing, then a short time of discarding), so that a last answer is not destroyed by a reset.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import NamedTuple, cast

import httptools

from headway.serve.answer import Answer, respond_refusal
from headway.serve.exchange import Exchange, Front
from headway.serve.refusal import Refusal

READ = frozenset(
    (
        b"content-length",
        b"transfer-encoding",
        b"inference-header-content-length",
        b"authorization",
        b"content-encoding",
        b"accept-encoding",
        b"expect",
        b"traceparent",
    )
)
"""Headers that mean something here; all others are dropped while parsing."""

logger = logging.getLogger("headway.serve")

KNOWN_HEAD_BYTES = 2048
JOINED_BYTES = 4096
"""A body of at most this size is copied behind its head: one piece is written with less work than two [B]."""
LINGER_S = 1.0
FRAME_RATIO = 8
"""A chunked body may come in at most so many times its own bytes, beyond its headers: chunks of one byte do, endless extensions and trailers do not."""
_END = b"\r\n"
_CLOSE = b"connection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Known(NamedTuple):
    """A request that came in one piece: its head as bytes, and what the parser made of it."""

    head: bytes
    size: int
    method: bytes
    url: bytes
    headers: dict[bytes, bytes]
    body_bytes: int


class Connection(asyncio.Protocol):
    """One client's connection; all methods run on the event loop."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._limits = front.limits
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Exchange] = deque()
        self._transport: asyncio.Transport | None = None
        self._deaf = False
        self._hung_up_s: float | None = None
        self._stuck_s: float | None = None
        self._half_closed = self._paused = False
        self._in_head = self._in_body = False
        self._since_s = time.monotonic()
        self._fed_bytes = self._head_bytes = 0
        self._known: _Known | None = None
        self._completed: tuple[bytes, bytes, dict[bytes, bytes], int] | None = None
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._reserved_bytes = 0
        self._refusal: Refusal | None = None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the server's connections, or be turned away when there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._front.connections.add(self)
        if len(self._front.connections) > self._limits.connections:
            self._refuse(Refusal(503, "connections", f"at most {self._limits.connections} connections are served at once; try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; answers still to come are dropped when they come."""
        self._transport = None
        self._deaf = True
        self._front.connections.discard(self)
        self._release(self._reserved_bytes)
        self._reserved_bytes = 0
        self._drop_pending()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; its callbacks below do the rest. A request with the same head as the last one needs no parser."""
        if self._deaf:
            return
        between = not self._in_head and not self._in_body
        known = self._known
        if between and known is not None and len(data) == known.size and data.startswith(known.head):
            self._again(known, data)
            return
        if not between:
            self._fed_bytes += len(data)
        self._completed = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(Refusal(400, "malformed", f"the request must be valid HTTP/1.1, got: {error}"))
            return
        bound = self._limits.head_bytes if self._in_head else FRAME_RATIO * self._body_bytes + 2 * self._limits.head_bytes
        if not between and (self._in_head or self._in_body) and self._fed_bytes > bound:
            self._refuse(self._head_refusal())
        elif len(self._pending) >= self._limits.pipelined:
            self._pause()
        if between and self._completed is not None and not self._in_head and not self._deaf:
            self._remember(data, *self._completed)

    def _remember(self, data: bytes, method: bytes, url: bytes, headers: dict[bytes, bytes], body_bytes: int) -> None:
        """Keep the head of a request that was all of ``data``: clients send the same head each time."""
        size = len(data) - body_bytes
        if size <= KNOWN_HEAD_BYTES and data.find(b"\r\n\r\n") == size - 4:
            self._known = _Known(data[:size], len(data), method, url, headers, body_bytes)

    def _again(self, known: _Known, data: bytes) -> None:
        """Take a request whose head is known; the parser, which stands between two requests, does not see it."""
        self._since_s = time.monotonic()
        if known.body_bytes:
            self._reserve(known.body_bytes)
            if self._deaf:
                return
            self._reserved_bytes = 0
        exchange = Exchange(self, True, known.body_bytes, known.method == b"HEAD")
        self._pending.append(exchange)
        self._hand_over(exchange, known.method, known.url, known.headers, data[len(known.head) :])
        if len(self._pending) >= self._limits.pipelined:
            self._pause()

    def eof_received(self) -> bool:
        """The client sends no more; it still gets the answers it waits for."""
        if self._transport is None or not self._pending or not self._transport.can_write_eof():
            return False
        self._half_closed = True
        return True

    def pause_writing(self) -> None:
        """The client does not read its answers: stop reading its requests, and remember since when."""
        self._stuck_s = time.monotonic()
        self._pause()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stuck_s = None
        self._resume()

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        self._in_head = True
        self._fed_bytes = self._head_bytes = 0
        self._since_s = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        lower = name.lower()
        if lower in READ and not self._in_body:  # what follows a chunked body is no header
            self._headers[lower] = value

    def on_headers_complete(self) -> None:
        if self._deaf or self._parser.should_upgrade():
            return
        self._in_head, self._in_body = False, True
        if self._head_bytes > self._limits.head_bytes:
            self._refuse(self._head_refusal())
            return
        headers = self._headers
        length = int(headers.get(b"content-length") or 0)
        if length > self._limits.body_bytes:
            self._refuse(self._body_refusal())
            return
        self._refusal = self._front.admit(self._parser.get_method(), self._url, headers)
        if self._refusal is None and length:
            self._reserve(length)
        if b"expect" in headers and not self._deaf:
            self._expect()

    def _expect(self) -> None:
        """Ask for the body, or refuse it before it is sent."""
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._headers[b"expect"].lower() == b"100-continue" and not self._pending and self._transport is not None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        self._body_bytes += len(body)
        if self._refusal is not None:
            return
        self._body = body if not self._body else bytearray(self._body) if type(self._body) is bytes else self._body
        if self._body is not body:
            self._body += body
        if self._body_bytes > self._limits.body_bytes:
            self._refuse(self._body_refusal())
        elif self._body_bytes > self._reserved_bytes:
            self._reserve(self._body_bytes - self._reserved_bytes)

    def on_message_complete(self) -> None:
        if self._deaf or self._parser.should_upgrade():
            return
        self._in_head = self._in_body = False
        self._since_s = time.monotonic()
        method = self._parser.get_method()
        exchange = Exchange(self, self._parser.should_keep_alive(), self._reserved_bytes, method == b"HEAD")
        self._pending.append(exchange)
        url, headers, body, refusal = self._url, self._headers, self._body, self._refusal
        plain = refusal is None and exchange.keep_alive and b"transfer-encoding" not in headers and b"expect" not in headers
        self._completed = (method, url, headers, exchange.body_bytes) if plain else None
        self._reset()
        if refusal is not None:
            self.refuse(exchange, refusal)
        else:
            self._hand_over(exchange, method, url, headers, bytes(body))

    def _hand_over(self, exchange: Exchange, method: bytes, url: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        """Every request gets an answer, even where the server has a fault: without one, all later ones of the connection would wait forever."""
        try:
            self._front.handle(exchange, method, url, headers, body)
        except Exception as error:
            if exchange.answer is None:
                self.refuse(exchange, Refusal(500, "internal", f"the server failed: {type(error).__name__}"))
            logger.exception("a request must not break the server; it was answered with status 500")

    # --- answers

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        """Give a request its answer; it is written as soon as all earlier ones of the connection are."""
        self._release(exchange.body_bytes)
        exchange.body_bytes = 0
        exchange.answer = answer
        pending = self._pending
        if self._transport is None or not pending or pending[0] is not exchange:
            return
        pieces: list[bytes] = []
        while pending and (answer_ := pending[0].answer) is not None:
            done = pending.popleft()
            last = not done.keep_alive or (self._front.draining and not pending)
            pieces += (answer_[1], _CLOSE if last else _END) if done.bodyless else (answer_[1], _CLOSE if last else _END, answer_[2])
            if last:
                self._write(self._transport, pieces)
                self._hang_up()
                return
        self._write(self._transport, pieces)
        if self._half_closed and not pending:
            self._hang_up()
        elif self._paused and len(pending) < self._limits.pipelined:
            self._resume()

    def _write(self, transport: asyncio.Transport, pieces: list[bytes]) -> None:
        if len(pieces[-1]) <= JOINED_BYTES:
            transport.write(b"".join(pieces))
        else:
            transport.writelines(pieces)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Give a request a refusal as its answer."""
        self._front.answered(exchange, refusal.status, refusal.reason)
        self.finish(exchange, respond_refusal(refusal))

    # --- the server's clock

    def check(self, now_s: float) -> None:
        """Called about twice a second: end what has taken too long."""
        transport, limits = self._transport, self._limits
        if transport is None:
            return
        waited_s = now_s - self._since_s
        if self._hung_up_s is not None:
            if now_s - self._hung_up_s > LINGER_S and self._stuck_s is None:
                transport.abort()
        elif self._in_head and waited_s > limits.head_timeout_s:
            self._refuse(Refusal(408, "slow_client", f"the headers must arrive within {limits.head_timeout_s:g} s"))
        elif self._in_body and waited_s > limits.body_timeout_s:
            self._refuse(Refusal(408, "slow_client", f"the body must arrive within {limits.body_timeout_s:g} s"))
        elif not self._pending and not self._in_head and not self._in_body and waited_s > limits.idle_timeout_s:
            self._hang_up()
        if self._stuck_s is not None and now_s - self._stuck_s > limits.write_timeout_s:
            transport.abort()

    def leave(self) -> None:
        """The server is going, and waits no longer: answer what is open, then end the connection."""
        for exchange in tuple(self._pending):
            if exchange.answer is None:
                self.refuse(
                    exchange, Refusal(503, "draining", "the server had to shut down before the answer was ready; send the request again")
                )
        if self._deaf:
            return
        if self._in_head or self._in_body:
            self._refuse(Refusal(503, "draining", "the server is shutting down; send the request again elsewhere"))
        else:
            self._hang_up()

    # --- ends

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that cannot be read to its end, then close."""
        self._deaf = True
        self._in_head = self._in_body = False
        exchange = Exchange(self, False, self._reserved_bytes, False)
        self._reset()
        self._pending.append(exchange)
        self.refuse(exchange, refusal)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request that offers another protocol (Java's client offers HTTP/2) as if it did not; llhttp would skip its body."""
        method = self._parser.get_method()
        if self._deaf:
            return
        if method == b"CONNECT":
            self._refuse(Refusal(405, "method", "the method must be GET, HEAD or POST"))
            return
        lines = [b"%b: %b\r\n" % header for header in self._headers.items()]
        lines += [] if self._parser.should_keep_alive() else [b"connection: close\r\n"]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self._url, b"".join(lines))
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        self.data_received(head + rest)

    def _hang_up(self) -> None:
        """End of writing; the client's end, or a short time, closes the rest."""
        self._deaf = True
        self._drop_pending()
        if self._transport is None or self._hung_up_s is not None:
            return
        self._hung_up_s = time.monotonic()
        if self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._resume()
            self._transport.write_eof()

    def _drop_pending(self) -> None:
        for exchange in self._pending:
            self._release(exchange.body_bytes)
            exchange.body_bytes = 0
        self._pending.clear()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._stuck_s is None and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _reserve(self, size: int) -> None:
        self._reserved_bytes += size
        self._front.buffered_bytes += size
        if self._front.buffered_bytes > self._limits.buffered_bytes:
            self._body = b""
            self._refuse(_full())

    def hold(self, exchange: Exchange, size: int) -> None:
        """Count more memory to a request, until its answer: a body that was decoded.

        Raises:
            Refusal: too much is held already.
        """
        exchange.body_bytes += size
        self._front.buffered_bytes += size
        if self._front.buffered_bytes > self._limits.buffered_bytes:
            raise _full()

    def _release(self, size: int) -> None:
        self._front.buffered_bytes -= size

    def _head_refusal(self) -> Refusal:
        return Refusal(431, "too_large", f"the request line and headers must be at most {self._limits.head_bytes} bytes together")

    def _body_refusal(self) -> Refusal:
        return Refusal(413, "too_large", f"a body must be at most {self._limits.body_bytes} bytes; split the request")


def _full() -> Refusal:
    return Refusal(503, "memory", "too many bodies are waiting for their answers; try again later")
