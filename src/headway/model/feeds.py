"""A few rows to try a graph on: the given samples where there are some, made up otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headway.model.specs import synthetic_inputs
from headway.records import DataError, TensorSpec

Samples = Mapping[str, np.ndarray]


def trial_rows(specs: Sequence[TensorSpec], samples: Samples | None, count: int, name: str) -> dict[str, np.ndarray]:
    """``count`` rows for every input; fewer samples than that are repeated, shifted, so that no two rows are alike.

    Raises:
        DataError: the samples lack an input, or have a type that does not fit it.
        ModelError: there are no samples and an input is not numeric.
    """
    if samples is None:
        scalars = {spec.name for spec in specs if not spec.shape}
        made = synthetic_inputs([_free_first(spec) for spec in specs], count)
        return {key: array[0] if key in scalars else array for key, array in made.items()}
    missing = [spec.name for spec in specs if spec.name not in samples]
    if missing:
        raise DataError(
            f"samples for {name}: must hold the model's inputs {', '.join(repr(spec.name) for spec in specs)}, got "
            f"{', '.join(map(repr, samples)) or 'nothing'}; add or rename {', '.join(map(repr, missing))}"
        )
    return {spec.name: _fit(spec, lengthen(samples[spec.name], count), name) for spec in specs}


def lengthen(array: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` rows; when there are fewer, copies of them shifted along the last axis."""
    array = np.asarray(array)
    if array.ndim == 0 or len(array) >= count or len(array) == 0:
        return array[:count] if array.ndim else array
    shifted = [np.roll(array, turn, axis=-1) if array.ndim > 1 else array for turn in range(-(-count // len(array)))]
    return np.concatenate(shifted)[:count]


def _fit(spec: TensorSpec, array: np.ndarray, name: str) -> np.ndarray:
    if spec.dtype in ("str", "undefined") or array.dtype.name == spec.dtype:
        return array
    wanted = np.dtype(spec.dtype)
    if array.dtype.kind in "biuf" and (wanted.kind in "fV" or (wanted.kind in "iu" and array.dtype.kind in "biu")):
        return array.astype(wanted)
    raise DataError(f"samples for {name}: input {spec.name!r} must be {spec.dtype}, got {array.dtype}; convert the array")


def _free_first(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=("batch", *spec.shape[1:]))
