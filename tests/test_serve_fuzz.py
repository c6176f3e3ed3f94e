"""Requests cut, joined and damaged in any way: the answers are those of the same requests one by one; and the documented interface, fuzzed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.records import Plan, TensorSpec
from headway.serve import Limits, Ready
from headway.serve.answer import respond
from headway.serve.exchange import Exchange
from headway.serve.http import Connection
from headway.serve.refusal import Refusal
from headway.serve.wire import Signature
from serving import Wire, affine_model, binary_body, binary_outputs, bundle, entry, json_body, process, request, running

INFER = "/v2/models/tiny/infer"
SCHEMATHESIS = Path(os.environ.get("HEADWAY_SCHEMATHESIS", Path.home() / ".cache/headway/fuzz-venv/bin/schemathesis"))
FINE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    folder = tmp_path_factory.mktemp("fuzz")
    opened = bundle(folder / "b", entry(affine_model(folder / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=8)))
    with running(opened, deadline_s=60.0) as ready:
        yield ready


@dataclass(frozen=True)
class Sent:
    """One request as bytes, and what its answer must be: a status, and the first number of ``y`` for an inference."""

    data: bytes
    status: int
    y: float | None = None
    binary: bool = False
    last: bool = False
    head_only: bool = False

    def right(self, status: int, headers: dict[str, str], body: bytes) -> bool:
        if status != self.status or (headers.get("connection") == "close") != self.last:
            return False
        if self.y is None:
            return True
        if self.binary:
            return bool((binary_outputs(headers, body)["y"] == self.y).all())
        return json.loads(body)["outputs"][0]["data"] == [self.y] * 4


@st.composite
def requests(draw: st.DrawFn, last: bool = False) -> Sent:
    """One request; many have equal heads and equal lengths with other numbers, and many differ from those in one thing only."""
    x = float(draw(st.integers(1000, 9999)))
    kind = draw(
        st.sampled_from(["json", "json", "json", "binary", "binary", "chunked", "expect", "get", "head", "unknown", "invalid", "upgrade"])
    )
    extra = draw(st.sampled_from(["", "", "", "X-Y: z\r\n", "x-y: z\r\n"])) + ("Connection: close\r\n" if last else "")
    y, body = 2 * x + 1, json_body([x] * 4)
    if kind == "binary":
        body, header = binary_body(np.full((1, 4), x, np.float32))
        return Sent(request(INFER, body, header + extra), 200, y, binary=True, last=last)
    if kind == "chunked":
        at = sorted(draw(st.lists(st.integers(1, len(body) - 1), max_size=4, unique=True)))
        pieces = [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True)]
        text = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        return Sent(f"POST {INFER} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n{extra}\r\n".encode() + text, 200, y, last=last)
    if kind in ("get", "head"):
        return Sent(request("/v2/health/live", headers=extra, method=kind.upper()), 200, last=last, head_only=kind == "head")
    if kind == "unknown":
        return Sent(request("/v2/models/tinz/infer", body, extra), 404, last=last)
    if kind == "invalid":
        return Sent(request(INFER, body[:-1] + b"]", extra), 400, last=last)
    if kind == "upgrade" and not last:
        return Sent(request(INFER, body, "Connection: Upgrade\r\nUpgrade: h2c\r\n"), 200, y)
    return Sent(request(INFER, body, ("Expect: 100-continue\r\n" if kind == "expect" else "") + extra), 200, y, last=last)


def read(wire: Wire, sent: Sent) -> tuple[int, dict[str, str], bytes]:
    """The final answer to a request; ``100 Continue`` before it is stepped over."""
    while b"\r\n\r\n" not in wire._buffer:
        wire._more()
    if wire._buffer.startswith(b"HTTP/1.1 100 "):
        wire._buffer = wire._buffer.partition(b"\r\n\r\n")[2]
        return read(wire, sent)
    if sent.head_only:
        head, _, rest = wire._buffer.partition(b"\r\n\r\n")
        wire._buffer = head.lower().replace(b"content-length", b"was") + b"\r\n\r\n" + rest
    return wire.answer()


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = sorted({0, *(cut % len(data) for cut in cuts), len(data)})
    return [data[a:b] for a, b in pairwise(at)]


@settings(FINE, max_examples=150)
@given(st.lists(requests(), min_size=1, max_size=12), st.booleans(), st.booleans(), st.data())
def test_however_requests_are_cut_and_joined_each_gets_its_own_answer(
    server: Ready, sent: list[Sent], whole: bool, ends: bool, data: st.DataObject
) -> None:
    if ends:
        sent = [*sent, data.draw(requests(last=True))]
    joined = b"".join(each.data for each in sent)
    if whole:
        groups = data.draw(st.lists(st.integers(0, len(sent)), max_size=4))
        at = sorted({0, *groups, len(sent)})
        parts = [b"".join(each.data for each in sent[a:b]) for a, b in pairwise(at)]
    else:
        parts = pieces(joined, data.draw(st.lists(st.integers(0, len(joined) - 1), max_size=10)))
    with Wire(server.port, 30.0) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            wire.send(part)
        if data.draw(st.booleans()):
            wire.socket.shutdown(socket.SHUT_WR)
            ends = True
        for each in sent:
            answer = read(wire, each)
            assert each.right(*answer), (each, answer)
        assert not ends or wire.ended()


@settings(FINE, max_examples=60)
@given(st.lists(requests(), min_size=2, max_size=12))
def test_one_after_another_on_one_connection_each_gets_its_own_answer(server: Ready, sent: list[Sent]) -> None:
    with Wire(server.port, 30.0) as wire:
        for each in sent:
            wire.send(each.data)
            answer = read(wire, each)
            assert each.right(*answer), (each, answer)


@settings(FINE, max_examples=60)
@given(requests(), st.integers(0, 500), st.integers(0, 255))
def test_one_changed_byte_of_a_known_request_is_not_taken_for_it(server: Ready, sent: Sent, at: int, byte: int) -> None:
    """The answer is that of a new connection, where nothing is remembered."""
    changed = bytearray(sent.data)
    changed[at % len(changed)] = byte
    answers = []
    for before in (0, 2):
        with Wire(server.port, 30.0) as wire:
            for _ in range(before):
                wire.send(sent.data)
                read(wire, sent)
            wire.send(bytes(changed))
            wire.socket.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := wire.socket.recv(65536):
                answer += piece
            answers.append(answer)
    assert answers[0] == answers[1]


@settings(FINE, max_examples=100)
@given(st.lists(st.one_of(st.binary(max_size=300), requests().map(lambda sent: sent.data), st.just(b"\r\n")), max_size=6), st.data())
def test_noise_gets_answers_or_an_end(server: Ready, parts: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(parts)
    with Wire(server.port, 30.0) as wire:
        for piece in pieces(joined, data.draw(st.lists(st.integers(0, 3000), max_size=5))) if joined else []:
            try:
                wire.send(piece)
            except OSError:
                break
        try:
            wire.socket.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := wire.socket.recv(65536):
                answer += piece
        except ConnectionError:
            pass
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in answer
    with Wire(server.port, 30.0) as wire:
        wire.send(request(INFER, json_body([1.0] * 4)))
        assert json.loads(wire.answer()[2])["outputs"][0]["data"] == [3.0] * 4


# --- a connection without sockets: exactly these pieces, answers in exactly this order


class Piped:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.written += b"".join(parts)

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return False

    def nothing(self) -> None:
        """Reading goes on: the test feeds whatever the pieces are."""

    close = abort = write_eof = pause_reading = resume_reading = nothing


class Echo:
    """A Front that answers a request with what it was, when it is told to."""

    def __init__(self) -> None:
        self.limits, self.draining, self.buffered_bytes = Limits(pipelined=1000), False, 0
        self.connections: set[Connection] = set()
        self.waiting: list[tuple[Exchange, bytes]] = []

    def admit(self, method: bytes, url: bytes, headers: Mapping[bytes, bytes]) -> Refusal | None:
        return None

    def handle(self, exchange: Exchange, method: bytes, url: bytes, headers: Mapping[bytes, bytes], body: bytes) -> None:
        self.waiting.append((exchange, b"%b %b %b %b" % (method, url, repr(sorted(headers.items())).encode(), body)))

    def answered(self, exchange: Exchange, status: int, reason: str) -> None:
        """Refusals of the connection are in what it writes."""

    def answer(self, place: int) -> None:
        exchange, told = self.waiting.pop(place % len(self.waiting))
        exchange.connection.finish(exchange, respond(200, told))


SHORT = [
    lambda body: b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    lambda body: b"POST /a HTTP/1.1\r\nInference-Header-Content-Length: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    lambda body: b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"HEAD /a HTTP/1.1\r\n\r\n",
    lambda body: b"GET /a HTTP/1.1\r\n\r\n",
    lambda body: b"\r\nPOST /b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
]
ONES = st.builds(
    lambda form, body: form(body), st.sampled_from(SHORT), st.sampled_from([b"abcd", b"efgh", b"\r\n\r\n", b"GET ", b"abcde", b"a" * 40])
)
LAST = st.sampled_from([b"POST /a HTTP/1.1\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd", b"GET /a HTTP/1.0\r\n\r\n"])


def spoken(parts: Sequence[bytes], order: Sequence[int] | None) -> bytes:
    """What is written when these pieces come; answers are given at once, or now and then in this order."""
    front, piped = Echo(), Piped()
    connection = Connection(front)
    connection.connection_made(piped)  # type: ignore[arg-type]
    places = iter(order or ())
    for part in parts:
        connection.data_received(part)
        while front.waiting and (order is None or (place := next(places, -1)) >= 0):
            front.answer(0 if order is None else place)
    while front.waiting:
        front.answer(next(places, -1))
    connection.eof_received()
    connection.connection_lost(None)
    assert front.buffered_bytes == 0
    assert not front.connections
    return piped.written


@settings(FINE, max_examples=500)
@given(
    st.lists(st.lists(ONES, min_size=1, max_size=3), min_size=1, max_size=5),
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.one_of(st.none(), LAST),
    st.lists(st.integers(0, 500), max_size=6),
    st.lists(st.integers(-1, 5), max_size=40),
)
def test_pieces_and_the_order_of_answers_change_nothing(
    groups: list[list[bytes]], turns: list[int], last: bytes | None, cuts: list[int], order: list[int]
) -> None:
    """Groups of requests are sent again and again, so that heads are remembered; also cut anywhere, and answered in any order."""
    joined = [b"".join(groups[turn % len(groups)]) for turn in turns] + ([last, last] if last is not None else [])
    one_by_one = [one for turn in turns for one in groups[turn % len(groups)]] + ([last] if last is not None else [])
    wanted = b"".join(spoken([one], None) for one in one_by_one)
    assert spoken(joined, None) == wanted
    assert spoken(joined, order) == wanted
    assert spoken([piece for part in joined for piece in pieces(part, cuts)], order) == wanted
    assert spoken(pieces(b"".join(joined), cuts), order) == wanted
    assert spoken([bytes([byte]) for byte in b"".join(joined)], None) == wanted


# --- bodies, in this process

SIGNATURES = [
    Signature(
        [TensorSpec(name="x", dtype=kind, shape=("n", 4))],
        [TensorSpec(name="y", dtype="float32", shape=("n", 4))],
        max_batch=8,
        limits=Limits(),
    )
    for kind in ("float32", "float16", "int8", "uint64", "int64", "bool", "float64")
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["FP32", "x", "y", "BOOL", "INT64"]),
)
JSON = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.sampled_from(["a", "name", "data"]), inner, max_size=3))
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("x"), JSON),
        "datatype": st.one_of(st.sampled_from(["FP32", "FP16", "INT8", "UINT64", "INT64", "BOOL", "FP64"]), JSON),
    },
    optional={
        "shape": st.one_of(st.just([1, 4]), st.just([2, 4]), st.lists(st.integers(-5, 2**70), max_size=3), JSON),
        "data": st.one_of(st.lists(LEAVES, min_size=4, max_size=4), st.lists(st.lists(LEAVES, min_size=4, max_size=4), max_size=2), JSON),
        "parameters": st.one_of(st.fixed_dictionaries({"binary_data_size": st.one_of(st.sampled_from([4, 8, 16, 32]), JSON)}), JSON),
    },
)
OUTPUTS = st.fixed_dictionaries(
    {"name": st.one_of(st.just("y"), JSON)},
    optional={"parameters": st.one_of(st.fixed_dictionaries({"classification": JSON, "binary_data": JSON}), JSON)},
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(TENSORS, max_size=2), JSON)},
    optional={
        "id": JSON,
        "outputs": st.one_of(st.lists(OUTPUTS, max_size=2), JSON),
        "parameters": st.one_of(st.fixed_dictionaries({}, optional={"timeout": JSON, "priority": JSON, "binary_data_output": JSON}), JSON),
    },
)


@settings(FINE, max_examples=400)
@given(BODIES, st.one_of(st.none(), st.binary(max_size=64)), st.integers(-3, 3))
def test_any_body_is_read_or_refused(body: object, blob: bytes | None, off: int) -> None:
    head = json.dumps(body).encode()
    for signature in SIGNATURES:
        try:
            call = signature.read(head, None) if blob is None else signature.read(head + blob, max(0, len(head) + off))
        except Refusal as refusal:
            assert refusal.status in {400, 413}
            assert len(str(refusal)) < 1000
        else:
            array = call.feeds["x"]
            assert array.shape in {(rows, 4) for rows in range(1, 9)}
            assert array.shape[0] == call.rows


# --- the documented interface


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed; HEADWAY_SCHEMATHESIS names its program")
def test_the_server_does_what_its_openapi_document_says(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=8)))
    with process("headway", "serve", "--json", str(opened.root), "--http", "127.0.0.1:0") as (child, line):
        done = subprocess.run(
            [str(SCHEMATHESIS), "run", f"{line['url']}/openapi.json", "--max-examples=200", "--phases=examples,coverage,fuzzing", "--seed=1",
             "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance", "--suppress-health-check=all"],
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:]
        assert child.poll() is None
