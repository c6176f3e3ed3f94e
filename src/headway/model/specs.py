"""Names, element types and shapes of graph inputs and outputs, and synthetic arrays that fit them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from headway.records import ModelError, TensorSpec

BATCH = "batch"
BATCH_NAMES = {"batch", "batch_size", "n"}
DEFAULT_SIZES = {"height": 224, "width": 224, "h": 224, "w": 224}
DEFAULT_SIZE = 64


def specs_of(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    """Specs of graph inputs or outputs; a free dimension is its name or ``?``."""
    return tuple(TensorSpec(name=value.name or "", dtype=_dtype_name(value.dtype), shape=_shape(value.shape)) for value in values)


def size_of(dim: int | str, axis: int, sizes: Mapping[str, int], batch: int = 1) -> int:
    """The size that stands for a dimension.

    A number is itself. Then: ``sizes`` by name; ``batch`` on axis 0 or by its usual names;
    the default by name (``height`` and ``width`` 224); 64.
    """
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    return batch if axis == 0 or dim.lower() in BATCH_NAMES else DEFAULT_SIZES.get(dim.lower(), DEFAULT_SIZE)


def sizes_from(specs: Iterable[TensorSpec], samples: Mapping[str, np.ndarray] | None) -> dict[str, int]:
    """Sizes of free dimensions as seen in samples, by name; the first dimension is the batch and says nothing."""
    found: dict[str, int] = {}
    for spec in specs:
        array = (samples or {}).get(spec.name)
        if array is not None and array.ndim == len(spec.shape):
            found.update(
                {dim: array.shape[axis] for axis, dim in enumerate(spec.shape) if axis > 0 and isinstance(dim, str) and dim != "?"}
            )
    return found


def synthetic_inputs(
    specs: Iterable[TensorSpec],
    rows: int,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    like: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Seeded arrays that fit the specs: floats uniform in [0, 1), integers and booleans 0 or 1 and never all 0 in a row.

    Args:
        rows: size of a free first dimension.
        sizes: sizes of other free dimensions by name.
        like: samples whose sizes are taken for dimensions not in ``sizes``.

    Raises:
        ModelError: an input is not numeric.
    """
    specs = tuple(specs)
    rng = np.random.default_rng(seed)
    known = {**sizes_from(specs, like), **(sizes or {})}
    made: dict[str, np.ndarray] = {}
    for spec in specs:
        array = (like or {}).get(spec.name)
        seen = array.shape if array is not None and array.ndim == len(spec.shape) else None
        shape = tuple(
            seen[axis] if seen and axis > 0 and dim == "?" else size_of(dim, axis, known, rows) for axis, dim in enumerate(spec.shape)
        )
        made[spec.name] = _fill(spec, shape, rng)
    return made


def _fill(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if spec.dtype in ("str", "undefined"):
        raise ModelError(f"input {spec.name}: must be numeric to be made up, got {spec.dtype}; give samples")
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        values = rng.integers(0, 2, shape)
        if values.ndim > 0 and values.size:
            values[..., 0] = 1  # a mask must keep at least one place
        return values.astype(dtype)
    return rng.random(shape, dtype=np.float32).astype(dtype)


def _dtype_name(dtype: ir.DataType | None) -> str:
    if dtype is None:
        return "undefined"
    if dtype == ir.DataType.STRING:
        return "str"
    return str(np.dtype(dtype.numpy()).name)


def _shape(shape: ir.Shape | None) -> tuple[int | str, ...]:
    if shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in shape)
