"""Triton's classification extension: the largest elements of an output as strings, and strings as a BYTES tensor. Arrays only.

The format: triton-inference-server/server, ``docs/protocol/extension_classification.md``: ``value:index`` or ``value:index:label``.
Floating point values have six decimals, integers none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import prod

import numpy as np

from headway.serve.refusal import invalid


def classify(array: np.ndarray, k: int, labels: Sequence[str] = (), *, batched: bool = True) -> np.ndarray:
    """The ``k`` largest elements of each row, largest first, as bytes: an array of objects, shape [rows, k].

    Everything but the first dimension counts as the classes of a row, numbered in row-major order; when ``batched`` is false,
    or there is no dimension, everything is one row and the shape is [k]. Among equal elements the lower index comes first;
    NaN comes last.

    Args:
        labels: of the classes; used when there are as many as classes, so that they never name another output's.

    Raises:
        Refusal: 400, ``k`` is not from 1 to the number of classes, or the elements are not numbers.
    """
    if array.dtype.kind not in "fiu":
        raise invalid(f"classification needs an output of numbers, got {array.dtype.name}")
    batched = batched and array.ndim > 0
    rows = array.reshape((len(array), prod(array.shape[1:])) if batched else (1, array.size))
    classes = rows.shape[1]
    if not 1 <= k <= classes:
        raise invalid(f"classification must be from 1 to the output's number of classes, {classes}, got {k}")
    first = _largest(rows, k)
    values = np.take_along_axis(rows, first, axis=1)
    named = labels if len(labels) == classes else ()
    strings = _strings(values.reshape(-1).tolist(), first.reshape(-1).tolist(), named, exact=rows.dtype.kind != "f")
    made = np.empty(len(strings), dtype=object)
    made[:] = strings
    return made.reshape((len(rows), k) if batched else (k,))


def _largest(rows: np.ndarray, k: int) -> np.ndarray:
    """Indices of the ``k`` largest elements of each row, shape [rows, k]; both ways to turn the order around are exact."""
    turned = -rows if rows.dtype.kind == "f" else ~rows
    return np.argsort(turned, axis=1, kind="stable")[:, :k]


def _strings(values: Sequence[float], indices: Sequence[int], labels: Sequence[str], *, exact: bool) -> list[bytes]:
    text = "{}:{}" if exact else "{:f}:{}"
    if not labels:
        return [text.format(value, index).encode() for value, index in zip(values, indices, strict=True)]
    return [f"{text.format(value, index)}:{labels[index]}".encode() for value, index in zip(values, indices, strict=True)]


def bytes_tensor(array: np.ndarray) -> bytes:
    """A BYTES tensor's elements in the binary form: before each its length, 4 bytes, little-endian; row-major order."""
    items = array.reshape(-1).tolist()
    return b"".join(chain.from_iterable((len(item).to_bytes(4, "little"), item) for item in items))


def json_strings(array: np.ndarray) -> list[str]:
    """A BYTES tensor's elements for JSON ``data``; bytes that are not UTF-8 are replaced."""
    return [item.decode("utf-8", "replace") for item in array.reshape(-1).tolist()]
