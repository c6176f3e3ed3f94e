"""The files of a room found by name; a file whose packages are missing is reported with the reason.

A technique, a runtime, a tracker, an arrival process is one file in its room's folder. There is no list to edit:
the file is the registration. This room knows files and imports, not what is in them.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Found:
    """What a room offers: modules that import, and the reason for each that does not."""

    present: Mapping[str, ModuleType] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def names(package: ModuleType) -> tuple[str, ...]:
    """File names (without ``.py``) of a package's plug-in files, sorted; private files and ``contract`` are none."""
    return tuple(
        sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_") and info.name != "contract")
    )


def discover(package: ModuleType) -> Found:
    """Import every plug-in file of a package."""
    present: dict[str, ModuleType] = {}
    missing: dict[str, str] = {}
    for name in names(package):
        found = find(package, name)
        present.update(found.present)
        missing.update(found.missing)
    return Found(present, missing)


def find(package: ModuleType, name: str) -> Found:
    """Import one plug-in file and no other: it is present, or missing with the reason, or in neither when there is no such file."""
    if name not in names(package):
        return Found()
    try:
        return Found(present={name: importlib.import_module(f"{package.__name__}.{name}")})
    except ImportError as error:
        if (error.name or "").startswith("headway"):
            raise
        what = f"the package {error.name}" if error.name else f"what it could not import ({error})"
        return Found(missing={name: f"needs {what}, which is not installed"})


def first_line(package: ModuleType, name: str) -> str:
    """First line of a plug-in file's docstring, read without importing the file."""
    for folder in package.__path__:
        file = Path(folder) / f"{name}.py"
        if file.is_file():
            return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n")[0]
    return ""
