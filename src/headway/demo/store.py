"""Files of the demos on disk: where they lie, and writing them so that a file is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headway.records import InputError

CACHE_VARIABLE = "HEADWAY_DEMO_CACHE"


def home() -> Path:
    """The folder that ``use`` named, in this process or in a parent of it; else the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway" / "demo"


def use(cache: Path) -> None:
    """Makes ``cache`` the folder that ``network()`` reads here and in processes started from here (by an environment variable)."""
    os.environ[CACHE_VARIABLE] = str(cache.resolve())


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A fresh scratch folder beside ``folder`` (same disk), removed at the end; both parents are made.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise InputError(
            f"the cache folder {folder.parent} must be writable and have room, got: {error.strerror or error}; "
            "free some space, or set XDG_CACHE_HOME to another folder"
        ) from error


def kept(path: Path, make: Callable[[Path], None]) -> Path:
    """``path``, made by ``make(scratch file)`` when it is not there yet."""
    if not path.exists():
        with writing(path) as scratch:
            make(scratch / path.name)
            os.replace(scratch / path.name, path)
    return path


def arrays(path: Path, make: Callable[[], Mapping[str, NDArray]]) -> dict[str, NDArray]:
    """The arrays of ``path`` (``.npz``), made and written first when it is not there yet."""
    if not path.exists():
        made = make()
        kept(path, lambda file: np.savez_compressed(file, **made))  # type: ignore[arg-type]
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
