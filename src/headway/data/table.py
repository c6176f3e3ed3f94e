"""Samples from a Parquet table: one column an input, list columns as further axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headway.data.dataset import Dataset, dataset_from_arrays
from headway.records import DataError


def read_parquet(path: Path, source: str) -> Dataset:
    """The columns of a table; a column of lists (of one length) becomes a 2-D array, lists of lists 3-D, and so on.

    Raises:
        DataError: not a Parquet file, empty cells, lists of different lengths, or a column of another type.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source}: must be a Parquet file, got: {error}") from error
    return dataset_from_arrays({name: _column(table.column(name), name, source) for name in table.column_names}, source)


def _column(column: pa.ChunkedArray, name: str, source: str) -> np.ndarray:
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        _refuse_nulls(array, name, shape, source)
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        uneven = np.flatnonzero(lengths != lengths[0]) if len(lengths) else np.array([], dtype=int)
        if uneven.size:
            row = int(uneven[0]) * shape[0] // max(1, len(array))
            raise DataError(
                f"{source}: lists of column {name!r} must all have the same length, got {lengths[0]} in row 0 and "
                f"{lengths[uneven[0]]} in row {row}; pad them to one length"
            )
        shape.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    _refuse_nulls(array, name, shape, source)
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or _text(kind)):
        raise DataError(f"{source}: column {name!r} must hold numbers, text or lists of numbers, got {kind}; convert or drop the column")
    values = array.to_numpy(zero_copy_only=False)
    return (values.astype(np.str_) if _text(kind) else np.array(values)).reshape(shape)


def _text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _refuse_nulls(array: pa.Array, name: str, shape: list[int], source: str) -> None:
    if array.null_count:
        at = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        row = at * shape[0] // max(1, len(array))
        raise DataError(f"{source}: column {name!r} must have a value in every cell, got an empty one in row {row}; fill or drop that row")
