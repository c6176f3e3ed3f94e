"""Two small closed-loop clients: one request at a time with little cost of its own, and many always in flight with every answer checked."""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httptools

READ_BYTES = 1 << 16
TIMEOUT_S = 20.0

Checked = Callable[[int, Mapping[str, str], bytes], str]
"""What an answer 200 to a row is: ``right`` (or a finer word), or ``wrong``; from the row's place, headers and body."""


def request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """One POST, ready to send."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class _Reader:
    """One answer after the other out of a stream of bytes."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Forget the last answer."""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.whole = False
        self.kept = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.whole = True
        self.kept = self.parser.should_keep_alive()


class Client:
    """One keep-alive connection that asks and waits."""

    def __init__(self, port: int, path: str) -> None:
        self._path = path
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _Reader()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, body: bytes, headers: Mapping[str, str], path: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer.

        Raises:
            OSError: the connection ended or stayed silent for 20 s.
        """
        return self.send(request(path or self._path, body, headers))

    def send(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """The same for a request that is ready."""
        reader = self._reader
        reader.begin()
        self._socket.sendall(data)
        while not reader.whole:
            got = self._socket.recv(READ_BYTES)
            if not got:
                raise ConnectionError("the connection ended before the answer")
            reader.parser.feed_data(got)
        return reader.parser.get_status_code(), reader.headers, reader.body


@dataclass
class Flight:
    """What became of requests of which a fixed number were always in flight.

    Attributes:
        words: how often each of: what ``Checked`` says, ``refused`` (429, 503), ``status NNN``, ``lost`` (sent, and the connection ended or
            stayed silent without a whole answer), ``dropped`` (the same for one sent when the server had begun
            to refuse, so that it cannot have been accepted), ``closed`` (no connection could be
            had any more).
        examples: a few bodies of answers that were neither right nor refused.
        slowest_s: longest time to an answer [s].
    """

    words: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class _Lane:
    """One connection of a flight."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 2.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = _Reader()
        self.row = 0
        self.sent_s = 0.0


def fly(
    port: int, path: str, bodies: Sequence[bytes], headers: Sequence[Mapping[str, str]], check: Checked, *, in_flight: int,
    over: Callable[[], bool], pause_s: float = 0.0,
) -> Flight:  # fmt: skip
    """Keep ``in_flight`` requests open until ``over()``, or until no connection can be had; then wait for the last answers.

    Args:
        pause_s: what a client that was refused waits before it asks again [s].
    """
    pilot = _Pilot(port, [request(path, body, own) for body, own in zip(bodies, headers, strict=True)], check, pause_s)
    for _ in range(in_flight):
        pilot.open()
    while pilot.lanes and not over():
        pilot.turn(0.02)
    pilot.landing = True
    end_s = time.perf_counter() + TIMEOUT_S
    while pilot.lanes and time.perf_counter() < end_s:
        pilot.turn(0.1)
    for lane in tuple(pilot.lanes):
        pilot.lose(lane)
    return pilot.flight


class _Pilot:
    def __init__(self, port: int, requests: Sequence[bytes], check: Checked, pause_s: float) -> None:
        self._port, self._requests, self._check, self._pause_s = port, requests, check, pause_s
        self._refusing_s = math.inf
        self._selector = selectors.DefaultSelector()
        self._number = 0
        self.flight = Flight()
        self.lanes: set[_Lane] = set()
        self.landing = False

    def open(self) -> None:
        """One more connection with a request on it; noted as ``closed`` when there is none to be had."""
        try:
            lane = _Lane(self._port)
        except OSError:
            self.flight.words["closed"] += 1
            return
        self.lanes.add(lane)
        self._selector.register(lane.socket, selectors.EVENT_READ, lane)
        self._send(lane)

    def turn(self, wait_s: float) -> None:
        """Take what has arrived."""
        for key, _ in self._selector.select(wait_s):
            self._read(key.data)

    def lose(self, lane: _Lane) -> None:
        """End a connection that left its request without an answer."""
        self.flight.words["lost" if lane.sent_s < self._refusing_s else "dropped"] += 1
        self.close(lane)

    def close(self, lane: _Lane) -> None:
        """End a connection."""
        self._selector.unregister(lane.socket)
        lane.socket.close()
        self.lanes.discard(lane)

    def _send(self, lane: _Lane) -> None:
        lane.row = self._number % len(self._requests)
        self._number += 1
        lane.reader.begin()
        lane.sent_s = time.perf_counter()
        try:
            lane.socket.sendall(self._requests[lane.row])
        except OSError:
            self.lose(lane)
            self.open()

    def _read(self, lane: _Lane) -> None:
        try:
            data = lane.socket.recv(READ_BYTES)
            if data:
                lane.reader.parser.feed_data(data)
        except (OSError, httptools.HttpParserError):
            data = b""
        if lane.reader.whole:
            self._judge(lane)
            if self.landing or not data or not lane.reader.kept:
                self.close(lane)
                if not self.landing:
                    self.open()
            else:
                self._send(lane)
        elif not data:
            self.lose(lane)
            if not self.landing:
                self.open()

    def _judge(self, lane: _Lane) -> None:
        self.flight.slowest_s = max(self.flight.slowest_s, time.perf_counter() - lane.sent_s)
        status = lane.reader.parser.get_status_code()
        if status in (429, 503):
            word = "refused"
            self._refusing_s = min(self._refusing_s, time.perf_counter())
            time.sleep(self._pause_s)
        elif status == 200:
            word = self._check(lane.row, lane.reader.headers, lane.reader.body)
        else:
            word = f"status {status}"
        if (word == "wrong" or word.startswith("status")) and len(self.flight.examples) < 5:
            self.flight.examples.append(lane.reader.body[:200].decode(errors="replace"))
        self.flight.words[word] += 1
