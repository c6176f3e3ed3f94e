"""Requests and answers of the Open Inference Protocol v2 with the binary tensor extension, as bytes.

The protocol: kserve/open-inference-protocol, ``specification/protocol/inference_rest.md``; the extension:
triton-inference-server/server, ``docs/protocol/extension_binary_data.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import orjson
from numpy.typing import NDArray

from headway.protocol.datatypes import DATATYPES, NUMPY
from headway.records import DataError, MeasurementError

HEAD = "Inference-Header-Content-Length"


def infer_payload(feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, str], bytes]:
    """Headers and body of one infer request; outputs come back as binary too.

    Raises:
        DataError: an element type that the protocol does not have.
    """
    tensors, parts = [], []
    for name, array in feeds.items():
        if array.dtype.name not in DATATYPES:
            raise DataError(
                f"input {name!r} must be of a type that the protocol has, got {array.dtype.name}; convert it to one of {', '.join(DATATYPES)}"
            )
        size = {"binary_data_size": array.nbytes}
        tensors.append({"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype.name], "parameters": size})
        parts.append(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    head = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    return {"Content-Type": "application/octet-stream", HEAD: str(len(head))}, b"".join([head, *parts])


def parse_infer_response(headers: Mapping[str, str], body: bytes) -> dict[str, NDArray[np.generic]]:
    """Output arrays by name, from a binary, a JSON or a mixed answer. Binary outputs are read-only views of ``body``.

    Args:
        headers: of the answer; names may be in any case.

    Raises:
        MeasurementError: the answer is not one of the protocol, or its sizes do not agree.
    """
    length = next((value for name, value in headers.items() if name.lower() == HEAD.lower()), None)
    try:
        at = len(body) if length is None else int(length)
        arrays: dict[str, NDArray[np.generic]] = {}
        for tensor in orjson.loads(body[:at])["outputs"]:
            dtype, shape = np.dtype(NUMPY[tensor["datatype"]]).newbyteorder("<"), tuple(tensor["shape"])
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                arrays[tensor["name"]] = np.asarray(tensor["data"], dtype=dtype).reshape(shape)
                continue
            if size != prod(shape) * dtype.itemsize:
                raise ValueError(f"output {tensor['name']!r} of shape {shape} says that it has {size} bytes")
            arrays[tensor["name"]] = np.frombuffer(body, dtype, prod(shape), at).reshape(shape)
            at += size
        if at != len(body):
            raise ValueError(f"{len(body) - at} bytes are left over")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MeasurementError(f"an answer must follow the Open Inference Protocol v2, got {body[:80]!r}... ({reason})") from error
    return arrays
