"""Tiny real models, bundles of them, and running servers, for the tests of ``serve`` and ``deploy``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headway.deploy import Entry, package
from headway.records import Environment, Objective, Plan, Variant
from headway.serve import OpenBundle, Options, Ready, Settings, open_bundle, serve

ENVIRONMENT = Environment(cpu="test", instruction_sets=("AVX2",), cores=2, memory_bytes=1, system="test", python="3", versions={})
SOURCE = Path(__file__).parent.parent / "src"


def save(path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any] = ()) -> Path:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def value(name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def affine_model(path: Path, scale: float = 2.0, batch: int | str = "batch") -> Path:
    """``y = scale x + 1`` on rows of four, and ``top``, the place of the largest."""
    weights = [numpy_helper.from_array(np.float32(scale), "w"), numpy_helper.from_array(np.float32(1), "one")]
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "one"], ["y"]),
        helper.make_node("ArgMax", ["x"], ["top"], axis=1, keepdims=0),
    ]
    return save(path, nodes, [value("x", [batch, 4])], [value("y", [batch, 4]), value("top", [batch], TensorProto.INT64)], weights)


def lookup_model(path: Path) -> Path:
    """``v``, the mean of a table's entries at ``ids`` (any number of them a row, each below 10)."""
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32).reshape(10, 1), "table")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["g"]), helper.make_node("ReduceMean", ["g", "axes"], ["v"], keepdims=0)]
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    return save(path, nodes, [value("ids", ["batch", "length"], TensorProto.INT64)], [value("v", ["batch", 1])], [table, axes])


def slow_model(path: Path, rounds: int) -> Path:
    """``y = x + rounds``, one step at a time: as slow as ``rounds`` is large."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "one"], ["s_out"]), helper.make_node("Identity", ["go"], ["go_out"])],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("s", ["batch", 4])],
        [value("go_out", [], TensorProto.BOOL), value("s_out", ["batch", 4])],
    )
    weights = [
        numpy_helper.from_array(np.int64(rounds), "n"),
        numpy_helper.from_array(np.bool_(True), "true"),
        numpy_helper.from_array(np.float32(1), "one"),
    ]
    nodes = [helper.make_node("Loop", ["n", "true", "x"], ["y"], body=body)]
    return save(path, nodes, [value("x", ["batch", 4])], [value("y", ["batch", 4])], weights)


def variant(name: str, precision: str = "float32") -> Variant:
    return Variant(
        name=name, source="test", origin="onnx", recipe=(), parent_digest="", digest="", path="", parameters=1, flop=1, weight_bytes=4,
        file_bytes=4, precision=precision,
    )  # fmt: skip


def entry(path: Path, name: str = "a", plan: Plan | None = None, precision: str = "float32", **expected: float) -> Entry:
    return Entry(variant(name, precision), path, plan or Plan(runtime="onnx_runtime", max_batch=8), expected)


def bundle(folder: Path, *entries: Entry, name: str = "tiny", **more: Any) -> OpenBundle:
    package(folder, name=name, entries=entries, objective=Objective(latency_s=0.1), environment=ENVIRONMENT, **more)
    return open_bundle(folder)


@contextlib.contextmanager
def running(*opened: OpenBundle, repository: Path | None = None, name: str | None = None, **options: Any) -> Iterator[Ready]:
    """A server in a thread of this process; ``options`` are those of ``Options`` and of ``Settings``."""
    settings = Settings(**{key: options.pop(key) for key in list(options) if key in Settings.__dataclass_fields__})
    chosen = Options(port=0, settings=settings, **options)
    ready: list[Ready] = []
    listening, failed = threading.Event(), []

    def on_ready(told: Ready) -> None:
        ready.append(told)
        listening.set()

    def live() -> None:
        try:
            serve(*opened, repository=repository, name=name, options=chosen, on_ready=on_ready)
        except BaseException as error:
            failed.append(error)
            listening.set()

    thread = threading.Thread(target=live)
    thread.start()
    listening.wait(30)
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield ready[0]
    finally:
        ready[0].stop()
        thread.join(15)
        assert not thread.is_alive()


@contextlib.contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """``python -m ARGUMENTS`` and the JSON line it prints when it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
    )  # fmt: skip
    try:
        line = child.stdout.readline() if child.stdout else ""
        if not line:
            child.wait(10)
            raise AssertionError(f"{arguments} ended with {child.returncode}: {child.stderr.read() if child.stderr else ''}")
        yield child, json.loads(line)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


class Wire:
    """A raw client connection: bytes out, parsed answers in."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer; raises EOFError at the end of the connection."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        size = int(headers.get("content-length", "0"))
        while len(self._buffer) < size:
            self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return int(lines[0].split(" ")[1]), headers, body

    def ended(self) -> bool:
        """Whether the server closed the connection and sent nothing more."""
        return not self._buffer and self.socket.recv(1) == b""

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data


def request(path: str, body: bytes = b"", headers: str = "", method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def json_body(*rows: Sequence[float], **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows}
    return json.dumps({"inputs": [tensor], **more}).encode()


def binary_body(array: np.ndarray, name: str = "x", kind: str = "FP32", **more: Any) -> tuple[bytes, str]:
    """A body with one binary tensor that asks for binary outputs, and the header that goes with it."""
    tensor = {"name": name, "datatype": kind, "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **more}).encode()
    return head + array.tobytes(), f"Inference-Header-Content-Length: {len(head)}\r\n"


def binary_outputs(headers: dict[str, str], body: bytes) -> dict[str, np.ndarray]:
    """The outputs of a binary answer."""
    types = {"FP32": np.float32, "INT64": np.int64}
    at = int(headers["inference-header-content-length"])
    outputs = {}
    for output in json.loads(body[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = np.frombuffer(body[at : at + size], types[output["datatype"]]).reshape(output["shape"])
        at += size
    assert at == len(body)
    return outputs
