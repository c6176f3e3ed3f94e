"""One request of an HTTP connection, and what a connection needs from the server behind it. No sockets."""

from __future__ import annotations

import time
from typing import Protocol

from headway.serve.answer import Answer
from headway.serve.limits import Limits
from headway.serve.refusal import Refusal


class Client(Protocol):
    """The connection that a request came on."""

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        """Give a request its answer."""

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Give a request a refusal as its answer."""

    def hold(self, exchange: Exchange, size: int) -> None:
        """Count more memory to a request, until its answer."""

    def check(self, now_s: float) -> None:
        """End what has taken too long."""

    def leave(self) -> None:
        """Answer what is open, then end the connection."""


class Exchange:
    """One request and its answer to come.

    Attributes:
        target: model and version that it asks for; empty where it asks for none.
        coding: how the client wants the answer compressed, if it does.
    """

    __slots__ = ("answer", "arrived_s", "body_bytes", "bodyless", "coding", "connection", "keep_alive", "target")

    def __init__(self, connection: Client, keep_alive: bool, body_bytes: int, bodyless: bool) -> None:
        self.connection = connection
        self.keep_alive = keep_alive
        self.body_bytes = body_bytes
        self.bodyless = bodyless
        self.target = ("", "")
        self.coding: str | None = None
        self.arrived_s = time.perf_counter()
        self.answer: Answer | None = None

    def finish(self, answer: Answer) -> None:
        """Give the request its answer."""
        self.connection.finish(self, answer)


class Front(Protocol):
    """What a connection needs from the server behind it."""

    limits: Limits
    draining: bool
    buffered_bytes: int
    connections: set[Client]

    def admit(self, method: bytes, url: bytes, headers: dict[bytes, bytes]) -> Refusal | None:
        """Why a request is refused before its body is read, if it is."""

    def handle(self, exchange: Exchange, method: bytes, url: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        """Take a whole request; its answer is given to ``exchange.connection.finish``, now or later."""

    def answered(self, exchange: Exchange, status: int, reason: str) -> None:
        """Told of every answer that a connection gives by itself."""
