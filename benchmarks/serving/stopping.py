"""SIGTERM with 32 requests always in flight: what is lost or wrong, what stays behind, when the port is free."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

import models
from client import Checked, Flight, fly
from job import Job
from lines import Lines
from running import Running, port_is_free, running
from servers import SERVERS, versions

IN_FLIGHT = 32
BEFORE_S, STAY_S, PATIENCE_S = 2.0, 5.0, 15.0
"""Load before the signal; how long clients go on after it; how long the end is waited for [s]."""
PATIENT_S = 1.0
"""The bound that Headway is told, so that it refuses nobody before the signal [s]."""
AFTER_REFUSAL_S = 0.001
"""A client that is refused waits so long before it asks again."""


def measure(lines: Lines, job: Job) -> None:
    """One line a server and round."""
    for turn in range(job.rounds):
        for name in job.servers(SERVERS):
            if job.over:
                return
            try:
                with running(name, job.model, PATIENT_S) as held:
                    line = {**terminate(held, 0.5 if job.quick else BEFORE_S), "versions": versions(held.server)}
                line["orphans"] = held.orphans
            except (RuntimeError, OSError) as error:
                line = {"reason": str(error)[-300:]}
            lines.add({"stage": "stop", "model": job.model, "server": name, "round": turn, **line, "environment": job.environment})
            job.say(f"round {turn} {job.model} {name}: {line}")


def checked(held: Running) -> Checked:
    """Compares each answer with its own row's."""
    wanted, read = models.expected(held.model), held.server.wire.read

    def check(row: int, headers: Mapping[str, str], body: bytes) -> str:
        try:
            return "right" if models.right(read(headers, body), wanted[row]) else "wrong"
        except (ValueError, KeyError, TypeError):
            return "wrong"

    return check


def terminate(held: Running, before_s: float) -> dict[str, Any]:
    """Keep requests in flight, send SIGTERM in the middle, go on until it has ended or patience is over."""
    told = Ending(held, before_s)
    told.start()
    bodies, headers = held.requests()
    flight = fly(
        held.port, held.path, bodies, headers, checked(held), in_flight=IN_FLIGHT, over=told.over.is_set, pause_s=AFTER_REFUSAL_S,
    )  # fmt: skip
    told.join()
    return {"in_flight": IN_FLIGHT, **words(flight), **told.found}


def words(flight: Flight) -> dict[str, Any]:
    """Counts by outcome; what is not named is in ``other``."""
    named = {name: flight.words[name] for name in ("right", "wrong", "refused", "lost", "dropped")}
    other = {word: count for word, count in flight.words.items() if word not in (*named, "closed")}
    return {**named, "other": other, "examples": flight.examples, "slowest_s": round(flight.slowest_s, 4)}


class Ending(threading.Thread):
    """Sends SIGTERM after a while and watches the end.

    Attributes:
        over: set when the server has ended, or clients have stayed long enough.
    """

    def __init__(self, held: Running, before_s: float) -> None:
        super().__init__(daemon=True)
        self._held, self._before_s = held, before_s
        self.over = threading.Event()
        self.found: dict[str, Any] = {}

    def run(self) -> None:
        """Signal, wait for the exit, then for the port."""
        time.sleep(self._before_s)
        held, began = self._held, time.perf_counter()
        held.process.send_signal(signal.SIGTERM)
        for wait_s in (STAY_S, PATIENCE_S - STAY_S):
            with contextlib.suppress(subprocess.TimeoutExpired):
                held.process.wait(wait_s)
            self.over.set()
        ended = held.process.poll() is not None
        self.found = {"exit_s": round(time.perf_counter() - began, 3) if ended else None, "exit_code": held.process.returncode}
        time.sleep(0.5)
        self.found["left_processes"] = len([process for process in held.family() if process.pid != held.process.pid])
        while not (free := port_is_free(held.port)) and time.perf_counter() - began < PATIENCE_S:
            time.sleep(0.05)
        self.found["port_free_s"] = round(time.perf_counter() - began, 3) if free else None
