"""What hostile clients try, each beside a client that behaves: the right status, nobody else harmed, nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.records import Plan
from headway.serve import Limits, Ready, server
from headway.serve.application import Application
from serving import Wire, affine_model, binary_body, bundle, entry, json_body, request, running

INFER = "/v2/models/tiny/infer"
ONE = json_body([1.0, 2.0, 3.0, 4.0])
WHOLE = request(INFER, ONE)
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: h\r\n"
CHUNKED = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
LIMITS = Limits(
    connections=40, head_bytes=8192, body_bytes=4 * 2**20, json_bytes=2**20, buffered_bytes=6 * 2**20,
    head_timeout_s=1.0, body_timeout_s=1.0, write_timeout_s=2.0,
)  # fmt: skip
PATIENCE_S = 30.0


def becomes(true: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ready, Application]]:
    """A server with tight limits, and the application inside it."""
    made: list[Application] = []

    class Seen(Application):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            made.append(self)

    folder = tmp_path_factory.mktemp("hostile")
    opened = bundle(folder / "b", entry(affine_model(folder / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=4, instances=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "Application", Seen)
        with running(opened, limits=LIMITS, deadline_s=60.0) as ready:
            yield ready, made[0]


class Behaving(threading.Thread):
    """Sends one checked request after another, on one connection, until told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.over = threading.Event()
        self.right, self.wrong = 0, ""

    def run(self) -> None:
        try:
            with Wire(self._port, PATIENCE_S) as wire:
                while not (self.over.is_set() and self.right) and not self.wrong:
                    x = float(self.right % 1000)
                    wire.send(request(INFER, json_body([x] * 4)))
                    status, _, body = wire.answer()
                    if status != 200 or json.loads(body)["outputs"][0]["data"] != [2 * x + 1] * 4:
                        self.wrong = f"{status} {body!r}"
                    self.right += 1
                    time.sleep(0.001)
        except (OSError, EOFError) as error:
            self.wrong = repr(error)


@pytest.fixture
def port(served: tuple[Ready, Application]) -> Iterator[int]:
    """Where to attack: another client is answered rightly all the while, and afterwards everything is as before."""
    ready, application = served
    assert becomes(lambda: not application.connections)
    files, threads = open_files(), threading.active_count()
    behaving = Behaving(ready.port)
    behaving.start()
    try:
        yield ready.port
    finally:
        behaving.over.set()
        behaving.join()
    assert not behaving.wrong
    assert becomes(lambda: not application.connections)
    assert application.buffered_bytes == 0
    assert not application._tasks
    assert all(one.in_flight == one.waiting == 0 for one in application._models.all())
    assert becomes(lambda: open_files() <= files)
    assert becomes(lambda: threading.active_count() <= threads + 2)


def ask(port: int, data: bytes) -> int:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(data)
        return wire.answer()[0]


def tensor(**changes: Any) -> bytes:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **changes}
    return json.dumps({"inputs": [given]}).encode()


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


# --- lengths


@pytest.mark.parametrize(
    "length",
    [
        "-1",
        "+5",
        "5 5",
        "5,5",
        "0x10",
        "",
        "1e3",
        "9" * 19,
        "9" * 30,
        "9" * 5000,
        "\u0663",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
    ],
)
def test_a_length_that_is_not_one_number_ends_the_connection(port: int, length: str) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(f"{HEAD}Content-Length: {length}\r\n\r\n".encode() + b"{}{}{}" + WHOLE)
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) in {(400, "close"), (413, "close")}
        assert wire.ended()


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 6\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 6", "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked\t", "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked", "Content-Length : 6", "Content-Length:\r\n 6", " Content-Length: 6", "Transfer-Encoding:\r\n chunked",
        "Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 6", "x: a\0b\r\nContent-Length: 6", "x: a\rb",
    ],
)  # fmt: skip
def test_what_two_readers_could_read_in_two_ways_is_refused(port: int, lines: str) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(f"{HEAD}{lines}\r\n\r\n".encode() + b"0\r\n\r\n" + WHOLE)
        assert wire.answer()[0] == 400
        assert wire.ended()


@pytest.mark.parametrize("size", ["-2", "fffffffffffffffff", "2 ", "0x2", "2\n{}", "g", ""])
def test_a_chunk_size_that_is_not_one_number_is_refused(port: int, size: str) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(CHUNKED + f"{size}\r\n{{}}\r\n0\r\n\r\n".encode() + WHOLE)
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert wire.ended()


@pytest.mark.parametrize("cut", range(0, len(WHOLE), 13))
def test_half_a_request_is_no_request(port: int, cut: int) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(WHOLE[:cut])
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.ended()


@pytest.mark.parametrize("claimed", [0, 1, 4, 50, 10**6, 10**12, 10**13])
def test_a_json_part_longer_or_shorter_than_it_is(port: int, claimed: int) -> None:
    body, _ = binary_body(np.ones((1, 4), np.float32))
    assert ask(port, request(INFER, body, f"Inference-Header-Content-Length: {claimed}\r\n")) == 400


@pytest.mark.parametrize("claimed", ["-1", "+1", "1 2", "", "0x1", "1e1", "\xb2", "9" * 4000])
def test_a_json_part_of_no_length(port: int, claimed: str) -> None:
    assert ask(port, request(INFER, ONE, f"Inference-Header-Content-Length: {claimed}\r\n")) == 400


@pytest.mark.parametrize("size", [-16, 0, 15, 17, 2**31, 2**63, 2**64 - 1, 10**30, 16.0, True, "16", None, [16]])
def test_a_binary_tensor_of_another_size_than_its_shape(port: int, size: Any) -> None:
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": size}}]}).encode()
    assert ask(port, request(INFER, head + bytes(16), f"Inference-Header-Content-Length: {len(head)}\r\n")) == 400


# --- tensors


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**9, 4]}, {"shape": [2**62, 4]}, {"shape": [2**64, 4]}, {"shape": [-1, 4]}, {"shape": [-1, -4]}, {"shape": [0, 4]},
        {"shape": [1.0, 4]}, {"shape": [True, 4]}, {"shape": ["1", 4]}, {"shape": [1] * 10**5}, {"shape": 4}, {"shape": {}},
        {"data": [1e39] * 4}, {"data": [10**400] * 4}, {"data": [None] * 4}, {"data": ["1"] * 4}, {"data": [{}] * 4}, {"data": [[[[1, 2, 3, 4]]]]},
        {"data": [[1, 2], [3, 4]]}, {"data": [[1, 2, 3], [4]]}, {"data": {}}, {"data": "1234"}, {"data": [True] * 4}, {"data": []}, {"data": [[]]},
        {"name": []}, {"name": {}}, {"name": "x" * 10**6}, {"name": "\0"}, {"datatype": "fp32"}, {"datatype": {}}, {"parameters": [1]},
        {"parameters": {"shared_memory_region": "a"}}, {"name": None}, {"datatype": None},
    ],
    ids=lambda changes: json.dumps(changes)[:40],
)  # fmt: skip
def test_a_tensor_that_does_not_fit(port: int, changes: dict[str, Any]) -> None:
    assert ask(port, request(INFER, tensor(**changes))) == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b"\xff\xfe{", b'{"inputs":[{"name":"\xc3\x28"}]}', b'{"inputs":[{"name":"\\ud800"}]}', b"\0" * 1000,
        tensor(data=[float("nan")] * 4), tensor(data=[float("inf")] * 4), tensor(data=[-float("inf")] * 4),
        nested(10**5), nested(10**5, '{"a":', "}"), nested(900), b'{"inputs":' + nested(1000) + b"}", b'{"id":' + nested(1000) + b"}",
        b'{"inputs":[' + b"{}," * 10**5 + b"{}]}", b'{"inputs":' + b"9" * 10**5 + b"}", b'{"a":1,' * 10**5,
        json.dumps({"inputs": [json.loads(tensor())["inputs"][0]] * 2}).encode(), ONE + ONE,
        *(json.dumps({**json.loads(ONE), "parameters": {name: worst}}).encode()
          for name in ("timeout", "priority") for worst in (-1, 2**63 if name == "priority" else 2**64, 1.5, "1", [], True)),
    ],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
def test_a_body_that_does_not_fit(port: int, body: bytes) -> None:
    assert ask(port, request(INFER, body)) == 400


@pytest.mark.parametrize("place", ["name", "datatype", "shape", "data", "parameters"])
@pytest.mark.parametrize("depth", [60, 70, 400, 960, 1000, 1010])
@pytest.mark.parametrize("again", [False, True], ids=["first", "head known"])
def test_deep_nesting_anywhere(port: int, place: str, depth: int, again: bool) -> None:
    body = tensor(**{place: "HERE"}).replace(b'"HERE"', nested(depth))
    with Wire(port, PATIENCE_S) as wire:
        if again:
            wire.send(request(INFER, b" " * (len(body) - len(ONE)) + ONE if len(body) > len(ONE) else ONE))
            assert wire.answer()[0] == 200
        wire.send(request(INFER, body))
        assert wire.answer()[0] == 400
        wire.send(WHOLE)
        assert wire.answer()[0] == 200


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: [data], lambda data: [[data]], lambda data: [[1.0] * 4, data]])
def test_text_among_numbers_takes_no_memory(port: int, wrap: Callable[[list[Any]], Any]) -> None:
    data: list[Any] = ["a" * 10**5, *[0.0] * 10**5]  # as an array of text: 40 GB
    assert ask(port, request(INFER, tensor(data=wrap(data)))) == 400


def test_of_duplicate_keys_the_last_counts(port: int) -> None:
    body = ONE.replace(b'"data"', b'"data": [9, 9, 9, 9], "data"')
    with Wire(port, PATIENCE_S) as wire:
        wire.send(request(INFER, body))
        assert json.loads(wire.answer()[2])["outputs"][0]["data"] == [3.0, 5.0, 7.0, 9.0]


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf, 3e38])
def test_binary_numbers_that_json_cannot_hold_are_answered(port: int, worst: float) -> None:
    body, header = binary_body(np.full((1, 4), worst, np.float32))
    assert ask(port, request(INFER, body, header)) == 200
    body = body.replace(b"true", b"null")
    assert ask(port, request(INFER, body, header)) == 200


# --- sizes and times


@pytest.mark.parametrize("piece", [b"x: " + b"a" * 1000 + b"\r\n", b"a" * 1000, b"x:\r\n" * 200])
@pytest.mark.parametrize("start", [b"", b"GET /v2/", HEAD.encode()], ids=["nothing", "url", "headers"])
def test_heads_that_never_end(port: int, piece: bytes, start: bytes) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(start + piece * (2**20 // len(piece)))
        assert wire.answer()[0] in {400, 431}


@pytest.mark.parametrize("start", [b"2;", b"2;a=", b'2;a="', b"2\r\n{}\r\n0\r\nx: ", b"2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 100])
def test_extensions_and_trailers_that_never_end(port: int, start: bytes) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(CHUNKED + start + b"a" * 2**20)
        assert wire.answer()[0] == 431


def test_tiny_chunks_are_a_body(port: int) -> None:
    assert ask(port, CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in ONE) + b"0\r\n\r\n") == 200
    text = ONE + b" " * 10**5
    assert ask(port, CHUNKED + b"".join(b"2\r\n%b\r\n" % text[at : at + 2] for at in range(0, len(text) // 2 * 2, 2)) + b"0\r\n\r\n") == 200


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(port: int) -> None:
    assert ask(port, f"{HEAD}Content-Length: {LIMITS.body_bytes + 1}\r\n\r\n".encode()) == 413
    with Wire(port, PATIENCE_S) as wire:
        wire.send(f"{HEAD}Expect: 100-continue\r\nContent-Length: {LIMITS.body_bytes + 1}\r\n\r\n".encode())
        assert wire.answer()[0] == 413
        assert wire.ended()


def test_a_chunked_body_beyond_the_limit_is_refused(port: int) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(CHUNKED)
        try:
            for _ in range(8):
                wire.send(b"100000\r\n" + bytes(2**20) + b"\r\n")
            assert wire.answer()[0] == 413
        except ConnectionError:
            return


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_a_bomb_is_refused(port: int, coding: str) -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    assert ask(port, request(INFER, bomb, f"Content-Encoding: {coding}\r\n")) in {400, 413}
    assert ask(port, request(INFER, gzip.compress(bomb), f"Content-Encoding: {coding}\r\n")) in {400, 413}


def test_bodies_together_have_a_limit(port: int) -> None:
    announced = f"{HEAD}Content-Length: {LIMITS.body_bytes}\r\n\r\n".encode()
    with Wire(port, PATIENCE_S) as first, Wire(port, PATIENCE_S) as second:
        first.send(announced)
        second.send(announced)
        assert {first.answer()[0], second.answer()[0]} == {408, 503}


@pytest.mark.parametrize("start", [b"P", b"POST ", HEAD.encode(), WHOLE[:-1], CHUNKED, CHUNKED + b"5\r\n{"])
def test_slow_clients_are_told(port: int, start: bytes) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(start)
        assert wire.answer()[0] == 408
        assert wire.ended()


@pytest.mark.parametrize("drip", [b"x: y\r\n", b"x", b"1\r\n \r\n"])
def test_slow_clients_that_keep_sending_are_told(port: int, drip: bytes) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(CHUNKED if drip.startswith(b"1") else HEAD.encode())
        wire.socket.settimeout(0.1)
        answer = b""
        while not answer:
            wire.send(drip)
            try:
                answer = wire.socket.recv(100)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


def test_clients_that_never_read(port: int, served: tuple[Ready, Application]) -> None:
    wires = [Wire(port, PATIENCE_S) for _ in range(8)]
    many = request("/v2/models/tiny/config", method="GET") * 2000
    for wire in wires:
        wire.socket.settimeout(0.2)
        try:
            while True:
                wire.send(many)
        except OSError:
            pass
    application = served[1]
    assert becomes(lambda: len(application.connections) <= 1)  # the one that behaves
    for wire in wires:
        wire.socket.close()


def test_a_flood_of_connections(port: int, served: tuple[Ready, Application]) -> None:
    statuses = []
    wires = [Wire(port, PATIENCE_S) for _ in range(LIMITS.connections - 1)]
    assert becomes(lambda: len(served[1].connections) == LIMITS.connections)

    def knock(_: int) -> int:
        with Wire(port, PATIENCE_S) as wire:
            return wire.answer()[0]

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(knock, range(100)))
    assert statuses == [503] * 100
    for wire in wires:
        wire.send(WHOLE)
    assert [wire.answer()[0] for wire in wires] == [200] * len(wires)
    for wire in wires:
        wire.socket.close()


def test_connections_reset_in_the_middle(port: int) -> None:
    for cut in range(0, len(WHOLE) * 3, 7):
        with Wire(port, PATIENCE_S) as wire:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.send((WHOLE * 3)[:cut])


def test_thousands_of_unknown_models_leave_no_names_behind(port: int) -> None:
    with Wire(port, PATIENCE_S) as wire:
        for start in range(0, 2000, 20):
            wire.send(b"".join(request(f"/v2/models/ghost{number}/infer", ONE) for number in range(start, start + 20)))
            assert [wire.answer()[0] for _ in range(20)] == [404] * 20
        wire.send(request("/metrics", method="GET"))
        assert b"ghost" not in wire.answer()[2]


@pytest.mark.parametrize("path", ["/v2/models/%00/infer", "/v2/models/%ff%fe/infer", "/v2/models/..%2f..%2fetc/infer", "/v2/models/tiny/versions/-1/infer",
                                  "/v2/models/tiny/versions/" + "9" * 6000 + "/infer", "//", "*", "/%", "/v2/models//infer", "/?" + "a" * 5000])  # fmt: skip
def test_paths_that_are_none(port: int, path: str) -> None:
    assert ask(port, request(path, ONE)) in {400, 404, 405}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PURGE"])
def test_methods_that_are_not_post(port: int, method: str) -> None:
    with Wire(port, PATIENCE_S) as wire:
        wire.send(request(INFER, method=method))
        status = int(wire.socket.recv(2000).split(b" ")[1])
        assert status in {400, 405}


def test_wrong_tokens(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    with running(opened, token="secret") as ready:
        for given in (
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Bearer secre",
            "Bearer secret2",
            "bearer secret",
            "Bearer \xff\xfe",
            "Bearer  secret",
            "Basic secret",
        ):
            assert ask(ready.port, request(INFER, ONE, f"Authorization: {given}\r\n" if given else "")) == 401
        with Wire(ready.port, PATIENCE_S) as wire:  # a head that was let in is no ticket for one that was not
            right = request(INFER, ONE, "Authorization: Bearer secret\r\n")
            wrong = request(INFER, ONE, "Authorization: Bearer secreT\r\n")
            for sent, status in ((right, 200), (right, 200), (wrong, 401), (right, 200), (WHOLE, 401), (right, 200), (wrong, 401)):
                wire.send(sent)
                assert wire.answer()[0] == status
        trailer = (
            f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(ONE):x}\r\n".encode() + ONE + b"\r\n0\r\nAuthorization: Bearer secret\r\n\r\n"
        )
        assert ask(ready.port, trailer) == 401
