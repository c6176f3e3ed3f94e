"""A run as files: the record of every request as JSON lines, and the distribution of latency as HdrHistogram's tools draw it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import orjson

from headway.load import RawLoad
from headway.load.generator import OK, REFUSED
from headway.records import InputError

TICKS = 5
"""Lines for each halving of the distance to 100%, as HdrHistogram prints them by default."""
STATUS = ("answered", "refused", "failed", "lost")


def check_writable(path: Path) -> None:
    """Make sure, before anything is sent, that a file can be written.

    Raises:
        InputError: the folder does not exist or cannot be written.
    """
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: must be a file in a folder that exists and is writable; choose another")


def write_raw(path: Path, raw: RawLoad) -> None:
    """Write ``number``, ``due_s``, ``sent_s``, ``done_s`` (null when nothing was heard) and ``status`` of each request; times count from the start.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        for number in range(len(raw.due_s)):
            done_s = float(raw.done_s[number])
            line = {
                "number": number, "due_s": float(raw.due_s[number]), "sent_s": float(raw.sent_s[number]),
                "done_s": None if np.isnan(done_s) else done_s, "status": STATUS[raw.status[number]],
            }  # fmt: skip
            file.write(orjson.dumps(line) + b"\n")


def write_distribution(path: Path, raw: RawLoad) -> None:
    """Write the distribution of latency from the due time [ms] in the text form of HdrHistogram (``.hgrm``: wrk2 prints it, its plotter reads it).

    Values are exact, not rounded into buckets. A failed or lost request counts with the time until the run's end, a refused one not at all.

    Raises:
        OSError: the file cannot be written.
    """
    until_s = np.where(raw.status == OK, raw.done_s, raw.end_s)
    ordered_ms = np.sort((until_s - raw.due_s)[raw.status != REFUSED]) * 1e3
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for share in _shares(len(ordered_ms)):
        count = min(len(ordered_ms), max(1, math.ceil(share * len(ordered_ms) - 1e-9)))
        inverse = f"{1 / (1 - share):14.2f}" if share < 1 else f"{'inf':>14}"
        lines.append(f"{ordered_ms[count - 1]:12.3f} {share:2.12f} {count:10d} {inverse}")
    if len(ordered_ms):
        lines.append(f"#[Mean    = {ordered_ms.mean():12.3f}, StdDeviation   = {ordered_ms.std():12.3f}]")
        lines.append(f"#[Max     = {ordered_ms[-1]:12.3f}, Total count    = {len(ordered_ms):12d}]")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _shares(count: int) -> list[float]:
    """Shares that come closer to 1 by halves, with ``TICKS`` steps to each, down to one of ``count`` samples; the last is 1."""
    shares, share = [], 0.0
    while count and (1 - share) * count > 1:
        shares.append(share)
        share += 1 / (TICKS * 2 ** (math.floor(math.log2(1 / (1 - share)) + 1e-9) + 1))
    return [*shares, 1.0] if count else []
