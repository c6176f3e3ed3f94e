"""The state of a training on disk: written whole or not at all, read without running code."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from headway.records import ConfigError, InputError

FILE = "checkpoint.pt"


def write(folder: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Put the state in ``folder``, in place of the last one.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".checkpoint-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save({"fingerprint": fingerprint, **state}, file)
            os.replace(name, folder / FILE)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: must be writable for checkpoints, got: {error.strerror or error}; choose another folder") from error


def read(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state in ``folder``; none when there is none.

    Raises:
        ConfigError: it belongs to another model, other rows or other settings.
        InputError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        own = state.pop("fingerprint")
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: must be a checkpoint of a training, got: {str(error).splitlines()[0]}; delete it to start anew"
        ) from error
    if own != fingerprint:
        raise ConfigError(f"{path}: must belong to this training (same model, rows, teachers, settings), got another's; use another folder")
    return state
