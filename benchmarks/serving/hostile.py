"""Long fuzzing of the server: its HTTP connection and its readers of bodies and gRPC messages in this process, and a real server over sockets.

    python benchmarks/serving/hostile.py connection|bodies|messages|sockets|grpc --seconds 600

One JSON line at the end, appended to ``hostile.jsonl`` in the benchmark's work folder, and printed: how many inputs, and what was found with the
input in hexadecimal. With atheris installed (its inputs grow towards new code) the first three are guided by coverage; without, they are mutations of
valid requests. What counts as found: an exception other than a refusal, an answer 5xx, a connection without end, a wrong answer beside the attack.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent / "src"), str(HERE.parent.parent / "tests")]

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None:
    with atheris.instrument_imports(include=["headway.serve"]):
        from headway.records import TensorSpec
        from headway.serve.answer import respond_json
        from headway.serve.exchange import Exchange
        from headway.serve.fronts._grpc_infer import GrpcForm, in_stream, parse, taken
        from headway.serve.http import Connection
        from headway.serve.limits import Limits
        from headway.serve.refusal import Refusal
        from headway.serve.wire import Signature
else:
    from headway.records import TensorSpec
    from headway.serve.answer import respond_json
    from headway.serve.exchange import Exchange
    from headway.serve.fronts._grpc_infer import GrpcForm, in_stream, parse, taken
    from headway.serve.http import Connection
    from headway.serve.limits import Limits
    from headway.serve.refusal import Refusal
    from headway.serve.wire import Signature

import grpc  # noqa: E402
import numpy as np  # noqa: E402

from headway.protocol.messages import METHODS, SERVICE, InferRequest  # noqa: E402
from serving import affine_model, bundle, entry, process  # noqa: E402

WORK = Path(os.environ.get("HEADWAY_WORK", Path.home() / ".cache/headway/serving"))
TENSOR = b'{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}'
BODY = (
    b'{"inputs":['
    + TENSOR
    + b'],"outputs":[{"name":"y","parameters":{"classification":2}}],"parameters":{"timeout":9000000,"priority":1},"id":"a"}'
)
BINARY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}' + bytes(16)
HEAD = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: h\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
SEEDS = (
    WHOLE, WHOLE * 3, HEAD + b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(BINARY) - 16, len(BINARY)) + BINARY,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\nx: y\r\n\r\n" + WHOLE,
    b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + WHOLE,
    HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", b"HEAD /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)  # fmt: skip
WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"0", b"-1", b"99999999999999999999", b"{", b"}", b"[", b"]", b'"', b"[" * 1010, b"null", b"1e999", b"\xff",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n", b"Expect: 100-continue\r\n",
    b"Inference-Header-Content-Length: 9\r\n", b"Content-Encoding: gzip\r\n", b"Accept-Encoding: gzip\r\n", b"HTTP/1.0", b"/v2/models/stats", b"GET ",
)  # fmt: skip


class Transport:
    """Stands for a socket: keeps what was written."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.written += b"".join(pieces)

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def nothing(self) -> None: ...

    write_eof = pause_reading = resume_reading = nothing
    abort = close


class Front:
    """Answers every request at once with what was asked."""

    def __init__(self) -> None:
        self.limits = Limits(head_bytes=4096, body_bytes=2**16, buffered_bytes=2**18)
        self.draining, self.buffered_bytes = False, 0
        self.connections: set[Connection] = set()

    def admit(self, method: bytes, url: bytes, headers: dict[bytes, bytes]) -> Refusal | None:
        return None

    def handle(self, exchange: Exchange, method: bytes, url: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        given = [
            method.decode("latin-1"),
            url.decode("latin-1"),
            {name.decode(): value.decode("latin-1") for name, value in headers.items()},
            body.hex(),
        ]
        exchange.connection.finish(exchange, respond_json(given))

    def answered(self, exchange: Exchange, status: int, reason: str) -> None: ...


def connection(data: bytes) -> None:
    """Bytes in one piece per request, and the same bytes one by one, must be answered the same; and nothing may be left."""
    written = []
    for cuts in (1, 0, 3):
        front, transport = Front(), Transport()
        one = Connection(front)
        one.connection_made(transport)  # type: ignore[arg-type]
        for piece in _cut(data, cuts):
            one.data_received(piece)
        one.eof_received()
        one.connection_lost(None)
        assert front.buffered_bytes == 0, "bytes stay reserved"
        assert not front.connections, "the connection stays"
        assert b"HTTP/1.1 500" not in transport.written, "500"
        written.append(transport.written)
    if not written[0].count(b"HTTP/1.1 4") and not written[1].count(b"HTTP/1.1 4"):
        assert written[0] == written[1], f"cut otherwise, answered otherwise: {written}"


def _cut(data: bytes, cuts: int) -> list[bytes]:
    if cuts == 1:
        return [data[at : at + 1] for at in range(min(len(data), 3000))] + ([data[3000:]] if len(data) > 3000 else [])
    if cuts == 3:
        return [part + WHOLE[:0] for part in data.split(b"POST ")][:1] + [b"POST " + part for part in data.split(b"POST ")[1:]]
    return [data]


SIGNATURES = [
    Signature(
        [TensorSpec(name="x", dtype=kind, shape=("n", 4))],
        [TensorSpec(name="y", dtype="float32", shape=("n", 4))],
        max_batch=8,
        limits=Limits(),
    )
    for kind in ("float32", "int8", "bool")
]


def bodies(data: bytes) -> None:
    """Any body is read into the shape that was checked, or refused."""
    at = data[0] if data else 0
    for signature in SIGNATURES:
        for head_bytes in (None, at, max(0, len(data) - 16)):
            try:
                call = signature.read(data, head_bytes)
            except Refusal as refusal:
                assert refusal.status in (400, 413)
            else:
                assert call.feeds["x"].shape == (call.rows, 4)


TENSORS = [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]
ASKED = {"timeout": {"int64_param": 9_000_000}, "priority": {"int64_param": 1}}
MESSAGES = (
    InferRequest(model_name="tiny", id="a", inputs=TENSORS, raw_input_contents=[bytes(16)], parameters=ASKED).SerializeToString(),
    InferRequest(
        model_name="tiny", inputs=[{**TENSORS[0], "contents": {"fp32_contents": [1, 2, 3, 4]}}],
        outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 2}}}],
    ).SerializeToString(),
)  # fmt: skip
FORM = GrpcForm("tiny", "1", ["a", "b"], batched=True)
SMALL = Limits(json_bytes=512)


def messages(data: bytes) -> None:
    """Any message is read into the shape that was checked and answered, or refused."""
    for limits in (SIGNATURES[0]._limits, SMALL):
        try:
            call = SIGNATURES[0].take(*taken(parse(data, limits)))
            assert call.feeds["x"].shape == (call.rows, 4)
            answer = FORM.answer(call, [(wanted, np.ones((call.rows, 4), np.float32)) for wanted in call.wanted], "v")
        except Refusal as refusal:
            assert refusal.status in (400, 413)
        else:
            assert in_stream(answer, call.id)


def mutated(random_: random.Random, seed: bytes) -> bytes:
    """A few random changes of one seed."""
    data = bytearray(seed)
    for _ in range(random_.randint(1, 6)):
        at = random_.randrange(len(data) + 1)
        kind = random_.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = random_.randrange(256)
        elif kind == 1:
            data[at:at] = random_.choice(WORDS)
        elif kind == 2:
            del data[at : at + random_.randint(1, 40)]
        elif kind == 3:
            other = random_.choice(SEEDS)
            start = random_.randrange(len(other))
            data[at:at] = other[start : start + random_.randint(1, 200)]
        elif kind == 4:
            data[at : at + random_.randint(0, 20)] = random_.randbytes(random_.randint(0, 20))
        else:
            data[at:at] = data[max(0, at - random_.randint(1, 100)) : at]
    return bytes(data[: 2**16])


def in_process(target: Callable[[bytes], None], seeds: tuple[bytes, ...], seconds: float, seed: int) -> dict[str, Any]:
    """Mutations of the seeds for a time; at most 20 findings are kept."""
    random_, tried, found, end_s = random.Random(seed), 0, [], time.monotonic() + seconds
    while time.monotonic() < end_s and len(found) < 20:
        data = mutated(random_, random_.choice(seeds))
        tried += 1
        try:
            target(data)
        except Exception as error:
            found.append({"error": repr(error)[:400], "input": data.hex()[:4000]})
    return {"tried": tried, "found": found, "guided": False}


def guided(target: Callable[[bytes], None], seeds: tuple[bytes, ...], seconds: float) -> dict[str, Any]:
    """atheris for a time, in a child of its own since it ends its process."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for place, seed in enumerate(seeds):
            (corpus / str(place)).write_bytes(seed)
        command = [sys.executable, __file__, target.__name__, "--guided", str(corpus), f"-max_total_time={seconds:.0f}", f"-artifact_prefix={folder}/",
                   "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
        found = [
            {"error": done.stderr[-1500:], "input": path.read_bytes().hex()[:4000]} for path in Path(folder).glob("*-*") if path.is_file()
        ]
        tried = int(lines[0].split(":")[-1]) if lines else 0
        return {"tried": tried, "found": found, "guided": True, "corpus": len(list(corpus.iterdir())), "exit_code": done.returncode}


def sockets(seconds: float, seed: int) -> dict[str, Any]:
    """Mutated requests to a real server; between them, right answers to right requests."""
    random_, tried, found, answers, end_s = random.Random(seed), 0, [], 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        opened = bundle(Path(folder) / "b", entry(affine_model(Path(folder) / "m.onnx")))
        with process("headway", "serve", "--json", str(opened.root), "--http", "127.0.0.1:0", "--deadline", "60s") as (child, line):
            port, resident = line["port"], []
            while time.monotonic() < end_s and len(found) < 20 and child.poll() is None:
                data = mutated(random_, random_.choice(SEEDS))
                tried += 1
                answer, whole = _talk(port, data, random_)
                answers += answer.count(b"HTTP/1.1 ")
                if not whole or b"HTTP/1.1 5" in answer:
                    found.append(
                        {"error": "no end" if not whole else "5xx", "answer": answer[-300:].decode("latin-1"), "input": data.hex()[:4000]}
                    )
                if tried % 50 == 0:
                    right, whole = _talk(port, WHOLE, None)
                    if not whole or b"HTTP/1.1 200" not in right:
                        found.append({"error": "a right request was not answered", "answer": right.decode("latin-1")})
                if tried % 500 == 1:
                    resident.append(int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * 4096)
            files = len(os.listdir(f"/proc/{child.pid}/fd")) if child.poll() is None else None
            return {"tried": tried, "answers": answers, "found": found, "alive": child.poll() is None, "files": files,
                    "resident_bytes": [resident[0], resident[len(resident) // 2], resident[-1]]}  # fmt: skip


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)
FINE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}


def over_grpc(seconds: float, seed: int) -> dict[str, Any]:
    """Mutated messages to every method of a real server, mutated HTTP/2 frames beside them; between them, right answers to right requests."""
    random_, tried, found, codes, end_s = random.Random(seed), 0, [], {}, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        opened = bundle(Path(folder) / "b", entry(affine_model(Path(folder) / "m.onnx")))
        command = ("headway", "serve", "--json", str(opened.root), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--deadline", "60s")
        with process(*command) as (child, line), grpc.insecure_channel(f"127.0.0.1:{line['grpc_port']}") as channel:
            resident = []
            while time.monotonic() < end_s and len(found) < 20 and child.poll() is None:
                data = mutated(random_, random_.choice(MESSAGES))
                method = random_.choice([name for name in METHODS if "Repository" not in name])
                tried += 1
                if random_.random() < 0.2:
                    frames = PREFACE + SETTINGS + len(data).to_bytes(3, "big") + random_.randbytes(1) + random_.randbytes(5) + data
                    _talk(line["grpc_port"], mutated(random_, frames), random_)
                    continue
                try:
                    call = channel.stream_stream if METHODS[method].streams else channel.unary_unary
                    answer = call(f"/{SERVICE}/{method}")(iter([data]) if METHODS[method].streams else data, timeout=20)
                    if METHODS[method].streams:
                        list(answer)
                    status = grpc.StatusCode.OK
                except grpc.RpcError as error:
                    status = error.code()
                codes[status.name] = codes.get(status.name, 0) + 1
                if status not in FINE:
                    found.append({"error": status.name, "method": method, "input": data.hex()[:4000]})
                if tried % 50 == 0:
                    channel.unary_unary(f"/{SERVICE}/ModelInfer")(MESSAGES[0], timeout=20)
                if tried % 500 == 1:
                    resident.append(int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * 4096)
            files = len(os.listdir(f"/proc/{child.pid}/fd")) if child.poll() is None else None
            return {"tried": tried, "codes": codes, "found": found, "alive": child.poll() is None, "files": files,
                    "resident_bytes": [resident[0], resident[len(resident) // 2], resident[-1]]}  # fmt: skip


def _talk(port: int, data: bytes, random_: random.Random | None) -> tuple[bytes, bool]:
    """All that comes back, and whether the connection ended within 20 s of the end of sending."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        try:
            if random_ is not None and random_.random() < 0.5:
                at = random_.randrange(len(data) + 1)
                client.sendall(data[:at])
                data = data[at:]
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(2**16):
                answer += piece
        except TimeoutError:
            return answer, False
        except OSError:
            return answer, True
    return answer, True


IN_PROCESS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "connection": (connection, SEEDS),
    "bodies": (bodies, (BODY, BINARY, TENSOR)),
    "messages": (messages, MESSAGES),
}


def main() -> None:
    """One kind of fuzzing, and its line."""
    if "--guided" in sys.argv:
        target = IN_PROCESS[sys.argv[1]][0]
        asyncio.set_event_loop(asyncio.new_event_loop())
        atheris.Setup([sys.argv[0], *sys.argv[3:]], target)
        atheris.Fuzz()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=(*IN_PROCESS, "sockets", "grpc"))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unguided", action="store_true", help="mutations even when atheris is installed")
    chosen = parser.parse_args()
    target, seeds = IN_PROCESS.get(chosen.kind, (connection, SEEDS))
    if chosen.kind in ("sockets", "grpc"):
        told = (sockets if chosen.kind == "sockets" else over_grpc)(chosen.seconds, chosen.seed)
    elif atheris is not None and not chosen.unguided:
        told = guided(target, seeds, chosen.seconds)
    else:
        told = in_process(target, seeds, chosen.seconds, chosen.seed)
    text = json.dumps({"stage": "hostile", "kind": chosen.kind, "seconds": chosen.seconds, "seed": chosen.seed, **told})
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "hostile.jsonl").open("a") as file:
        file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
