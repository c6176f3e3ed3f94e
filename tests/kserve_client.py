"""Run by a Python that has the package kserve: ask a server with KServe's own client, and print what it understood as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str, name: str) -> None:
    """Ask for health, and twice for an inference: as JSON, and with binary tensors."""
    client = InferenceRESTClient(config=RESTConfig(protocol="v2"))
    told = {
        "health": [await client.is_server_live(url), await client.is_server_ready(url), await client.is_model_ready(url, name)],
        "outputs": [],
    }
    for binary in (False, True):
        tensor = InferInput("x", [2, 4], "FP32")
        tensor.set_data_from_numpy(np.arange(8, dtype=np.float32).reshape(2, 4), binary_data=binary)
        answer = await client.infer(url, InferRequest(model_name=name, infer_inputs=[tensor]), model_name=name)
        told["outputs"].append({output.name: output.as_numpy().tolist() for output in answer.outputs})
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
