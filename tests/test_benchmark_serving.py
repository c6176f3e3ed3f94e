"""The serving benchmark's arithmetic, wires, clients and tables, on made-up figures and a server of a few lines; nothing is timed."""

from __future__ import annotations

import importlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from headway.load import RawLoad

FOLDER = Path(__file__).parent.parent / "benchmarks" / "serving"
NAMES = ("client", "frontend", "offered", "overload", "promises", "saturate", "servers", "summary_tables", "wires")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(FOLDER))
    return SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})


def raw(due_s: list[float], latency_s: list[float], status: list[int]) -> RawLoad:
    due = np.array(due_s)
    done = np.where(np.array(status) == 3, np.nan, due + np.array(latency_s))
    return RawLoad(due, due.copy(), done, np.array(status, np.int8), float(np.nanmax(done)))


def test_the_warm_up_is_cut_and_the_clock_starts_after_it(bench: SimpleNamespace) -> None:
    cut = bench.offered.cut(raw([0.1, 0.6, 0.9, 1.7], [5.0, 5.0, 0.01, 0.02], [0, 0, 0, 1]), 0.7)
    assert cut.due_s == pytest.approx([0.2, 1.0])
    assert cut.done_s - cut.due_s == pytest.approx([0.01, 0.02])
    assert cut.status.tolist() == [0, 1]


def test_goodput_counts_answers_in_time_and_refusals_count_from_the_due_time(bench: SimpleNamespace) -> None:
    due = [*np.arange(0, 1, 0.1), *np.arange(1, 3, 0.01), *np.arange(3, 4, 0.1)]
    latency, status = [0.005] * len(due), [0] * len(due)
    for place, at in enumerate(due):
        if 1 <= at < 3:
            status[place] = 1 if place % 2 else 0
            latency[place] = 0.004 if place % 2 else (0.01 if place % 4 else 0.5)
    found = bench.overload.fold(raw(due, latency, status), np.array([0.0, 1.0, 3.0, 4.0]))
    assert found["offered_per_s"] == pytest.approx(100, rel=0.02)
    assert found["goodput_per_s"] == pytest.approx(25, rel=0.05)
    assert found["answered_per_s"] == pytest.approx(50, rel=0.05)
    assert found["refusal_p99_s"] == pytest.approx(0.004)
    assert found["recovered_s"] == 0.0


def test_recovery_is_the_last_moment_after_which_all_is_well(bench: SimpleNamespace) -> None:
    due = [0.5, 1.5, *np.arange(2, 4, 0.01)]
    status = [0, 1, *(1 if at < 2.3 else 0 for at in due[2:])]
    found = bench.overload.fold(raw(due, [0.001] * len(due), status), np.array([0.0, 1.0, 2.0, 4.0]))
    assert found["recovered_s"] == pytest.approx(0.29, abs=0.02)
    never = bench.overload.fold(raw(due, [0.001] * len(due), [0, 1, *[1] * (len(due) - 2)]), np.array([0.0, 1.0, 2.0, 4.0]))
    assert never["recovered_s"] is None


def test_what_wrk_reports_is_read(bench: SimpleNamespace) -> None:
    text = "     99%    1.53ms\n  38870 requests in 1.10s, 8.5MB read\n  Non-2xx or 3xx responses: 7\n"
    found = bench.saturate._report(text)
    assert (found["requests"], found["p99_s"], found["not_2xx"]) == (38870, pytest.approx(1.53e-3), 7)
    assert found["rate_per_s"] == pytest.approx(35336.4)
    with pytest.raises(RuntimeError, match="99th percentile"):
        bench.saturate._report("unable to connect")


def test_the_bytes_of_a_body_survive_the_script_for_wrk(bench: SimpleNamespace) -> None:
    script = bench.saturate._script(bytes(range(256)), {"A": "b"})
    escaped = script.split('wrk.body = "')[1].split('"\n')[0]
    assert bytes(int(number) for number in escaped.split("\\")[1:]) == bytes(range(256))


def test_pieces_are_shares_of_what_is_on_top_without_folders(bench: SimpleNamespace) -> None:
    found = bench.frontend.tops("main (/a/b/x.py:1);read (/a/b/wire.py:20) 3\nmain (/a/b/x.py:1) 1\n")
    assert found == {"wire.py read": 0.75, "x.py main": 0.25}


def test_each_wire_reads_what_its_server_writes(bench: SimpleNamespace) -> None:
    wires, answer = bench.wires, np.arange(10, dtype=np.float32)
    listed = answer.tolist()
    v2 = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 10], "data": listed}]}
    told = {"PLAIN": json.dumps({"y": listed}), "ROWS": json.dumps([listed]), "V2": json.dumps(v2)}
    for name, body in told.items():
        assert np.array_equal(getattr(wires, name).read({}, body.encode()), answer)
    assert np.array_equal(wires.MSGPACK.read({}, b"\x81\xa1y\xc4\x28" + answer.tobytes()), answer)
    with pytest.raises(ValueError, match="binary"):
        wires.MSGPACK.read({}, b"\x81\xa1y\xa4")


def test_json_says_the_same_numbers_as_binary(bench: SimpleNamespace) -> None:
    row = np.random.default_rng(0).normal(size=128).round(3).astype(np.float32)
    _, body = bench.wires.V2.ask(row)
    assert np.array_equal(np.array(json.loads(body)["inputs"][0]["data"], np.float32), row)
    _, packed = bench.wires.MSGPACK.ask(row)
    assert packed.endswith(row.tobytes())


Act = Callable[[int], bytes | None]


@pytest.fixture
def answering() -> Iterator[Callable[[Act], int]]:
    """Starts a server on a thread whose n-th request is answered with ``act(n)``; none closes the connection without a word."""
    listeners: list[socket.socket] = []

    def start(act: Act) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        counted, lock = [0], threading.Lock()

        def serve(connection: socket.socket) -> None:
            with connection:
                while connection.recv(65536):
                    with lock:
                        number, counted[0] = counted[0], counted[0] + 1
                    answer = act(number)
                    if answer is None:
                        return
                    connection.sendall(answer)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def said(status: int, body: bytes = b"{}") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def flown(bench: SimpleNamespace, port: int, asked: int) -> dict[str, int]:
    seen: list[str] = []

    def check(row: int, headers: object, body: bytes) -> str:
        seen.append("right" if body == b"{}" else "wrong")
        return seen[-1]

    flight = bench.client.fly(port, "/", [b"a", b"b"], [{}, {}], check, in_flight=1, over=lambda: len(seen) >= asked)
    return dict(flight.words)


def test_requests_without_an_answer_are_lost_and_wrong_answers_are_found(bench: SimpleNamespace, answering: Callable[[Act], int]) -> None:
    port = answering(lambda number: None if number == 2 else said(200, b"no" if number == 4 else b"{}"))
    words = flown(bench, port, 8)
    assert (words["lost"], words["wrong"]) == (1, 1)
    assert words["right"] >= 7 and "dropped" not in words


def test_a_request_is_dropped_and_not_lost_once_the_server_refuses(bench: SimpleNamespace, answering: Callable[[Act], int]) -> None:
    port = answering(lambda number: {3: said(503), 5: None}.get(number, said(200)))
    words = flown(bench, port, 8)
    assert (words["refused"], words["dropped"]) == (1, 1)
    assert "lost" not in words


def capacity_line(server: str, low: float, model: str = "mlp", **more: object) -> dict[str, object]:
    trial = {"rate_per_s": low, "miss_fraction": 0.0, "cpu_s": 3e-4, "steal_fraction": 0.0, "others_cores": 0.0}
    ends = {"low_per_s": low, "high_per_s": low * 1.05, "open_above": False, "generator_bound": False, "simulated_per_s": 3000.0}
    return {
        "stage": "capacity",
        "model": model,
        "server": server,
        "round": 0,
        "bound_s": 0.02,
        **ends,
        "trials": [trial],
        "environment": "e",
        **more,
    }


def test_promises_compare_medians_with_the_best_of_each_kind(bench: SimpleNamespace) -> None:
    rates = {
        "limit": (3000, 2900, 9000),
        "headway-binary": (2800, 2750, 100),
        "headway": (2000,),
        "triton": (1900,),
        "triton-binary": (2200,),
        "fastapi-batcher": (900,),
    }
    lines = [capacity_line(name, rate) for name, several in rates.items() for rate in several]
    lines.append(
        {"stage": "capacity", "model": "mlp", "server": "mosec", "round": 0, "bound_s": 0.02, "reason": "it died", "environment": "e"}
    )
    found = {check.name: check for check in bench.promises.promises(lines)}
    assert found["mlp, p99 <= 20 ms: of the limit"].word == "holds"
    assert found["mlp, p99 <= 20 ms: of the limit"].measured.startswith("0.92")
    assert found["mlp, p99 <= 20 ms: over Triton"].word == "fails"
    assert found["mlp, p99 <= 20 ms: over best server in Python"].word == "holds"
    assert found["mlp, p99 <= 20 ms: over mosec"].word == "unproven"


def test_tables_say_what_did_not_run_and_need_no_lines(bench: SimpleNamespace) -> None:
    here = {
        "stage": "environment",
        "name": "e",
        "environment": {"cpu": "c", "cores": 2, "instruction_sets": [], "system": "s", "python": "3", "versions": {}},
    }
    lines = [
        here,
        capacity_line("headway", 2000),
        {"stage": "capacity", "model": "mlp", "server": "ray", "round": 0, "bound_s": 0.02, "reason": "it died", "environment": "e"},
    ]
    text = bench.summary_tables.all_tables(lines)
    assert "| ray |  |  | did not run |" in text
    assert "2,000" in text and "0 were disturbed" in text
    assert "Nothing was measured yet." in bench.summary_tables.all_tables([])


def test_every_server_has_its_app_and_pinned_packages(bench: SimpleNamespace) -> None:
    for server in bench.servers.SERVERS.values():
        if server.group:
            pinned = (FOLDER / "requirements" / f"{server.group}.txt").read_text()
            assert all(f"{package}==" in pinned.replace("[serve]", "").replace("[standard]", "") for package in server.packages)
            assert "onnxruntime==" in pinned
        assert math.isfinite(server.guess["mlp"])
