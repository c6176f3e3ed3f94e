"""wrk, an independent closed-loop load generator in C, on the generator's core: what it counts, and the latencies it saw.

It looks at the servers with other eyes than Headway's own generator. Closed loops flatter latency, so no check rests on it: it tells whether the
open-loop capacities lie where they can, and how far a server goes when the generator costs next to nothing.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job import Job
from lines import Line, Lines
from running import LOAD_CORE, Running, on_core, running
from servers import SERVERS

CONNECTIONS = (32, 128)
SECONDS, PATIENT_S = 5.0, 1.0

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def measure(lines: Lines, job: Job) -> None:
    """One line a server, number of connections and round."""
    for turn in range(job.rounds):
        order = job.servers(SERVERS)
        random.Random(turn).shuffle(order)
        for name in order:
            if job.over:
                return
            for line in one(name, job):
                lines.add({"stage": "saturate", "model": job.model, "server": name, "round": turn, **line, "environment": job.environment})
                job.say(f"round {turn} {job.model} {name}: {line}")


def one(name: str, job: Job) -> list[Line]:
    """A server with few and with many connections; the bound it is told is far, so that it answers all."""
    try:
        with running(name, job.model, PATIENT_S) as held, tempfile.TemporaryDirectory(prefix="serving-") as scratch:
            seconds = 1.0 if job.quick else SECONDS
            return [saturate(held, connections, seconds, Path(scratch)) for connections in CONNECTIONS]
    except (RuntimeError, OSError) as error:
        return [{"reason": str(error)[-300:]}]


def there() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def saturate(held: Running, connections: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Requests a second with so many connections that each ask again at once, and the 99th percentile of latency.

    Raises:
        RuntimeError: wrk is missing or said something else than its report.
    """
    bodies, headers = held.requests()
    script = folder / "request.lua"
    script.write_text(_script(bodies[0], headers[0]))
    command = [
        *on_core(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--latency",
        "--timeout",
        "5s",
        "-s",
        str(script),
        held.url,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    except FileNotFoundError as error:
        raise RuntimeError("wrk must be installed; on Debian: apt-get install wrk") from error
    return {"connections": connections, **_report(done.stdout + done.stderr)}


def _script(body: bytes, headers: Mapping[str, str]) -> str:
    escaped = "".join(f"\\{byte:03d}" for byte in body)
    lines = ['wrk.method = "POST"', f'wrk.body = "{escaped}"']
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    return "\n".join(lines) + "\n"


def _report(text: str) -> dict[str, Any]:
    counted, tail = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text), re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text)
    if counted is None or tail is None:
        raise RuntimeError(f"wrk must report its requests and the 99th percentile, got: {text[-300:]}")
    bad, broken = re.search(r"Non-2xx or 3xx responses: (\d+)", text), re.search(r"Socket errors: (.*)", text)
    count, span_s = int(counted[1]), float(counted[2]) * _UNITS_S[counted[3]]
    return {
        "requests": count, "rate_per_s": round(count / span_s, 1), "p99_s": float(f"{float(tail[1]) * _UNITS_S[tail[2]]:.4g}"),
        "not_2xx": int(bad[1]) if bad else 0, "socket_errors": broken[1] if broken else "",
    }  # fmt: skip
