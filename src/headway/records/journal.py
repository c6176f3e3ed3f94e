"""A run's ``records.jsonl``: append-only, versioned, repaired when its last line is torn.

This file knows lines and records; it does not know what a run does with them.
"""

from __future__ import annotations

import fcntl
import os
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from headway.records.base import Record, to_json
from headway.records.candidate import Census, Variant
from headway.records.errors import BundleError, HeadwayError, InputError
from headway.records.latency import LatencyTable
from headway.records.measured import Capacity, Failure, FrontEnd, GuardResult, LoadRun, Noise, Prediction, Quality, Rejection, ServiceCurve
from headway.records.outcome import Choice, Comparison, Frontier, RunFinished, RunStarted, SourceInspected, StageTime

FORMAT = 1
FILE = "records.jsonl"
Line = (
    RunStarted | SourceInspected | LatencyTable | Variant | Census | Quality | GuardResult | ServiceCurve | Noise | FrontEnd | Prediction | LoadRun | Capacity | Failure
    | Rejection | Comparison | Frontier | Choice | StageTime | RunFinished
)  # fmt: skip
_DECODER = msgspec.json.Decoder(Line)
R = TypeVar("R", bound=Record)


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    headway_records: int


class Journal:
    """The records of one run folder, in order; appending is durable line by line."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        """``alone`` keeps every other process from writing to this run until ``release`` or the end of this process.

        Raises:
            BundleError: another process writes to it now; or what is there is no journal of this format.
        """
        self._path = folder / FILE
        self._lines: list[Record] = []
        self._claim = _claimed(self._path) if alone else None
        if self._path.exists():
            self._lines = _read(self._path, repair=True)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def of(self, kind: type[R]) -> list[R]:
        """All records of one kind, oldest first."""
        return [line for line in self._lines if isinstance(line, kind)]

    def last(self, kind: type[R]) -> R | None:
        """The newest record of one kind."""
        found = self.of(kind)
        return found[-1] if found else None

    def release(self) -> None:
        """Let others write again."""
        if self._claim is not None:
            self._claim.close()

    def append(self, record: Record) -> None:
        """Write one record and force it to disk before it counts.

        Raises:
            InputError: the folder cannot be written (read-only, full disk); what was written before stays.
            HeadwayError: the record would not be read back (a NaN, which JSON does not know); nothing was written.
        """
        line = _checked(record)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                start = file.tell()
                try:
                    _write(file, (b"" if start else to_json({"headway_records": FORMAT}) + b"\n") + line + b"\n")
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._path, start)
                    raise
        except OSError as error:
            raise InputError(
                f"{self._path}: must be writable, got: {error.strerror or error}. Free space or choose another folder with --out; what was measured so far is kept."
            ) from error
        self._lines.append(record)


def _claimed(path: Path) -> BinaryIO:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise BundleError(f"{path.parent}: another run writes to this folder now. Wait for it, or choose another with --out.") from error
    return file


def _checked(record: Record) -> bytes:
    """The line of a record, read back once: a line that cannot be read would cost the whole run at the next resume."""
    line = to_json(record)
    try:
        _DECODER.decode(line)
    except msgspec.DecodeError as error:
        name = type(record).__name__
        raise HeadwayError(f"{name}: a record must be readable from its own JSON, got: {error}. This is a defect of Headway.") from error
    return line


def _write(file: FileIO, data: bytes) -> None:
    """Write all bytes past any buffer, so that nothing is left to be written after a failure."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def read_journal(folder: Path) -> list[Record]:
    """The records of a finished or interrupted run, read without touching the folder.

    Raises:
        BundleError: there is no such file, or it is of another format, or damaged in the middle.
    """
    path = folder / FILE
    if not path.is_file():
        raise BundleError(
            f"{folder}: must be a run folder holding {FILE}, got none. Make one with: headway tune MODEL --data DATA --slo TEXT --out {folder}"
        )
    return _read(path, repair=False)


def _read(path: Path, *, repair: bool) -> list[Record]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: must be a file that can be read, got: {error.strerror or error}") from error
    if data and not data.endswith(b"\n"):
        data = data[: data.rfind(b"\n") + 1]
        if repair:
            os.truncate(path, len(data))
    raw = data.split(b"\n")[:-1]
    if not raw:
        return []
    try:
        head = msgspec.json.decode(raw[0], type=_Head)
    except msgspec.DecodeError as error:
        raise BundleError(f"{path}: the first line must name the format, got: {error}. This is not a run of Headway.") from error
    if head.headway_records != FORMAT:
        raise BundleError(
            f"{path}: must be of format {FORMAT}, got {head.headway_records}. Use the version of Headway that wrote it, or tune again into a new folder."
        )
    lines: list[Record] = []
    for number, text in enumerate(raw[1:], start=2):
        try:
            lines.append(_DECODER.decode(text))
        except msgspec.DecodeError as error:
            raise BundleError(
                f"{path}:{number}: must be a valid record, got: {error}. Restore the file or tune again into a new folder."
            ) from error
    return lines
