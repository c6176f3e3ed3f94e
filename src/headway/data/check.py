"""Whether samples fit a model: names, shapes, values; types are cast where no value is lost."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headway.data.cast import cast
from headway.data.dataset import CLASS_NAMES, CLUSTER, GROUP, LABEL, TASK_LABEL, Dataset, check_lengths
from headway.data.tasks import assign
from headway.records import DataError, TensorSpec

FEWEST_ROWS = 10


def check(dataset: Dataset, inputs: Iterable[TensorSpec], *, outputs: Iterable[TensorSpec] = (), fewest: int = FEWEST_ROWS) -> Dataset:
    """The same samples in the model's order and types (see ``cast``); a column of n numbers fits an input of shape (n, 1).

    With ``outputs`` the arrays ``label_OUTPUT`` become the labels of those outputs (``tasks.assign``).

    Raises:
        DataError: a missing or unknown input, a wrong rank or dimension, a type that would lose values, NaN or infinity (with the first
            row), arrays of different lengths, or fewer than ``fewest`` rows.
    """
    specs = tuple(inputs)
    dataset = assign(dataset, [spec.name for spec in specs], [spec.name for spec in outputs])
    _check_names(dataset, [spec.name for spec in specs])
    check_lengths(dataset)
    if len(dataset) < fewest:
        raise DataError(f"{dataset.source}: must hold at least {fewest} rows to be split into parts, got {len(dataset)}; add samples")
    arrays = {}
    for spec in specs:
        array = dataset.inputs[spec.name]
        array = array[:, None] if array.ndim == 1 and spec.shape[1:] == (1,) else array
        _check_shape(array, spec, dataset.source)
        _check_finite(array, spec.name, dataset.source)
        arrays[spec.name] = cast(array, spec, dataset.source)
    _check_shared_dimensions(arrays, specs, dataset.source)
    tasks = {f"{TASK_LABEL}{name}": array for name, array in dataset.tasks.items()}
    for name, array in (tasks or {LABEL: dataset.labels}).items():
        if array is not None:
            _check_finite(array, name, dataset.source)
    return replace(dataset, inputs=arrays)


def _check_names(dataset: Dataset, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in dataset.inputs]
    extra = [name for name in dataset.inputs if name not in wanted]
    if missing:
        close = difflib.get_close_matches(missing[0], extra, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? then rename it" if close else "add an array of that name"
        got = ", ".join(dataset.inputs) or "nothing"
        raise DataError(f"{dataset.source}: must hold the model's input {missing[0]!r}, got {got}; {hint}")
    if extra:
        special = (LABEL, GROUP, CLUSTER, CLASS_NAMES)
        close = difflib.get_close_matches(extra[0], special, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]!r}?" if close else "remove it"
        names = ", ".join([*wanted, *special])
        raise DataError(f"{dataset.source}: arrays must be among {names} for this model, got {extra[0]!r}; {hint}")


def _check_shape(array: NDArray, spec: TensorSpec, source: str) -> None:
    wanted = ", ".join(["rows", *(str(size) for size in spec.shape[1:])])
    must = f"{source}: input {spec.name!r} must have shape [{wanted}], got {list(array.shape)}"
    if array.ndim != len(spec.shape):
        raise DataError(f"{must}; give {len(spec.shape)} axes, not {array.ndim}, the first one for the rows")
    if array.size == 0:
        raise DataError(f"{must}; give at least one value a row")
    for axis, size in enumerate(spec.shape[1:], start=1):
        if isinstance(size, int) and size != array.shape[axis]:
            raise DataError(f"{must}; axis {axis} must be {size}, not {array.shape[axis]}{_layout_hint(array, spec)}")


def _layout_hint(array: NDArray, spec: TensorSpec) -> str:
    for order in ((0, 3, 1, 2), (0, 2, 3, 1)) if array.ndim == 4 else ():
        moved = [array.shape[axis] for axis in order]
        if all(size == got for size, got in zip(spec.shape[1:], moved[1:], strict=True) if isinstance(size, int)):
            return f": the channels stand on the other side, use transpose{order}"
    return ""


def _check_shared_dimensions(arrays: dict[str, NDArray], specs: Sequence[TensorSpec], source: str) -> None:
    seen: dict[str, tuple[int, str]] = {}
    for spec in specs:
        for name, size in zip(spec.shape[1:], arrays[spec.name].shape[1:], strict=True):
            if isinstance(name, str) and name not in ("", "?") and seen.setdefault(name, (size, spec.name))[0] != size:
                other, owner = seen[name]
                raise DataError(
                    f"{source}: inputs {owner!r} and {spec.name!r} must have the same {name!r}, got {other} and {size}; pad to one length"
                )


def _check_finite(array: NDArray, name: str, source: str) -> None:
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return
    rows = np.flatnonzero((~np.isfinite(array)).reshape(len(array), -1).any(axis=1))
    what = "NaN" if bool(np.isnan(array[rows[0]]).any()) else "infinity"
    raise DataError(
        f"{source}: {name!r} must hold finite numbers only, got {what} first in row {rows[0]}, {rows.size} row(s) in all; fill or drop them"
    )
