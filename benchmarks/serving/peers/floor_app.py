"""No server: what is left of one when requests are not read. The floor under every server on this loop and runtime.

A request's last 512 bytes are its row, whatever stands before them; nothing is parsed, checked, limited, counted or refused. Greedy batching on
uvloop, one thread for the model, answers from one template.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import numpy as np
import onnxruntime
import uvloop

MAX_BATCH, ROW_BYTES, NICENESS = 64, 512, 3
JSON = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,10],"parameters":{"binary_data_size":40}}]}'
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b"
    % (
        len(JSON),
        len(JSON) + 40,
        JSON,
    )
)

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

Row = tuple[asyncio.Transport, bytes]


class Model:
    """Whatever waits, in one batch, as soon as the last one is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._running = loop, False
        self._waiting: list[Row] = []
        self._taken: list[list[Row]] = []
        self._begin = threading.Semaphore(0)
        threading.Thread(target=self._work, daemon=True).start()

    def add(self, row: Row) -> None:
        self._waiting.append(row)
        self._start()

    def _start(self) -> None:
        if self._waiting and not self._running:
            self._running = True
            self._taken.append(self._waiting[:MAX_BATCH])
            del self._waiting[:MAX_BATCH]
            self._begin.release()

    def _answer(self, batch: Sequence[Row], results: np.ndarray) -> None:
        for (transport, _), row in zip(batch, results, strict=True):
            transport.write(HEAD + row.tobytes())
        self._running = False
        self._start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            self._begin.acquire()
            batch = self._taken.pop()
            rows = np.frombuffer(b"".join(row for _, row in batch), np.float32).reshape(len(batch), -1)
            self._loop.call_soon_threadsafe(self._answer, batch, session.run(None, {"x": rows})[0])


class Client(asyncio.Protocol):
    """A connection: a whole request in each piece, as small ones come."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._model.add((self._transport, data[-ROW_BYTES:]))


async def main() -> None:
    loop = asyncio.get_running_loop()
    model = Model(loop)
    server = await loop.create_server(lambda: Client(model), "127.0.0.1", int(sys.argv[2]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
