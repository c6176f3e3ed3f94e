"""The trackers a run asked for, opened by name; none of them can make the run fail."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from headway.discovery import names
from headway.records import ConfigError, MissingPackage, Record
from headway.track import trackers


class Tracker(Protocol):
    """One open run at one tracker."""

    def log(self, record: Record) -> None:
        """Keep what the tracker can show of a record."""

    def close(self) -> None:
        """Write everything out and let go."""


class Trackers:
    """Several trackers as one; a tracker that raises is warned about once, kept in ``warnings``, and left out from then on."""

    def __init__(self, opened: Mapping[str, Tracker], warnings: Sequence[str] = ()) -> None:
        self._opened = dict(opened)
        self._warnings = list(warnings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each tracker that failed."""
        return tuple(self._warnings)

    @property
    def names(self) -> tuple[str, ...]:
        """The trackers that still work."""
        return tuple(self._opened)

    def log(self, record: Record) -> None:
        """Give a record to every tracker that still works."""
        for name, tracker in list(self._opened.items()):
            try:
                tracker.log(record)
            except Exception as error:  # a tracker is foreign code: whatever it raises must not end the run
                del self._opened[name]
                self._warn(name, "log", error)

    def close(self) -> None:
        """Close every tracker that still works; a second call does nothing."""
        for name, tracker in list(self._opened.items()):
            del self._opened[name]
            try:
                tracker.close()
            except Exception as error:
                self._warn(name, "close", error)

    def _warn(self, name: str, doing: str, error: Exception) -> None:
        self._warnings.append(_sentence(name, doing, error))


def tracker_names() -> tuple[str, ...]:
    """Names that ``--track`` takes."""
    return names(trackers)


def open_trackers(wanted: Sequence[str], run_folder: Path, config: Mapping[str, object]) -> Trackers:
    """The trackers named in ``wanted``, opened on a run folder; only their own packages are imported.

    Raises:
        ConfigError: a name is not known.
        MissingPackage: a tracker's package is not installed.
    """
    modules = {name: _module(name) for name in dict.fromkeys(wanted)}
    opened: dict[str, Tracker] = {}
    failed: list[str] = []
    for name, module in modules.items():
        try:
            opened[name] = module.open(run_folder, run_folder.resolve().name, dict(config))
        except Exception as error:
            failed.append(_sentence(name, "open", error))
    return Trackers(opened, failed)


def _module(name: str):  # type: ignore[no-untyped-def]  # a module with ``open``; modules have no static type
    known = tracker_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ConfigError(f"track: the tracker must be known, got {name!r}; {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the trackers' libraries deprecate each other at import
            return importlib.import_module(f"{trackers.__name__}.{name}")
    except ImportError as error:
        if (error.name or "").startswith("headway"):
            raise
        missing = error.name or str(error)
        raise MissingPackage(
            f"track: {name} needs the package {missing!r}, which is not installed. Run: pip install 'headway[track]'"
        ) from error


def _sentence(name: str, doing: str, error: Exception) -> str:
    return f"tracker {name} failed at {doing} and is left out from here on; the run goes on ({type(error).__name__}: {error})"
