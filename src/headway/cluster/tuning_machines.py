"""One machine, and who may work on it: any number of makers, or one who measures, alone.

Two nodes of a cluster, two runs, or a run and a node may share one machine; the lock is the machine's: two files in its folder for temporary files.
A process that ends, however it ends, has let go.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def machine() -> str:
    """What tells this machine from others: the identity of its last start, which containers on it share; its name where the kernel does not tell."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return platform.node()


@contextlib.contextmanager
def held(*, alone: bool, folder: Path | None = None) -> Iterator[None]:
    """This machine, during the block: with nobody else on it (``alone``), or beside others but with nobody who measures. Waits until it can be had.

    Whoever waits stands in the gate, so that makers who come later do not overtake one who waits to measure.

    Args:
        folder: where the lock's files are; the folder for temporary files by default.
    """
    place = folder or Path(tempfile.gettempdir())
    with _locked(place / f"headway-{machine()}.gate", fcntl.LOCK_EX):
        room = _opened(place / f"headway-{machine()}.lock")
        try:
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        except BaseException:
            os.close(room)
            raise
    try:
        yield
    finally:
        os.close(room)


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    file = _opened(path)
    try:
        fcntl.flock(file, kind)
        yield
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    """A descriptor of the file, which may be another user's: it is only locked, never written."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
