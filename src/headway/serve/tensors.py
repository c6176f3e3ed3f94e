"""Data of one tensor to a checked array: from JSON, from raw bytes; and how values are shown to clients. It knows no request."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from headway.serve.refusal import invalid


@dataclass(frozen=True, slots=True)
class Input:
    """What one input of a model must be."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


def from_bytes(rule: Input, shape: tuple[int, ...], body: bytes | memoryview, offset: int, size: int) -> np.ndarray:
    if offset + size > len(body):
        raise invalid(f"input {rule.name!r}: {size} bytes were announced, got {len(body) - offset}")
    array = np.ndarray(shape, rule.dtype, body, offset)
    if rule.datatype == "BOOL" and array.view(np.uint8).max() > 1:
        raise invalid(f"input {rule.name!r}: each BOOL must be one byte, 0 or 1")
    return array


def from_json(rule: Input, shape: tuple[int, ...], data: Any) -> np.ndarray:
    if type(data) is not list:
        raise invalid(f"input {rule.name!r}: data must be a list (or binary_data_size must be given), got {kind(data)}")
    if _holds_text(data, len(shape)):
        raise invalid(f"input {rule.name!r}: data must fit {rule.datatype}, got text")
    try:
        array = np.array(data)
    except ValueError:
        raise invalid(f"input {rule.name!r}: data must be numbers nested as its shape, or flat; got lists of unequal length") from None
    if array.ndim == 1 and array.size == prod(shape):
        array = array.reshape(shape)
    if array.shape != shape:
        raise invalid(f"input {rule.name!r}: data must fill shape {shown(shape)}, got {shown(array.shape)}")
    return _cast(rule, array)


def _holds_text(data: list[Any], depth: int) -> bool:
    """Whether there is text in lists nested ``depth`` deep or deeper: numpy would give every element the room of the longest text.

    Raises:
        Refusal: they are nested deeper.
    """
    kinds = set(map(type, data))
    if str in kinds or list not in kinds:
        return str in kinds
    if depth <= 1:
        raise invalid("data must be numbers nested as its shape, or flat; got lists nested deeper")
    return any(_holds_text(row, depth - 1) for row in data if type(row) is list)


_FITS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


def _cast(rule: Input, array: np.ndarray) -> np.ndarray:
    """The array in the input's own type; refuses what a cast would change silently (null, text, fractions, overflow)."""
    if array.dtype.kind not in _FITS[rule.dtype.kind]:
        got = {"O": "null or too large an integer", "U": "text", "f": "fractions", "b": "true or false"}.get(array.dtype.kind, "numbers")
        raise invalid(f"input {rule.name!r}: data must fit {rule.datatype}, got {got}")
    if rule.dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(rule.dtype)
        fits = bool(np.isfinite(cast).all())
    elif rule.dtype.kind == "b":
        return array
    else:
        bounds = np.iinfo(rule.dtype)
        fits = int(array.min()) >= bounds.min and int(array.max()) <= bounds.max
        cast = array.astype(rule.dtype) if fits else array
    if not fits:
        raise invalid(f"input {rule.name!r}: data must fit {rule.datatype}, got a number out of its range")
    return cast


def kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}.get(type(value), "a number")


def shown(value: Any) -> str:
    try:
        text = repr(list(value) if isinstance(value, tuple) else value)
    except RecursionError:
        return "lists or objects nested too deeply"
    return text if len(text) <= 80 else text[:77] + "..."


def shown_shape(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
