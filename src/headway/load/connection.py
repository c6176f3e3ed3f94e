"""One keep-alive HTTP/1.1 connection, plain or over TLS: a request out, its answer in. It knows bytes and the parser; no times."""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import httptools

from headway.records import ConfigError

READ_BYTES = 1 << 18
READ, BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Address = tuple[socket.AddressFamily, tuple[object, ...]]
"""An address family and what ``socket.connect`` takes in it."""


class Trust(NamedTuple):
    """Which servers are believed over TLS.

    Attributes:
        ca: file of certificates in PEM form that are believed; empty: those of the system.
        insecure: believe any server, whatever its certificate says.
    """

    ca: str = ""
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """The settings of TLS that follow.

        Raises:
            ConfigError: the file cannot be read, or holds no certificates.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise ConfigError(f"--ca must be a file of certificates in PEM form, got {self.ca!r}: {error}") from error
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


SYSTEM = Trust()
"""The certificates of the system are believed."""


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
        wants: events of the socket without which it cannot go on; TLS may have to read before it can write.
    """

    __slots__ = ("_greeted", "_read", "_unsent", "number", "secure", "since_s", "socket", "wants")

    def __init__(self, opened: socket.socket, *, whole: bool, greeted: bool) -> None:
        self.socket = opened
        self.secure = isinstance(opened, ssl.SSLSocket)
        self.number = -1
        self.since_s = 0.0
        self.wants = READ if greeted else BOTH
        self._greeted = greeted or not self.secure
        self._unsent: list[memoryview] = []
        self._read = _Whole() if whole else _Ending()

    def load(self, number: int, parts: Sequence[memoryview]) -> None:
        """Put a request on the connection; ``send`` and ``receive`` do the rest."""
        self.number = number
        self._unsent = [memoryview(b"".join(parts))] if self.secure else list(parts)
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
        try:
            if not self._greeted and isinstance(self.socket, ssl.SSLSocket):
                self.socket.do_handshake()
                self._greeted = True
            while self._unsent:
                count = self.socket.send(self._unsent[0]) if self.secure else self.socket.sendmsg(self._unsent)
                while self._unsent and count >= len(self._unsent[0]):
                    count -= len(self._unsent.pop(0))
                if self._unsent and count:
                    self._unsent[0] = self._unsent[0][count:]
        except _LATER as later:
            self.wants = READ if isinstance(later, ssl.SSLWantReadError) else BOTH
            return False
        self.wants = READ
        return True

    def receive(self) -> bool:
        """Take what has arrived; true when the answer is whole.

        Raises:
            OSError: the connection ended or broke, or what came is not HTTP.
        """
        if not self._greeted:
            return False
        try:
            self._take(self.socket.recv(READ_BYTES))
            while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():  # read from the socket, so that it will not wake us
                self._take(self.socket.recv(READ_BYTES))
        except _LATER:
            return False
        return self._read.ended

    def _take(self, data: bytes) -> None:
        if not data:
            raise ConnectionResetError("the server closed the connection")
        if self.number < 0:
            raise ConnectionResetError("the server spoke without being asked")
        try:
            self._read.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ConnectionResetError(f"the answer is not HTTP/1.1: {error}") from error

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
            self.socket.recv(1, 0 if self.secure else socket.MSG_PEEK)
        except _LATER:
            return False
        except OSError:
            return True
        return True
