"""One load sent by several processes: each takes every n-th request, on its own connections, and their records become one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.load.connection import SYSTEM, Trust
from headway.load.generator import RawLoad
from headway.load.http import run_http
from headway.records import ConfigError, HeadwayError, MeasurementError

START_S = 60.0
"""Longest time for the processes to start [s]."""
SLACK_S = 60.0
MOST = 16


def run_http_by(
    senders: int, url: str, bodies: Sequence[bytes], headers: Sequence[Mapping[str, str]], due_s: NDArray[np.float64],
    *, drain_s: float, most_connections: int, spin: bool = False, trust: Trust = SYSTEM,
) -> RawLoad:  # fmt: skip
    """``run_http`` by ``senders`` processes that start together, within about a millisecond of each other.

    Raises:
        ConfigError: fewer than one sender, or more than make sense.
        MeasurementError: nothing listens there, or a process could not run.
    """
    if not 1 <= senders <= MOST:
        raise ConfigError(f"--senders must be auto or between 1 and {MOST}, got {senders}")
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(senders)
    processes, ends = [], []
    for place in range(senders):
        here, there = context.Pipe()
        part = {
            "url": url, "bodies": [bodies[(place + turn * senders) % len(bodies)] for turn in range(len(bodies))],
            "headers": [headers[(place + turn * senders) % len(headers)] for turn in range(len(headers))], "due_s": due_s[place::senders],
            "drain_s": drain_s, "most_connections": max(1, most_connections // senders), "spin": spin, "trust": trust,
        }  # fmt: skip
        processes.append(context.Process(target=_send, args=(there, together, part), daemon=True))
        ends.append(here)
    try:
        for process in processes:
            process.start()
        limit_s = START_S + (float(due_s[-1]) if len(due_s) else 0.0) + drain_s + SLACK_S
        return merged([_heard(end, limit_s) for end in ends], len(due_s))
    finally:
        for process in processes:
            process.terminate()
            process.join()


def merged(parts: Sequence[RawLoad], count: int) -> RawLoad:
    """The record of all requests, those of sender k being k, k + n, k + 2 n and so on."""
    senders = len(parts)

    def woven(name: str) -> NDArray[Any]:
        whole = np.empty(count, dtype=getattr(parts[0], name).dtype)
        for place, part in enumerate(parts):
            whole[place::senders] = getattr(part, name)
        return whole

    return RawLoad(woven("due_s"), woven("sent_s"), woven("done_s"), woven("status"), max(part.end_s for part in parts))


def _heard(end: Connection, limit_s: float) -> RawLoad:
    try:
        told = end.recv() if end.poll(limit_s) else None
    except EOFError:
        told = None
    if isinstance(told, RawLoad):
        return told
    raise MeasurementError(str(told) if told else "a sender ended without a record; use --senders 1 to see why")


def _send(end: Connection, together: Any, part: dict[str, Any]) -> None:
    """In a process of its own: wait for the others, send, and give the record back, or the words of what went wrong."""
    try:
        together.wait(START_S)
        raw: RawLoad | str = run_http(**part)
    except (HeadwayError, OSError, RuntimeError) as error:
        raw = str(error)
    end.send(raw)
    end.close()
