"""Samples from a ``.npz`` archive, without ever unpickling."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from headway.data.dataset import Dataset, dataset_from_arrays
from headway.records import DataError


def read_npz(path: Path, source: str) -> Dataset:
    """The arrays of an archive.

    Raises:
        DataError: not a zip archive, a damaged member, a member that is no array, or an array of Python objects.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{source}: must be an .npz archive as numpy.savez writes it, got another kind of file")
        arrays = {}
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = _member(archive, name, source)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{source}: must be a readable .npz archive, got: {error}; write it again with numpy.savez") from error
    return dataset_from_arrays(arrays, source)


def _member(archive: np.lib.npyio.NpzFile, name: str, source: str) -> np.ndarray:
    try:
        array = archive[name]
    except (ValueError, MemoryError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            what = "got Python objects, which are never unpickled; give every row the same shape and a numeric or text type"
        else:
            what = f"got: {error}; write it again with numpy.savez"
        raise DataError(f"{source}: member {name!r} must be a plain array, {what}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{source}: every member must be an .npy array, got {name!r}, which is none; remove it")
    return array
