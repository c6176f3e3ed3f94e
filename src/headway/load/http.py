"""The open-loop sender over HTTP/1.1: keep-alive connections, as many as it takes so that no request waits for one to come free.

One thread on ``select``, which unlike event loops built on epoll waits with microsecond resolution: due times are not rounded to
milliseconds. Bytes go out as they are given; answers are parsed by httptools and judged by their status alone.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools
import numpy as np
from numpy.typing import NDArray

from headway.load.generator import Completion, RawLoad
from headway.records import ConfigError, MeasurementError

MOST_CONNECTIONS = 256
FIRST_CONNECTIONS = 16
READ_BYTES = 1 << 18
LONGEST_WAIT_S = 0.1
_BUSY = (429, 503)


@dataclass(slots=True)
class _Connection:
    """One keep-alive connection and the request that is on it."""

    socket: socket.socket
    parser: httptools.HttpResponseParser | None = None
    number: int = -1
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    ended: bool = False
    keep: bool = True
    body: bytearray | None = None

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.ended = True
        self.keep = self.parser is not None and self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if self.body is not None:
            self.body += data


def run_http(
    url: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str],
    due_s: NDArray[np.float64],
    *,
    drain_s: float = 5.0,
    most_connections: int = MOST_CONNECTIONS,
    on_answer: Callable[[int, int, bytes], None] | None = None,
) -> RawLoad:
    """POST request i, with body i modulo their number, when it is due; answers 2xx are ok, 429 and 503 refused, all else failed.

    Args:
        url: ``http://HOST:PORT/PATH``.
        drain_s: how long to wait for the last answers after the last request was due [s].
        most_connections: requests beyond this many in flight wait in the sender; that wait is lateness, and shows as such.
        on_answer: called with (request number, status, body) for each answer, to check it; costs time.

    Raises:
        ConfigError: the URL is not plain HTTP.
        MeasurementError: nothing listens there.
    """
    return _Sender(url, bodies, headers, most_connections, on_answer).run(due_s, drain_s)


class _Sender:
    def __init__(
        self, url: str, bodies: Sequence[bytes], headers: Mapping[str, str], most: int, on_answer: Callable[[int, int, bytes], None] | None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"load goes to a plain http:// URL, got {url!r}")
        self._place = (parts.hostname, parts.port or 80)
        path = parts.path + (f"?{parts.query}" if parts.query else "") or "/"
        lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{key}: {value}" for key, value in headers.items())]
        self._requests = [("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body for body in bodies]
        self._most, self._on_answer = most, on_answer
        self._idle: list[_Connection] = []
        self._reading: dict[int, _Connection] = {}
        self._writing: dict[int, _Connection] = {}
        self._late: deque[int] = deque()

    def run(self, due_s: NDArray[np.float64], drain_s: float) -> RawLoad:
        completion = Completion(len(due_s))
        sent_s = np.zeros(len(due_s))
        try:
            self._idle = [self._connect() for _ in range(min(FIRST_CONNECTIONS, self._most, max(1, len(due_s))))]
        except OSError as error:
            raise MeasurementError(f"a server must listen at {self._place[0]}:{self._place[1]}, got: {error.strerror or error}") from error
        try:
            self._loop(due_s.tolist(), sent_s, completion, drain_s)
        finally:
            for connection in [*self._idle, *self._reading.values()]:
                connection.socket.close()
        return completion.raw(due_s, sent_s)

    def _loop(self, due_s: list[float], sent_s: NDArray[np.float64], completion: Completion, drain_s: float) -> None:
        start_s = completion.begin()
        number, count = 0, len(due_s)
        deadline_s = (due_s[-1] if due_s else 0.0) + drain_s
        while number < count or self._reading or self._late:
            now_s = time.perf_counter() - start_s
            if now_s > deadline_s:
                return
            while number < count and due_s[number] <= now_s:
                self._late.append(number)
                number += 1
            while self._late and self._send(self._late[0], completion):
                sent_s[self._late.popleft()] = time.perf_counter() - start_s
            next_s = due_s[number] if number < count else deadline_s
            self._turn(max(0.0, min(next_s - (time.perf_counter() - start_s), LONGEST_WAIT_S)), completion)
        for late in self._late:
            sent_s[late] = time.perf_counter() - start_s

    def _connect(self) -> _Connection:
        opened = socket.create_connection(self._place, timeout=5)
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._fresh(_Connection(opened))

    def _fresh(self, connection: _Connection) -> _Connection:
        connection.parser = httptools.HttpResponseParser(connection)
        connection.body = bytearray() if self._on_answer is not None else None
        connection.ended = False
        return connection

    def _send(self, number: int, completion: Completion) -> bool:
        """Put a request on a connection; false when all that may be open are busy."""
        if not self._idle:
            if len(self._reading) >= self._most:
                return False
            try:
                self._idle.append(self._connect())
            except OSError:
                completion.failed(number)
                return True
        connection = self._idle.pop()
        connection.number = number
        connection.unsent = memoryview(self._requests[number % len(self._requests)])
        self._reading[connection.socket.fileno()] = connection
        self._write(connection, completion)
        return True

    def _write(self, connection: _Connection, completion: Completion) -> None:
        handle = connection.socket.fileno()
        try:
            while connection.unsent:
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except BlockingIOError:
            self._writing[handle] = connection
            return
        except OSError:
            self._drop(connection, completion)
            return
        self._writing.pop(handle, None)

    def _turn(self, wait_s: float, completion: Completion) -> None:
        """Wait for sockets at most ``wait_s`` and serve those that are ready."""
        readable, writable, _ = select.select(list(self._reading), list(self._writing), [], wait_s)
        for handle in writable:
            if handle in self._writing:
                self._write(self._writing[handle], completion)
        for handle in readable:
            if handle in self._reading:
                self._read(self._reading[handle], completion)

    def _read(self, connection: _Connection, completion: Completion) -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
            if data and connection.parser is not None:
                connection.parser.feed_data(data)
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            data = b""
        if connection.ended:
            self._answered(connection, completion)
        elif not data:
            self._drop(connection, completion)

    def _answered(self, connection: _Connection, completion: Completion) -> None:
        status = connection.parser.get_status_code() if connection.parser is not None else 0
        if 200 <= status < 300:
            completion.ok(connection.number)
        elif status in _BUSY:
            completion.refused(connection.number)
        else:
            completion.failed(connection.number)
        if self._on_answer is not None:
            self._on_answer(connection.number, status, bytes(connection.body or b""))
        handle = connection.socket.fileno()
        del self._reading[handle]
        self._writing.pop(handle, None)
        if connection.keep and not connection.unsent:
            self._idle.append(self._fresh(connection))
        else:
            connection.socket.close()

    def _drop(self, connection: _Connection, completion: Completion) -> None:
        """The connection broke with a request on it."""
        completion.failed(connection.number)
        handle = connection.socket.fileno()
        self._reading.pop(handle, None)
        self._writing.pop(handle, None)
        with contextlib.suppress(OSError):
            connection.socket.close()
