"""The HTTP sender against small servers with every habit that servers have."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from headway.load import Answer, run_http
from headway.load.generator import FAILED, LOST, OK, REFUSED
from headway.records import ConfigError, MeasurementError

Behave = Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter, bytes, bytes], Awaitable[None]]


def say(status: int = 200, body: bytes = b"ok", more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


class Server:
    """Reads whole requests and lets ``behave`` answer them; counts what it saw."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.bodies: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.open = self.most_open = self.connections = 0
        self.loop = asyncio.new_event_loop()
        self.server: asyncio.Server | None = None
        self.port = 0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        assert self.ready.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/models/m/infer"

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self._main())
        self.loop.close()

    async def _main(self) -> None:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        self.stopping = asyncio.Event()
        self.ready.set()
        await self.stopping.wait()
        self.server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.heads.append(head)
                body = await reader.readexactly(length)
                self.bodies[hashlib.sha256(body).hexdigest()] += 1
                await self.behave(self, reader, writer, head, body)
                await writer.drain()
        self.open -= 1
        writer.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(10)


@contextlib.contextmanager
def serving(behave: Behave) -> Iterator[Server]:
    server = Server(behave)
    try:
        yield server
    finally:
        if server.thread.is_alive():
            server.stop()


@contextlib.contextmanager
def at_most(limit_s: float) -> Iterator[None]:
    """With every request ended there is nothing left to wait for: the block must not take the whole drain."""
    start_s = time.perf_counter()
    yield
    assert time.perf_counter() - start_s < limit_s


async def kind(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    writer.write(say(body=hashlib.sha256(body).hexdigest().encode()))


def burst(count: int, spread_s: float = 0.05) -> np.ndarray:
    return np.linspace(0.0, spread_s, count)


def test_bodies_arrive_whole_in_turn_and_each_answer_belongs_to_its_request() -> None:
    bodies = [bytes([65 + turn]) * size for turn, size in enumerate((0, 10, 5_000, 600_000))]
    heads = [{"X-Turn": str(turn)} for turn in range(4)]
    answers: list[Answer] = []
    with serving(kind) as server:
        raw = run_http(server.url, bodies, heads, burst(40), on_answer=answers.append, drain_s=30)
    assert (raw.status == OK).all()
    assert (raw.done_s >= raw.sent_s).all() and (raw.sent_s >= raw.due_s).all()
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    assert server.bodies == dict.fromkeys(digests, 10)
    assert sorted(answer.number for answer in answers) == list(range(40))
    assert all(answer.body.decode() == digests[answer.number % 4] for answer in answers)
    assert all(answer.status == 200 and answer.headers == {"content-length": "64"} for answer in answers)
    assert all(b"POST /v2/models/m/infer HTTP/1.1" in head and b"Host: 127.0.0.1:" in head for head in server.heads)
    turns = [int(head.split(b"X-Turn: ")[1][:1]) for head in server.heads]
    assert Counter(turns) == dict.fromkeys(range(4), 10)


def test_statuses_are_told_apart() -> None:
    order = iter([200, 429, 503, 500, 404, 204])

    async def behave(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        status = next(order)
        writer.write(say(status, b"" if status == 204 else b"ok"))

    with serving(behave) as server:
        raw = run_http(server.url, [b"x"], {}, burst(6, 0.5), most_connections=1, drain_s=30)
    assert raw.status.tolist() == [OK, REFUSED, REFUSED, FAILED, FAILED, OK]


async def wait_for_all(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    while len(server.heads) < 60:
        await asyncio.sleep(0.002)
    writer.write(say())


def test_no_request_waits_for_a_busy_connection() -> None:
    """The server answers none before all 60 have arrived: only a sender with a connection for each gets through."""
    with serving(wait_for_all) as server:
        raw = run_http(server.url, [b"x"], {}, burst(60), drain_s=30)
    assert (raw.status == OK).all()
    assert server.most_open == 60


def test_the_cap_on_connections_is_kept_and_every_request_still_answered() -> None:
    with serving(kind) as server:
        raw = run_http(server.url, [b"x"], {}, burst(100), most_connections=3, drain_s=30)
    assert (raw.status == OK).all()
    assert server.most_open <= 3


def test_connections_are_kept_alive_and_those_that_are_not_are_replaced() -> None:
    with serving(kind) as server:
        assert (run_http(server.url, [b"x"], {}, burst(100, 0.3), drain_s=30).status == OK).all()
    assert server.connections < 60

    async def closing(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        writer.write(say(more="Connection: close\r\n"))
        await writer.drain()
        writer.close()

    with serving(closing) as server:
        assert (run_http(server.url, [b"x"], {}, burst(60), drain_s=30).status == OK).all()
    assert server.connections >= 60


def test_a_server_that_forgets_idle_connections_costs_no_request() -> None:
    async def forgetful(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        writer.write(say())
        await writer.drain()
        asyncio.get_running_loop().call_later(0.05, writer.close)

    with serving(forgetful) as server:
        raw = run_http(server.url, [b"x"], {}, np.array([0.0, 0.001, 0.5, 0.501]), drain_s=30)
    assert (raw.status == OK).all()


def test_a_broken_answer_fails_its_request_alone() -> None:
    async def behave(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        bad = {b"0": b"garbage\r\n\r\n", b"1": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut short", b"2": b""}
        if body in bad:
            writer.write(bad[body])
            await writer.drain()
            writer.close()
        else:
            writer.write(say())

    with serving(behave) as server:
        raw = run_http(server.url, [b"0", b"1", b"2", b"3"], {}, burst(40, 0.3), drain_s=30)
    assert (raw.status.reshape(10, 4) == [FAILED, FAILED, FAILED, OK]).all()


def test_a_body_refused_before_it_was_read_is_judged_by_the_refusal() -> None:
    huge = bytes(1 << 24)
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        for _ in range(2):
            opened, _ = listener.accept()
            opened.recv(1000)
            opened.sendall(say(429, more="Connection: close\r\n"))
            threading.Event().wait(0.1)
            opened.shutdown(socket.SHUT_WR)
            while opened.recv(1 << 20):
                pass
            opened.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    raw = run_http(f"http://127.0.0.1:{listener.getsockname()[1]}/", [huge], {}, np.array([0.0, 0.3]), most_connections=1, drain_s=30)
    thread.join(10)
    listener.close()
    assert raw.status.tolist() == [REFUSED, REFUSED]


async def silent(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    if body == b"quiet":
        await asyncio.sleep(60)
    writer.write(say())


def test_a_request_without_an_answer_fails_after_its_timeout() -> None:
    with serving(silent) as server, at_most(20):
        raw = run_http(server.url, [b"quiet", b"x"], {}, burst(10), timeout_s=0.2, drain_s=60)
    assert raw.status.tolist() == [FAILED, OK] * 5
    assert (raw.done_s[::2] - raw.sent_s[::2] >= 0.2).all()


def test_what_is_missing_at_the_end_of_the_drain_is_lost() -> None:
    with serving(silent) as server:
        raw = run_http(server.url, [b"quiet", b"x"], {}, burst(10), drain_s=0.3)
    assert raw.status.tolist() == [LOST, OK] * 5
    assert np.isnan(raw.done_s[::2]).all()


def test_a_server_that_dies_under_load_fails_requests_and_crashes_nothing() -> None:
    async def dying(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        writer.write(say())
        if len(server.heads) == 20:
            server.stopping.set()

    with serving(dying) as server, at_most(20):
        raw = run_http(server.url, [b"x"], {}, burst(60, 0.6), drain_s=60)
    assert set(raw.status.tolist()) == {OK, FAILED}
    assert raw.status[0] == OK and raw.status[-1] == FAILED


def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MeasurementError, match=r"a server must listen at 127\.0\.0\.1"):
        run_http(f"http://127.0.0.1:{port}/", [b"x"], {}, burst(3))
    with pytest.raises(MeasurementError, match=r"a server must listen at nowhere\.invalid"):
        run_http("http://nowhere.invalid:1/", [b"x"], {}, burst(3))


@pytest.mark.parametrize(
    ("url", "bodies", "headers"),
    [
        ("ftp://127.0.0.1/", [b"x"], {}),
        ("127.0.0.1:80", [b"x"], {}),
        ("http://127.0.0.1/", [], {}),
        ("http://127.0.0.1/", [b"x"], [{}, {}]),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words(url: str, bodies: list[bytes], headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="load"):
        run_http(url, bodies, headers, burst(1))
