"""The open-loop sender over HTTP/1.1 and TLS: keep-alive connections, as many as it takes so that no request waits for one to come free.

One thread with one loop of its own. It sleeps in ``select`` on the one handle that stands for all sockets, because that wakes within
a tenth of a millisecond; event loops that sleep in epoll, uvloop included, round due times to whole milliseconds. It does not spin unless
it is told to, so the processor belongs to the server. Bytes go out as they are given; answers are parsed by httptools and judged by their status alone.
"""

from __future__ import annotations

import errno
import select
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from headway.load.connection import SYSTEM, Address, Answer, Connection, Trust
from headway.load.generator import Completion, RawLoad, short_collections
from headway.load.live import Live, watched
from headway.records import ConfigError, MeasurementError

MOST_CONNECTIONS = 256
FIRST_CONNECTIONS = 16
CONNECT_S = 5.0
DOUBTED_AFTER_S = 0.5
"""An idle connection this old is looked at before it is used: servers close those they think forgotten [s]."""
_BUSY = (429, 503)
_OUR_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
"""Reasons for which this machine opens no further connection: the sender's limit, not the server's failure."""
_UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK}
_PORTS = {"http": 80, "https": 443}


def run_http(
    url: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str] | Sequence[Mapping[str, str]],
    due_s: NDArray[np.float64],
    *,
    drain_s: float = 5.0,
    timeout_s: float = 30.0,
    most_connections: int = MOST_CONNECTIONS,
    on_answer: Callable[[Answer], None] | None = None,
    spin: bool = False,
    trust: Trust = SYSTEM,
    live: Live | None = None,
) -> RawLoad:
    """POST request i, with body i modulo their number, when it is due; answers 2xx are ok, 429 and 503 refused, all else failed.

    A connection that breaks, or is not accepted, fails the request on it and nothing else. Opening a further connection counts into the
    latency of the request that needed it, as for a new client. A request is never sent twice.

    Args:
        url: ``http://HOST:PORT/PATH``, or ``https``.
        headers: of every request, or one mapping for each body.
        drain_s: how long to wait for the last answers after the last request was due; what is missing then is lost [s].
        timeout_s: a request without an answer after this long has failed, and its connection is closed [s].
        most_connections: requests beyond this many in flight wait for a connection; the wait counts into their latency, not as lateness of
            the sender: a target with so many requests open is behind.
        on_answer: called with every whole answer, between sends; what it takes makes the sender late.
        spin: never sleep, so that no interrupt has to wake this process; takes a whole core.
        trust: which servers are believed over TLS.
        live: is told how the run goes.

    Raises:
        ConfigError: not an http or https URL, no bodies, or headers that do not match them.
        MeasurementError: nothing listens there when the run starts, or TLS does not come about.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(f"load goes to an http:// or https:// URL, got {url!r}")
    every = [headers] * len(bodies) if isinstance(headers, Mapping) else list(headers)
    if not bodies or len(every) != len(bodies):
        raise ConfigError(f"load needs at least one body and headers for each, got {len(bodies)} bodies and {len(every)} headers")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    requests = []
    for own, body in zip(every, bodies, strict=True):
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            *(f"{k}: {v}" for k, v in own.items()),
            f"Content-Length: {len(body)}",
        ]
        requests.append([memoryview(part) for part in ("\r\n".join([*lines, "", ""]).encode("latin-1"), body) if part])
    tls = trust.context() if parts.scheme == "https" else None
    place = (parts.hostname, parts.port or _PORTS[parts.scheme])
    sender = _Sender(place, requests, most_connections, timeout_s, on_answer, tls=tls, spin=spin)
    return sender.run(due_s, drain_s, live)


class _Sender:
    def __init__(
        self,
        place: tuple[str, int],
        requests: Sequence[Sequence[memoryview]],
        most: int,
        timeout_s: float,
        on_answer: Callable[[Answer], None] | None,
        *,
        tls: ssl.SSLContext | None,
        spin: bool,
    ) -> None:
        self._place, self._requests = place, requests
        self._most, self._timeout_s, self._on_answer = max(1, most), timeout_s, on_answer
        self._tls, self._spin = tls, spin
        self._selector = selectors.DefaultSelector()
        self._address: Address = (socket.AF_INET, place)
        self._idle: list[Connection] = []
        self._open = 0
        self._busy = 0
        self._unsent: deque[int] = deque()
        self._expiries: deque[tuple[float, Connection, int]] = deque()

    def run(self, due_s: NDArray[np.float64], drain_s: float, live: Live | None) -> RawLoad:
        completion = Completion(len(due_s))
        sent_s = np.zeros(len(due_s))
        try:
            self._open_first(min(FIRST_CONNECTIONS, self._most, max(1, len(due_s))))
            with short_collections():
                self._start_s = completion.begin()
                with watched(live, due_s, sent_s, completion):
                    self._loop(due_s.tolist(), sent_s, completion, drain_s)
        finally:
            for key in list(self._selector.get_map().values()):
                key.data.socket.close()
            self._selector.close()
        return completion.raw(due_s, sent_s)

    def _now_s(self) -> float:
        return time.perf_counter() - self._start_s

    def _loop(self, due_s: list[float], sent_s: NDArray[np.float64], completion: Completion, drain_s: float) -> None:
        number, count = 0, len(due_s)
        deadline_s = (due_s[-1] if due_s else 0.0) + drain_s
        ready: deque[tuple[Connection, int]] = deque()
        while True:
            now_s = self._now_s()
            while number < count and due_s[number] <= now_s:
                sent_s[number] = now_s
                self._unsent.append(number)
                number += 1
            while self._unsent and self._dispatch(self._unsent[0], completion):
                self._unsent.popleft()
            self._expire(now_s, completion)
            if now_s > deadline_s or not (number < count or self._busy or self._unsent):
                break
            if not ready:
                next_s = min(due_s[number] if number < count else deadline_s, self._expiries[0][0] if self._expiries else deadline_s)
                ready.extend(self._wait(next_s))
            if ready:  # one at a time, so that a crowd of answers does not hold up a request that is due
                self._serve(*ready.popleft(), completion)
        sent_s[number:] = self._now_s()

    def _wait(self, until_s: float) -> list[tuple[Connection, int]]:
        """Sockets that are ready, by ``until_s`` at the latest."""
        if not self._spin and not select.select([self._selector], [], [], max(0.0, until_s - self._now_s()))[0]:
            return []
        return [(key.data, events) for key, events in self._selector.select(0)]

    def _serve(self, connection: Connection, events: int, completion: Completion) -> None:
        if connection.socket.fileno() < 0:
            return  # closed since it was reported
        try:
            if connection.sending and (connection.secure or events & selectors.EVENT_WRITE):
                self._send(connection, completion)
            if events & selectors.EVENT_READ and connection.socket.fileno() >= 0 and connection.receive():
                self._answered(connection, completion)
        except OSError:
            self._broken(connection, completion)

    def _dispatch(self, number: int, completion: Completion) -> bool:
        """Put a request on a connection; false when as many as may be open are busy."""
        while self._idle:
            connection = self._idle.pop()
            if self._now_s() - connection.since_s > DOUBTED_AFTER_S and connection.dead():
                self._close(connection)
                continue
            self._load(connection, number)
            self._send(connection, completion)
            return True
        if self._open >= self._most:
            return False
        connection_or_reason = self._connect()
        if isinstance(connection_or_reason, Connection):
            self._load(connection_or_reason, number)
            return True
        if connection_or_reason in _OUR_LIMITS and self._open:
            return False
        completion.failed(number)
        return True

    def _load(self, connection: Connection, number: int) -> None:
        connection.load(number, self._requests[number % len(self._requests)])
        connection.since_s = self._now_s()
        self._busy += 1
        self._expiries.append((connection.since_s + self._timeout_s, connection, number))

    def _send(self, connection: Connection, completion: Completion) -> None:
        before = connection.wants
        try:
            connection.send()
        except OSError:
            try:
                whole = connection.receive()  # a server may refuse a body that it has not read, and close
            except OSError:
                whole = False
            if whole:
                self._answered(connection, completion)
            else:
                self._broken(connection, completion)
            return
        if connection.wants != before:
            self._selector.modify(connection.socket, connection.wants, connection)

    def _answered(self, connection: Connection, completion: Completion) -> None:
        status, number = connection.status, connection.number
        if 200 <= status < 300:
            completion.ok(number)
        elif status in _BUSY:
            completion.refused(number)
        else:
            completion.failed(number)
        answer = connection.answer() if self._on_answer is not None else None
        self._busy -= 1
        connection.number = -1
        connection.since_s = self._now_s()
        if connection.reusable:
            self._idle.append(connection)
        else:
            self._close(connection)
        if answer is not None and self._on_answer is not None:
            self._on_answer(answer)

    def _broken(self, connection: Connection, completion: Completion) -> None:
        if connection.number >= 0:
            completion.failed(connection.number)
            self._busy -= 1
            connection.number = -1
        else:
            self._idle.remove(connection)
        self._close(connection)

    def _expire(self, now_s: float, completion: Completion) -> None:
        while self._expiries and (self._expiries[0][0] <= now_s or self._expiries[0][1].number != self._expiries[0][2]):
            _, connection, number = self._expiries.popleft()
            if connection.number == number:
                self._broken(connection, completion)

    def _close(self, connection: Connection) -> None:
        self._open -= 1
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _connect(self) -> Connection | int:
        """A connection on its way, or the reason why there is none (``errno``). Whether it arrives shows when it becomes writable."""
        try:
            opened = self._socket()
        except OSError as error:
            return error.errno or -1
        opened.setblocking(False)
        reason = opened.connect_ex(self._address[1])
        if reason not in _UNDER_WAY:
            opened.close()
            return reason
        return self._adopt(opened, greeted=False)

    def _socket(self) -> socket.socket:
        plain = socket.socket(self._address[0], socket.SOCK_STREAM)
        if self._tls is None:
            return plain
        return self._tls.wrap_socket(plain, do_handshake_on_connect=False, server_hostname=self._place[0])

    def _adopt(self, opened: socket.socket, *, greeted: bool) -> Connection:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(opened, whole=self._on_answer is not None, greeted=greeted)
        self._selector.register(opened, connection.wants, connection)
        self._open += 1
        return connection

    def _open_first(self, count: int) -> None:
        """Open connections before the clock starts, and learn which of the host's addresses answers."""
        host, port = self._place
        failure: OSError | None = None
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            addresses, failure = [], error
        for family, _, _, _, place in addresses:
            self._address = (family, place)
            try:
                while self._open < count:
                    self._idle.append(self._adopt(self._connected(), greeted=True))
            except OSError as error:
                failure = error
            if self._idle:
                return
        reason = failure.strerror or str(failure) if failure else "no address"
        if isinstance(failure, ssl.SSLError):
            raise MeasurementError(
                f"TLS with {host}:{port} must come about, got: {reason}; name the right --ca FILE, or accept any certificate with --insecure"
            )
        raise MeasurementError(f"a server must listen at {host}:{port}, got: {reason}; start it first")

    def _connected(self) -> socket.socket:
        opened = self._socket()
        try:
            opened.settimeout(CONNECT_S)
            opened.connect(self._address[1])
            if isinstance(opened, ssl.SSLSocket):
                opened.do_handshake()
        except OSError:
            opened.close()
            raise
        return opened
