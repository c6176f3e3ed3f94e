"""One keep-alive HTTP/1.1 connection: a request out, its answer in. It knows bytes and the parser; no times, no arrivals."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

import httptools

READ_BYTES = 1 << 18

Address = tuple[socket.AddressFamily, tuple[object, ...]]
"""An address family and what ``socket.connect`` takes in it."""


class Answer(NamedTuple):
    """One whole answer; header names are in lower case."""

    number: int
    status: int
    headers: dict[str, str]
    body: bytes


class _Ending:
    """Notes the end of an answer and nothing else: the parser does not even call back for headers and body."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.ended = False
        self.keep_alive = False
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    def on_message_complete(self) -> None:
        """The answer is whole; only at this moment does the parser know whether the connection may be kept."""
        self.ended = True
        self.keep_alive = self.parser.should_keep_alive()


class _Whole:
    """Keeps headers and body of an answer too."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.ended = False
        self.keep_alive = False
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """The answer is whole; only at this moment does the parser know whether the connection may be kept."""
        self.ended = True
        self.keep_alive = self.parser.should_keep_alive()


class Connection:
    """A non-blocking socket, the request on it, and the parser of its answers, one after the other.

    Attributes:
        number: the request on it, or -1 when idle.
        since_s: when that request was put on it, or the last one ended [s].
    """

    __slots__ = ("_read", "_unsent", "number", "since_s", "socket")

    def __init__(self, opened: socket.socket, *, whole: bool) -> None:
        self.socket = opened
        self.number = -1
        self.since_s = 0.0
        self._unsent: list[memoryview] = []
        self._read = _Whole() if whole else _Ending()

    def load(self, number: int, parts: Sequence[memoryview]) -> None:
        """Put a request on the connection; ``send`` and ``receive`` do the rest."""
        self.number = number
        self._unsent = list(parts)
        self._read.ended = False
        self._read.headers, self._read.body = {}, bytearray()

    @property
    def sending(self) -> bool:
        """Whether bytes of the request are still here."""
        return bool(self._unsent)

    def send(self) -> bool:
        """Send as much as the socket takes, head and body in one call; true when all of it is out.

        Raises:
            OSError: the connection is broken.
        """
        while self._unsent:
            try:
                count = self.socket.sendmsg(self._unsent)
            except BlockingIOError:
                return False
            while self._unsent and count >= len(self._unsent[0]):
                count -= len(self._unsent.pop(0))
            if self._unsent and count:
                self._unsent[0] = self._unsent[0][count:]
        return True

    def receive(self) -> bool:
        """Take what has arrived; true when the answer is whole.

        Raises:
            OSError: the connection ended or broke, or what came is not HTTP.
        """
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError("the server closed the connection")
        if self.number < 0:
            raise ConnectionResetError("the server spoke without being asked")
        try:
            self._read.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ConnectionResetError(f"the answer is not HTTP/1.1: {error}") from error
        return self._read.ended

    @property
    def status(self) -> int:
        """Status of the answer."""
        return int(self._read.parser.get_status_code())

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on it."""
        return self._read.keep_alive and not self._unsent

    def answer(self) -> Answer:
        """The whole answer."""
        return Answer(self.number, self.status, self._read.headers, bytes(self._read.body))

    def dead(self) -> bool:
        """Whether an idle connection was closed by the server, or has something unasked in it."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
