"""What a job of a tuning run is, wherever it is done: a key, plain values, perhaps a file. Needs no package of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        key: its name; jobs of one key are the same work and give the same result.
        item: what to do, as plain values that can be pickled.
        file: a file of this machine that the task reads; it travels as bytes.
    """

    key: str
    item: Any
    file: Path | None = None


Task = Callable[[Any, Any, Path | None], Any]
"""``task(shared, item, file)``: a function at the top level of a module, so that it travels by name. It may be done twice and the second time gives the same."""

Asking = Generator[Sequence[Job], Sequence[Any], Any]
"""Yields jobs that will be asked for, and is sent a brief of the result of each, in order; it says what will be asked for next."""
