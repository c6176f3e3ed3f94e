"""MLServer: a custom runtime (it has none for ONNX), adaptive batching with 64 rows and 2 ms, no extra worker process, no metrics server."""

from __future__ import annotations

import asyncio
import os

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    """The model behind MLServer's interface."""

    async def load(self) -> bool:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One batch."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self.session.run(None, {"x": x})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])


async def main() -> None:
    """Serve until told to stop."""
    settings = Settings(
        host="127.0.0.1", http_port=int(os.environ["PORT"]), grpc_port=int(os.environ["SECOND_PORT"]), parallel_workers=0, debug=False,
        metrics_endpoint=None, access_log=False,
    )  # fmt: skip
    model = ModelSettings(
        name=os.environ["NAME"],
        implementation=Onnx,
        max_batch_size=64,
        max_batch_time=0.002,
        parameters=ModelParameters(uri=os.environ["MODEL"]),
    )
    server = MLServer(settings)
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(main())
