"""A real server of the Open Inference Protocol, right or wrong to order, for the tests of the audit over a socket."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

HEAD = "Inference-Header-Content-Length"
SERVICE_S = 0.005


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """The model list, and the one model."""
        shape = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        told = {"name": "s", "models": ["m"]} if self.path == "/v2" else {"name": "m", "inputs": [shape], "outputs": []}
        self._send(json.dumps(told).encode(), {})

    def do_POST(self) -> None:
        """``y = 2 x + 1``, of the request's own row or not."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        row = np.frombuffer(body[int(self.headers[HEAD]) :], np.float32)
        y = 2 * self.server.row_to_answer(row) + 1
        output = {"name": "y", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
        head = json.dumps({"model_name": "m", "outputs": [output]}).encode()
        self._send(head + y.astype(np.float32).tobytes(), {HEAD: str(len(head)), "headway-variant": "a"})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mixes: bool, caches: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.mixes, self.caches = mixes, caches
        self.seen: set[bytes] = set()
        self.running = 0
        self.last: np.ndarray | None = None
        self.lock = threading.Lock()

    def row_to_answer(self, row: np.ndarray) -> np.ndarray:
        """The row itself; a server that mixes gives that of a request under way, when there is one."""
        with self.lock:
            other = self.last if self.mixes and self.running else None
            self.running += 1
            self.last = row
            known = row.tobytes() in self.seen
            self.seen.add(row.tobytes())
        if not (self.caches and known):
            time.sleep(SERVICE_S)
        with self.lock:
            self.running -= 1
        return row if other is None else other


@contextlib.contextmanager
def answering(*, mixes: bool = False, caches: bool = False) -> Iterator[str]:
    """The URL of a server that answers each request in 5 ms, any number at the same time."""
    server = _Server(mixes, caches)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
