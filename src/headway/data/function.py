"""Samples from a function the user names: ``python:module:callable``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping

from headway.data.dataset import Dataset, dataset_from_arrays
from headway.records import DataError


def call(reference: str) -> Dataset:
    """What the named function returns: a Dataset, or a mapping of arrays with the names that an ``.npz`` has.

    The module is looked for on the usual path and in the current folder. This runs the user's own code.

    Raises:
        DataError: the reference is not ``python:module:callable``, nothing there, the function fails, or returns something else.
    """
    parts = reference.split(":")
    if len(parts) != 3 or not all(parts):
        raise DataError(f"{reference}: a function must be named python:module:callable, got {len(parts) - 1} part(s) after 'python'")
    _, module_name, name = parts
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise DataError(f"{reference}: module {module_name!r} must import, got {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        got = "nothing of that name" if function is None else type(function).__name__
        raise DataError(f"{reference}: module {module_name!r} must have a callable {name!r}, got {got}")
    try:
        returned = function()
    except Exception as error:
        raise DataError(f"{reference}: the function must return arrays, got {type(error).__name__}: {error}") from error
    if isinstance(returned, Dataset):
        return returned
    if not isinstance(returned, Mapping):
        raise DataError(f"{reference}: the function must return a mapping of names to arrays, got {type(returned).__name__}")
    return dataset_from_arrays({str(key): value for key, value in returned.items()}, reference)
