"""One request at a time: what a server adds to the runtime alone. Blocks of both in turn, so that a drift of the machine hits both."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import models
import numpy as np
from client import Client, request
from job import Job
from lines import Lines
from running import LOAD_CORE, SERVER_CORE, Running, running
from servers import SERVERS, versions

BLOCKS, REQUESTS = 12, 50
DRAWS = 2000


def measure(lines: Lines, job: Job) -> None:
    """One line a server and round."""
    for turn in range(job.rounds):
        order = job.servers(SERVERS)
        random.Random(turn).shuffle(order)
        for name in order:
            if job.over:
                return
            line = one(name, job)
            lines.add({"stage": "lone", "model": job.model, "server": name, "round": turn, **line, "environment": job.environment})
            told = line.get(
                "reason"
            ) or "{server_s:.3g} s, runtime alone {bare_s:.3g} s, added {added_s:.3g} s [{low_s:.3g}, {high_s:.3g}]".format(**line)
            job.say(f"round {turn} {job.model} {name}: {told}")


def one(name: str, job: Job) -> dict[str, object]:
    """Medians of both, and their difference with a 95% interval over blocks."""
    try:
        with running(name, job.model) as held:
            return {**compare(held, 3 if job.quick else BLOCKS, 10 if job.quick else REQUESTS), "versions": versions(held.server)}
    except (RuntimeError, OSError) as error:
        return {"reason": str(error)[-300:]}


def compare(held: Running, blocks: int, requests: int) -> dict[str, float]:
    """Blocks of the runtime alone on the servers' core and of the server, in turn."""
    bodies, headers = held.requests()
    asked = [request(held.path, body, own) for body, own in zip(bodies, headers, strict=True)]
    session, rows = models.session(models.onnx_file(held.model)), [row[None] for row in models.rows()]
    alone, through = [], []
    with Client(held.port, held.path) as client:
        for block in range(-1, blocks):
            os.sched_setaffinity(0, {SERVER_CORE})
            bare_s = timed(lambda row: session.run(None, {"x": rows[row]}), requests)
            os.sched_setaffinity(0, {LOAD_CORE})
            served_s = timed(lambda row: client.send(asked[row]), requests)
            if block >= 0:
                alone.append(bare_s)
                through.append(served_s)
    bare, server = np.array(alone), np.array(through)
    picks = np.random.default_rng(0).integers(0, blocks, (DRAWS, blocks))
    drawn = np.median(np.median(server, axis=1)[picks] - np.median(bare, axis=1)[picks], axis=1)
    added = float(np.median(np.median(server, axis=1) - np.median(bare, axis=1)))
    low, high = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    found = {"server_s": float(np.median(server)), "bare_s": float(np.median(bare)), "added_s": added, "low_s": low, "high_s": high}
    return {name: float(f"{value:.4g}") for name, value in found.items()} | {"requests": blocks * requests}


def timed(call: Callable[[int], object], count: int) -> list[float]:
    """How long each of ``count`` calls took, the first three left out [s]."""
    found = []
    for number in range(-3, count):
        began = time.perf_counter()
        call(number % models.ROWS)
        if number >= 0:
            found.append(time.perf_counter() - began)
    return found
