"""CPU that a server uses while nobody asks, after it has answered some requests; and what it holds in memory then."""

from __future__ import annotations

import time

from client import Client
from job import Job
from lines import Lines
from running import running
from servers import SERVERS, versions

REST_S, WATCHED_S = 3.0, 20.0


def measure(lines: Lines, job: Job) -> None:
    """One line a server."""
    for name in job.servers(SERVERS):
        if job.over:
            return
        line = one(name, job)
        lines.add({"stage": "idle", "model": job.model, "server": name, **line, "environment": job.environment})
        job.say(f"{job.model} {name}: {line.get('reason') or '{cores:.4f} cores, {resident_bytes} B'.format(**line)}")


def one(name: str, job: Job) -> dict[str, object]:
    """Cores used, of one."""
    try:
        with running(name, job.model) as held:
            bodies, headers = held.requests()
            with Client(held.port, held.path) as client:
                for body, own in zip(bodies, headers, strict=True):
                    client.ask(body, own)
            time.sleep(REST_S)
            before_s, began = held.cpu_s(), time.perf_counter()
            time.sleep(2.0 if job.quick else WATCHED_S)
            cores = (held.cpu_s() - before_s) / (time.perf_counter() - began)
            told = {
                "cores": round(cores, 5),
                "resident_bytes": held.resident_bytes(),
                "processes": len(held.family()),
                "ready_s": round(held.ready_s, 2),
            }
            return {**told, "versions": versions(held.server)}
    except (RuntimeError, OSError) as error:
        return {"reason": str(error)[-300:]}
