"""A folder that appears whole or not at all: filled beside its place, then moved there. It knows nothing of what is inside."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headway.records import InputError


@contextmanager
def staged(folder: Path, marker: str, what: str) -> Iterator[Path]:
    """A fresh folder beside ``folder`` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        marker: the file that tells an older folder of the same kind, which may be replaced; ``what`` it is, for the message.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / marker).is_file() or not any(folder.iterdir()))):
        raise InputError(
            f"{folder}: must be {what} (which is then replaced), or an empty or new folder; got something else. Choose another."
        )
    stage: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
        yield stage
        _sync(stage)
        _swap(stage, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: must be writable with room for the files, got: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _sync(stage: Path) -> None:
    stage.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    for path in stage.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _swap(stage: Path, folder: Path) -> None:
    if not folder.exists():
        stage.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent))
    try:
        folder.rename(old / "bundle")
        try:
            stage.rename(folder)
        except OSError:
            (old / "bundle").rename(folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
