"""A file replaced in one move: a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import os
from pathlib import Path

from headway.records import InputError


def write_whole(path: Path, data: bytes) -> Path:
    """The path, now holding ``data``.

    Raises:
        InputError: the path cannot be written; what was there before stays.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: must be writable, got: {reason}. Free space, or make the folder writable, and draw it again.") from error
    finally:
        _forget(fresh)
    return path


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself is gone or closed; the first error has already been told
        return
