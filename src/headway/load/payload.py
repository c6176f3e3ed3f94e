"""Requests of the Open Inference Protocol v2 with the binary tensor extension, as bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson

from headway.records import DataError

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
HEAD = "Inference-Header-Content-Length"


def infer_payload(feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, str], bytes]:
    """Headers and body of one infer request; outputs come back as binary too.

    Raises:
        DataError: an element type that the protocol does not have.
    """
    tensors = []
    for name, array in feeds.items():
        if array.dtype.name not in DATATYPES:
            raise DataError(f"input {name!r} must be of a type that the protocol has, got {array.dtype.name}")
        size = {"binary_data_size": array.nbytes}
        tensors.append({"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype.name], "parameters": size})
    head = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    body = b"".join([head, *(np.ascontiguousarray(array).tobytes() for array in feeds.values())])
    return {"Content-Type": "application/octet-stream", HEAD: str(len(head))}, body
