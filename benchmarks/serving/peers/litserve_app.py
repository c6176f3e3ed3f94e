"""LitServe: batching with a window of 2 ms, its own hooks for batches, the fast queue (its documentation: for high throughput)."""

import os
from typing import Any

import litserve
import numpy as np
import onnxruntime


class Api(litserve.LitAPI):
    """The model behind LitServe's hooks."""

    def setup(self, device: str) -> None:
        """One session a worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict, **_: Any) -> np.ndarray:
        """One row."""
        return np.array(request["x"], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Rows to one array."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray, **_: Any) -> np.ndarray:
        """One batch."""
        return self.session.run(None, {"x": x})[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """One array to rows."""
        return list(output)

    def encode_response(self, output: np.ndarray, **_: Any) -> dict[str, list[float]]:
        """One row."""
        return {"y": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.002)
    fast = os.environ.get("FAST_QUEUE", "1") == "1"
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=fast)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
