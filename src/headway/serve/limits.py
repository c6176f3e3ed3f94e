"""What one client may ask of the server: sizes, counts and times. Numbers only; who keeps to them is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that every connection is held to.

    Attributes:
        connections: open at the same time; one more is answered 503 and closed.
        pipelined: requests of one connection that may wait for their answers before reading pauses.
        head_bytes: request line and headers together [B]; beyond it 431.
        body_bytes: one body [B]; beyond it 413.
        json_bytes: the JSON part of a body [B]; smaller than ``body_bytes`` because parsed JSON takes many times its size in memory.
        buffered_bytes: bodies of all requests not yet answered [B]; beyond it 503.
        elements: elements of one tensor, checked before any memory is taken for it.
        head_timeout_s: from the first byte of a request to the end of its headers [s]; beyond it 408.
        body_timeout_s: from the first byte of a request to the last of its body [s]; beyond it 408.
        idle_timeout_s: silence between requests before a connection is closed [s].
        write_timeout_s: how long a client may leave its answers unread [s].
        drain_s: how long accepted requests may take after a stop was asked for [s].
    """

    connections: int = 2048
    pipelined: int = 32
    head_bytes: int = 16 * 2**10
    body_bytes: int = 64 * 2**20
    json_bytes: int = 4 * 2**20
    buffered_bytes: int = 2**30
    elements: int = 2**26
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    drain_s: float = 8.0
