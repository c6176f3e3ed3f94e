"""Samples in a model's number types, where nothing is lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.records import DataError, TensorSpec


def cast(array: NDArray, spec: TensorSpec, source: str) -> NDArray:
    """The array in the type of ``spec``.

    Done without asking: what numpy calls safe, float64 to float32 (rounded, as every float64 sample is for a float32 model), and
    whole numbers to another type that holds each of them exactly. Everything else is the user's decision.

    Raises:
        DataError: values would be lost, or the model's type is none that samples can have.
    """
    try:
        wanted = np.dtype(spec.dtype)
    except TypeError:
        wanted = np.dtype(object)
    if wanted.kind not in "biuf":
        raise DataError(f"{source}: input {spec.name!r} must take numbers, got the type {spec.dtype}; export the model with numeric inputs")
    if array.dtype == wanted or np.can_cast(array.dtype, wanted, "safe"):
        return array.astype(wanted, copy=False)
    if array.dtype.kind == "f" and wanted.kind == "f" and wanted.itemsize >= 4:
        return _rounded(array, wanted, spec, source)
    if array.dtype.kind in "iu" and wanted.kind in "iuf" and _holds(array, wanted):
        return array.astype(wanted)
    raise DataError(
        f"{source}: input {spec.name!r} must be {wanted}, got {array.dtype}, which would lose values; "
        f"convert it with astype('{wanted}') if that is meant"
    )


def _rounded(array: NDArray, wanted: np.dtype, spec: TensorSpec, source: str) -> NDArray:
    largest = np.abs(array).reshape(len(array), -1).max(axis=1)
    if float(largest.max()) > float(np.finfo(wanted).max):
        row = int(largest.argmax())
        raise DataError(f"{source}: input {spec.name!r} must fit {wanted}, got {largest[row]:g} in row {row}; scale it down")
    return array.astype(wanted)


def _holds(array: NDArray, wanted: np.dtype) -> bool:
    """Whether every whole number of ``array`` exists in ``wanted``."""
    if array.size == 0:
        return True
    low, high = int(array.min()), int(array.max())
    if wanted.kind == "f":
        return max(-low, high) <= 2 ** (np.finfo(wanted).nmant + 1)
    return int(np.iinfo(wanted).min) <= low and high <= int(np.iinfo(wanted).max)
