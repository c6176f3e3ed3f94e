"""An hour (``HEADWAY_SOAK_S`` for another time) of 70 % load: memory, open files and latency stay where they are."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headway.records import Plan
from serving import Wire, affine_model, bundle, entry, json_body, process, request

INFER = "/v2/models/tiny/infer"
SOAK_S = float(os.environ.get("HEADWAY_SOAK_S", "3600"))
CLIENTS = 4
LOAD = 0.7
WINDOWS = 60
MEMORY_SHARE = 0.05
"""Memory may grow by this share of itself, by the regression line over the second half of the run."""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def client(port: int, number: int, end_s: float, pause_s: float) -> list[float]:
    """Times of requests sent ``pause_s`` apart, or at once when that is 0; some connections are made anew, some requests are refused [s]."""
    times_s: list[float] = []
    while time.monotonic() < end_s:
        with Wire(port, 60.0) as wire:
            for turn in range(200):
                if time.monotonic() >= end_s:
                    break
                begun_s = time.perf_counter()
                x = float(number * 1000 + turn)
                wire.send(request(INFER, json_body([x] * 4) if turn % 20 else b"{"))
                status, _, body = wire.answer()
                times_s.append(time.perf_counter() - begun_s)
                assert status == (200 if turn % 20 else 400)
                if status == 200:
                    assert json.loads(body)["outputs"][0]["data"] == [2 * x + 1] * 4
                time.sleep(max(0.0, pause_s - times_s[-1]))
    return times_s


def load(port: int, seconds: float, pause_s: float) -> list[float]:
    end_s = time.monotonic() + seconds
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = list(pool.map(lambda number: client(port, number, end_s, pause_s), range(CLIENTS)))
    return [time_s for part in parts for time_s in part]


def growth(values: list[float]) -> float:
    """How much the regression line through the values rises from its first to its last point, as a share of their mean."""
    slope = np.polyfit(np.arange(len(values)), values, 1)[0]
    return float(slope * (len(values) - 1) / np.mean(values))


def test_growth_is_seen() -> None:
    assert growth([1.0] * 10) == pytest.approx(0.0)
    assert growth([1.0 + 0.01 * place for place in range(11)]) == pytest.approx(0.1 / 1.05)


@pytest.mark.slow
def test_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=8)))
    with process("headway", "serve", "--json", str(opened.root), "--http", "127.0.0.1:0", "--deadline", "60s") as (child, line):
        port, span_s = line["port"], SOAK_S / WINDOWS
        full_per_s = len(load(port, min(5.0, span_s), 0.0)) / min(5.0, span_s)
        pause_s = CLIENTS / (LOAD * full_per_s)
        memory, files, middle_s, tail_s, requests = [], [], [], [], 0
        for _ in range(WINDOWS):
            times_s = load(port, span_s, pause_s)
            requests += len(times_s)
            memory.append(float(resident_bytes(child.pid)))
            files.append(len(os.listdir(f"/proc/{child.pid}/fd")))
            middle_s.append(float(np.median(times_s)))
            tail_s.append(float(np.quantile(times_s, 0.99)))
        threads = len(os.listdir(f"/proc/{child.pid}/task"))
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    half = WINDOWS // 2
    found = {
        "seconds": SOAK_S, "full_per_s": full_per_s, "requests": requests, "memory_bytes": [memory[0], memory[half], memory[-1]],
        "memory_growth": growth(memory[half:]), "files": [min(files), max(files)], "threads": threads,
        "median_s": [middle_s[0], float(np.median(middle_s[:half])), float(np.median(middle_s[half:]))],
        "p99_s": [float(np.median(tail_s[:half])), float(np.median(tail_s[half:]))],
    }  # fmt: skip
    with capsys.disabled():
        print("\n" + json.dumps(found))
    assert growth(memory[half:]) < MEMORY_SHARE
    assert np.median(files[half:]) <= np.median(files[:half]) + CLIENTS
    assert np.median(middle_s[half:]) < 3 * np.median(middle_s[:half])
