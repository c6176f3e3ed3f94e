"""A PyTorch or Keras model made by calling ``python:module:callable``; modules are looked for in the current folder first."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType

import numpy as np

from headway import discovery
from headway.model import objects
from headway.model.agreement import one_line
from headway.model.workshop import EXTRAS, Exported, Request, missing
from headway.records import ModelError


def export(request: Request) -> Exported:
    """What the framework's file makes of the object that the callable returns.

    The callable takes no arguments and returns the model, or a pair of the model and example inputs (name to array, rows first), which
    are used when there are no samples.

    Raises:
        ModelError: no such module or callable, it raises, or what it returns is no model.
    """
    what = f"python:{request.source}"
    made = _call(_find(request.source, what), what)
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping):
        made, example = made
        if request.samples is None:
            request = replace(request, samples={str(name): np.asarray(array) for name, array in example.items()})
    done: Exported = _framework(made, what).export(made, request)
    return done


def _find(source: str, what: str) -> Callable[[], object]:
    module_name, _, name = source.rpartition(":")
    if not module_name or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise ModelError(f"{what}: must read python:module:callable, got {source!r}; write it like python:mypackage.models:make")
    sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        if error.name and error.name.split(".")[0] in EXTRAS:
            raise missing(error.name, what) from error
        raise ModelError(f"{what}: the module must be importable from {os.getcwd()} or installed, got: {one_line(error)}") from error
    except Exception as error:  # whatever the user's module raises
        raise ModelError(f"{what}: the module must import, but it raised {type(error).__name__}: {one_line(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ModelError(f"{what}: the module must hold {name!r}, got no such name; check the spelling")
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"{what}: must name something callable, got {type(found).__name__}")
    return found


def _call(made_by: Callable[[], object], what: str) -> object:
    try:
        return made_by()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{what}: the callable must return a model, but it raised {type(error).__name__}: {one_line(error)}; run it by itself"
        ) from error


def _framework(made: object, what: str) -> ModuleType:
    offered = discovery.names(objects)
    for kind in type(made).__mro__:
        root = kind.__module__.split(".")[0]
        if root in offered:
            try:
                return importlib.import_module(f"{objects.__name__}.{root}")
            except ImportError as error:
                raise missing(error.name or str(error), what) from error
    raise ModelError(
        f"{what}: the callable must return a model object of {' or '.join(offered)}, got {type(made).__name__}; return the model itself"
    )
