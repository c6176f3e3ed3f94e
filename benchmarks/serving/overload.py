"""Five times the capacity for a minute: what is still answered in time, how fast the rest is refused, memory, and how soon all is well again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from capacity import STEP, Search
from job import Job
from lines import Line, Lines
from offered import over_http
from running import Running, running
from servers import SERVERS, versions

from headway.load import RawLoad, arrival_times, run_http

BOUND_S = 0.02
BEFORE_S, OVER_S, AFTER_S = 5.0, 60.0, 5.0
CALM, TIMES = 0.7, 5.0
DEFAULT = ("headway-binary", "triton-binary", "mosec", "fastapi-batcher")
CONNECTIONS = 256
SAMPLE_S = 2.0


def measure(lines: Lines, job: Job) -> None:
    """One line a server and round."""
    for turn in range(job.rounds):
        for name in job.servers(DEFAULT if not job.only else SERVERS):
            if job.over:
                return
            line = one(name, job, turn)
            lines.add(
                {
                    "stage": "overload",
                    "model": job.model,
                    "server": name,
                    "round": turn,
                    "bound_s": BOUND_S,
                    "pinned": job.pinned,
                    **line,
                    "environment": job.environment,
                }
            )
            job.say(f"round {turn} {job.model} {name}: {line.get('reason') or summary(line)}")


def summary(line: Line) -> str:
    """One run in words."""
    return (
        f"goodput {line['goodput_per_s']:.0f}/s of {line['capacity_per_s']:.0f}/s, refused within {line['refusal_p99_s']} s, "
        f"well again after {line['recovered_s']} s, memory {line['resident_before_bytes']} to {line['resident_after_bytes']} B"
    )


def one(name: str, job: Job, turn: int) -> dict[str, Any]:
    """A fresh capacity, then the overload, in the same server."""
    try:
        with running(name, job.model, BOUND_S, pinned=job.pinned) as held:
            target = over_http(held, spin=job.pinned)
            found = Search(SERVERS[name].guess[job.model], STEP, turn, job.quick).all(target, (BOUND_S,))[0]["low_per_s"]
            if not found:
                return {"reason": "it held no rate within the bound"}
            target.settled()
            return {
                "capacity_per_s": found,
                **offer(held, found, (1.0, 3.0, 2.0) if job.quick else (BEFORE_S, OVER_S, AFTER_S), turn, job.pinned),
            }
    except (RuntimeError, OSError) as error:
        return {"reason": str(error)[-300:]}


def offer(held: Running, found: float, spans_s: Sequence[float], seed: int, spin: bool) -> dict[str, Any]:
    """One run of three parts: below capacity, far above it, below it again."""
    rates, starts_s = (CALM * found, TIMES * found, CALM * found), np.cumsum([0.0, *spans_s])
    parts = [arrival_times("poisson", rate, span, seed + part) for part, (rate, span) in enumerate(zip(rates, spans_s, strict=True))]
    due_s = np.concatenate([part + start for part, start in zip(parts, starts_s[:3], strict=True)])
    bodies, headers = held.requests()
    memory = Memory(held)
    raw = run_http(held.url, bodies, headers, due_s, drain_s=5.0, most_connections=CONNECTIONS, spin=spin)
    return {**fold(raw, starts_s), **memory.end(starts_s), "versions": versions(held.server)}


class Memory:
    """Resident memory of a server, looked at every two seconds from a thread of its own."""

    def __init__(self, held: Running) -> None:
        self._held, self._over = held, threading.Event()
        self._began_s, self._seen = time.perf_counter(), [(0.0, held.resident_bytes())]
        self._family = held.family()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self, starts_s: np.ndarray) -> dict[str, int]:
        """Bytes just before the overload, the most during it, and at the end."""
        self._over.set()
        self._thread.join()
        self._seen.append((time.perf_counter() - self._began_s, self._held.resident_bytes()))
        before = [held for at_s, held in self._seen if at_s <= starts_s[1]]
        during = [held for at_s, held in self._seen if starts_s[1] < at_s <= starts_s[2]]
        told = {
            "resident_before_bytes": before[-1],
            "resident_most_bytes": max(during or before),
            "resident_after_bytes": self._seen[-1][1],
        }
        half = [held for at_s, held in self._seen if starts_s[1] < at_s <= (starts_s[1] + starts_s[2]) / 2]
        return {**told, "resident_halfway_bytes": half[-1] if half else before[-1]}

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._seen.append(
                (time.perf_counter() - self._began_s, sum(member.memory_info().rss for member in self._family if member.is_running()))
            )


def fold(raw: RawLoad, starts_s: np.ndarray) -> dict[str, Any]:
    """Figures of the overload's part, and when all was well again after it."""
    over, span_s = (raw.due_s >= starts_s[1]) & (raw.due_s < starts_s[2]), starts_s[2] - starts_s[1]
    ok, refused = over & (raw.status == 0), over & (raw.status == 1)
    good = (raw.status == 0) & (raw.done_s - raw.due_s <= BOUND_S)
    after = raw.due_s >= starts_s[2]
    found = {
        "duration_s": span_s, "offered_per_s": np.count_nonzero(over) / span_s, "goodput_per_s": np.count_nonzero(over & good) / span_s,
        "answered_per_s": np.count_nonzero(ok) / span_s, "refused_share": np.count_nonzero(refused) / max(1, np.count_nonzero(over)),
        "failed": np.count_nonzero(over) - np.count_nonzero(ok) - np.count_nonzero(refused),
        "refusal_p99_s": tail(raw.done_s[refused] - raw.due_s[refused]), "refusal_from_sending_p99_s": tail(raw.done_s[refused] - raw.sent_s[refused]),
        "lateness_p99_s": tail(raw.sent_s[over] - raw.due_s[over]), "recovered_s": recovered(raw.due_s[after] - starts_s[2], good[after]),
    }  # fmt: skip
    return {name: None if value is None else float(f"{value:.4g}") for name, value in found.items()}


def tail(times_s: np.ndarray) -> float | None:
    """The 99th percentile; none of nothing [s]."""
    return float(np.quantile(times_s, 0.99)) if len(times_s) else None


def recovered(due_s: np.ndarray, good: np.ndarray) -> float | None:
    """The first moment such that 99% of what was due from it on was answered in time; none when there is no such moment [s]."""
    share = np.cumsum(good[::-1])[::-1] / np.arange(len(good), 0, -1)
    well = np.flatnonzero(share >= 0.99)
    return None if not len(well) else 0.0 if well[0] == 0 else float(due_s[well[0]])
