"""Rows to learn from or to judge by, checked against a model, and cut into batches of tensors.

Labels are one array (for the first output) or one array an output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.model import Model
from headway.records import DataError, TensorSpec

Array = NDArray[Any]
Labels = Array | Mapping[str, Array] | None
Feeds = dict[str, Tensor]


class HasRows(Protocol):
    """Inputs by name and their labels, first axis the row; ``headway.compress.LabelledRows`` has both."""

    @property
    def inputs(self) -> Mapping[str, Array]: ...
    @property
    def labels(self) -> Labels: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Checked rows: arrays of the model's own types, as many in each.

    Attributes:
        inputs: by input name.
        labels: by output name; only outputs that have labels.
        count: number of rows.
        fixed: size of the model's fixed batch; 0 when it is free.
    """

    inputs: dict[str, Array]
    labels: dict[str, Array]
    count: int
    fixed: int

    def batches(self, size: int, order: NDArray[np.intp] | None = None) -> Iterator[NDArray[np.intp]]:
        """Row numbers, ``size`` at a time; with a fixed batch only whole batches."""
        order = np.arange(self.count) if order is None else order
        size = self.fixed or size
        end = self.count - self.count % size if self.fixed else self.count
        for start in range(0, end, size):
            yield order[start : min(start + size, end)]

    def feeds(self, rows: NDArray[np.intp]) -> Feeds:
        """Inputs of these rows as tensors of their own."""
        return {name: torch.from_numpy(np.ascontiguousarray(array[rows])) for name, array in self.inputs.items()}

    def answers(self, rows: NDArray[np.intp]) -> Feeds:
        """Labels of these rows as tensors of their own."""
        return {name: torch.from_numpy(np.ascontiguousarray(array[rows])) for name, array in self.labels.items()}


def check(model: Model, inputs: Mapping[str, Array], labels: Labels, what: str) -> Rows:
    """Rows that fit the model's inputs and outputs.

    Raises:
        DataError: an input is missing or of another type or shape, labels for an unknown output, arrays of different lengths, no rows, or fewer
            than the model's fixed batch.
    """
    missing = [spec.name for spec in model.inputs if spec.name not in inputs]
    if missing:
        raise DataError(f"{what}: must hold every input of {model.name}, got {', '.join(inputs) or 'nothing'}; add {', '.join(missing)}")
    held = {spec.name: _fit(spec, np.asarray(inputs[spec.name]), what) for spec in model.inputs}
    named = _by_output(model, labels, what)
    lengths = {len(array) if array.ndim else 0 for array in (*held.values(), *named.values())}
    if len(lengths) > 1 or not lengths or min(lengths) < 1:
        raise DataError(f"{what}: every array must have the same number of rows, at least 1, got {sorted(lengths) or 'no inputs'}")
    fixed = max((spec.shape[0] for spec in model.inputs if spec.shape and isinstance(spec.shape[0], int)), default=0)
    count = lengths.pop()
    if fixed > count:
        raise DataError(f"{what}: must fill the model's fixed batch of {fixed}, got {count} rows; give more")
    return Rows(held, named, count, fixed)


def _by_output(model: Model, labels: Labels, what: str) -> dict[str, Array]:
    if labels is None:
        return {}
    outputs = [spec.name for spec in model.outputs]
    named = dict(labels) if isinstance(labels, Mapping) else {outputs[0]: labels}
    unknown = [name for name in named if name not in outputs]
    if unknown:
        raise DataError(f"{what}: labels must be named as outputs of the model ({', '.join(outputs)}), got {', '.join(unknown)}")
    return {name: _narrow(name, np.asarray(array), what) for name, array in named.items()}


def _narrow(name: str, array: Array, what: str) -> Array:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{what}: labels of {name!r} must be finite, got NaN or infinity; leave out rows without a label")
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iub":
        return array.astype(np.int64, copy=False)
    raise DataError(f"{what}: labels of {name!r} must be numbers, got {array.dtype}; number the classes from 0")


def _fit(spec: TensorSpec, array: Array, what: str) -> Array:
    name, dtype, asked = spec.name, spec.dtype, ("rows", *spec.shape[1:])
    if dtype in ("str", "undefined"):
        raise DataError(f"{what}: input {name!r} must be numeric to train on, got {dtype}")
    if spec.shape and (array.ndim != len(asked) or any(isinstance(a, int) and a != b for a, b in zip(asked, array.shape, strict=True))):
        raise DataError(
            f"{what}: input {name!r} must have shape [{', '.join(map(str, asked))}], got {list(array.shape)}; reshape the array"
        )
    wanted = np.dtype(dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.kind in "biuf" and (wanted.kind == "f" or (wanted.kind in "iu" and array.dtype.kind in "biu")):
        return array.astype(wanted)
    raise DataError(f"{what}: input {name!r} must be {dtype}, got {array.dtype}; convert the array")
