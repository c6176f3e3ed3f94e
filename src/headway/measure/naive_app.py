"""The deployment that most people write first: one FastAPI process, ONNX Runtime as it comes, one request a run.

``python -m headway.measure.naive_app MODEL.onnx --port 0`` prints one line of JSON with its port when it listens. It is what
Headway is compared with, so it is kept simple and fair: FastAPI on uvicorn with httptools and uvloop, a plain ``def`` endpoint
(which FastAPI runs in its thread pool, as its documentation advises for blocking calls), default session options, and the same
wire format as Headway's server, read with ``numpy.frombuffer``, so that the comparison is not about JSON. It knows nothing else
of Headway.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response

DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
NAMES = {numpy_name: name for name, numpy_name in DATATYPES.items()}


async def raw_body(request: Request) -> bytes:
    """The request's body as it came."""
    return await request.body()


def build_app(model: Path, on_start: Any = lambda: None) -> FastAPI:
    """The application around one ONNX file; ``on_start`` is called once it can answer."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        on_start()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v2/models/{name}/infer")
    def infer(
        name: str,
        body: Annotated[bytes, Depends(raw_body)],
        inference_header_content_length: Annotated[int | None, Header()] = None,
    ) -> Response:
        try:
            request, feeds = read(body, inference_header_content_length)
        except (ValueError, KeyError, TypeError) as error:
            raise HTTPException(400, f"the request must be Open Inference Protocol v2, got: {error}") from error
        outputs = dict(zip((output.name for output in session.get_outputs()), session.run(None, feeds), strict=True))
        return write(name, request, outputs)

    return app


def read(body: bytes, head_bytes: int | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The request's JSON part, and its tensors."""
    at = len(body) if head_bytes is None else head_bytes
    request = json.loads(body[:at])
    feeds = {}
    for tensor in request["inputs"]:
        dtype = np.dtype(DATATYPES[tensor["datatype"]])
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.array(tensor["data"], dtype)
        else:
            array = np.frombuffer(body[at : at + size], dtype)
            at += size
        feeds[tensor["name"]] = array.reshape(tensor["shape"])
    return request, feeds


def write(name: str, request: dict[str, Any], results: dict[str, np.ndarray]) -> Response:
    """The answer, with outputs as binary where the request asks for it."""
    default = request.get("parameters", {}).get("binary_data_output", False)
    wanted = request.get("outputs") or [{"name": output} for output in results]
    outputs, blobs = [], []
    for want in wanted:
        array = results[want["name"]]
        output: dict[str, Any] = {"name": want["name"], "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
        if want.get("parameters", {}).get("binary_data", default):
            blobs.append(array.tobytes())
            output["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    answer = {"model_name": name, "model_version": "1", "outputs": outputs}
    if "id" in request:
        answer["id"] = request["id"]
    head = json.dumps(answer).encode()
    if not blobs:
        return Response(head, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Response(head + b"".join(blobs), media_type="application/octet-stream", headers=headers)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m headway.measure.naive_app", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    given = parser.parse_args(arguments)
    if not given.model.is_file():
        print(f"error: {given.model} must be an ONNX file, and it does not exist.", file=sys.stderr)
        return 2
    with socket.create_server((given.host, given.port), backlog=2048) as listener:
        port = listener.getsockname()[1]
        line = json.dumps({"port": port, "url": f"http://{given.host}:{port}"})
        app = build_app(given.model, on_start=lambda: print(line, flush=True))
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
