"""When requests came and how many rows they had, for ``retune``. Times and counts only, never payloads."""

from __future__ import annotations

import os
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from headway.records import InputError, Trace, to_json

KEPT = 262_144


class Arrivals:
    """The newest arrivals, at most ``kept`` of them, in bounded memory."""

    def __init__(self, kept: int = KEPT) -> None:
        self._start = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._zero_s = time.perf_counter()
        self._times: deque[float] = deque(maxlen=kept)
        self._rows: deque[int] = deque(maxlen=kept)

    def add(self, arrived_s: float, rows: int) -> None:
        """Record one request that was accepted for inference; ``arrived_s`` is on the clock of ``time.perf_counter``."""
        self._times.append(arrived_s)
        self._rows.append(rows)

    def trace(self) -> Trace:
        """What was recorded, in seconds since the start."""
        return Trace(start=self._start, arrivals_s=tuple(round(t - self._zero_s, 6) for t in self._times), rows=tuple(self._rows))

    def write(self, path: Path) -> None:
        """Write the trace as JSON; an old file is replaced only by a complete new one.

        Raises:
            InputError: the file cannot be written.
        """
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(to_json(self.trace()) + b"\n")
            os.replace(part, path)
        except OSError as error:
            raise InputError(f"{path}: the trace file must be writable, got: {error.strerror or error}. Choose another file.") from error


def check_writable(path: Path) -> None:
    """Make sure, before serving starts, that a trace can be written to ``path`` later.

    Raises:
        InputError: the folder does not exist or cannot be written.
    """
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the trace must be a file in a folder that exists and is writable. Choose another file.")
