"""Servers of their own process: started, loaded, stopped; and a clear word when they die or stay silent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from headway.measure import over_http
from headway.measure.over_http import OverHttp, served
from headway.records import LoadPoint, MeasurementError, Objective, from_json, to_json
from serving import SOURCE, affine_model

DYING = """
import sys
print("before", file=sys.stderr)
print("no graph at all: give another one", file=sys.stderr)
sys.exit(3)
"""
SILENT = """
import sys, time
print("still loading", file=sys.stderr, flush=True)
time.sleep(60)
"""
CHATTING = """
print("hello there")
"""
NO_PORT = """
import json
print(json.dumps({"url": "x"}))
"""
DEAF = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(json.dumps({"port": 1}), flush=True)
for number in range(20000):
    print("a line of talk", number, file=sys.stderr, flush=False)
time.sleep(60)
"""
STARTER = """
import time
from headway.measure.over_http import served
with served(["quiet"]) as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of the processes started."""
    monkeypatch.setenv("PYTHONPATH", f"{SOURCE}:{tmp_path}")
    return tmp_path


def test_a_server_that_dies_leaves_its_last_words(module: Path) -> None:
    (module / "dying.py").write_text(DYING)
    with pytest.raises(MeasurementError, match="give another one"), served(["dying"]):
        pass


@pytest.mark.parametrize("text", [CHATTING, NO_PORT, ""])
def test_a_server_that_says_no_port(module: Path, text: str) -> None:
    (module / "odd.py").write_text(text)
    with pytest.raises(MeasurementError, match="must say its port"), served(["odd"]):
        pass


def test_a_server_that_stays_silent_is_ended(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_http, "START_LIMIT_S", 1.0)
    (module / "silent.py").write_text(SILENT)
    with pytest.raises(MeasurementError, match="within 1 s"), served(["silent"]):
        pass


def test_a_server_is_stopped_at_the_end_however_much_it_says(module: Path) -> None:
    (module / "deaf.py").write_text(DEAF)
    with served(["deaf"]) as server:
        assert server.port == 1
        assert server.resident_bytes > 2**20
    assert not server.process.is_running()


def test_a_server_is_stopped_when_the_block_fails(module: Path) -> None:
    (module / "deaf.py").write_text(DEAF)
    with pytest.raises(ZeroDivisionError), served(["deaf"]) as server:
        _ = 1 / 0
    assert not server.process.is_running()


def test_load_over_a_real_socket(module: Path) -> None:
    model = affine_model(module / "m.onnx")
    inputs = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    with served(["headway.measure.naive_app", str(model)]) as server:
        target = OverHttp.to(server, "any", inputs)
        assert len(target.bodies) == 3
        point = target.load(50, 0.6, Objective(latency_s=1.0), seed=1)
        lost = OverHttp.to(server, "any", {"z": inputs["x"]}).load(50, 0.2, Objective(latency_s=1.0), seed=1)
    assert point.target == "http"
    assert point.completed == point.sent > 0 and point.failed == 0
    assert from_json(to_json(point), LoadPoint) == point
    assert lost.failed == lost.sent > 0, "answers 500 are failures"


def test_a_server_ends_with_a_process_that_is_killed(module: Path) -> None:
    (module / "quiet.py").write_text("import json, time\nprint(json.dumps({'port': 1}), flush=True)\ntime.sleep(600)\n")
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    assert psutil.wait_procs([server], timeout=30)[1] == []
