"""CPU of Headway's front end: its server with a model that takes no time, so that all that is spent is parsing, checking, batching and answering.

Everything the server's processes use is counted, its limits, validation, metrics and clock included, and nothing is taken off. By offered rate,
since a request that finds company shares wake-ups and batches with it; ``full`` is 32 connections that ask again at once (wrk). The pieces come
from py-spy: among the samples in which a thread held the interpreter's lock, the share of each function on top of the stack.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from job import Job
from lines import Lines
from offered import over_http, trial
from running import LOAD_CORE, Running, on_core, running
from saturate import saturate, there
from servers import ENVIRONMENTS

NAMES = ("headway-binary", "headway")
RATES_PER_S = (500.0, 2000.0, 8000.0)
CONNECTIONS = 32
FULL_S, PROFILED_S, SAMPLES_PER_S = 8.0, 8.0, 250
PIECES = 25


def measure(lines: Lines, job: Job) -> None:
    """One line a wire and load, and one with the pieces."""
    for turn in range(job.rounds):
        for name in job.servers(NAMES):
            if job.over:
                return
            with running(name, "null") as held:
                for line in loads(held, job.quick, turn):
                    lines.add({"stage": "frontend", "server": name, "round": turn, **line, "environment": job.environment})
                    job.say(f"round {turn} {name}: {line}")


def loads(held: Running, quick: bool, turn: int) -> list[dict[str, Any]]:
    """CPU a request under each load, and the pieces under the fullest."""
    found: list[dict[str, Any]] = []
    target = over_http(held)
    for rate in RATES_PER_S:
        done = trial(target, rate, 1.0 if quick else 5.0, 100 * turn)
        kept = done.line(0.02)
        found.append(
            {
                "load": f"{rate:g}/s",
                **{key: kept[key] for key in ("cpu_s", "p50_s", "p99_s", "lateness_p99_s", "miss_fraction", "others_cores")},
            }
        )
    if there():
        with tempfile.TemporaryDirectory(prefix="serving-") as scratch:
            folder, seconds = Path(scratch), 1.0 if quick else FULL_S
            before_s = held.cpu_s()
            full = saturate(held, CONNECTIONS, seconds, folder)
            cpu_s = (held.cpu_s() - before_s) / max(1, full["requests"])
            found.append({"load": "full", "cpu_s": float(f"{cpu_s:.4g}"), **full})
            found.append({"load": "full, profiled", "pieces": pieces(held, 2.0 if quick else PROFILED_S, folder)})
    return found


def pieces(held: Running, seconds: float, folder: Path) -> dict[str, float]:
    """Share of the samples by function on top, the largest first; empty without py-spy."""
    spy, out = ENVIRONMENTS / "tools" / "bin" / "py-spy", folder / "stacks.txt"
    if not spy.exists():
        return {}
    load = threading.Thread(target=saturate, args=(held, CONNECTIONS, seconds + 2.0, folder))
    load.start()
    command = [
        str(spy),
        "record",
        "--gil",
        "--nonblocking",
        "--format",
        "raw",
        "--rate",
        str(SAMPLES_PER_S),
        "--duration",
        f"{seconds:g}",
        "--output",
        str(out),
    ]
    subprocess.run([*on_core(LOAD_CORE), *command, "--pid", str(held.process.pid)], check=False, capture_output=True)
    load.join()
    return tops(out.read_text()) if out.exists() else {}


def tops(stacks: str) -> dict[str, float]:
    """Shares from collapsed stacks, ``frame;frame;frame COUNT`` a line; files by their names without folders."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        name, _, place = stack.rpartition(";")[2].rpartition(" (")
        counts[f"{Path(place.rpartition(':')[0] or place.rstrip(')')).name} {name}"] += int(count)
    total = max(1, counts.total())
    return {name: round(count / total, 4) for name, count in counts.most_common(PIECES)}
