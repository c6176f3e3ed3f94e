"""mosec: one worker, 64 rows, 1 ms; JSON, its default, or msgpack, which its documentation offers for speed (``PROTOCOL=msgpack``)."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import onnxruntime
from mosec import Server, Worker
from mosec.mixin import MsgpackMixin


class Json(Worker):
    """The model as a worker; batches come as lists."""

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, list[float]]]:
        """One batch."""
        answers = self.session.run(None, {"x": np.array([row["x"] for row in data], np.float32)})[0]
        return [{"y": answer.tolist()} for answer in answers]


class Msgpack(MsgpackMixin, Json):
    """The same with tensors as raw bytes."""

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One batch."""
        answers = self.session.run(None, {"x": np.frombuffer(b"".join([row["x"] for row in data]), np.float32).reshape(len(data), -1)})[0]
        return [{"y": answer.tobytes()} for answer in answers]


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", os.environ["PORT"]]
    server = Server()
    worker = Msgpack if os.environ.get("PROTOCOL") == "msgpack" else Json
    server.append_worker(worker, num=1, max_batch_size=64, max_wait_time=1)
    server.run()
