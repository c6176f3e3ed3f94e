"""Ends and changes under load: with 32 requests always in flight no accepted one is lost or wrong, and nothing stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headway.records import Plan
from serving import Wire, affine_model, bundle, entry, json_body, process, request, slow_model

INFER = "/v2/models/m/infer"
CLIENTS = 32
PATIENCE_S = 60.0


class Flight:
    """Clients on keep-alive connections, each with one request in flight; every answer is compared with its request.

    Attributes:
        seen: answers by status, or by scale for a right one.
        faults: what must not happen.
    """

    def __init__(self, port: int, path: str, wanted: tuple[tuple[float, float], ...]) -> None:
        self._port, self._path, self._wanted = port, path, wanted
        self._lock = threading.Lock()
        self.seen: dict[str, int] = {}
        self.faults: list[str] = []
        self.over, self.stopping = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]

    @contextmanager
    def flying(self) -> Iterator[Flight]:
        for thread in self._threads:
            thread.start()
        try:
            self.waits_for(3 * CLIENTS)
            yield self
        finally:
            self.over.set()
            for thread in self._threads:
                thread.join(PATIENCE_S)
            assert not any(thread.is_alive() for thread in self._threads)

    def answered(self) -> int:
        return sum(self.seen.values())

    def waits_for(self, count: int) -> None:
        """Until so many more answers have come."""
        until, end_s = self.answered() + count, time.monotonic() + PATIENCE_S
        while self.answered() < until and not self.faults and time.monotonic() < end_s:
            time.sleep(0.005)
        assert self.answered() >= until or self.faults

    def _client(self, number: int) -> None:
        turn = 0
        while not self.over.is_set():
            try:
                wire = Wire(self._port, PATIENCE_S)
            except OSError as error:
                if not self.stopping.is_set():
                    self._fault(f"not connected: {error!r}")
                return
            with wire:
                turn = self._connected(wire, number, turn)

    def _connected(self, wire: Wire, number: int, turn: int) -> int:
        while not self.over.is_set():
            turn += 1
            x = float(number * 1000 + turn % 1000)
            try:
                wire.send(request(self._path, json_body([x] * 4)))
                status, headers, body = wire.answer()
            except (OSError, EOFError) as error:
                if wire._buffer or not self.stopping.is_set():
                    self._fault(f"lost: {error!r} {wire._buffer[:80]!r}")
                self._count("closed")
                return turn
            self._look(x, status, body)
            if headers.get("connection") == "close":
                return turn
        return turn

    def _look(self, x: float, status: int, body: bytes) -> None:
        if status != 200:
            self._count(str(status))
            return
        data = json.loads(body)["outputs"][0]["data"]
        found = [(scale, added) for scale, added in self._wanted if data == [scale * x + added] * 4]
        if found:
            self._count(f"{found[0]}")
        else:
            self._fault(f"wrong: {x} got {data}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.seen[what] = self.seen.get(what, 0) + 1

    def _fault(self, what: str) -> None:
        with self._lock:
            self.faults.append(what)


def place(repository: Path, space: Path, version: str, scale: float) -> None:
    """Put a version into the repository at once, as a rename."""
    name = f"{version}-{scale:g}-{time.monotonic_ns()}"
    opened = bundle(space / f"b{name}", entry(affine_model(space / f"{name}.onnx", scale), plan=Plan(runtime="onnx_runtime", max_batch=8)))
    target = repository / "m" / version
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(space / f"old{name}")
    shutil.copytree(opened.root, space / f"new{name}")
    (space / f"new{name}").rename(target)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder, space = tmp_path / "repository", tmp_path / "space"
    space.mkdir()
    place(folder, space, "1", 2.0)
    place(folder, space, "2", 3.0)
    return folder


def post(port: int, path: str, body: bytes = b"") -> int:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(request(path, body))
        return wire.answer()[0]


def family(pid: int) -> set[int]:
    """A process's children and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | family(child)
    return found


def assert_free(port: int) -> None:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


SERVE = ("headway", "serve", "--json", "--http", "127.0.0.1:0", "--deadline", "60s", "--queue-limit", "4096")


@pytest.mark.parametrize("rounds", [1, 20_000], ids=["fast", "slow"])
def test_sigterm_loses_nothing(tmp_path: Path, rounds: int) -> None:
    plan = Plan(runtime="onnx_runtime", max_batch=4)
    opened = bundle(tmp_path / "b", entry(slow_model(tmp_path / "m.onnx", rounds), plan=plan))
    with process(*SERVE, str(opened.root), "--name", "m") as (child, line):
        flight = Flight(line["port"], INFER, ((1.0, float(rounds)),))
        with flight.flying():
            children = family(child.pid)
            begun_s = time.monotonic()
            flight.stopping.set()
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0
            ended_s = time.monotonic() - begun_s
        assert_free(line["port"])
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert ended_s < 10 + 5 * os.getloadavg()[0]
    assert not flight.faults
    assert set(flight.seen) <= {str((1.0, float(rounds))), "503", "closed"}


def test_swaps_unloads_and_canaries_lose_nothing(repository: Path, tmp_path: Path) -> None:
    with process(*SERVE, "--repository", str(repository), "--control") as (child, line):
        flight = Flight(line["port"], INFER, ((2.0, 1.0), (3.0, 1.0), (5.0, 1.0), (7.0, 1.0)))
        with flight.flying():
            for scale in (5.0, 7.0, 5.0):
                place(repository, tmp_path / "space", "2", scale)
                assert post(line["port"], "/v2/repository/models/m/load") == 200
                flight.waits_for(2 * CLIENTS)
            assert not set(flight.seen) & {"500", "503", "404", "429"}
            for share in (0.0, 0.3, 1.0):
                assert post(line["port"], "/v2/headway/traffic/m", json.dumps({"canary": {"version": "1", "share": share}}).encode()) == 200
                flight.waits_for(2 * CLIENTS)
            assert post(line["port"], "/v2/headway/traffic/m", b'{"shadow": {"version": "1"}}') == 200
            flight.waits_for(2 * CLIENTS)
            assert not set(flight.seen) & {"500", "503", "404", "429"}
            assert {str((scale, 1.0)) for scale in (2.0, 3.0, 5.0, 7.0)} <= set(flight.seen)
            assert post(line["port"], "/v2/headway/traffic/m", b"{}") == 200
            assert post(line["port"], "/v2/repository/models/m/unload") == 200
            assert post(line["port"], INFER, json_body([1.0] * 4)) == 503
            assert post(line["port"], "/v2/repository/models/m/load") == 200
            assert post(line["port"], INFER, json_body([1.0] * 4)) == 200
            flight.waits_for(2 * CLIENTS)
            flight.stopping.set()
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0
        assert_free(line["port"])
    assert not flight.faults
    assert not set(flight.seen) & {"500", "404", "429"}


def test_sigterm_while_models_are_loaded(repository: Path, tmp_path: Path) -> None:
    """Loads in progress end or are given up; inferences beside them are not lost."""
    with process(*SERVE, "--repository", str(repository), "--control") as (child, line):
        flight = Flight(line["port"], INFER, ((2.0, 1.0), (3.0, 1.0), (5.0, 1.0)))
        with flight.flying(), Wire(line["port"], PATIENCE_S) as wire:
            place(repository, tmp_path / "space", "2", 5.0)
            flight.stopping.set()
            wire.send(request("/v2/repository/models/m/load"))
            child.send_signal(signal.SIGTERM)
            try:
                status: int | None = wire.answer()[0]
            except (EOFError, ConnectionError):
                status = None
            assert child.wait(30) == 0
        assert_free(line["port"])
    assert status in {200, 503}
    assert not flight.faults


def test_sigterm_while_starting_ends_with_0(repository: Path) -> None:
    with process(*SERVE, "--repository", str(repository)) as (child, line):
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert_free(line["port"])


def test_sigkill_leaves_nothing_that_keeps_a_new_server_from_the_port(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    with process(*SERVE, str(opened.root), "--name", "m") as (child, line):
        port = line["port"]
        flight = Flight(port, INFER, ((2.0, 1.0),))
        with flight.flying():
            flight.stopping.set()
            children = family(child.pid)
            child.kill()
            child.wait(30)
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert not [fault for fault in flight.faults if fault.startswith("wrong")]
    with process("headway", "serve", "--json", str(opened.root), "--name", "m", "--http", f"127.0.0.1:{port}") as (child, line):
        assert post(port, INFER, json_body([1.0] * 4)) == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
