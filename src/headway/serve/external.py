"""The names of the external data files that an ONNX file refers to, read without the ``onnx`` package.

A server has no ``onnx`` package, and an ONNX file from outside may point at any file of the machine; so this walks the
protocol buffer's wire format (protobuf.dev/programming-guides/encoding) along the fields of ``onnx.proto`` that can lead to a
tensor, and skips everything else unread.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from headway.records import BundleError

_PATHS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""For each message, its fields (by number in ``onnx.proto``) that can hold a tensor somewhere inside."""

_DEPTH = 64


def external_files(path: Path) -> frozenset[str]:
    """The ``location`` of every external tensor in an ONNX file, as written there.

    Raises:
        BundleError: the file is not a protocol buffer of an ONNX model.
    """
    found: set[str] = set()
    if path.stat().st_size == 0:
        raise BundleError(f"{path}: must be an ONNX model, got an empty file. Package the model again.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _walk(data, 0, len(data), ("model",), found)
        except (IndexError, UnicodeDecodeError, ValueError) as error:
            raise BundleError(f"{path}: must be an ONNX model, got: {error or 'a truncated file'}. Package the model again.") from error
    return frozenset(found)


def _walk(data: mmap.mmap, at: int, end: int, kinds: tuple[str, ...], found: set[str]) -> None:
    """Add the locations inside a message of type ``kinds[-1]``; ``kinds`` is the way down to it."""
    if len(kinds) > _DEPTH:
        raise ValueError("graphs nested too deep")
    fields = _PATHS[kinds[-1]]
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise ValueError("a field beyond its message")
            inner = fields.get(number)
            if inner == "entry":
                key, value = _entry(data, at, at + size)
                if key == b"location":
                    found.add(value.decode("utf-8"))
            elif inner is not None:
                _walk(data, at, at + size, (*kinds, inner), found)
            at += size
        else:
            raise ValueError(f"a field of wire type {wire}")
    if at != end:
        raise ValueError("a field beyond its message")


def _entry(data: mmap.mmap, at: int, end: int) -> tuple[bytes, bytes]:
    """Key and value of a StringStringEntryProto."""
    parts = {1: b"", 2: b""}
    while at < end:
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        if tag & 7 != 2 or at + size > end:
            raise ValueError("an entry that is no text")
        parts[tag >> 3] = data[at : at + size]
        at += size
    return parts[1], parts[2]


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than ten bytes")
