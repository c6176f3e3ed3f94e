"""How each server is asked and what it answers: bytes out for one row, one row back. Only protocols that the server's own docs offer."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import orjson

from headway.load import infer_payload, parse_infer_response

Headers = dict[str, str]
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Wire:
    """One protocol.

    Attributes:
        name: as in the table.
        ask: headers and body for one row ``[INPUTS]``.
        read: the answer's row ``[OUTPUTS]`` from its headers and body; raises ValueError or KeyError when it is something else.
    """

    name: str
    ask: Callable[[np.ndarray], tuple[Headers, bytes]]
    read: Callable[[Mapping[str, str], bytes], np.ndarray]


def _plain_ask(row: np.ndarray) -> tuple[Headers, bytes]:
    return JSON, orjson.dumps({"x": _short(row)})


def _plain_read(_: Mapping[str, str], body: bytes) -> np.ndarray:
    return np.array(orjson.loads(body)["y"], np.float32)


def _rows_ask(row: np.ndarray) -> tuple[Headers, bytes]:
    return JSON, orjson.dumps({"x": [_short(row)]})


def _rows_read(_: Mapping[str, str], body: bytes) -> np.ndarray:
    return np.array(orjson.loads(body)[0], np.float32)


def _v2_ask(row: np.ndarray) -> tuple[Headers, bytes]:
    return JSON, orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, len(row)], "data": _short(row)}]})


def _v2_read(headers: Mapping[str, str], body: bytes) -> np.ndarray:
    return np.asarray(parse_infer_response(headers, body)["y"]).reshape(-1)


def _binary_ask(row: np.ndarray) -> tuple[Headers, bytes]:
    headers, body = infer_payload({"x": row[None]})
    return dict(headers), body


def _msgpack_ask(row: np.ndarray) -> tuple[Headers, bytes]:
    data = row.astype("<f4").tobytes()
    return {"Content-Type": "application/msgpack"}, b"\x81\xa1x\xc5" + struct.pack(">H", len(data)) + data  # {"x": binary}


def _msgpack_read(_: Mapping[str, str], body: bytes) -> np.ndarray:
    if body[:4] != b"\x81\xa1y\xc4":
        raise ValueError(f'an answer must be {{"y": binary}}, got {body[:60]!r}')
    return np.frombuffer(body, "<f4", offset=5)


def _short(row: np.ndarray) -> list[float]:
    """The row with the three decimals it was made with, and not the float32's own 17."""
    return [round(float(value), 3) for value in row]


PLAIN = Wire("JSON", _plain_ask, _plain_read)
ROWS = Wire("JSON", _rows_ask, _rows_read)
V2 = Wire("JSON (Open Inference Protocol)", _v2_ask, _v2_read)
BINARY = Wire("binary tensors (Open Inference Protocol)", _binary_ask, _v2_read)
MSGPACK = Wire("msgpack", _msgpack_ask, _msgpack_read)
