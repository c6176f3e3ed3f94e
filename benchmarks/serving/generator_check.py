"""Headway's load generator against independent tools, on targets of known service time.

    python benchmarks/serving/generator_check.py [--seconds 10] [--loadgen SITE_PACKAGES]

``loadgen``: MLPerf's LoadGen (package ``mlcommons_loadgen``, found in SITE_PACKAGES or here) and Headway drive the same target in this process, one
thread that sleeps 5 ms a request, first in, first out. LoadGen goes first, in its server scenario; Headway then repeats LoadGen's arrivals, so that
their chance drops out. Compared are p50, p90 and p99 from the due time, LoadGen's out of its own summary. ``wrk``: one connection, closed loop, on our
server with a model of 5 ms; compared are throughput and mean latency. Each comparison is one line of ``generator_check.jsonl``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.serving.closed_forms import bundle

from headway.api.load_http import HttpTarget
from headway.load import Completion, RawLoad, run_open_loop
from headway.load.generator import OK
from headway.load.streams import stream_latency_s
from headway.measure.over_http import served

RESULTS = Path(__file__).parent / "generator_check.jsonl"
SERVICE_S = 0.005
RATE_PER_S = 100.0
QUANTILES = (0.5, 0.9, 0.99)


class Queue:
    """One server of constant service time: a thread that works off what it is given, and calls back."""

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def add(self, done: Callable[[], None]) -> None:
        """Put a request behind the others."""
        self._waiting.put(done)

    def close(self) -> None:
        """End the thread when all is done."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (done := self._waiting.get()) is not None:
            time.sleep(self._service_s)
            done()


@contextmanager
def queued(service_s: float) -> Iterator[Queue]:
    """A queue for the length of the block."""
    made = Queue(service_s)
    try:
        yield made
    finally:
        made.close()


def by_loadgen(loadgen: Any, service_s: float, rate_per_s: float, seconds: float) -> tuple[dict[float, float], NDArray[np.float64]]:
    """Percentiles out of LoadGen's summary [s], and when it issued its queries [s]."""
    issued_s: list[float] = []
    with queued(service_s) as target, tempfile.TemporaryDirectory() as folder:

        def issue(samples: Sequence[Any]) -> None:
            issued_s.append(time.perf_counter())
            for sample in samples:
                answer = loadgen.QuerySampleResponse(sample.id, 0, 0)
                target.add(lambda answer=answer: loadgen.QuerySamplesComplete([answer]))

        settings = loadgen.TestSettings()
        settings.scenario, settings.mode = loadgen.TestScenario.Server, loadgen.TestMode.PerformanceOnly
        settings.server_target_qps, settings.server_target_latency_ns = rate_per_s, 1_000_000_000
        settings.min_duration_ms, settings.min_query_count = int(seconds * 1000), 1
        settings.max_query_count = int(rate_per_s * seconds)
        output = loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        logs = loadgen.LogSettings()
        logs.log_output, logs.enable_trace = output, False
        sut = loadgen.ConstructSUT(issue, lambda: None)
        samples = loadgen.ConstructQSL(64, 64, lambda _: None, lambda _: None)
        try:
            loadgen.StartTestWithLogSettings(sut, samples, settings, logs)
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
        finally:
            loadgen.DestroyQSL(samples)
            loadgen.DestroySUT(sut)
    told = {float(q) / 100: int(ns) / 1e9 for q, ns in re.findall(r"([\d.]+) percentile latency \(ns\)\s*:\s*(\d+)", summary)}
    return {q: told[q] for q in QUANTILES}, np.array(issued_s) - issued_s[0]


def by_headway(service_s: float, due_s: NDArray[np.float64]) -> RawLoad:
    """Headway's own run at the same arrivals."""
    with queued(service_s) as target:

        def submit(number: int, completion: Completion) -> None:
            target.add(lambda: completion.ok(number))

        return run_open_loop(submit, due_s, drain_s=30.0)


def check_loadgen(site_packages: str, seconds: float) -> dict[str, Any]:
    """LoadGen's percentiles and Headway's, for the same arrivals."""
    if site_packages:
        sys.path.append(site_packages)
    loadgen = importlib.import_module("mlperf_loadgen")
    theirs_s, due_s = by_loadgen(loadgen, SERVICE_S, RATE_PER_S, seconds)
    raw = by_headway(SERVICE_S, due_s)
    ours_s = dict(zip(QUANTILES, np.quantile(raw.done_s - raw.due_s, QUANTILES, method="inverted_cdf").tolist(), strict=True))
    return {
        "tool": "loadgen", "scenario": "server", "service_s": SERVICE_S, "rate_per_s": RATE_PER_S, "requests": len(due_s),
        "loadgen_s": {f"p{100 * q:g}": theirs_s[q] for q in QUANTILES}, "headway_s": {f"p{100 * q:g}": ours_s[q] for q in QUANTILES},
        "headway_over_loadgen": {f"p{100 * q:g}": round(ours_s[q] / theirs_s[q], 4) for q in QUANTILES},
    }  # fmt: skip


def check_wrk(seconds: float) -> dict[str, Any]:
    """One connection in a closed loop: wrk's throughput and mean latency, and Headway's."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0, 0.0, 0.0, 0.0]}
    body = json.dumps(json.dumps({"inputs": [tensor]}))
    script = f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = {body}\n'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "post.lua").write_text(script)
        path = bundle(folder, SERVICE_S, 0.0, 1)
        with served(["headway", "serve", "--json", str(path), "--http", "127.0.0.1:0"]) as server:
            base = f"http://127.0.0.1:{server.port}"
            target = HttpTarget(base, "")
            url = f"{base}/v2/models/null/infer"
            wrk = ["wrk", "-t1", "-c1", f"-d{max(1, round(seconds))}s", "-s", str(folder / "post.lua"), url]
            said = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
            feeds = [{"x": np.zeros((1, 4), np.float32)}]
            raw = target.run(feeds, np.zeros(max(10, int(seconds / SERVICE_S * 0.8))), most_in_flight=1, drain_s=60.0).raw
    latency_s = stream_latency_s(raw)
    assert (raw.status == OK).all()
    mean, unit = re.findall(r"Latency\s+([\d.]+)(us|ms|s)", said)[0]
    theirs_s = float(mean) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    theirs_per_s = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    ours_per_s = len(latency_s) / raw.end_s
    return {
        "tool": "wrk", "connections": 1, "service_s": SERVICE_S, "wrk_per_s": theirs_per_s, "headway_per_s": round(ours_per_s, 2),
        "wrk_mean_s": theirs_s, "headway_mean_s": float(latency_s.mean()), "errors": len(re.findall("Non-2xx", said)),
        "headway_over_wrk": {"rate": round(ours_per_s / theirs_per_s, 4), "mean": round(float(latency_s.mean()) / theirs_s, 4)},
    }  # fmt: skip


def main() -> None:
    """Both comparisons; each line is printed and kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--loadgen", default="", metavar="SITE_PACKAGES", help="where mlcommons_loadgen lies, if not in this environment")
    asked = parser.parse_args()
    checks: list[Callable[[], dict[str, Any]]] = [lambda: check_loadgen(asked.loadgen, asked.seconds)]
    if shutil.which("wrk"):
        checks.append(lambda: check_wrk(asked.seconds))
    for check in checks:
        line = json.dumps(check())
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
