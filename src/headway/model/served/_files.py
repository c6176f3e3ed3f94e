"""Files of a folder that somebody else wrote: never outside of it, never larger than they may be."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headway.records import ModelError

MAX_CONFIG_BYTES = 2**20
MAX_FILES = 10_000
_VERSION = re.compile(r"[0-9]{1,18}")


def inside(folder: Path, relative: str) -> Path:
    """The path of a file that must lie in the folder; links are followed, and must not lead out.

    Raises:
        ModelError: it does not lie there.
    """
    path = folder / relative
    try:
        lies = not Path(relative).is_absolute() and ".." not in Path(relative).parts and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, a zero byte
        lies = False
    if not relative or not lies:
        raise ModelError(f"{folder}: everything must lie in the folder itself, got {relative[:200]!r}; do not trust this folder")
    return path


def check_tree(folder: Path) -> None:
    """Refuse a folder that holds links out of it, or too many files.

    Raises:
        ModelError: it does.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            count += 1
            if count > MAX_FILES:
                raise ModelError(f"{folder}: a model's folder must hold at most {MAX_FILES} files, got more; give the model's own folder")
            if (Path(parent) / name).is_symlink():
                inside(folder, str((Path(parent) / name).relative_to(folder)))


def read_text(path: Path) -> str:
    """A small text file.

    Raises:
        ModelError: it is not there, not text, or too large.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{path}: must be there, got no such file; copy it with the rest of the folder")
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise ModelError(f"{path}: must be at most {MAX_CONFIG_BYTES} bytes, got {size}; do not trust this file")
        with path.open("rb") as file:
            return file.read(MAX_CONFIG_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ModelError(f"{path}: must be readable, got: {error.strerror}; check its permissions") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: must be a text in UTF-8, got other bytes; write it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        ModelError: it is not there, too large, or something else.
    """
    try:
        made = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: must hold JSON, got something else ({str(error)[:100]}); correct it") from error
    if not isinstance(made, dict):
        raise ModelError(f"{path}: must hold a JSON object, got {type(made).__name__}; correct it")
    return made


def versions(folder: Path) -> dict[int, Path]:
    """Subfolders that are named by a number, lowest first."""
    try:
        found = {int(each.name): each for each in folder.iterdir() if _VERSION.fullmatch(each.name) and each.is_dir()}
    except OSError as error:
        raise ModelError(f"{folder}: must be readable, got: {error.strerror}; check its permissions") from error
    return dict(sorted(found.items()))


def subfolders(folder: Path) -> list[Path]:
    """Subfolders by name; none of a folder that cannot be read."""
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []


def labels_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, or none when one is empty."""
    labels = tuple(text.strip() for text in texts)
    return labels if all(labels) else ()
