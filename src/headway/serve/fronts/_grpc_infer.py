"""Inferences as gRPC messages: a request's bytes to what a Signature takes, a result to the bytes of a response. No sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from headway.protocol.datatypes import DATATYPES, NUMPY
from headway.protocol.messages import InferRequest, InferResponse, StreamResponse
from headway.serve.call import Call, Wanted
from headway.serve.classes import bytes_tensor, classify
from headway.serve.limits import Limits
from headway.serve.refusal import Refusal, invalid

KNOWN = 64
"""How many heads of responses are remembered: most responses of a model differ in their numbers only."""
FIELDS = 4096
"""Fields that a message larger than ``Limits.json_bytes`` may have; such a message is a few large buffers."""

_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
"""The field of ``InferTensorContents`` that holds a datatype's elements; half precision travels as raw contents only."""

_ID, _RAW_INPUT, _RAW_OUTPUT, _INFER_RESPONSE = 3, 7, 6, 2
"""Field numbers: of ``ModelInferResponse.id``, both raw contents, and ``ModelStreamInferResponse.infer_response``."""
_FINAL = InferResponse(parameters={"triton_final_response": {"bool_param": True}}).SerializeToString()
"""What Triton adds to the last response to a request of a stream; here every request gets one response."""


def parse(body: bytes, limits: Limits) -> Any:
    """A ModelInferRequest from its bytes; what is not raw contents may have ``limits.json_bytes``, as parsing takes many times its size.

    Raises:
        Refusal: 400, it is no such message; 413, too much of it is not raw contents.
    """
    if len(body) > limits.json_bytes and _beside_raw(body) > limits.json_bytes:
        raise Refusal(413, "too_large", f"all but raw contents must be at most {limits.json_bytes} bytes; send raw_input_contents")
    try:
        return InferRequest.FromString(body)
    except DecodeError:
        raise _malformed() from None


def _beside_raw(body: bytes) -> int:
    """Bytes of a request that are not raw contents, found without parsing it.

    The wire format: protobuf.dev, "Encoding": a field is a tag (number << 3 | type) and a value, here always with its length before it.
    """
    at = raw = 0
    for _ in range(FIELDS):
        if at >= len(body):
            return len(body) - raw
        tag, at = _varint(body, at)
        size, at = _varint(body, at)
        if tag & 7 != 2 or size > len(body) - at:
            raise _malformed()
        at += size
        raw += size if tag >> 3 == _RAW_INPUT else 0
    raise invalid(f"a message of {len(body)} bytes must have at most {FIELDS} fields")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise _malformed()


def _malformed() -> Refusal:
    return invalid("the message must be a ModelInferRequest of the Open Inference Protocol v2 (package inference)")


def taken(request: Any) -> tuple[dict[str, Any], list[bytes]]:
    """A request as ``Signature.take`` reads it: the dictionary, and one buffer for each input.

    Raises:
        Refusal: 400, the contents do not fit their datatype, or come twice.
    """
    inputs = request.inputs
    given: dict[str, Any] = {"id": request.id, "inputs": [_described(tensor) for tensor in inputs]}
    if request.parameters:
        given["parameters"] = _plain(request.parameters)
    if request.outputs:
        given["outputs"] = [{"name": output.name, "parameters": _plain(output.parameters)} for output in request.outputs]
    raw = list(request.raw_input_contents)
    if not raw:
        return given, [_packed(tensor) for tensor in inputs]
    if any(tensor.HasField("contents") for tensor in inputs):
        raise invalid("inputs must have raw_input_contents or contents, got both")
    return given, raw


def _described(tensor: Any) -> dict[str, Any]:
    told = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    if tensor.parameters:
        told["parameters"] = _plain(tensor.parameters)
    return told


def _plain(parameters: Any) -> dict[str, Any]:
    """Values of a message's parameters by name; none for one that has no value."""
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in parameters.items()}
    return {name: getattr(parameters[name], choice) if choice else None for name, choice in chosen.items()}


def _packed(tensor: Any) -> bytes:
    """Typed contents as the raw bytes of their datatype."""
    contents = tensor.contents
    filled = [field.name for field, _ in contents.ListFields()]
    field = _CONTENTS.get(tensor.datatype)
    if filled and filled != [field]:
        raise invalid(f"input {tensor.name[:80]!r}: {tensor.datatype[:80]} must come as {field or 'raw_input_contents'}, got {filled}")
    if field is None:
        return b""
    dtype = np.dtype(NUMPY[tensor.datatype])
    array = np.array(getattr(contents, field), dtype=_wide(dtype))
    if dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise invalid(f"input {tensor.name[:80]!r}: contents must fit {tensor.datatype}, got a number out of its range")
    return array.astype(dtype.newbyteorder("<")).tobytes()


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A type that holds whatever the message's field can."""
    return np.dtype("int64" if dtype.kind == "i" else "uint64") if dtype.kind in "iu" else dtype


class GrpcForm:
    """Results of one model version as bytes of a ModelInferResponse; a refusal stays what it is, for the caller to give its code.

    Outputs are raw contents always, as from Triton, however the inputs came.
    """

    def __init__(self, model: str, version: str, labels: Sequence[str], *, batched: bool = True) -> None:
        self._model, self._version, self._labels, self._batched = model, version, labels, batched
        self._known: dict[tuple[Any, ...], bytes] = {}

    def answer(self, call: Call, outputs: Sequence[tuple[Wanted, np.ndarray]], variant: str) -> bytes:
        """The response from a request's own rows of the outputs it wants; BYTES elements have their lengths before them."""
        arrays = [
            classify(array, wanted.classes, self._labels, batched=self._batched) if wanted.classes else array for wanted, array in outputs
        ]
        key = (variant, call.wanted, *[array.shape for array in arrays])
        parts = [self._known.get(key) or self._remember(key, self._head(variant, call.wanted, arrays))]
        if call.id:
            parts += _field(_ID, call.id.encode())
        for array in arrays:
            parts += _field(_RAW_OUTPUT, bytes_tensor(array) if array.dtype == object else array.tobytes())
        return b"".join(parts)

    def refuse(self, refusal: Refusal) -> Refusal:
        """The refusal itself."""
        return refusal

    def _head(self, variant: str, wanted: Sequence[Wanted], arrays: Sequence[np.ndarray]) -> bytes:
        """All of a response but its id and contents; a message may be written in parts (protobuf.dev, "Encoding")."""
        head: bytes = InferResponse(
            model_name=self._model, model_version=self._version, parameters={"headway-variant": {"string_param": variant}},
            outputs=[
                {"name": one.name, "datatype": DATATYPES.get(array.dtype.name, "BYTES"), "shape": array.shape}
                for one, array in zip(wanted, arrays, strict=True)
            ],
        ).SerializeToString()  # fmt: skip
        return head

    def _remember(self, key: tuple[Any, ...], head: bytes) -> bytes:
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[key] = head
        return head


def in_stream(answer: bytes | Refusal, request_id: str) -> bytes:
    """A response or a refusal as the bytes of a ModelStreamInferResponse."""
    if isinstance(answer, Refusal):
        parameters = {"triton_final_response": {"bool_param": True}}
        told: bytes = StreamResponse(
            error_message=str(answer), infer_response={"id": request_id, "parameters": parameters}
        ).SerializeToString()
        return told
    return b"".join((_length(_INFER_RESPONSE, len(answer) + len(_FINAL)), answer, _FINAL))


def _field(number: int, content: bytes) -> tuple[bytes, bytes]:
    """A field of a message: its tag and length, and its content."""
    return _length(number, len(content)), content


def _length(number: int, size: int) -> bytes:
    made = bytearray((number << 3 | 2,))
    while size > 127:
        made.append(size & 127 | 128)
        size >>= 7
    made.append(size)
    return bytes(made)
