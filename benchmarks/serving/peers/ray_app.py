"""Ray Serve: ``@serve.batch`` with 64 rows and 2 ms, enough ongoing requests for a batch, its throughput mode (an environment variable)."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.5})
class Model:
    """The model as a deployment."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def run(self, rows: list[list[float]]) -> list[list[float]]:
        """One batch."""
        return self.session.run(None, {"x": np.array(rows, np.float32)})[0].tolist()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One row in, one row out."""
        return {"y": await self.run((await request.json())["x"])}


if __name__ == "__main__":
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, object_store_memory=200_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Model.bind(os.environ["MODEL"]), route_prefix="/")
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
