"""Made-up inputs that a model accepts, from its input specs alone. No sample of anybody is needed for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headway.records import InputError, TensorSpec
from headway.runtime import Session
from headway.serve import batchable

ROWS = 4
FREE_SIZES = (16, 32, 64, 128, 224, 256, 8, 1)
"""Sizes tried, in this order, for free dimensions other than the rows; equal names get equal sizes."""


def synthetic_inputs(session: Session, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs that the session runs on, and its outputs.

    Floats are standard normal. Integers of 32 and 64 bits are 0 or 1, because they are mostly indices, masks or lengths, for
    which larger numbers may be out of range; smaller integers cover their whole range, because they are mostly pixels or
    quantized values.

    Raises:
        InputError: the session runs on none of the sizes tried.
    """
    reason: object = ""
    for feeds in _tries(session.inputs, session.outputs, seed):
        try:
            return feeds, {name: np.asarray(output) for name, output in session.run(feeds).items()}
        except Exception as error:  # each runtime has its own errors for a size that a model does not take
            reason = error
    raise InputError(f"package: the model must run on synthetic inputs of some size, got: {reason}. Give real samples for the golden set.")


def _tries(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], seed: int) -> Iterator[dict[str, np.ndarray]]:
    rows = ROWS if batchable(inputs, outputs) else 1
    free = any(isinstance(size, str) for spec in inputs for size in spec.shape[1:])
    for size in FREE_SIZES if free else FREE_SIZES[:1]:
        rng = np.random.default_rng(seed)
        yield {spec.name: _array(spec, [_size(at, given, rows, size) for at, given in enumerate(spec.shape)], rng) for spec in inputs}


def _size(at: int, given: int | str, rows: int, free: int) -> int:
    if isinstance(given, int):
        return given
    return rows if at == 0 else free


def _array(spec: TensorSpec, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b" or dtype.itemsize >= 4:
        return rng.integers(0, 2, shape).astype(dtype)
    bounds = np.iinfo(dtype)
    return rng.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)
